#!/usr/bin/env bash
# Compile gates: packbuf.h alone and with PACKBUF_IMPLEMENTATION under every compiler and standard it promises, warnings as
# errors; how translation units combine; which symbols, macros and writable data it leaves behind. Prints TAP. The gates are
# functions that run in a folder of their own, JOBS at a time; nothing here knows a single function of the library.
. "$(dirname "$0")/../tap.sh"
root=$PWD
jobs=${JOBS:-2}
names=()

gate() { # NAME COMMAND...: starts a gate
    local folder=$tmp/gate${#names[@]}
    names+=("$1")
    shift
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    mkdir "$folder"
    (cd "$folder" && "$@" >log 2>&1 </dev/null && touch passed) &
}

gates_done() { # the results, in the order of the gates
    local i
    wait
    for i in "${!names[@]}"; do
        tap_result "$([ -e "$tmp/gate$i/passed" ] && echo 1)" "${names[i]}" "$tmp/gate$i/log"
    done
    tap_done
}

compile() { # COMPILER STANDARD OUTPUT SOURCE [FLAGS...]; the language follows the standard
    local language=c
    case $2 in c++*) language=c++ ;; esac
    # shellcheck disable=SC2086
    "$1" -x $language -std="$2" $warnings -O0 -I"$root" "${@:5}" -c -o "$3" "$4"
}
public() { nm -g --defined-only "$1" | awk '{ print $NF }'; }
header=packbuf.h
with() { # HEADER COMMAND...: the same for another header
    header=$1
    "${@:2}"
}
implementation() { printf '#define PACKBUF_IMPLEMENTATION\n#include "%s"\n' "$header" >"${1:-impl.c}"; }
none() { # fails when its input has a line, and shows it
    if grep .; then return 1; fi
}

# ---- one translation unit ----

alone() { # the header without the implementation compiles and defines nothing
    echo "#include \"$header\"" >alone.c
    compile "$1" "$2" alone.o alone.c || return
    nm --defined-only alone.o | none
}

one_unit() { # COMPILER STANDARD FLAGS...
    implementation
    compile "$1" "$2" impl.o impl.c "${@:3}"
}

orders() { # included twice, in any order, the implementation comes out once; what reads the same is compiled once
    local order sum language=c
    case $2 in c++*) language=c++ ;; esac
    for order in 'header define header' 'define header header' 'define header undef header' 'header header define header header'; do
        echo "order: $order"
        printf '%s\n' $order | sed "s|^header\$|#include \"$header\"|; s|^define\$|#define PACKBUF_IMPLEMENTATION|
            s|^undef\$|#undef PACKBUF_IMPLEMENTATION|" >order.c
        "$1" -x $language -std="$2" -I"$root" "${@:3}" -E -P order.c >order.i || return
        sum=$(grep -v '^ *$' order.i | md5sum)
        [ ! -e "$sum" ] || continue
        touch "$sum"
        compile "$1" "$2" order.o order.c "${@:3}" || return
        public order.o >order.txt
        [ -s order.txt ] || { echo 'no implementation came out'; return 1; }
        [ -e first.txt ] || cp order.txt first.txt
        cmp first.txt order.txt || return
    done
}

tcc_unit() { # a compiler without vector extensions; it says less, so only errors count
    implementation
    tcc -std=c11 -I"$root" "$@" -c -o impl.o impl.c
}

# ---- two translation units ----

together() { # COMPILER STANDARD COMPILER STANDARD [LINKER]: one implements, the other names every function that it finds there
    implementation
    compile "$1" "$2" impl.o impl.c || return
    {
        echo "#include \"$header\""
        echo 'typedef void (*function)(void);'
        echo 'static const function functions[] = {'
        public impl.o | sed 's/.*/    (function)&,/'
        printf '};\nint main(void)\n{\n    size_t i, found = 0;\n'
        echo '    for (i = 0; i < sizeof functions / sizeof functions[0]; i++)'
        printf '        found += functions[i] != 0;\n    return found == 0;\n}\n'
    } >use.c
    compile "$3" "$4" use.o use.c || return
    "${5:-$3}" -o use use.o impl.o || return
    ./use
}

both_private() { # each with its own static copy
    implementation a.c
    implementation b.c
    echo 'int main(void) { return 0; }' >>b.c
    compile "$1" "$2" a.o a.c -DPACKBUF_API=static -Wno-unused-function || return
    compile "$1" "$2" b.o b.c -DPACKBUF_API=static -Wno-unused-function || return
    public a.o | none || return
    "$1" -o both a.o b.o
}

# ---- what is left behind ----

left() { # COMPILER STANDARD: what the implementation defines and asks for
    implementation
    compile "$1" "$2" impl.o impl.c -fno-pic || return
    echo 'functions without the prefix, internal ones too:'
    public impl.o | grep -v '^packbuf_' | none || return
    nm -C --defined-only impl.o | awk '$2 ~ /^[tTwWu]$/ && $3 !~ /^packbuf_/' | none || return
    echo 'writable data; tables are const, nothing is global and mutable:'
    nm --defined-only impl.o | awk '$2 ~ /^[bBdDsSgGC]$/' | none || return
    echo 'what prints, aborts, opens files, or looks at errno and the locale; no library is needed:'
    nm -u impl.o | awk '{ print $NF }' |
        grep -xE "_?_?(v?[fs]?n?printf(_chk)?|puts|putchar|f(puts|write|open|close|read)|abort|_?exit$not_allowed|ctype_[a-z_]*|assert_fail|setlocale|localeconv|strto[a-z]*|ato[a-z]*|std(out|err|in))" |
        none
}
not_allowed='|errno_location'
left_by_transport() { # the same, but that it may look at errno, which the system's calls answer with
    local not_allowed=
    left "$@"
}

macros() { # COMPILER STANDARD [FLAGS...]: what stays defined begins with PACKBUF_, or is of the ABIs that others share
    local language=c
    case $2 in c++*) language=c++ ;; esac
    echo "#include \"$header\"" >macros.c
    "$1" -x $language -std="$2" -I"$root" "${@:3}" -E -dD macros.c >macros.i || return
    awk '/^# [0-9]+ "/ { ours = $3 ~ /packbuf(_threads|_transport|_exchange)?\.h"$/ }
         ours && $1 == "#define" { sub(/\(.*/, "", $2); left[$2] = 1 }
         $1 == "#undef" { delete left[$2] }
         END { for (name in left) if (name !~ /^PACKBUF_|^ARROW_(C|FLAG)_|^DLPACK_/) print name }' macros.i | none
}

beside_dlpack() { # COMPILER STANDARD: whoever has the two ABIs' own headers keeps them, whichever comes first, of before DLPack 1.0 too
    cp "$root/exchange/dlpack_abi.h" dlpack.h || return
    sed '/^#endif .*DLPACK_DLPACK_H_/q' dlpack.h >old.h
    ! grep -q Versioned old.h && grep -q DLManagedTensor old.h || return
    for order in 'dlpack.h packbuf' 'packbuf dlpack.h' 'old.h packbuf'; do
        { echo '#include <stdint.h>'; echo '#define PACKBUF_IMPLEMENTATION'; } >beside.c
        for one in $order; do case $one in packbuf) echo '#include "exchange/packbuf_exchange.h"' ;; *) echo "#include \"$one\"" ;; esac; done >>beside.c
        compile "$1" "$2" beside.o beside.c -I. || { cat old.h; return 1; }
    done
}

programs() { # COMPILER: the other C programs of the tree are as clean
    local file
    for file in "$root"/tools/*.c "$root"/bench/*.c "$root"/examples/*.c "$root"/fuzz/*.c; do
        [ -e "$file" ] || continue
        compile "$1" c11 program.o "$file" -DFUZZ_TARGET='""' || return
    done
}

# ---- the gates ----

have() { command -v "$1" >/dev/null; }
compilers=()
simde=
if [ -e "${SIMDE:-/usr/include}/simde/x86/sse4.2.h" ]; then simde=1; else tap_skip SIMDe 'no simde/x86/sse4.2.h (Debian: libsimde-dev)'; fi
for compiler in gcc:c clang:c g++:c++ clang++:c++; do
    if have "${compiler%:*}"; then compilers+=("$compiler"); else tap_skip "${compiler%:*}" "no ${compiler%:*}"; fi
done

for entry in "${compilers[@]}"; do
    compiler=${entry%:*}
    if [ "${entry#*:}" = c ]; then standards='c99 c11 c17'; last=c11; else standards=c++17; last=c++17; fi
    # what c17 says beyond c11, packbuf_threads.h below, which includes all of it, shows as well
    for standard in $standards; do gate "$compiler $standard: header alone" alone "$compiler" $standard; done
    for standard in ${standards% c17}; do
        for simd in 0 1; do gate "$compiler $standard: implementation, PACKBUF_NO_SIMD=$simd" one_unit "$compiler" $standard -DPACKBUF_NO_SIMD=$simd; done
        gate "$compiler $standard: implementation, PACKBUF_API=static" one_unit "$compiler" $standard -DPACKBUF_API=static -Wno-unused-function
        [ -z "$simde" ] || gate "$compiler $standard: implementation, PACKBUF_SIMDE=1" one_unit "$compiler" $standard -DPACKBUF_SIMDE=1
    done
    gate "$compiler $last: implementation, PACKBUF_NO_SIMD=1, PACKBUF_API=static" \
        one_unit "$compiler" $last -DPACKBUF_NO_SIMD=1 -DPACKBUF_API=static -Wno-unused-function
    # optimised: of gcc, packbuf_transport.h below
    [ "$compiler" != clang ] || gate "$compiler $last: implementation, optimised" one_unit "$compiler" $last -O3
    if [ -n "$simde" ]; then
        [ "$last" = c++17 ] || gate "$compiler $last: implementation, PACKBUF_SIMDE=1, optimised" one_unit "$compiler" $last -O3 -DPACKBUF_SIMDE=1
        gate "$compiler $last: implementation, PACKBUF_SIMDE=1, PACKBUF_NO_SIMD=1" one_unit "$compiler" $last -DPACKBUF_SIMDE=1 -DPACKBUF_NO_SIMD=1
    fi
    gate "$compiler $last: included twice" orders "$compiler" $last
    gate "$compiler $last: two units" together "$compiler" $last "$compiler" $last
    gate "$compiler $last: two private copies" both_private "$compiler" $last
    gate "$compiler $last: names of functions, no writable data, nothing printed, no abort, errno or locale" left "$compiler" $last
    gate "$compiler $last: macros of the header" macros "$compiler" $last
    gate "$compiler $last: macros of the implementation" macros "$compiler" $last -DPACKBUF_IMPLEMENTATION
    for standard in $standards; do
        gate "$compiler $standard: packbuf_threads.h" with packbuf_threads.h one_unit "$compiler" $standard
    done
    for check in alone orders left macros; do
        gate "$compiler $last: packbuf_threads.h, $check" with packbuf_threads.h $check "$compiler" $last
    done
    gate "$compiler $last: packbuf_threads.h, two units" with packbuf_threads.h together "$compiler" $last "$compiler" $last
    for standard in ${standards% c17}; do
        gate "$compiler $standard: packbuf_transport.h" with transport/packbuf_transport.h one_unit "$compiler" $standard
    done
    case $compiler in g*) # what clang says of these it says of the others
        gate "$compiler $last: packbuf_transport.h, optimised" with transport/packbuf_transport.h one_unit "$compiler" $last -O3
        gate "$compiler $last: packbuf_transport.h, two private copies" with transport/packbuf_transport.h both_private "$compiler" $last ;;
    esac
    # included plainly first, it must find _GNU_SOURCE defined when it is to implement; it says so
    gate "$compiler $last: packbuf_transport.h, orders" with transport/packbuf_transport.h orders "$compiler" $last -D_GNU_SOURCE
    for check in alone left_by_transport macros; do
        gate "$compiler $last: packbuf_transport.h, $check" with transport/packbuf_transport.h $check "$compiler" $last
    done
    gate "$compiler $last: packbuf_transport.h, macros of the implementation" with transport/packbuf_transport.h macros "$compiler" $last -DPACKBUF_IMPLEMENTATION
    gate "$compiler $last: packbuf_transport.h, two units" with transport/packbuf_transport.h together "$compiler" $last "$compiler" $last
    for standard in ${standards% c17}; do
        gate "$compiler $standard: packbuf_exchange.h" with exchange/packbuf_exchange.h one_unit "$compiler" $standard
    done
    for check in alone orders left macros; do
        gate "$compiler $last: packbuf_exchange.h, $check" with exchange/packbuf_exchange.h $check "$compiler" $last
    done
    gate "$compiler $last: packbuf_exchange.h, two units" with exchange/packbuf_exchange.h together "$compiler" $last "$compiler" $last
    gate "$compiler $last: packbuf_exchange.h after and before dlpack.h" beside_dlpack "$compiler" $last
    [ "$last" = c++17 ] ||
        gate "$compiler c11: packbuf_threads.h, C11 threads" with packbuf_threads.h one_unit "$compiler" c11 -DPACKBUF_THREADS_C11=1
    [ "$last" = c++17 ] || gate "$compiler c11: tools, benchmarks, examples, fuzz targets" programs "$compiler"
done
if have gcc && have g++; then
    gate 'implemented in C, used from C++' together gcc c11 g++ c++17
    gate 'implemented in C++, used from C' together g++ c++17 gcc c11 g++
fi
if have gcc && have clang; then
    gate 'implemented by gcc, used by clang' together gcc c11 clang c11
fi
if have tcc; then
    gate 'tcc c11: implementation' tcc_unit
    gate 'tcc c11: implementation, PACKBUF_NO_SIMD=1' tcc_unit -DPACKBUF_NO_SIMD=1
else
    tap_skip tcc 'no tcc'
fi
gates_done
