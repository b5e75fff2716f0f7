# shellcheck shell=sh disable=SC2154 # n is set where this is typed
# The shell that Ansible's commands run in on a device, in POSIX sh. See terminal.py, which types it into a terminal as one
# line: comments end at their line, and each line can be followed by the next after a space.
#
# n is the mark that tells what is meant for the client from all else in the terminal: <n word ...>, with base64 between.
# A line from the client is an operation. A terminal that hears nothing for 25.5 s reads as ended, and all is removed.

exec 2>/dev/null 3<&0;
unset LETTA_API_KEY TERM COLORTERM LINES COLUMNS HISTFILE PROMPT_COMMAND;
cd || cd /;
# Older versions of macOS know no -d.
if [ -d /System/Library ]; then decode=-D; else decode=-d; fi;
if command -v setsid; then own_session=setsid; else own_session=; fi >/dev/null;

tell() { printf '<%s %s>' "$n" "$*"; };
# bash reads ahead, past the end of a line: what follows a line is then sent when it is asked for. $1: its length.
ask_for() { if [ "$BASH_VERSION" ] && [ "$1" -gt 0 ]; then tell more; fi; };
decoded() { printf %s "$1" | base64 $decode; };

d=${TMPDIR:-/tmp}/ansible-letta-$n;
if ! problem=$(mkdir -m 700 "$d" 2>&1); then tell refused "$(printf %s "$problem" | base64 | tr -d '\n')"; exit 1; fi;
trap 'rm -rf "$d"' 0;
trap 'exit 1' HUP INT TERM;

# What an operation came to: word for the client, file for standard output, status. Standard error is always in a file.
answer() {
    tell out "$1";
    # The files of /proc hold more than their size says.
    if [ -s "$2" ] || [ "$1" != - ]; then base64 <"$2" || set -- "$1" "$2" lost; fi;
    tell err;
    if [ -s "$d/err" ]; then base64 <"$d/err" || set -- "$1" "$2" lost; fi;
    tell end "$3";
};

end_command() {
    read -r pid <"$d/pid";
    kill -s "$1" -- "-$pid" || kill -s "$1" "$pid";
};

# Let the client see what the command has said so far, and give it a password, until the client says go.
ask() {
    exec 4>"$d/answers";
    shown=''; unheard=0;
    while [ "$unheard" -lt 255 ]; do
        # The beginning of it: the client takes no longer mark.
        said=$(cat "$d/out" "$d/err" | head -c 32768 | base64 | tr -d '\n');
        if [ "$said" != "$shown" ]; then tell said "$said"; shown=$said; fi;
        unheard=$((unheard + 1));
        if read -r word value; then
            unheard=0;
            case $word in
                .) tell . ;;
                pass) decoded "$value" >&4 ;;
                *) break ;;
            esac;
        fi;
    done;
    stty time 255;
    if [ "$word" = go ]; then cat "$d/in" >&4 & fi;
    exec 4>&-;
};

# Listen while a command runs; it is ended when the client says bye or is heard no more.
watch() {
    trap '' HUP;
    word=go;
    if [ "$1" = ask ]; then ask; fi;
    while [ "$word" = go ] && read -r said; do
        if [ "$said" = bye ]; then break; fi;
        tell .;
    done;
    kill -s TERM $$;
    end_command TERM;
    sleep 5;
    end_command KILL;
};

# What goes on in the background may keep the output open: end those who read it once nothing comes any more.
give_up() {
    had='';
    until sleep 3; has="$(wc -c <"$d/out") $(wc -c <"$d/err")"; [ "$has" = "$had" ]; do
        had=$has;
    done;
    kill $out $err;
};

# Without setsid (macOS) the command at least outlives the terminal.
# shellcheck disable=SC2016 # expanded by the shell that it starts
start='[ "$2" ] || trap "" HUP; echo $$ >"$1/pid"; exec /bin/sh "$1/command"';

# Copy one output, out or err, into a file of at most $1 bytes and a few, in blocks of 512. Then writing fails, and so it
# does for the command, which is ended where it goes on all the same.
# shellcheck disable=SC2064 # expanded now
keep() {
    (trap '' XFSZ; ulimit -f "$(($1 / 512 + 1))"; exec cat <"$d/to-$2" >"$d/$2") &
    trap "kill $!; wait $!; exit" TERM;
    if wait $!; then return; fi;
    for signal in TERM 0 0 0 0 KILL; do end_command "$signal" || return; sleep 1; done;
};

# $1: ask or all, $2: length of standard input in base64, $3: in bytes, $4: most bytes of each output, $5: the command in
# base64, none if it was put.
run() {
    ask_for "$2";
    if [ "$2" -gt 0 ]; then head -c "$2" | { base64 $decode >"$d/in" || cat >/dev/null; }; fi;
    if [ "$(($(wc -c <"$d/in")))" != "$3" ]; then
        echo "standard input did not arrive" >"$d/err"; : >"$d/out"; answer - "$d/out" lost; return;
    fi;
    if [ "$5" ]; then decoded "$5" >"$d/command"; fi;
    : >"$d/pid"; : >"$d/out"; : >"$d/err";
    input=$d/in;
    # The time is set here, and not where it is wanted, since a command may end before it would be.
    if [ "$1" = ask ]; then input=$d/answers; mkfifo "$input"; stty time 1; fi;
    # Not straight into the files: a command that opens /dev/stdout or /dev/stderr anew would empty them.
    mkfifo "$d/to-out" "$d/to-err";
    keep "$4" out & out=$!;
    keep "$4" err & err=$!;
    tell running;
    watch "$1" <&3 & watcher=$!;
    (exec $own_session /bin/sh -c "$start" sh "$d" "$own_session" <"$input" >"$d/to-out" 2>"$d/to-err" 3<&-);
    status=$?;
    give_up & impatience=$!;
    wait $out $err;
    kill -s KILL $impatience; wait $impatience;
    rm -f "$d/to-out" "$d/to-err";
    # By a signal that a shell that has just begun cannot take for its parent's.
    kill -s KILL $watcher; wait $watcher;
    if [ "$1" = ask ]; then stty time 255 <&3; rm -f "$input"; fi;
    : >"$d/in";
    for file in "$d/out" "$d/err"; do if [ "$(($(wc -c <"$file")))" -gt "$4" ]; then : >"$file"; status=much; fi; done;
    answer - "$d/out" "$status";
};

# $1: new or more, $2: length in base64, $3: bytes that the file then has, $4: its mode or -, $5: its path in base64, or after
# a dot which file of ours it is.
put() {
    case $5 in
        .*) path=$d/${5#.} ;;
        *) path=$(decoded "$5"; echo .); path=${path%.} ;;
    esac;
    if [ "$1" = new ]; then if [ -e "$path" ]; then made=; else made=yes; fi; fi;
    ask_for "$2";
    if [ "$2" -gt 0 ]; then head -c "$2"; fi | (
        umask 077;
        if [ -p "$path" ]; then echo "it is a pipe" >&2; (exit 1);
        elif [ "$1" = new ]; then base64 $decode >"$path";
        else base64 $decode >>"$path"; fi;
        status=$?;
        if [ "$status" != 0 ]; then cat >/dev/null; fi;
        exit "$status"
    ) 2>"$d/err";
    status=$?;
    if [ "$status" = 0 ] && [ -f "$path" ] && [ "$(($(wc -c <"$path")))" != "$3" ]; then
        echo "not all of it arrived" >"$d/err"; status=lost;
    fi;
    if [ "$status" = 0 ] && [ "$made" ] && [ "$4" != - ]; then
        chmod -- "$(printf %o $((0$4 & ~0$(umask))))" "$path" 2>"$d/err"; status=$?;
    fi;
    : >"$d/out"; answer - "$d/out" "$status";
};

# $1: the path in base64.
get() {
    path=$(decoded "$1"; echo .); path=${path%.};
    : >"$d/out";
    if [ -d "$path" ]; then echo "it is a directory" >"$d/err"; answer - "$d/out" 1; return; fi;
    # To open a pipe is to wait for its other end, and a device may have none.
    if [ -e "$path" ] && [ ! -f "$path" ]; then echo "it is not a regular file" >"$d/err"; answer - "$d/out" 1; return; fi;
    if ! (: <"$path") 2>"$d/err"; then answer - "$d/out" 1; return; fi;
    mode=$(ls -dlL -- "$path");
    answer "${mode%% *}" "$path" 0;
};

: >"$d/in";
while read -r operation a b c e f; do
    case $operation in
        .) tell . ;;
        run) run "$a" "$b" "$c" "$e" "$f" ;;
        put) put "$a" "$b" "$c" "$e" "$f" ;;
        get) get "$a" ;;
        bye) break ;;
    esac;
done;
exit 0
