"""A `mooncake_master` of the wheel on loopback, for tests and measurements: on free ports, killed whatever happens.

May use: the wheel's program, sockets, processes. Must not know: clients, stores.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_SECONDS = 60  # to start
_PR_SET_PDEATHSIG = 1


def quiet() -> None:
    """The engine's clients write a log to standard error: errors only, please. Before `mooncake.store` is imported."""
    for name, value in {"MC_FORCE_TCP": "true", "GLOG_minloglevel": "2", "MC_LOG_LEVEL": "error"}.items():
        os.environ.setdefault(name, value)


@contextlib.contextmanager
def local_master(log: Path, lease_ms: int = 5000) -> Iterator[str]:
    """The address of a running master, whose log goes to a file. `lease_ms`: how long what was read is not removed."""
    import mooncake  # noqa: PLC0415

    program = str(Path(mooncake.__file__).parent / "mooncake_master")
    for _ in range(3):  # a port that was free may be taken before the master has it
        port, metrics = _free_port(), _free_port()
        where = [
            "--rpc_address=127.0.0.1",
            f"--rpc_port={port}",
            "--metrics_host=127.0.0.1",
            f"--metrics_port={metrics}",
        ]
        with log.open("ab") as out:
            process = subprocess.Popen(
                [program, *where, f"--default_kv_lease_ttl={lease_ms}"],
                stdout=out,
                stderr=out,
                preexec_fn=_die_with_parent,  # noqa: PLW1509
            )
        try:
            if _answers(process, port):
                yield f"127.0.0.1:{port}"
                return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"the master does not start: {log.read_text()[-2000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _die_with_parent() -> None:
    """In the child: Linux kills it when the thread that started it is gone, however that came about."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    until = time.monotonic() + _SECONDS
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False
