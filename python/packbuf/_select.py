"""Columns of some rows: as numpy arrays, as tensors, into memory of the caller, as Python values."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from packbuf import _core, _torch
from packbuf._arguments import texts
from packbuf._errors import NotFound, OutOfRange, Status, error_of
from packbuf._exchange import Arrow

if TYPE_CHECKING:
    from packbuf._view import Field, View

Array = np.ndarray[Any, Any]
Rows = slice | range | Sequence[int] | Sequence[bool] | Array | None
"""Which rows: all (None), a slice, a list of indexes, a mask of bools."""


def row_argument(rows: Any) -> Any:
    """Rows as the C++ half wants them."""
    if rows is None:
        return None
    if isinstance(rows, slice):
        step = None if rows.step is None else _integer(rows.step)
        if step == 0:
            raise error_of(Status.INVALID_ARGUMENT, "a slice step is not 0")
        return (*(None if bound is None else _integer(bound) for bound in (rows.start, rows.stop)), step)
    if _torch.is_tensor(rows):
        rows = rows.cpu().numpy()
    indexes = np.asarray(rows)
    if indexes.ndim != 1:
        raise error_of(Status.INVALID_ARGUMENT, "rows are a slice, a list of indexes or a mask")
    if indexes.dtype == np.bool_:
        return np.ascontiguousarray(indexes)
    if indexes.size and indexes.dtype.kind not in "iu":
        raise error_of(Status.WRONG_TYPE, f"rows are integers or bools, not {indexes.dtype}")
    return np.ascontiguousarray(indexes, dtype=np.int64)


def choose(view: View, patterns: list[str], rows: Rows, scope: int) -> _core.Selection:
    """Columns and rows of a view; an index that is none is told by its value."""
    indexes = row_argument(rows)
    try:
        return _core.Selection(view._core, scope, patterns, indexes)
    except OutOfRange as error:
        if error.row is None or not isinstance(indexes, np.ndarray):
            raise
        words = f"rows[{error.row}] is {indexes[error.row]}, of a batch of {view.num_rows} rows"
        raise error_of(Status.OUT_OF_RANGE, words) from None


def patterns_of(fields: Sequence[str] | str | None) -> list[str]:
    """Patterns as the C++ half wants them; none: all fields."""
    return texts(fields, "a path or pattern")


def _integer(number: Any) -> int:
    try:
        return operator.index(number)
    except TypeError:
        text = f"a slice of rows has integers, not {type(number).__name__}"
        raise error_of(Status.WRONG_TYPE, text) from None


@dataclass(frozen=True)
class Ragged:
    """Ragged rows of numbers as they are stored: all elements end to end, and where each row begins.

    >>> import packbuf
    >>> ragged = packbuf.open(packbuf.pack({"ids": [[1, 2, 3], [4]]}))["ids"].ragged()
    >>> ragged.values, ragged.offsets, ragged[0]
    (array([1, 2, 3, 4]), array([0, 3, 4]), array([1, 2, 3]))
    >>> ragged.padded(0)
    array([[1, 2, 3],
           [4, 0, 0]])
    """

    values: Array
    """Elements of all rows; one dimension."""
    offsets: Array
    """Row i is ``values[offsets[i]:offsets[i + 1]]``."""
    shapes: Array | None
    """[dimension, row] where rows have more than one dimension."""
    ndims: Array
    """Dimensions of each row."""

    def __len__(self) -> int:
        """How many rows."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        """One row, in its own shape."""
        row = range(len(self))[row]
        flat = self.values[self.offsets[row] : self.offsets[row + 1]]
        if self.shapes is None:
            return flat if self.ndims[row] else flat.reshape(()) if flat.size == 1 else flat
        return flat.reshape([int(size) for size in self.shapes[: self.ndims[row], row]])

    def __iter__(self) -> Iterator[Array]:
        """All rows."""
        return (self[row] for row in range(len(self)))

    @classmethod
    def of(cls, items: Array, offsets: Array) -> Ragged:
        """Rows ``items[offsets[i]:offsets[i + 1]]``, of any number of dimensions.

        >>> import numpy as np, packbuf
        >>> packbuf.Ragged.of(np.arange(6).reshape(3, 2), np.array([0, 1, 3]))[1]
        array([[2, 3],
               [4, 5]])
        """
        tail, rows = items.shape[1:], len(offsets) - 1
        ends = np.asarray(offsets, dtype=np.int64)
        ndims = np.full(rows, items.ndim, dtype=np.uint8)
        if not tail:
            return cls(items, ends, None, ndims)
        shapes = np.empty((items.ndim, rows), dtype=np.uint64)
        shapes[0] = np.diff(ends)
        shapes[1:] = np.array(tail, dtype=np.uint64)[:, None]
        return cls(items.reshape(-1), ends * math.prod(tail), shapes, ndims)

    def items(self) -> tuple[Array, Array]:
        """The opposite of `of`; refused where rows differ in more than their first dimension."""
        tail = self.tail() if len(self) else ()
        if tail is None:
            raise error_of(Status.WRONG_TYPE, "rows differ in more than their first dimension")
        if not tail:
            return self.values, self.offsets
        assert self.shapes is not None
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.shapes[0], dtype=np.int64)])
        return self.values.reshape(int(ends[-1]), *tail), ends

    def tail(self) -> tuple[int, ...] | None:
        """The dimensions after the first, where all rows have the same; else None."""
        if self.shapes is None:
            return () if bool((self.ndims == 1).all()) else None
        rank = len(self.shapes)
        if not bool((self.ndims == rank).all()) or not bool((self.shapes[1:] == self.shapes[1:, :1]).all()):
            return None
        return tuple(int(size) for size in self.shapes[1:, 0])

    def padded(self, fill: Any, length: int | None = None) -> Array:
        """One array [rows, length] of rows of one dimension, filled up at the end; longer rows are cut."""
        if self.shapes is not None:
            raise error_of(Status.WRONG_TYPE, "only rows of one dimension are padded")
        lengths = np.diff(self.offsets)
        width = int(lengths.max(initial=0)) if length is None else length
        out = np.full((len(self), width), fill, dtype=self.values.dtype)
        kept = np.minimum(lengths, width)
        place = np.arange(width) < kept[:, None]
        source = self.offsets[:-1, None] + np.arange(width)
        out[place] = self.values[source[place]]
        return out


class Columns:
    """One node of a selection."""

    def __init__(self, chosen: _core.Selection, field: Field) -> None:
        self.chosen, self.field, self.node = chosen, field, field.index

    def _absent(self, fill: Any) -> Array | None:
        """The mask of null and missing cells where there are some; raises unless something is to be filled in."""
        absent = self.chosen.absent(self.node)
        if absent is not None and fill is None:
            text = f"{int(absent.sum())} cells are null or missing: give fill=, and see .valid()"
            raise error_of(Status.NOT_NULLABLE, text, path=self.field.path)
        return absent

    def numpy(self, fill: Any, bits: bool, copy: bool) -> Array:
        field = self.field
        if field.codec == "ndarray":
            absent = self._absent(fill)
            array = self._dense(bits, copy or absent is not None)
            if absent is not None:
                array[absent] = fill
            return array
        if not field.is_ragged_numbers:
            return self.chosen.objects(self.node)
        out = np.empty(self.chosen.rows, dtype=object)
        for i, row in enumerate(self.ragged(bits, fill)):
            out[i] = row
        return out

    def _dense(self, bits: bool, copy: bool) -> Array:
        array = None if copy else self.chosen.in_place(self.node, bits)
        return self.chosen.copied(self.node, bits) if array is None else array

    def ragged(self, bits: bool = False, fill: Any = None, memory: Array | None = None) -> Ragged:
        field = self.field
        if not field.is_ragged_numbers:
            raise error_of(
                Status.WRONG_TYPE,
                f"a column of codec {field.codec or field.kind} is not ragged numbers",
                path=field.path,
            )
        absent = self._absent(fill)
        values, offsets, shapes, ndims = self.chosen.ragged(self.node, bits, memory)
        if absent is not None:  # empty, and otherwise as the first that is there
            first = absent.argmin()
            ndims[absent] = max(1, field.rank if absent[first] else ndims[first])
            shapes[1:, absent] = shapes[1:, first, None]
        return Ragged(values, offsets, shapes if field.rank > 1 else None, ndims)

    def torch(self, device: Any, non_blocking: bool, share: bool, fill: Any) -> Any:
        field, name = self.field, self.field.dtype or ""
        if field.codec == "ndarray":
            absent = self._absent(fill)
            if share:
                array = self.chosen.in_place(self.node, True)
                if array is None or absent is not None:
                    raise error_of(
                        Status.NOT_STORED, "the column does not lie there in one run: copy it out", path=field.path
                    )
                return _torch.shared(array.view(np.int64) if array.dtype.kind == "M" else array, name)
            made = _torch.column(self.chosen, self.node, name, device)
            if absent is not None:
                made[_torch.need().from_numpy(absent)] = fill
            return _torch.sent(made, device, non_blocking)
        if field.is_ragged_numbers:
            ragged, values, send = self.elements(fill, device, non_blocking)
            if len(ragged) and ragged.ndims.min() != ragged.ndims.max():
                text = "rows of different numbers of dimensions are no tensor: they are .numpy()'s, one by one"
                raise error_of(Status.WRONG_TYPE, text, path=field.path)
            return _torch.jagged(ragged, values, send)
        what = field.codec or field.kind
        raise error_of(Status.WRONG_TYPE, f"a column of codec {what} is no tensor", path=field.path)

    def elements(self, fill: Any = None, device: Any = None, non_blocking: bool = False) -> tuple[Ragged, Any, Any]:
        """Ragged rows, their elements as a tensor, and what sends a tensor where that one is."""
        _, count, *_ = self.chosen.size(self.node)
        host = _torch.memory((count,), self.field.dtype or "", device)
        ragged = self.ragged(True, fill, _torch.as_bytes(host))

        def send(tensor: Any) -> Any:
            pinned = tensor if device is None else _torch.memory(tensor.shape, tensor.dtype, device).copy_(tensor)
            return _torch.sent(pinned, device, non_blocking)

        return ragged, _torch.sent(host, device, non_blocking), send


class Selection(Arrow):
    """Some fields and some rows of a view, as `View.select` chooses them; nothing is read before it is asked for."""

    def __init__(self, view: View, fields: Sequence[str] | str | None, rows: Any, scope: int = 0) -> None:
        try:
            self._begin(view, choose(view, patterns_of(fields), rows, scope))
        except NotFound as error:
            if scope:
                raise
            known = view._known(field.path for field in view._top(0))
            words = f"no column has this path or matches this pattern; {known}"
            raise error_of(Status.NOT_FOUND, words, path=error.path) from None

    @classmethod
    def _of(cls, view: View, chosen: _core.Selection) -> Selection:
        selection = cls.__new__(cls)
        selection._begin(view, chosen)
        return selection

    def _begin(self, view: View, chosen: _core.Selection) -> None:
        self.view, self._chosen = view, chosen
        self._leaves = [
            field
            for field in map(view._field, self._chosen.chosen())
            if field.kind == "leaf" and not field.is_attribute
        ]

    view: View
    """Of which it is a part. What a store has not fetched of it is NOT_FETCHED."""

    def _arrow(self) -> tuple[_core.Selection, int | None]:
        return self._chosen, None

    def __len__(self) -> int:
        """How many rows."""
        return self._chosen.rows

    def __repr__(self) -> str:
        return f"<packbuf.Selection: {len(self)} rows, {len(self._leaves)} columns of {self.view!r}>"

    @property
    def paths(self) -> list[str]:
        """Paths of the leaves that were chosen."""
        return [field.path for field in self._leaves]

    def numpy(self, *, fill: Any = None, bits: bool = False, copy: bool = False) -> dict[str, Array]:
        """All chosen leaves as numpy arrays, as `Field.numpy` gives them."""
        return {field.path: Columns(self._chosen, field).numpy(fill, bits, copy) for field in self._leaves}

    def torch(self, device: Any = None, *, non_blocking: bool = False, fill: Any = None) -> dict[str, Any]:
        """All chosen leaves as tensors, on a device by way of pinned memory."""
        return {
            field.path: Columns(self._chosen, field).torch(device, non_blocking, False, fill) for field in self._leaves
        }

    def tolist(self) -> list[dict[str, Any]]:
        """The rows as dicts of the chosen fields."""
        return self._chosen.values(0, len(self))

    def ranges(self, *others: Selection, gap: int = 0, chunks: bool = False) -> list[tuple[int, int]]:
        """The ranges (offset, length) of the data that reading this selection needs, beside head and index.

        They ascend; two with at most `gap` bytes between them are one. Head and index are enough to know them
        (`packbuf.open_head`).

        Args:
            others: further selections of the same view, in the same list.
            gap: what is better read along than left out.
            chunks: whole chunks of 64 KiB, so that `View.verify_fetched` can check all of it.

        >>> import numpy as np, packbuf
        >>> view = packbuf.open(packbuf.pack({"x": np.arange(1000), "y": np.arange(1000) * 0.5}))
        >>> [length for _, length in view.select(["x", "y"], [3, 4, 900]).ranges()]
        [16, 8, 16, 8]
        """
        return _core.select_ranges([chosen._chosen for chosen in (self, *others)], gap, chunks)

    def into(self, out: Mapping[str, Any]) -> None:
        """Copy dense columns into memory of the caller: numpy arrays or CPU tensors (pinned ones too), by path.

        Shape and dtype must be those of the column, but that any integers take integers that fit them all.

        >>> import numpy as np, packbuf
        >>> view = packbuf.open(packbuf.pack({"x": np.arange(8).reshape(4, 2)}))
        >>> out = np.empty((2, 2), np.int32)
        >>> view.select("x", slice(None, None, 3)).into({"x": out})
        >>> out
        array([[0, 1],
               [6, 7]], dtype=int32)
        """
        leaves = {field.path: field for field in self._leaves}
        for path, memory in out.items():
            if path not in leaves:
                raise error_of(Status.NOT_FOUND, "the selection has no such leaf", path=path)
            self._copy(leaves[path], memory)

    def _copy(self, field: Field, memory: Any) -> None:
        rows, _, _, _, shape = self._chosen.size(field.index)
        name = str(memory.dtype).removeprefix("torch.")
        if field.codec != "ndarray":
            raise error_of(Status.WRONG_TYPE, f"a column of codec {field.codec} is not dense", path=field.path)
        if tuple(memory.shape) != (rows, *shape):
            raise error_of(
                Status.INVALID_ARGUMENT,
                f"the column is {(rows, *shape)}, the memory {tuple(memory.shape)}",
                path=field.path,
            )
        if name == field.dtype or _torch.BITS.get(field.dtype or "") == name or name.startswith("datetime64"):
            name = ""
        elif not {name[:3], (field.dtype or "")[:3]} <= {"int", "uin", "boo"}:
            raise error_of(Status.WRONG_TYPE, f"the column is {field.dtype}, the memory {name}", path=field.path)
        self._chosen.copy_into(field.index, memory, name)
