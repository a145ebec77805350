"""Memory that an engine knows: one slab, registered once, out of which slices are taken and given back.

Registering memory costs more than moving it, so nothing here registers twice. A slice is a ctypes array: whatever is
opened over it (a view, an array in place) keeps it, and when the last of them is gone the slice is free again.

May use: ctypes, mmap, packbuf's errors. Must not know: what lies in a slice, what a key is.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import queue
import threading
import time
import weakref
from bisect import bisect_left
from collections.abc import Iterator
from typing import Any, Protocol

from packbuf import Error, Status

_GRAIN = 4096
_CLOSED = 1  # what health_check answers
_MOMENT = 0.05  # for the lock, which is held this long only by those who wait for room


class Registrar(Protocol):
    """Who memory is registered with: the engine's client."""

    def register_buffer(self, address: int, size: int, /) -> int:
        """0, or a negative code."""

    def unregister_buffer(self, address: int, /) -> int:
        """0, or a negative code."""


def _unregister(client: Registrar, address: int) -> None:
    """Unregister, unless the client was closed before: then there is nothing to, and the engine would crash."""
    health = getattr(client, "health_check", None)
    if health is None or health() != _CLOSED:
        client.unregister_buffer(address)


@functools.lru_cache(256)
def _block(length: int) -> Any:
    """The type of so many bytes. Types are dear to make, and go only when the garbage is collected."""
    return ctypes.c_ubyte * length


class Slice:
    """A stretch of the slab, for as long as `memory`, or anything opened over it, lives."""

    def __init__(self, memory: Any, give_back: weakref.finalize[..., Any]) -> None:
        self.memory, self._give_back = memory, give_back
        self.address = ctypes.addressof(memory)

    def part(self, offset: int, size: int) -> memoryview:
        """Some bytes of it."""
        return memoryview(self.memory).cast("B")[offset : offset + size]

    @contextlib.contextmanager
    def kept_if_read(self) -> Iterator[None]:
        """Gives it back when reading into it fails: an exception that is kept keeps no memory."""
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give it back now, from where nothing else was opened over it: an exception may hold a frame that holds it."""
        self._give_back()


class Pool:
    """A slab and its free stretches, the lowest first: what was used last is warm. Any number of threads may take.

    Who waits for room holds the lock: requests are served in order, a large one is not starved by small ones. Slices
    come back through a queue that needs no lock, since the garbage collector may give one back at any moment.
    """

    def __init__(self, client: Registrar, size: int) -> None:
        self.size = -(-size // _GRAIN) * _GRAIN
        self.registrations, self.in_use, self.high_water = 0, 0, 0
        self._slab = mmap.mmap(-1, self.size)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._slab.madvise(mmap.MADV_HUGEPAGE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._slab))
        self._free = [(0, self.size)]  # (start, length), ascending, never adjacent
        self._returned: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        code = client.register_buffer(self._address, self.size)
        if code != 0:
            raise Error(Status.SYSTEM, f"the engine does not register {self.size} bytes: {code}")
        self.registrations = 1
        # memory that is unmapped and still registered would stand in the way of what is mapped there next
        self._unregister = weakref.finalize(self, _unregister, client, self._address)

    def take(self, size: int, wait: float = 0.0) -> Slice:
        """A slice of `size` bytes. FULL when there is none after `wait` seconds, CAPACITY when there can never be."""
        length = max(1, -(-size // _GRAIN)) * _GRAIN
        if not self._unregister.alive:
            raise Error(Status.UNAVAILABLE, "the pool is closed")
        if length > self.size:
            raise Error(Status.CAPACITY, f"{size} bytes from a pool of {self.size}", needed=length)
        until = time.monotonic() + wait
        if not self._lock.acquire(timeout=max(wait, _MOMENT)):
            raise self._full(size)
        try:
            start = self._find(length, until)
            if start is None:
                raise self._full(size)
            self.in_use += length
            self.high_water = max(self.high_water, self.in_use)
        finally:
            self._lock.release()
        memory = _block(length).from_buffer(self._slab, start)
        return Slice(memory, weakref.finalize(memory, self._returned.put, (start, length)))

    def idle(self) -> bool:
        """Whether every slice has come back."""
        with self._lock:
            self._collect()
            return self.in_use == 0

    def close(self) -> None:
        """Unregister the slab. LEASED while something still lies in it."""
        if not self.idle():
            raise Error(Status.LEASED, f"{self.in_use} bytes of the pool are still looked at")
        self._unregister()
        with contextlib.suppress(BufferError):  # views of slices given back, in the frames of an exception that is kept
            self._slab.close()

    def _full(self, size: int) -> Error:
        return Error(
            Status.FULL, f"no {size} bytes are free in a pool of {self.size}, {self.in_use} in use", needed=size
        )

    def _find(self, length: int, until: float) -> int | None:
        while True:
            self._collect()
            for i, (start, room) in enumerate(self._free):
                if room >= length:
                    self._free[i : i + 1] = [(start + length, room - length)] if room > length else []
                    return start
            left = until - time.monotonic()
            try:
                self._insert(*self._returned.get(block=left > 0, timeout=left if left > 0 else None))
            except queue.Empty:
                return None

    def _collect(self) -> None:
        while not self._returned.empty():
            self._insert(*self._returned.get())

    def _insert(self, start: int, length: int) -> None:
        self.in_use -= length
        at = bisect_left(self._free, (start, length))
        if at < len(self._free) and self._free[at][0] == start + length:
            length += self._free.pop(at)[1]
        if at > 0 and sum(self._free[at - 1]) == start:
            at -= 1
            start, before = self._free.pop(at)
            length += before
        self._free.insert(at, (start, length))
