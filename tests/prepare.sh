#!/usr/bin/env bash
# Gets what the tests need: as root on Debian the missing packages are installed; whatever is still missing after that is
# reported, with the stages that cannot run without it. Writes build/skipped-stages ("stage reason" a line) for tests/run.sh.
# Arguments: the stages that will run; none: all.
set -u
cd "$(dirname "$0")/.." || exit 1
mkdir -p build
: >build/skipped-stages

# command               Debian packages                                 stages that cannot run without it (-: single tests)
needs='
gcc                     gcc,libc6-dev                                   native,sanitize,gates,guest,scripts
make                    make                                            -
prove                   perl                                            native,sanitize,clang,gates,s390x,aarch64,armhf,riscv64,m32,musl,wasm32,mingw,msan,tsan,guest,scripts
python3                 python3                                         scripts
g++                     g++                                             -
clang                   clang,libclang-rt-dev                           clang,wasm32,msan,tsan
tcc                     tcc                                             -
s390x-linux-gnu-gcc     gcc-s390x-linux-gnu,libc6-dev-s390x-cross       s390x
qemu-s390x              qemu-user                                       s390x,aarch64,armhf,riscv64
aarch64-linux-gnu-gcc   gcc-aarch64-linux-gnu,libc6-dev-arm64-cross     aarch64
arm-linux-gnueabihf-gcc gcc-arm-linux-gnueabihf,libc6-dev-armhf-cross   armhf
riscv64-linux-gnu-gcc   gcc-riscv64-linux-gnu,libc6-dev-riscv64-cross   riscv64
can_m32                 libc6-dev-i386,lib32gcc-12-dev                  m32
musl-gcc                musl-tools                                      musl
can_wasm32              wasi-libc,libclang-rt-14-dev-wasm32,lld         wasm32
node                    nodejs                                          wasm32
chromium                chromium,fonts-dejavu-core                      -
x86_64-w64-mingw32-gcc  gcc-mingw-w64-x86-64                            mingw
x86_64-w64-mingw32-g++  g++-mingw-w64-x86-64                            mingw
qemu-system-x86_64      qemu-system-x86                                 guest
can_simde               libsimde-dev                                    -
cmake                   cmake                                           -
pkg-config              pkg-config                                      -
can_numpy               python3-numpy                                   -
can_venv                python3-venv,python3-dev                        python
can_verbs               libibverbs-dev,ibverbs-providers                -
'

# what is no command of its own: gcc-multilib would do for -m32, but it conflicts with the cross compilers
can_m32() {
    echo 'int main(void) { return 0; }' | ${CC:-gcc} -m32 -x c - -o build/can-m32 2>/dev/null
}
can_simde() {
    [ -e "${SIMDE:-/usr/include}/simde/x86/sse4.2.h" ]
}
can_wasm32() {
    echo 'int main(void) { return 0; }' | clang --target=wasm32-wasi -x c - -o build/can-wasm32 2>/dev/null
}
can_verbs() {
    [ -e /usr/include/infiniband/verbs.h ]
}
can_numpy() { # a python3 that is not Debian's has a pip of its own
    python3 -c 'import numpy' 2>/dev/null || { [ "$(id -u)" = 0 ] && python3 -m pip install -q numpy >/dev/null 2>&1 && python3 -c 'import numpy' 2>/dev/null; }
}
can_venv() {
    python3 -c 'import ensurepip, sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' 2>/dev/null
}
have() {
    case $1 in can_*) "$1" ;; *) command -v "$1" >/dev/null ;; esac
}

each_missing() { # CALLBACK: called with command, packages, stages
    while read -r command packages stages; do
        [ -z "$command" ] || have "$command" || "$1" "$command" "${packages//,/ }" "${stages//,/ }"
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

# what the Python package is built and tested with: a venv, kept
python_venv() {
    local venv=build/python/venv
    mkdir -p build/python
    [ -x $venv/bin/python ] || python3 -m venv $venv >build/python/pip.log 2>&1 || return
    $venv/bin/python -m pip install -q --disable-pip-version-check 'scikit-build-core>=1.1' 'nanobind>=2.4' 'numpy>=2' cmake ninja \
        'pytest>=8' 'hypothesis>=6.100' 'mypy>=1.10' ruff pillow ml_dtypes >>build/python/pip.log 2>&1
}
# what it is tested beside: tensors, the readers of its conventions, the stores its adapters replace. verl names versions of
# the others that no two of them share: only its DataProto is used, and it comes alone
python_peers() {
    local pip="build/python/venv/bin/python -m pip install -q --disable-pip-version-check"
    build/python/venv/bin/python -c 'import torch, pyarrow, polars, duckdb, safetensors, tensordict, transfer_queue, mooncake, verl' 2>/dev/null && return
    $pip torch==2.13.0 >>build/python/pip.log 2>&1 &&
        $pip pyarrow polars duckdb safetensors tensordict transferqueue mooncake-transfer-engine-non-cuda transformers >>build/python/pip.log 2>&1 &&
        $pip --no-deps verl >>build/python/pip.log 2>&1
}
case " ${*:-python} " in *' python '*)
    if can_venv; then
        if python_venv; then # the peers are large: tests that want them are skipped where they are not to be had
            python_peers || { echo 'prepare: not all peers for the Python tests:' && tail -n 3 build/python/pip.log; }
        else
            echo 'prepare: no Python packages:' && tail -n 3 build/python/pip.log
            echo 'python no Python packages' >>build/skipped-stages
        fi
    fi ;;
esac
sort -u build/skipped-stages | while read -r stage reason; do
    echo "prepare: stage $stage will be skipped: $reason"
done
[ -n "${PACKBUF_DATA-}" ] || echo 'prepare: PACKBUF_DATA is not set: tests of the sample data outside the project will not run'
exit 0
