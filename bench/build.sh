#!/usr/bin/env bash
# build.sh PROGRAM: compiles bench/packing.c with the peers that are installed, and says on stderr which are not, with the
# Debian package that has them. CC, CXX, CFLAGS as for make.
set -eu
cd "$(dirname "$0")/.."
program=$1
folder=$(dirname "$program")/peers
mkdir -p "$folder"
warnings='-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wcast-align -Wundef'
flags=()
libraries=()
objects=()

have() { # HEADER LIBRARY...: whether a program that includes the header links
    printf '#include <stddef.h>\n#include <stdint.h>\n#include <%s>\nint main(void) { return 0; }\n' "$1" >"$folder/probe.c"
    "${CC:-gcc}" -o "$folder/probe" "$folder/probe.c" "${@:2}" 2>"$folder/probe.log"
}
peer() { # NAME PACKAGE HEADER LIBRARY...: found or told; true when found
    if have "${@:3}"; then
        flags+=("-DBENCH_HAVE_$1=1")
        libraries+=("${@:4}")
    else
        absent "$1" "$2"
        return 1
    fi
}
absent() {
    flags+=("-DBENCH_HAVE_$1=0")
    echo "bench: no $1: its rows are left out (Debian: $2)" >&2
}

peer STREAMVBYTE libstreamvbyte-dev streamvbyte.h -lstreamvbyte || true
peer LZ4 liblz4-dev lz4.h -llz4 || true
peer ZSTD libzstd-dev zstd.h -lzstd || true
peer BLOSC libblosc-dev blosc.h -lblosc || true
peer MSGPACK libmsgpack-dev msgpack.h -lmsgpackc || true
if command -v protoc-c >/dev/null; then
    if peer PROTOBUF_C libprotobuf-c-dev protobuf-c/protobuf-c.h -lprotobuf-c; then
        protoc-c --proto_path=bench --c_out="$folder" bench/column.proto
        "${CC:-gcc}" ${CFLAGS:--O2 -g} -I"$folder" -c -o "$folder/column.pb-c.o" "$folder/column.pb-c.c"
        objects+=("$folder/column.pb-c.o")
    fi
else
    absent PROTOBUF_C 'protobuf-c-compiler libprotobuf-c-dev'
fi
if "${CXX:-g++}" -std=c++17 ${CFLAGS:--O2 -g} -c -o "$folder/capnp.o" bench/capnp.cpp 2>"$folder/capnp.log"; then
    flags+=(-DBENCH_HAVE_CAPNP=1)
    libraries+=(-lcapnp -lkj -lstdc++)
    objects+=("$folder/capnp.o")
else
    absent CAPNP libcapnp-dev
fi

# The peers' headers are not held to our warnings.
# shellcheck disable=SC2086
"${CC:-gcc}" -std=c11 $warnings ${CFLAGS:--O2 -g} -I. -idirafter "$folder" "${flags[@]}" -o "$program" bench/packing.c \
    "${objects[@]}" "${libraries[@]}" -pthread -lm
