# TAP for the shell tests; source it first. It moves to the repository root and makes $tmp, removed at exit.
#
#   tap_run NAME COMMAND...     one test: passes when the command exits 0, else its output is shown
#   tap_fails NAME COMMAND...   one test: passes when the command exits with 1 to 125 (a signal is no clean failure)
#   tap_skip NAME REASON        one test that could not run (a failure where CI=true)
#   tap_done                    last line: the plan; exits
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
unset MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef -Werror'
tap_count=0
tap_failed=0

tap_result() { # PASSED NAME LOG
    tap_count=$((tap_count + 1))
    if [ "$1" = 1 ]; then
        echo "ok $tap_count - $2"
    else
        tap_failed=$((tap_failed + 1))
        echo "not ok $tap_count - $2"
        sed 's/^/# /' "$3"
        sed "s|^|$2: |" "$3" | head -n 20 >&2
    fi
}

tap_run() {
    local name=$1 passed=1
    shift
    "$@" >"$tmp/log" 2>&1 </dev/null || passed=0
    tap_result $passed "$name" "$tmp/log"
}

tap_fails() {
    local name=$1 passed=1 status=0
    shift
    "$@" >"$tmp/log" 2>&1 </dev/null || status=$?
    [ $status -ge 1 ] && [ $status -le 125 ] || passed=0
    echo "exit status $status" >>"$tmp/log"
    tap_result $passed "$name" "$tmp/log"
}

tap_skip() {
    tap_count=$((tap_count + 1))
    echo "ok $tap_count - $1 # SKIP $2"
}

tap_done() {
    echo "1..$tap_count"
    [ $tap_failed = 0 ] && [ $tap_count -gt 0 ]
    exit
}
