"""The adapter of examples/mooncake on the path, and a real client of a real master whose calls are counted."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "mooncake"
if str(EXAMPLES) not in sys.path:
    sys.path.insert(0, str(EXAMPLES))

from packbuf_mooncake.local_master import local_master, quiet  # noqa: E402

quiet()
SEGMENT = 64 << 20
LEASE_MS = 300


class Counting:
    """A client whose calls are counted by name."""

    def __init__(self, client, address: str) -> None:
        self._client, self.address, self.counts = client, address, {}

    def __getattr__(self, name: str):
        method = getattr(self._client, name)

        def counted(*args):
            self.counts[name] = self.counts.get(name, 0) + 1
            return method(*args)

        return counted

    def count(self, name: str) -> int:
        return self.counts.get(name, 0)


@contextlib.contextmanager
def real(log: Path):
    """A client that has some memory, of a master of its own, and the config of its puts."""
    from packbuf_mooncake.engine import connect

    with local_master(log, LEASE_MS) as address:
        client, config = connect(address, segment=SEGMENT)
        try:
            yield Counting(client, address), config
        finally:
            client.close()
