#!/usr/bin/env bash
# Gets what the tests need: as root on Debian the missing packages are installed; whatever is still missing after that is
# reported, with the stages that cannot run without it. Writes build/skipped-stages ("stage reason" a line) for tests/run.sh.
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
: >build/skipped-stages

# command               Debian packages                                 stages that cannot run without it (-: single tests)
needs='
gcc                     gcc,libc6-dev                                   native,sanitize,gates,scripts
make                    make                                            -
prove                   perl                                            native,sanitize,clang,gates,s390x,scripts
python3                 python3                                         scripts
g++                     g++                                             -
clang                   clang,libclang-rt-dev                           clang
tcc                     tcc                                             -
s390x-linux-gnu-gcc     gcc-s390x-linux-gnu,libc6-dev-s390x-cross       s390x
qemu-s390x              qemu-user                                       s390x
cmake                   cmake                                           -
pkg-config              pkg-config                                      -
'

each_missing() { # CALLBACK: called with command, packages, stages
    while read -r command packages stages; do
        [ -z "$command" ] || command -v "$command" >/dev/null || "$1" "$command" "${packages//,/ }" "${stages//,/ }"
    done <<<"$needs"
}
name_packages() { echo "$2"; }
report() {
    echo "prepare: no $1 (Debian: $2)"
    for stage in $3; do
        [ "$stage" = - ] || echo "$stage no $1" >>build/skipped-stages
    done
}

packages=$(each_missing name_packages)
if [ -n "$packages" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq || echo 'prepare: apt-get update failed'
    echo "prepare: installing" $packages
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >build/apt.log 2>&1 ||
        { echo 'prepare: apt-get install failed:'; tail -n 5 build/apt.log; }
    hash -r
fi
each_missing report
sort -u build/skipped-stages | while read -r stage reason; do
    echo "prepare: stage $stage will be skipped: $reason"
done
[ -n "${PACKBUF_DATA-}" ] || echo 'prepare: PACKBUF_DATA is not set: tests of the sample data outside the project will not run'
exit 0
