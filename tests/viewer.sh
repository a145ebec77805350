#!/usr/bin/env bash
# TAP: spec/viewer.html in headless Chromium. The tests are in tests/viewer.mjs; this only finds Node and the browser.
set -u
cd "$(dirname "$0")/.." || exit 1
CHROMIUM=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || CHROMIUM=
if [ -z "$CHROMIUM" ] || ! command -v node >/dev/null; then
    echo 'ok 1 - the viewer in a browser # SKIP no chromium, or no node'
    echo 1..1
    exit
fi
export CHROMIUM
exec node tests/viewer.mjs "$@"
