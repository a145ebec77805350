"""Packed buffers that lie elsewhere: reading their head first, then the ranges that are wanted; manifests, and joins.

A batch may be kept in several packed buffers, its fragments, that a manifest lists: adding fields or rows to it writes
a new fragment and a new manifest, and never an old byte again (section 23 of the spec).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from packbuf import _core
from packbuf._arguments import limits as limits_of
from packbuf._arguments import mapping, text
from packbuf._errors import Status, error_of
from packbuf._view import Field, View, manner

_APPENDS = ("rows", "fields")
_MANIFEST = 2


def peek(start: Any) -> tuple[int, int]:
    """How long a packed buffer is, from its first 64 bytes: head and index, which say where everything lies, and all.

    >>> import packbuf
    >>> packed = packbuf.pack({"a": list(range(1000))})
    >>> head, total = packbuf.peek(memoryview(packed)[:64])
    >>> head < total == len(packed)
    True
    """
    return _core.peek(start)


def open_head(
    head: Any,
    *,
    limits: Mapping[str, int] | None = None,
    tensors: Literal["torch", "shared", "numpy"] | None = None,
    images: Literal["pil", "media"] | None = None,
    allow_pickle: bool = False,
) -> View:
    """Open a packed buffer of which only head and index are there: as many bytes as `peek` says.

    Its fields and types can be looked at, rows be selected. What a selection needs beside, `Selection.ranges` tells;
    `View.fetched` gives the view that has it. Other cells raise NOT_FETCHED. The arguments are those of `open`.

    >>> import numpy as np, packbuf
    >>> stored = bytes(packbuf.pack({"x": np.arange(6000).reshape(1000, 6), "y": np.arange(1000) ** 3}))
    >>> head = packbuf.open_head(stored[: packbuf.peek(stored)[0]])
    >>> ranges = head.select("x", slice(7, 9)).ranges()
    >>> sum(length for _, length in ranges)
    96
    >>> view = head.fetched(ranges, b"".join(stored[at : at + length] for at, length in ranges))
    >>> view["x"].numpy(slice(7, 9))
    array([[42, 43, 44, 45, 46, 47],
           [48, 49, 50, 51, 52, 53]])
    """
    return View._of(_core.View.of_head(head, limits_of(limits), *manner(tensors, images, allow_pickle)))


@dataclass(frozen=True)
class Fragment:
    """One packed buffer of several, as a manifest lists it."""

    key: str
    """Its name, where it is stored."""
    length: int
    """Bytes of it all."""
    head_length: int
    """Bytes of its head and index: what to fetch first."""
    head_checksum: int
    """Of the head, by which another packbuf buffer under its name is told from it."""
    first_row: int
    """The first of the rows of the whole that it holds."""
    rows: int
    """How many it holds."""
    appends: Literal["rows", "fields"] = "rows"
    """Whether it adds rows after all those before it, or fields to rows that are there."""

    @classmethod
    def of(cls, view: View, key: str, *, first_row: int = 0, appends: Literal["rows", "fields"] = "rows") -> Fragment:
        """An open packed buffer as a fragment."""
        head, index, _ = view._core.sizes
        checksum = view._core.head_checksum
        return cls(key, view.nbytes, head + index, checksum, first_row, view.num_rows, appends)

    def _listed(self) -> tuple[str, int, int, int, int, int, int]:
        if self.appends not in _APPENDS:
            raise error_of(Status.INVALID_ARGUMENT, f"appends is 'rows' or 'fields', not {self.appends!r}")
        numbers = self.length, self.head_length, self.first_row, self.rows, self.head_checksum
        if not all(0 <= number < 1 << 64 for number in numbers) or self.head_checksum >= 1 << 32:
            raise error_of(Status.INVALID_ARGUMENT, "a number of a fragment is beyond its type")
        return (text(self.key, "a fragment's key"), *numbers, _APPENDS.index(self.appends))


def manifest(fragments: Sequence[Fragment], *, metadata: Mapping[str, str] | None = None) -> _core.Packed:
    """The packed buffer that lists fragments.

    >>> import packbuf
    >>> parts = [packbuf.open(packbuf.pack({"a": values})) for values in ([1, 2], [3])]
    >>> listed = [packbuf.Fragment.of(parts[0], "a/0"), packbuf.Fragment.of(parts[1], "a/1", first_row=2)]
    >>> packbuf.fragments(packbuf.open(packbuf.manifest(listed))) == listed
    True
    """
    given = mapping(metadata, "metadata").items()
    pairs = [(text(key, "a key of metadata"), text(words, "metadata")) for key, words in given]
    return _core.manifest([fragment._listed() for fragment in fragments], pairs)


def fragments(view: View) -> list[Fragment] | None:
    """What a manifest lists, checked; None for a packed buffer that is none."""
    if view._core.kind != _MANIFEST:
        return None
    return [
        Fragment(key, length, head_length, head_checksum, first_row, rows, "fields" if appends else "rows")
        for key, length, head_length, first_row, rows, head_checksum, appends in _core.listed(view._core)
    ]


class Part(NamedTuple):
    """Where some rows of a field are."""

    fragment: int
    """Which of the fragments."""
    field: Field | None
    """The column there; None where this fragment lacks it (``widen=True``)."""
    first_row: int
    """Of the whole."""
    rows: int


def join(
    fragments: Sequence[Fragment], views: Sequence[View], *, widen: bool = False, first_value: bool = False
) -> dict[str, list[Part]]:
    """Check that fragments belong together, and say where each field of the whole is, by row.

    Heads are enough for it. Raises FRAGMENT_MISMATCH where a view is not the fragment that is listed, ROW_ORDER where
    fields were added for other rows or another order of them, DUPLICATE_NAME, and, unless `widen`, SCHEMA_MISMATCH
    where a field differs in type or is not in all rows. `first_value`: batch values and metadata may differ.

    >>> import packbuf
    >>> token = bytes(range(16))
    >>> batches = {"a": [1, 2]}, {"b": ["x", "y"]}
    >>> a, b = (packbuf.open(packbuf.pack(batch, row_order_token=token)) for batch in batches)
    >>> whole = packbuf.join([packbuf.Fragment.of(a, "a"), packbuf.Fragment.of(b, "b", appends="fields")], [a, b])
    >>> {name: part.field.tolist() for name, (part,) in whole.items()}
    {'a': [1, 2], 'b': ['x', 'y']}
    """
    listed = [fragment._listed() for fragment in fragments]
    found = _core.join(listed, [view._core for view in views], widen, first_value)
    return {
        name: [
            Part(which, None if node is None else views[which]._field(node), first_row, rows)
            for which, node, first_row, rows in parts
        ]
        for name, parts in found
    }
