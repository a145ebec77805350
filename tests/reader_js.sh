#!/usr/bin/env bash
# TAP: spec/reader.mjs, the reader in JavaScript. The tests are in tests/reader_js.mjs; this only finds Node (18 or newer).
set -u
cd "$(dirname "$0")/.." || exit 1
if ! command -v node >/dev/null; then
    echo 'ok 1 - the reader in JavaScript # SKIP no node'
    echo 1..1
    exit
fi
exec node tests/reader_js.mjs
