"""Refs: plain data that name one stored batch, all its objects, and which object has which column.

A ref is what a producer hands to a consumer, over any channel, as JSON. With it a get needs no look-up, and an append
no read. It comes from elsewhere, so `import_ref` checks every part of it; the objects it names are held to its lengths
and checksums when they are read.

May use: packbuf's errors and Fragment. Must not know: the engine, pools, what columns hold.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from packbuf import Error, Fragment, NotFound, Status
from packbuf_mooncake.sections import BATCH, FORMS, KINDS, VALUES

TYPE, VERSION = "packbuf_mooncake_ref", 1
_MOST_BYTES = 1 << 48


@dataclass(frozen=True)
class Part:
    """One object of a batch: a packed buffer."""

    key: str
    """Under which the engine has it."""
    stage: str
    """Of the pipeline, that wrote it."""
    length: int
    """Its bytes."""
    head_length: int
    """Bytes of head and index, which are read first."""
    head_checksum: int
    """Of its head."""
    rows: int
    """Of the batch; 0 where the batch had none when it was put, only meta_info."""
    columns: dict[str, tuple[str, str]]
    """(section, kind) by name."""
    meta: tuple[str, ...]
    """Keys of meta_info."""


@dataclass(frozen=True)
class Ref:
    """A stored batch. Immutable: an append gives another ref."""

    key: str
    """Of the object that tells all this to who has no ref: the batch itself, or the manifest."""
    rows: int
    """Of the batch."""
    token: str
    """Of the rows and their order; parts with another belong to another batch."""
    form: Literal["dict", "tensordict", "dataproto"]
    """What was put."""
    parts: tuple[Part, ...]
    """The objects that hold the columns."""
    lineage: tuple[str, ...] = ()
    """Objects that earlier refs of it need and this one does not: removed with it."""

    @property
    def batch_size(self) -> int:
        """How many rows."""
        return self.rows

    @property
    def nbytes(self) -> int:
        """Bytes of all that holds its columns."""
        return sum(part.length for part in self.parts)

    @property
    def keys(self) -> list[str]:
        """Of all its objects, the one that lists the others last."""
        return list(dict.fromkeys([*(part.key for part in self.parts), *self.lineage, self.key]))

    def columns(self) -> dict[str, tuple[int, str, str]]:
        """(index of the part, section, kind) by name."""
        return {name: (i, *place) for i, part in enumerate(self.parts) for name, place in part.columns.items()}

    def listed(self) -> list[Fragment]:
        """Its parts as a manifest lists them: the first with rows brings them, the others add fields."""
        found, so_far = list[Fragment](), 0
        for part in self.parts:
            appends: Literal["rows", "fields"] = "fields" if found and (so_far or not part.rows) else "rows"
            found.append(Fragment(part.key, part.length, part.head_length, part.head_checksum, 0, part.rows, appends))
            so_far = max(so_far, part.rows)
        return found


def export_ref(ref: Ref) -> dict[str, Any]:
    """The ref as JSON-safe data."""
    return {"type": TYPE, "version": VERSION, **asdict(ref)}


def import_ref(data: Ref | Mapping[str, Any]) -> Ref:
    """And back, from anywhere. Raises ValueError where it is not one, or its parts do not fit together."""
    if isinstance(data, Ref):
        return data
    try:
        if data["type"] != TYPE or data["version"] != VERSION:
            raise _bad(f"type {_shown(data['type'])}, version {_shown(data['version'])}")
        parts = tuple(_part(part) for part in _list(data["parts"]))
        lineage = tuple(_key(key) for key in _list(data["lineage"]))
        token, form = data["token"], data["form"]
        if not isinstance(token, str) or len(token) != 32 or not set(token) <= set("0123456789abcdef"):
            raise _bad("a token has 32 hexadecimal digits")
        if form not in FORMS:
            raise _bad(f"form {_shown(form)}")
        ref = Ref(_key(data["key"]), _number(data["rows"], _MOST_BYTES), token, form, parts, lineage)
    except (KeyError, TypeError, AttributeError) as error:
        if isinstance(error, Error):
            raise
        raise _bad(f"{type(error).__name__}: {str(error)[:100]}") from None
    if not parts or len(ref.columns()) != sum(len(part.columns) for part in parts):
        raise _bad("no parts, or two that have one column")
    if len({part.key for part in parts}) != len(parts):
        raise _bad("one object twice")
    if any(stem(key) != stem(ref.key) for key in ref.keys):  # removing it would remove them
        raise _bad("objects of another batch")
    if any(part.rows != ref.rows and (part.rows or part.columns) for part in parts):
        raise _bad("parts of other numbers of rows")
    return ref


def _shown(value: Any) -> str:
    """A value of someone else's in a few words, however long or deep it is."""
    return reprlib.repr(value)[:100]


def _bad(text: str) -> Error:
    return Error(Status.INVALID_ARGUMENT, f"no ref of this version: {text}")


def _list(value: Any) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _bad(f"a list is wanted, not {type(value).__name__}")
    return list(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _bad(f"text is wanted, not {type(value).__name__}")
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise _bad(f"a number up to {most} is wanted, not {_shown(value)}")
    return value


def _key(value: Any) -> str:
    return check_key(_text(value))


def _part(data: Any) -> Part:
    if set(data) != {field.name for field in fields(Part)}:
        raise _bad("a part has other keys")
    columns = {_text(name): _place(place) for name, place in data["columns"].items()}
    length = _number(data["length"], _MOST_BYTES)
    head_length = _number(data["head_length"], length)
    checksum = _number(data["head_checksum"], (1 << 32) - 1)
    rows = _number(data["rows"], _MOST_BYTES)
    meta = tuple(_text(name) for name in _list(data["meta"]))
    return Part(_key(data["key"]), _text(data["stage"]), length, head_length, checksum, rows, columns, meta)


def _place(value: Any) -> tuple[str, str]:
    place = _list(value)
    if len(place) != 2 or place[0] not in {BATCH, VALUES} or place[1] not in KINDS:
        raise _bad(f"a column is not at {_shown(place)}")
    return place[0], place[1]


def stem(key: str) -> str:
    """The batch's own part of the key of one of its objects."""
    return key.partition("#")[0]


def check_key(key: str) -> str:
    """A key that can stand in a list of keys: 1 to 255 bytes without blanks and control characters."""
    if not 0 < len(key.encode(errors="replace")) <= 255 or not key.isprintable() or " " in key:
        text = "a key has 1 to 255 bytes, without blanks and control characters"
        raise Error(Status.INVALID_ARGUMENT, text, path=key[:80])
    return key


def gone(key: str) -> NotFound:
    """The error of an object that is not there."""
    return NotFound(
        Status.NOT_FOUND, "the engine has no such object: it was removed, or its memory went away", path=key
    )
