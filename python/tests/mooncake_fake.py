"""A Mooncake client in memory, with the ways of the real one: what an engine does without saying so.

A put on an existing key answers 0 and writes nothing; a size is a capacity for whole reads; size 0 stores nothing; reads
need registered memory; every read, and asking whether a key is there, grants a lease, under which a removal is refused;
what overlaps is not registered twice. Calls can be made to fail, or to come up short, by number. The real master is held
to the same in test_structured_store.py.
"""

from __future__ import annotations

import ctypes


class FakeClient:
    def __init__(self, capacity: int = 64 << 20, lease: float = 5.0) -> None:
        self.objects: dict[str, bytes] = {}
        self.capacity, self.lease = capacity, lease
        self.now = 0.0  # seconds; tests turn it
        self.leases: dict[str, float] = {}
        self.registered: dict[int, int] = {}
        self.calls: list[tuple[str, list[str]]] = []
        self.failures: dict[tuple[str, int], object] = {}  # (method, n-th key of it) -> code, or function of the answer
        self.seen: dict[str, int] = {}

    # ---- for tests ----

    def fail(self, method: str, n: int, what: object) -> None:
        """The n-th key (from 0) that `method` is asked for from now on: a code, or a function of what would be said."""
        self.failures[method, self.seen.get(method, 0) + n] = what

    def count(self, method: str) -> int:
        return sum(name == method for name, _ in self.calls)

    def _answer(self, method: str, key: str, really):
        n = self.seen.get(method, 0)
        self.seen[method] = n + 1
        what = self.failures.pop((method, n), None)
        if isinstance(what, BaseException):
            raise what
        if what is None:
            return really()
        return what(really()) if callable(what) else what

    # ---- memory ----

    def register_buffer(self, address: int, size: int) -> int:
        self.calls.append(("register_buffer", []))
        if any(address < at + n and at < address + size for at, n in self.registered.items()):
            return -600
        self.registered[address] = size
        return 0

    def unregister_buffer(self, address: int) -> int:
        self.calls.append(("unregister_buffer", []))
        return 0 if self.registered.pop(address, None) else -600

    def _known(self, address: int, size: int) -> bool:
        return any(at <= address and address + size <= at + n for at, n in self.registered.items())

    # ---- put ----

    def put_from(self, key: str, address: int, size: int) -> int:
        self.calls.append(("put_from", [key]))
        return self._answer("put_from", key, lambda: self._put(key, address, size))

    def batch_put_from(self, keys, addresses, sizes) -> list[int]:
        self.calls.append(("batch_put_from", list(keys)))
        return [self._answer("put_from", *(key, lambda k=key, a=a, n=n: self._put(k, a, n))) for key, a, n in zip(keys, addresses, sizes, strict=True)]

    def _put(self, key: str, address: int, size: int) -> int:
        if not self._known(address, size):
            return -600
        if key in self.objects or size == 0:
            return 0
        if sum(map(len, self.objects.values())) + size > self.capacity:
            return -200
        self.objects[key] = ctypes.string_at(address, size)
        return 0

    # ---- get ----

    def _lease(self, key: str) -> None:
        self.leases[key] = self.now + self.lease

    def get_size(self, key: str) -> int:
        self.calls.append(("get_size", [key]))
        if key not in self.objects:
            return -704
        self._lease(key)
        return len(self.objects[key])

    def is_exist(self, key: str) -> int:
        self.calls.append(("is_exist", [key]))
        if key in self.objects:
            self._lease(key)
        return int(key in self.objects)

    def batch_get_into(self, keys, addresses, sizes) -> list[int]:
        self.calls.append(("batch_get_into", list(keys)))
        return [self._answer("get_into", key, lambda k=key, a=a, n=n: self._get(k, a, n)) for key, a, n in zip(keys, addresses, sizes, strict=True)]

    def _get(self, key: str, address: int, capacity: int) -> int:
        if key not in self.objects:
            return -704
        data = self.objects[key]
        self._lease(key)
        if len(data) > capacity or not self._known(address, capacity):
            return -600
        ctypes.memmove(address, data, len(data))
        return len(data)

    def get_into_ranges(self, addresses, keys, to, at, sizes) -> list[list[list[int]]]:
        self.calls.append(("get_into_ranges", [key for group in keys for key in group]))
        return [
            [
                [
                    self._answer("get_range", key, lambda k=key, b=base + t, o=o, n=n: self._range(k, b, o, n))
                    for t, o, n in zip(to_k, at_k, sizes_k, strict=True)
                ]
                for key, to_k, at_k, sizes_k in zip(keys_b, to_b, at_b, sizes_b, strict=True)
            ]
            for base, keys_b, to_b, at_b, sizes_b in zip(addresses, keys, to, at, sizes, strict=True)
        ]

    def _range(self, key: str, address: int, offset: int, size: int) -> int:
        if key not in self.objects:
            return -704
        data = self.objects[key]
        self._lease(key)
        if offset + size > len(data) or not self._known(address, size):
            return -600
        ctypes.memmove(address, data[offset : offset + size], size)
        return size

    # ---- remove ----

    def remove(self, key: str, force: bool = False) -> int:
        self.calls.append(("remove", [key]))
        return self._answer("remove", key, lambda: self._remove(key, force))

    def batch_remove(self, keys, force: bool = False) -> list[int]:
        self.calls.append(("batch_remove", list(keys)))
        return [self._answer("remove", key, lambda k=key: self._remove(k, force)) for key in keys]

    def _remove(self, key: str, force: bool) -> int:
        if key not in self.objects:
            return -704
        if not force and self.leases.get(key, 0.0) > self.now:
            return -706
        del self.objects[key]
        self.leases.pop(key, None)
        return 0
