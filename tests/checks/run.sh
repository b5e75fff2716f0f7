#!/usr/bin/env bash
# run.sh NAME COMMAND...: prints one line if the command succeeds; its output and the command itself if it fails. REJECT is a
# pattern that the output must not contain, for a command that always ends with 0; SHOW is a pattern of the lines that matter,
# for a command with much output; TELL is a pattern of the lines that are printed if it succeeds.
set -euo pipefail

name=$1
shift
logs=$(dirname "$(realpath "$0")")/../../.build/log
mkdir -p "$logs"
log=$(realpath "$logs")/${name// /-}.log
start=$SECONDS
status=0
"$@" >"$log" 2>&1 </dev/null || status=$?
if [[ $status == 0 && -n ${REJECT:-} ]] && grep -qE "$REJECT" "$log"; then
    status=1
fi
if [[ $status == 0 ]]; then
    [[ -z ${TELL:-} ]] || grep -oE "$TELL" "$log"
    echo "ok      $name ($((SECONDS - start)) s)"
else
    grep -E "${SHOW:-}" "$log" || cat "$log"
    echo "FAILED  $name, exit $status:$(printf ' %q' "$@")"
fi
exit "$status"
