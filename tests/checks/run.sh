#!/usr/bin/env bash
# run.sh NAME COMMAND...: one line when the command succeeds; its output and the command itself when it fails. For a
# command that ends with 0 whatever it found, REJECT is a pattern that its output must not contain; for one that says much
# else, SHOW is a pattern of the lines that matter; TELL is one of what is printed when it succeeds.
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
