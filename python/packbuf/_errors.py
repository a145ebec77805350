"""Errors: one class with the code, place and words of the C core, and subclasses that are also built-in exceptions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from packbuf import _core

if TYPE_CHECKING:

    class Status(IntEnum):
        """How a call can end (section 14 of the spec), such as ``Status.BAD_MAGIC``; 0 is success."""

        OK = 0
        INVALID_ARGUMENT = 1
        OUT_OF_MEMORY = 2
        NOT_FOUND = 3
        OUT_OF_RANGE = 4
        WRONG_TYPE = 5
        UNALIGNED = 6
        NOT_STORED = 7
        ROW_COUNT = 8
        READ_ONLY = 9
        SCHEMA_MISMATCH = 10
        FRAGMENT_MISMATCH = 11
        ROW_ORDER = 12
        NOT_FETCHED = 13
        CAPACITY = 20
        BAD_MAGIC = 40
        TRUNCATED = 41
        TRAILING_BYTES = 42
        BAD_HEADER = 43
        HEAD_CHECKSUM = 44
        INDEX_CHECKSUM = 45
        DATA_CHECKSUM = 46
        NOT_ZERO = 47
        BAD_LAYOUT = 48
        BAD_NODE = 49
        BAD_BUFFER = 50
        BAD_METADATA = 51
        BAD_NAME = 52
        DUPLICATE_NAME = 53
        BAD_UTF8 = 54
        BAD_MASK = 55
        BAD_OFFSETS = 56
        BAD_SHAPE = 57
        BAD_TYPES = 58
        BAD_BOOL = 59
        BAD_JSON = 60
        BAD_MSGPACK = 61
        BAD_REFERENCE = 62
        BAD_MANIFEST = 63
        BAD_BLOCK = 64
        LIMIT = 80
        DEPTH = 81
        UNSUPPORTED_VERSION = 100
        UNSUPPORTED_FEATURE = 101
        UNSUPPORTED_KIND = 102
        UNSUPPORTED_CODEC = 103
        UNSUPPORTED_PACKING = 104
        UNSUPPORTED_DTYPE = 105
        UNSUPPORTED_ROLE = 106
        UNSUPPORTED_DEVICE = 107
        UNSUPPORTED_OPERATION = 108
        UNENCODABLE = 120
        LOSSY = 121
        NOT_NULLABLE = 122
        TIMEOUT = 140
        CANCELLED = 141
        STALE = 142
        FULL = 143
        QUOTA = 144
        LEASED = 145
        UNAVAILABLE = 146
        DISCONNECTED = 147
        DENIED = 148
        UNREGISTERED = 149
        SHORT_READ = 150
        PROTOCOL = 151
        SYSTEM = 152

        @property
        def text(self) -> str:
            """What the code means, in one line."""

else:
    Status = IntEnum("Status", [(name, number) for name, number, _ in _core.statuses])
    Status.__doc__ = "How a call can end (section 14 of the spec), such as ``Status.BAD_MAGIC``; 0 is success."
    _TEXTS = {number: text for _, number, text in _core.statuses}
    Status.text = property(lambda self: _TEXTS[self], doc="What the code means, in one line.")


class Error(ValueError):
    """Whatever packbuf refuses, with the code, and where it is known the place.

    >>> import packbuf
    >>> try:
    ...     packbuf.pack({"tags": [["a"], {"b", "c"}]})
    ... except packbuf.Error as error:
    ...     print(error.code.name, error.path, error.row)
    UNENCODABLE tags 1
    """

    code: Status
    """What kind of error it is."""
    message: str
    """What is wrong, in words."""
    path: str
    """The field, as an escaped path (``meta.step``, ``calls[0].name``); empty where there is none."""
    row: int | None
    """The row of the batch or column."""
    offset: int | None
    """The byte of the packed buffer, or of a URI; of SYSTEM and DISCONNECTED the ``errno``."""
    rule: str | None
    """The numbered rule of the format that is broken, such as ``"H2"``."""
    needed: int | None
    """Bytes that are needed where fewer were given."""
    fragment: int | None
    """Which of the fragments."""

    def __init__(
        self,
        code: Status | int,
        message: str = "",
        *,
        path: str = "",
        row: int | None = None,
        offset: int | None = None,
        rule: str | None = None,
        needed: int | None = None,
        fragment: int | None = None,
    ) -> None:
        self.code = Status(code)
        self.message = message or self.code.text
        self.path, self.row, self.offset = path, row, offset
        self.rule, self.needed, self.fragment = rule, needed, fragment
        super().__init__(str(self))

    def __str__(self) -> str:
        """One line: code, rule, place, words."""
        text = self.code.name
        if self.rule:
            text += f" ({self.rule})"
        if self.path:
            text += f" in {self.path}"
        for name in ("row", "offset", "fragment"):
            if (number := getattr(self, name)) is not None:
                text += self._at(number) if name == "offset" else f", {name} {number}"
        if self.needed is not None:
            text += f", needs {self.needed} bytes"
        return f"{text}: {self.code.text} (the rule: {self.message})" if self.rule else f"{text}: {self.message}"

    def _at(self, offset: int) -> str:
        """The place; of what the system refused it is the number of the system's error."""
        system = self.code in {Status.SYSTEM, Status.DISCONNECTED}
        return f" ({os.strerror(offset)})" if system and offset < _ERRNOS else f" at byte {offset}"

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries."""
        return _remake, (
            self.code.value,
            self.rule,
            self.message,
            self.row,
            self.offset,
            self.needed,
            self.fragment,
            self.path,
        )


class OutOfMemory(Error, MemoryError):
    """There is no memory (OUT_OF_MEMORY)."""


class NotFound(Error, KeyError):
    """No such field, or no such key in a store (NOT_FOUND)."""


class Stale(Error, KeyError):
    """Another object was put under the key since (STALE)."""


class Timeout(Error, TimeoutError):
    """The time that the call had is over (TIMEOUT)."""


class Full(Error):
    """There is no room: in the store (FULL), or in what the client may use of it (QUOTA)."""


class Disconnected(Error, ConnectionError):
    """The other side, or the store, is gone (DISCONNECTED), or not to be had here (UNAVAILABLE)."""


class Denied(Error, PermissionError):
    """The secret or the rights are missing (DENIED)."""


class OutOfRange(Error, IndexError):
    """A row beyond the end (OUT_OF_RANGE)."""


class WrongType(Error, TypeError):
    """A column or argument of another kind (WRONG_TYPE)."""


class Unencodable(Error, TypeError):
    """A value that the format, or the codec that was asked for, does not have (UNENCODABLE, LOSSY, NOT_NULLABLE)."""


class Malformed(Error):
    """Bytes that break a rule of the format: ``rule`` and ``offset`` say which and where."""


class Unsupported(Error):
    """A newer format, or a codec, dtype or packing that this version does not know."""


class SomeFailed(Error):
    """Of the keys of one call some failed; the others did what was asked for. Code and words are those of the first.

    >>> import packbuf
    >>> with packbuf.connect("local:") as store:
    ...     try:
    ...         store.put_many({"a": {"x": [1]}, "b": {"x": [{1, 2}]}})
    ...     except packbuf.SomeFailed as error:
    ...         error.results[0].key, {key: why.code.name for key, why in error.failed.items()}
    ('a', {'b': 'UNENCODABLE'})
    """

    results: list[Any]
    """For each key, in the order of the call, what it came to, or its `Error`."""
    failed: dict[str, Error]
    """The error of each key that failed."""

    def __init__(self, keys: Sequence[str], results: Sequence[Any]) -> None:
        self.keys, self.results = list(keys), list(results)
        self.failed = {key: result for key, result in zip(keys, results, strict=True) if isinstance(result, Error)}
        (key, first), count = next(iter(self.failed.items())), len(self.failed)
        where = f" in {first.path}" if first.path not in {"", key} else ""
        where += "" if first.row is None else f", row {first.row}"
        super().__init__(first.code, f"{count} of {len(results)} keys failed; {key}{where}: {first.message}")

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process boundaries."""
        return SomeFailed, (self.keys, self.results)


_ERRNOS = 4096  # no errno is as large
_FIRST_MALFORMED, _LAST_MALFORMED = 40, 64
_FIRST_UNSUPPORTED, _LAST_UNSUPPORTED = 100, 108
_CLASSES: dict[str, type[Error]] = {
    "OUT_OF_MEMORY": OutOfMemory,
    "NOT_FOUND": NotFound,
    "OUT_OF_RANGE": OutOfRange,
    "WRONG_TYPE": WrongType,
    "STALE": Stale,
    "TIMEOUT": Timeout,
    "FULL": Full,
    "QUOTA": Full,
    "DISCONNECTED": Disconnected,
    "UNAVAILABLE": Disconnected,
    "DENIED": Denied,
    "UNENCODABLE": Unencodable,
    "LOSSY": Unencodable,
    "NOT_NULLABLE": Unencodable,
}


def error_of(code: Status | int, message: str = "", *, path: str = "", row: int | None = None) -> Error:
    """The error of a code, in the class that it has."""
    return make(int(code), None, message, row, None, None, None, path)


def make(  # noqa: PLR0917
    code: int,
    rule: str | None,
    message: str,
    row: int | None,
    offset: int | None,
    needed: int | None,
    fragment: int | None,
    path: str,
) -> Error:
    """The error that the C++ half raises."""
    cls = _CLASSES.get(Status(code).name, Error)
    if _FIRST_MALFORMED <= code <= _LAST_MALFORMED:
        cls = Malformed
    elif _FIRST_UNSUPPORTED <= code <= _LAST_UNSUPPORTED:
        cls = Unsupported
    return cls(code, message, path=path, row=row, offset=offset, rule=rule, needed=needed, fragment=fragment)


_remake = make
