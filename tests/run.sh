#!/usr/bin/env bash
# Runs the stages of `make test` one after the other and ends with a table of results and minutes. A stage is the target
# stage-NAME of the Makefile. A stage that fails does not stop the next. Where CI=true, a skipped test or stage is a failure.
set -u
cd "$(dirname "$0")/.." || exit 1
make=${MAKE:-make}
jobs=
case " ${MAKEFLAGS-} " in *' -j'*) ;; *) jobs=-j2 ;; esac
bash tests/prepare.sh "$@"
rm -rf build/log && mkdir -p build/log

table=$(printf '%-10s %-8s %8s %6s %6s  %s' stage result minutes files tests '')
failures=0
total=$SECONDS
for stage in "$@"; do
    log=build/log/$stage.log
    start=$SECONDS
    note=
    reason=$(sed -n "s/^$stage //p" build/skipped-stages | paste -sd,)
    if [ -n "$reason" ]; then
        result=SKIPPED
        note=$reason
        : >"$log"
    else
        printf '\n== %s\n' "$stage"
        result=pass
        # shellcheck disable=SC2086
        $make --no-print-directory $jobs "stage-$stage" 2>&1 | tee "$log"
        [ "${PIPESTATUS[0]}" = 0 ] || result=FAIL
        skips=$(grep -ciE '^ok [0-9]+.*# skip|\.\. skipped' "$log")
        [ "$skips" = 0 ] || note="$skips skipped"
    fi
    if [ "$result" = FAIL ] || { [ "${CI-}" = true ] && [ -n "$note" ]; }; then
        failures=$((failures + 1))
        [ "$result" = FAIL ] || note="$note: a failure where CI=true"
    fi
    counts=$(sed -n 's/^Files=\([0-9]*\), Tests=\([0-9]*\),.*/\1 \2/p' "$log" | tail -n 1)
    table+=$'\n'$(printf '%-10s %-8s %8s %6s %6s  %s' "$stage" "$result" \
        "$(awk "BEGIN { printf \"%.2f\", ($SECONDS - $start) / 60 }")" ${counts:-- -} "$note")
done
table+=$'\n'$(printf '%-10s %-8s %8s' total "$([ $failures = 0 ] && echo pass || echo FAIL)" \
    "$(awk "BEGIN { printf \"%.2f\", ($SECONDS - $total) / 60 }")")
printf '\n%s\n' "$table" | sed 's/ *$//' | tee build/log/table
[ $failures = 0 ]
