"""The engine's client in packbuf's words: each code an error by name, each count of bytes compared, each call counted.

What the engine does without saying so (README.md has the list) is met here.

May use: the methods of `mooncake.store.MooncakeDistributedStore`, or of anything that has them; packbuf's errors. Must
not know: packed buffers, what a ref is made of.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from packbuf import Error, Status
from packbuf_mooncake.refs import gone

_STATUSES = {
    -200: (Status.FULL, "the segments have no room"),
    -600: (Status.SHORT_READ, "the engine refuses the size: the object has another, or the memory is not registered"),
    -706: (Status.LEASED, "a reader has a lease on it"),
    -707: (Status.SHORT_READ, "the lease ran out before the read ended"),
    -800: (Status.DISCONNECTED, "the transfer failed"),
    -801: (Status.DATA_CHECKSUM, "the engine's checksum is another"),
    -900: (Status.DISCONNECTED, "the master does not answer"),
    -901: (Status.TIMEOUT, "the master did not answer in time"),
}
_MISSING, _LEASED = -704, -706


def failure(code: int, key: str) -> Error:
    """The error of a code."""
    if code == _MISSING:
        return gone(key)
    status, text = _STATUSES.get(code, (Status.SYSTEM, "the engine failed"))
    return Error(status, f"{text} ({code})", path=key)


@dataclass
class Counters:
    """What was asked of the engine."""

    calls: int = 0
    puts: int = 0
    bytes_put: int = 0
    gets: int = 0
    """Whole objects."""
    ranges: int = 0
    """Ranges of objects."""
    bytes_got: int = 0
    removed: int = 0


@dataclass(frozen=True)
class Piece:
    """Bytes of an object, and where they are to go."""

    key: str
    offset: int
    size: int
    address: int


class Engine:
    """Batches of calls on a client. Blocking, without deadlines: the client has none."""

    def __init__(self, client: Any, config: Any = None) -> None:
        self._client, self._config, self.counters = client, (() if config is None else (config,)), Counters()
        self.has_ranges = hasattr(client, "get_into_ranges")

    @property
    def client(self) -> Any:
        """The client, until `close`: one that was closed crashes when it is called."""
        if self._client is None:
            raise Error(Status.UNAVAILABLE, "the store is closed")
        return self._client

    def close(self, also_the_client: bool) -> None:
        """No more calls."""
        client, self._client = self._client, None
        if also_the_client and client is not None:
            client.close()

    def put(self, keys: list[str], addresses: list[int], sizes: list[int]) -> list[int]:
        """Put each; a code for each. A key that exists gives 0 and is not written: the engine says no more."""
        self.counters.calls += 1
        codes = list(self.client.batch_put_from(keys, addresses, sizes, *self._config))
        for code, size in zip(codes, sizes, strict=True):
            if code == 0:
                self.counters.puts += 1
                self.counters.bytes_put += size
        return codes

    def size(self, key: str) -> int:
        """Bytes of an object."""
        self.counters.calls += 1
        size = self.client.get_size(key)
        if size < 0:
            raise failure(size, key)
        return int(size)

    def get(self, pieces: Sequence[Piece]) -> None:
        """Read whole objects. In one call the engine fills the last of two buffers for one key: it is named once."""
        while pieces:
            first = {piece.key: piece for piece in reversed(pieces)}
            now = list(first.values())
            self.counters.calls += 1
            keys, addresses, sizes = ([getattr(piece, name) for piece in now] for name in ("key", "address", "size"))
            self._count(now, list(self.client.batch_get_into(keys, addresses, sizes)))
            self.counters.gets += len(now)
            pieces = [piece for piece in pieces if first[piece.key] is not piece]

    def get_ranges(self, pieces: Sequence[Piece]) -> None:
        """Read ranges, all in one call: as many fragments of one buffer as the engine likes."""
        if not pieces:
            return
        self.counters.calls += 1
        base = min(piece.address for piece in pieces)
        by_key: dict[str, list[Piece]] = {}
        for piece in pieces:
            by_key.setdefault(piece.key, []).append(piece)
        groups = list(by_key.values())
        answer = self.client.get_into_ranges(
            [base],
            [list(by_key)],
            [[[piece.address - base for piece in group] for group in groups]],
            [[[piece.offset for piece in group] for group in groups]],
            [[[piece.size for piece in group] for group in groups]],
        )
        for group, counts in zip(groups, answer[0], strict=True):
            self._count(group, list(counts))
        self.counters.ranges += len(pieces)

    def _count(self, pieces: Sequence[Piece], got: list[int]) -> None:
        """A read is what was asked for to the byte, or an error."""
        if len(got) != len(pieces):
            if got and got[0] < 0:  # one answer for all
                raise failure(got[0], pieces[0].key)
            raise Error(Status.PROTOCOL, f"{len(got)} answers to {len(pieces)} reads")
        for piece, count in zip(pieces, got, strict=True):
            if count < 0:
                raise failure(count, piece.key)
            if count != piece.size:
                raise Error(Status.SHORT_READ, f"{count} bytes came instead of {piece.size}", path=piece.key)
            self.counters.bytes_got += count

    def remove(self, keys: list[str], force: bool) -> dict[str, Error]:
        """Remove each; what was not removed, and why. What is not there is as good as removed."""
        if not keys:
            return {}
        self.counters.calls += 1
        codes = self._batch_remove(keys, force)
        left: dict[str, Error] = {}
        for key, answer in zip(keys, codes, strict=True):
            settled = answer in {0, _MISSING, _LEASED}  # else it may have been a matter of a moment
            code = answer if settled else self.client.remove(key, force)
            if code in {0, _MISSING}:
                self.counters.removed += code == 0
            else:
                left[key] = failure(code, key)
        return left

    def _batch_remove(self, keys: list[str], force: bool) -> list[int]:
        batch = getattr(self.client, "batch_remove", None)
        return list(batch(keys, force)) if batch else [self.client.remove(key, force) for key in keys]


_RPC_MAGIC = 0x15  # what a request of its protocol begins with, and an answer


def _look_for(master: str, seconds: float) -> None:
    """Ask for nothing, in the master's protocol: UNAVAILABLE unless that is answered in time.

    The engine itself tries for 90 s, and where a port is open and silent for ten minutes, in which no thread of the
    process runs any Python.
    """
    host, _, port = master.rpartition(":")
    if not host or not port.isdigit():
        raise Error(Status.INVALID_ARGUMENT, f"a master is at HOST:PORT, not at {master!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), seconds) as probe:
            probe.settimeout(seconds)
            probe.sendall(bytes([_RPC_MAGIC]) + bytes(19))
            answer = probe.recv(1)
    except (OSError, OverflowError) as error:
        raise Error(Status.UNAVAILABLE, f"there is no master at {master}: {error}") from None
    if answer[:1] != bytes([_RPC_MAGIC]):
        raise Error(Status.UNAVAILABLE, f"what answers at {master} is no master")


def connect(
    master: str,
    *,
    segment: int = 0,
    local_buffer: int = 16 << 20,
    host: str = "127.0.0.1",
    metadata: str = "P2PHANDSHAKE",
    protocol: str = "tcp",
    device: str = "",
    timeout: float | None = 5.0,
) -> tuple[Any, Any]:
    """A client of the wheel and the config of its puts: one replica, pinned, so that nothing unread is evicted.

    timeout: seconds for the master to answer; None, or an address like ``etcd://...``: the engine's own way, which is
    to try for 90 s and more. segment: bytes of memory that this process brings; objects in it go with the process, so
    those that come and go bring none. host: the address under which other clients reach this one.
    """
    from mooncake.store import MooncakeDistributedStore, ReplicateConfig  # noqa: PLC0415

    if timeout is not None and "://" not in master:
        _look_for(master, timeout)
    client, config = MooncakeDistributedStore(), ReplicateConfig()
    code = client.setup(host, metadata, segment, local_buffer, protocol, device, master)
    if code != 0:
        raise Error(Status.UNAVAILABLE, f"there is no master at {master}, or it refuses this client ({code})")
    config.replica_num, config.with_hard_pin = 1, True
    return client, config
