#!/usr/bin/env bash
# run.sh [--quick]: the packings beside memcpy and peers. Runs build/bench/packing, then the Python peers (bench/peers.py, in
# a virtual environment under build/; --quick leaves them out), then the report: tables on stdout, build/bench.json, plots.
set -eu
cd "$(dirname "$0")/.."
quick=${1-}
venv=build/bench-venv
rm -f build/bench-packing.json build/bench-peers.json
build/bench/packing $quick --json build/bench-packing.json
if [ -z "$quick" ]; then
    if [ ! -e "$venv/done" ]; then
        if python3 -m venv "$venv" && "$venv/bin/pip" install -q numpy pyarrow safetensors matplotlib; then
            touch "$venv/done"
        else
            echo 'bench: no numpy, pyarrow, safetensors, matplotlib from PyPI: no Python peers, no plot' >&2
        fi
    fi
    [ ! -e "$venv/done" ] || "$venv/bin/python" bench/peers.py build/bench-peers.json
fi
python3 bench/report.py
python=python3
[ ! -e "$venv/done" ] || python=$venv/bin/python
"$python" bench/plot.py build/bench.json build || echo 'bench: no plot' >&2
