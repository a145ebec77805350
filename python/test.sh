#!/usr/bin/env bash
# The Python package from scratch: wheel, sdist, installation into build/python/venv (tests/prepare.sh makes it), types,
# style, every test, and what the READMEs show. TAP, a line for each; pytest's own log is build/python/pytest.log.
. "$(dirname "$0")/../tests/tap.sh"
root=$PWD
work=$root/build/python
venv=$work/venv/bin
[ -x "$venv/python" ] || { tap_skip "the Python package" "no build/python/venv: run tests/prepare.sh"; tap_done; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PATH=$venv:$PATH

wheel() { # compiled at -O1: what is tested here is not speed. The build folder is kept
    rm -rf "$work/dist" && pip wheel -q --no-build-isolation --no-deps -w "$work/dist" -Cbuild-dir="$work/cmake" \
        -Ccmake.define.CMAKE_C_FLAGS_RELEASE=-O1 -Ccmake.define.CMAKE_CXX_FLAGS_RELEASE=-O1 "$root/python" &&
        pip install -q --no-deps --force-reinstall "$work"/dist/packbuf-*.whl
}

tagged() { # what the wheel says it fits is what its module is: of one version of Python, or of the stable ABI
    local wheel module
    wheel=$(echo "$work"/dist/packbuf-*.whl)
    module=$(python -m zipfile -l "$wheel" | grep -o '_core\.[^ ]*so') || return
    case $wheel in *-abi3-*) [ "$module" = _core.abi3.so ] ;; *) [[ $module == _core.cpython-* ]] ;; esac
}

exports() { # nothing of the C core leaves the module
    local module
    module=$(cd "$work" && python -c 'import packbuf._core as core; print(core.__file__)') || return
    nm -D --defined-only "$module" | awk '{ print $3 }' | grep -v '^PyInit__core$' | grep -E 'packbuf' && return 1
    return 0
}

sdist() { # it has its own copy of the headers, and finds them
    local unpacked
    (cd "$root/python" && python -c "from scikit_build_core.build import build_sdist; build_sdist('$work/dist')") >/dev/null || return
    rm -rf "$work/sdist" && mkdir "$work/sdist" && tar -xf "$work"/dist/packbuf-*.tar.gz -C "$work/sdist" || return
    unpacked=$(echo "$work"/sdist/packbuf-*)
    cmp "$unpacked/include/packbuf.h" packbuf.h && cmp "$unpacked/include/packbuf_threads.h" packbuf_threads.h &&
        cmp "$unpacked/include/exchange/packbuf_exchange.h" exchange/packbuf_exchange.h &&
        cmp "$unpacked/include/transport/packbuf_transport.h" transport/packbuf_transport.h || return
    cmake -S "$unpacked" -B "$work/sdist/build" -DSKBUILD_STATE=wheel -DPython_EXECUTABLE="$venv/python" >/dev/null || return
    grep -q "^PACKBUF_INCLUDE:PATH=$unpacked/include" "$work/sdist/build/CMakeCache.txt"
}

python_tests() { # against what is installed, not against the tree
    (cd "$work" && python -m pytest -q -rs -p no:cacheprovider -c "$root/python/pyproject.toml" --rootdir "$root/python" "$@") >"$work/pytest.log" 2>&1
    local status=$?
    tail -n 60 "$work/pytest.log"
    [ "${CI-}" != true ] || ! grep '^SKIPPED' "$work/pytest.log" || status=1
    return $status
}

shown() { # FILE: its Python blocks run, and print what their comments say after "# "
    python - "$1" <<'EOF'
import re, sys
for block in re.findall(r"```python\n(.*?)```", open(sys.argv[1]).read(), re.S):
    exec(compile(block, sys.argv[1], "exec"), {})
EOF
}

tap_run "pip wheel ./python, and its installation" wheel
tap_run "the wheel's tag is that of its module" tagged
tap_run "the module exports nothing of the C core" exports
tap_run "the sdist stands alone" sdist
tap_run "mypy --strict" env -C python mypy --cache-dir "$work/mypy"
tap_run "ruff" env -C python sh -c 'ruff check --no-cache . && ruff format --no-cache --check packbuf &&
    ruff check --no-cache --config pyproject.toml ../examples &&
    find ../examples -name "*.py" -exec ruff format --no-cache --config pyproject.toml --check {} +'
tap_run "the tests" python_tests "$root/python/tests"
tap_run "the examples in the documentation" python_tests --doctest-modules --pyargs packbuf
tap_run "README.md" shown README.md
tap_run "python/README.md" shown python/README.md
tap_done
