#!/usr/bin/env bash
# `make install` below a DESTDIR: the files are there, and a program finds them through pkg-config's and CMake's files.
. "$(dirname "$0")/tap.sh"
prefix=/opt/packbuf
stage=$tmp/stage
installed=$stage$prefix
version=$(sed -n 's/^#define PACKBUF_VERSION_[MP][A-Z]* *\([0-9]*\).*/\1/p' packbuf.h | paste -sd.)

cat >"$tmp/program.c" <<'END'
#define PACKBUF_IMPLEMENTATION
#include <packbuf.h>
int main(void) { return PACKBUF_VERSION_MAJOR < 0; }
END

# the flags of the .pc file, as pkg-config with a system root gives them
pc_flags() {
    sed -n "s|\${prefix}|$prefix|; s|^includedir=|-I$stage|p" "$installed/share/pkgconfig/packbuf.pc"
}

pkg_flags() {
    if command -v pkg-config >/dev/null; then
        PKG_CONFIG_PATH=$installed/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=$stage pkg-config "$@" packbuf
    else
        pc_flags
    fi
}

pkg_program() {
    local flags
    flags=$(pkg_flags --cflags --libs) || return
    echo "flags: $flags"
    case $flags in *"$installed/include"*) ;; *) return 1 ;; esac
    # shellcheck disable=SC2086
    ${CC:-gcc} -o "$tmp/program" "$tmp/program.c" $flags && "$tmp/program"
}

cmake_program() { # VERSION to ask for
    rm -rf "$tmp/cmake" && mkdir -p "$tmp/cmake/build" && cp "$tmp/program.c" "$tmp/cmake/" || return
    cat >"$tmp/cmake/CMakeLists.txt" <<END
cmake_minimum_required(VERSION 3.10)
project(program C)
find_package(packbuf $1 REQUIRED CONFIG)
add_executable(program program.c)
target_link_libraries(program PRIVATE packbuf::packbuf)
END
    (cd "$tmp/cmake/build" && cmake -DCMAKE_PREFIX_PATH="$installed" .. && cmake --build . && ./program)
}

tap_run 'the version is MAJOR.MINOR.PATCH' grep -qxE '[0-9]+\.[0-9]+\.[0-9]+' <(echo "$version")
tap_run 'make install' make install DESTDIR="$stage" PREFIX=$prefix
tap_run 'include/packbuf.h' cmp packbuf.h "$installed/include/packbuf.h"
tap_run 'include/packbuf_threads.h' cmp packbuf_threads.h "$installed/include/packbuf_threads.h"
cat >"$tmp/moved.c" <<'END'
#define PACKBUF_IMPLEMENTATION
#include <packbuf_transport.h>
int main(void) { return packbuf_now() == 0; }
END
moved() { ${CC:-gcc} -std=c11 -I"$installed/include" -o "$tmp/moved" "$tmp/moved.c" -pthread && "$tmp/moved"; }
tap_run 'include/packbuf_transport.h, and a program with it' moved
cat >"$tmp/lent.c" <<'END'
#define PACKBUF_IMPLEMENTATION
#include <packbuf_exchange.h>
int main(void) { return packbuf_arrow_schema(NULL, NULL, NULL) == PACKBUF_OK; }
END
lent() { ${CC:-gcc} -std=c11 -I"$installed/include" -o "$tmp/lent" "$tmp/lent.c" && "$tmp/lent"; }
tap_run 'include/packbuf_exchange.h, and a program with it' lent
[ ! -e build/packbuf ] || tap_run 'bin/packbuf' test -x "$installed/bin/packbuf"
[ ! -e tools/packbuf.1 ] || tap_run 'share/man/man1/packbuf.1' cmp tools/packbuf.1 "$installed/share/man/man1/packbuf.1"
tap_run 'packbuf.pc has the version' grep -qx "Version: $version" "$installed/share/pkgconfig/packbuf.pc"
tap_run 'a program through packbuf.pc' pkg_program
if command -v cmake >/dev/null; then
    tap_run "a program through CMake, asking for $version" cmake_program "$version"
    tap_run 'a program through CMake, asking for the series' cmake_program "${version%.*}"
    tap_fails 'CMake refuses a newer version' cmake_program "${version%.*}.$((${version##*.} + 1))"
    tap_fails 'CMake refuses another major version' cmake_program $((${version%%.*} + 1)).0
else
    tap_skip 'a program through CMake' 'no cmake'
fi
tap_run 'make uninstall' make uninstall DESTDIR="$stage" PREFIX=$prefix
tap_run 'nothing is left' test -z "$(find "$stage" -type f)"
tap_done
