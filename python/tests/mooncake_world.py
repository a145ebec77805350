"""A real `mooncake_master` of the wheel, on loopback, and a client of it with a little memory; and a client that counts."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SEGMENT = 64 << 20
LEASE_MS = 300


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _die_with_parent() -> None:
    """In the child: killed when this process is, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextlib.contextmanager
def master(log: Path):
    """The address of a running master; it is killed at the end, whatever happens."""
    import mooncake

    program = Path(mooncake.__file__).parent / "mooncake_master"
    for _ in range(3):  # another process may take the port meanwhile
        port, metrics = _free_port(), _free_port()
        flags = [f"--rpc_port={port}", f"--metrics_port={metrics}", f"--default_kv_lease_ttl={LEASE_MS}"]
        with log.open("ab") as out:
            process = subprocess.Popen([program, "--rpc_address=127.0.0.1", "--metrics_host=127.0.0.1", *flags], stdout=out, stderr=out, preexec_fn=_die_with_parent)
        try:
            if _answers(process, port):
                yield f"127.0.0.1:{port}"
                return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"the master does not start: {log.read_text()[-2000:]}")


def _answers(process: subprocess.Popen, port: int) -> bool:
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.02)
    return False


class Counting:
    """A client whose calls are counted by name."""

    def __init__(self, client) -> None:
        self._client, self.counts = client, {}

    def __getattr__(self, name: str):
        method = getattr(self._client, name)

        def counted(*args):
            self.counts[name] = self.counts.get(name, 0) + 1
            return method(*args)

        return counted

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)


@contextlib.contextmanager
def client(address: str, segment: int = SEGMENT):
    """A client and the config of its puts."""
    from engine import connect

    made, config = connect(address, segment=segment)
    try:
        yield Counting(made), config
    finally:
        made.close()


def quiet() -> None:
    """The engine writes a log to standard error: only what is fatal, please. Before mooncake.store is imported."""
    os.environ.setdefault("MC_FORCE_TCP", "true")
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("MC_LOG_LEVEL", "error")


def examples() -> None:
    """The adapter's rooms on the path."""
    folder = str(Path(__file__).resolve().parents[2] / "examples" / "mooncake")
    if folder not in sys.path:
        sys.path.insert(0, folder)
