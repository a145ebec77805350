#!/usr/bin/env bash
# tests/store_contract.c on Mooncake's own engine, of the wheel mooncake-transfer-engine-non-cuda: its master on loopback, a process
# that has the memory, and tests/double/mooncake_wheel.c between the wheel and the store. Not part of `make test`: it takes
# minutes, since each client takes a second or two to end. Skipped where the wheel is missing.
# Environment: MOONCAKE_PYTHON: a Python that has the wheel, its headers and a shared library; STORE_CASES: as in the contract.
. "$(dirname "$0")/../tap.sh"
python=${MOONCAKE_PYTHON:-python3}
port=${MOONCAKE_PORT:-50051}
site=$("$python" -c 'import os, mooncake.store; print(os.path.dirname(os.path.dirname(mooncake.store.__file__)))' 2>/dev/null)
master=$site/mooncake/mooncake_master

of_python() { "$python" -c "import sysconfig; print(sysconfig.get_config_var('$1') or sysconfig.get_path('$1'))"; }

if [ -z "$site" ] || [ ! -x "$master" ]; then
    tap_skip 'mooncake, the engine: keeps the contract' "no $python that has mooncake-transfer-engine-non-cuda"
    tap_done
fi

build() {
    local library
    library=$(of_python LIBDIR)
    gcc -std=c11 -O1 -g1 -I. -DPACKBUF_IMPLEMENTATION -c -o "$tmp/packbuf.o" -x c tests/library.h &&
        gcc -std=c11 -O1 -g1 -I. -o "$tmp/contract" tests/store_contract.c "$tmp/packbuf.o" -pthread -lm &&
        gcc -std=c11 -O1 -shared -fPIC -fvisibility=hidden -I"$(of_python include)" -o "$tmp/libmooncake_store.so" \
            tests/double/mooncake_wheel.c -L"$library" -Wl,-rpath,"$library" -l"python$(of_python LDVERSION)" -pthread
}

# Leases as long as in tests/stores.sh; a put that has not ended after 5 seconds is discarded.
cat >"$tmp/start_master" <<END
#!/usr/bin/env bash
$master --rpc_address=127.0.0.1 --metrics_host=127.0.0.1 --rpc_port=$port --metrics_port=$((port + 1000)) --default_kv_lease_ttl=500 \
    --put_start_discard_timeout_sec=5 --put_start_release_timeout_sec=6 >>$tmp/master.log 2>&1 &
echo \$! >$tmp/master.pid
END
printf '#!/usr/bin/env bash\nkill -9 $(cat %s/master.pid)\nsleep 0.3\nexec %s/start_master\n' "$tmp" "$tmp" >"$tmp/restart"
chmod +x "$tmp/start_master" "$tmp/restart"

memory() { # a client that has the store's 64 MiB until its standard input ends
    MC_FORCE_TCP=true "$python" -c "
import sys
from mooncake.store import MooncakeDistributedStore
store = MooncakeDistributedStore()
code = store.setup('127.0.0.1', 'P2PHANDSHAKE', 64 << 20, 16 << 20, 'tcp', '', '127.0.0.1:$port')
print(code, flush=True)
sys.stdin.read()
store.close()" <"$tmp/stay" >"$tmp/memory.log" 2>&1 8>&-
}

contract() {
    MC_FORCE_TCP=true PYTHONPATH=$site MOONCAKE_STORE_LIBRARY="$tmp/libmooncake_store.so" STORE_RESTART="$tmp/restart" \
        STORE_STOP="kill -STOP \$(cat $tmp/master.pid)" STORE_CONTINUE="kill -CONT \$(cat $tmp/master.pid)" \
        "$tmp/contract" "mooncake://127.0.0.1:$port?segment=0&host=127.0.0.1" 2>"$tmp/engine.log"
}

mkfifo "$tmp/stay"
exec 8<>"$tmp/stay"
"$tmp/start_master" 8>&-
sleep 1
memory &
memory=$!
sleep 2
tap_run 'compiles' build
tap_run 'mooncake, the engine: keeps the contract' contract
kill $memory "$(cat "$tmp/master.pid")" 2>/dev/null
tap_done
