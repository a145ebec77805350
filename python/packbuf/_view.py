"""Reading: `open`, the view it gives, and its fields."""

from __future__ import annotations

import contextlib
import io
import json
import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, overload

from packbuf import _adapt, _core, _exchange, _inspect
from packbuf._arguments import flag, text, word
from packbuf._arguments import limits as limits_of
from packbuf._core import Ref
from packbuf._core import Selection as CoreSelection
from packbuf._core import View as CoreView
from packbuf._errors import NotFound, Status, error_of
from packbuf._select import Array, Columns, Ragged, Selection, choose
from packbuf._table import Table

Verify = Literal["open", "head", "index", "all"]

LEVELS = {"open": 0, "head": 0, "index": 1, "all": 2}
_TENSORS = {None: -1, "numpy": 0, "torch": 1, "shared": 2}
_IMAGES = {None: -1, "media": 0, "pil": 1}
_KINDS = {1: "leaf", 2: "dict", 3: "list"}
_FORMS = {0: "natural", 1: "list", 2: "array", 3: "tensor", 4: "scalar", 5: "bytes", 6: "media"}
_FEW_NAMES = 16
_NULL = "null"


def open(
    source: Any,
    *,
    verify: Verify = "open",
    exact: bool | None = None,
    limits: Mapping[str, int] | None = None,
    tensors: Literal["torch", "shared", "numpy"] | None = None,
    images: Literal["pil", "media"] | None = None,
    allow_pickle: bool = False,
) -> View:
    """Open a packed buffer: anything with the buffer protocol, or the path of a file, which is mapped.

    Args:
        source: the memory, which the view holds on to and must not change, or a path.
        verify: what is checked before the view is there. ``"open"``: the header and the checksum of the head, whatever
            the size; every access is memory-safe all the same. ``"head"``: each record too. ``"index"``: and offsets,
            masks, shapes. ``"all"``: and all data; do this with bytes of a stranger.
        exact: refuse bytes after the packed buffer; by default with files only.
        limits: on what the bytes may ask for, such as ``{"decoded_bytes": 1 << 30}``.
        tensors: what cells that were tensors become; None: torch tensors if torch is imported, else numpy arrays.
            ``"shared"``: torch tensors that lie in the packed buffer, not copies: write to them only if it is yours.
        images: what raw pixels become; None: PIL images if PIL is imported, else `Media`.
        allow_pickle: unpickle what was pickled with ``pack(..., allow_pickle=True)``; else it is an `Opaque`.

    >>> import packbuf
    >>> view = packbuf.open(packbuf.pack({"a": [1, 2], "b": ["x", None]}), verify="all")
    >>> list(view), view.num_rows, view["b"].codec, view["b"].nulls
    (['a', 'b'], 2, 'utf8_ragged', 1)
    """
    if isinstance(source, (str, os.PathLike)):
        source, exact = _mapped(os.fspath(source)), True if exact is None else exact
    core = _core.View(
        source,
        bool(exact),
        limits_of(limits),
        *manner(tensors, images, allow_pickle),
    )
    view = View._of(core)
    if verify != "open":
        view.verify(verify)
    return view


def manner(tensors: str | None, images: str | None, allow_pickle: bool) -> tuple[int, int, bool]:
    """How values are made, as the C++ half wants it."""
    return word(_TENSORS, tensors, "tensors"), word(_IMAGES, images, "images"), flag(allow_pickle, "allow_pickle")


def _mapped(path: str) -> Any:
    with io.open(path, "rb") as file:  # noqa: UP020
        if os.fstat(file.fileno()).st_size == 0:
            return b""  # cannot be mapped, and will be refused as what it is
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


class Schema:
    """The columns of a packed buffer and their types: the text of section 24 of the spec, and its fingerprint."""

    def __init__(self, text: str, fingerprint: str) -> None:
        self.text, self.fingerprint = text, fingerprint

    @property
    def columns(self) -> list[dict[str, Any]]:
        """The lines of the text."""
        return [json.loads(line) for line in self.text.splitlines()]

    def __eq__(self, other: object) -> bool:
        """Whether the columns are the same."""
        return isinstance(other, Schema) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<packbuf.Schema {self.fingerprint}>"


class Field(_exchange.Arrow):
    """A column: a leaf with a codec, or a dict or list node with columns below it.

    ``field[i]`` is a cell as a Python value; slices, lists of indexes and masks give lists of them; a name gives the
    column below of that name.
    """

    def __init__(self, view: View, node: tuple[Any, ...]) -> None:
        self._view = view
        (
            self.index,
            self.path,
            self.name,
            kind,
            self.scope,
            self.codec,
            self.dtype,
            form,
            self.rank,
            self.shape,
            self.rows,
            _,
            self._descendants,
            self.logical_type,
            self.parameter,
            self.is_attribute,
        ) = node
        self.kind: str = _KINDS[kind]
        self.form: str = _FORMS.get(form, "?")

    index: int
    """Of the node in the packed buffer."""
    path: str
    """Escaped, as errors and schemas have it."""
    name: str
    """Its own name; empty below a list."""
    codec: str | None
    """Of a leaf."""
    dtype: str | None
    """Of the elements."""
    rank: int
    """Dimensions of a cell; of ragged numbers the most."""
    shape: tuple[int, ...]
    """Of a cell, of codec ndarray."""
    rows: int
    """How many cells."""
    is_attribute: bool
    """Whether it is an attribute of media (mime, height, ...)."""

    def __len__(self) -> int:
        """How many cells."""
        return self.rows

    def __repr__(self) -> str:
        what = (
            f"{self.codec} {self.dtype}"
            if self.codec == "ndarray" or self.is_ragged_numbers
            else self.codec or self.kind
        )
        return f"<packbuf.Field {self.path}: {what}, {self.rows} rows>"

    @property
    def is_ragged_numbers(self) -> bool:
        """Whether its cells are arrays, lists or tensors of numbers, each with its own shape."""
        return self.codec in {"typed_ragged", "ragged_tensor"}

    @property
    def nullable(self) -> bool:
        """Whether cells may be null or missing: there is a mask."""
        return self.codec == _NULL or self._view._core.has_mask(self.index)

    def valid(self, rows: Any = None) -> Array:
        """A mask: which cells are neither null nor missing."""
        return self._chosen(rows).masks(self.index)[0]

    @property
    def nulls(self) -> int:
        """How many cells are null."""
        if not self.nullable:
            return 0
        valid, missing = self._chosen(None).masks(self.index)
        return int(self.rows - valid.sum() - missing.sum())

    @property
    def missing(self) -> int:
        """How many rows do not have it."""
        return int(self._chosen(None).masks(self.index)[1].sum()) if self.nullable else 0

    @property
    def children(self) -> list[Field]:
        """The columns below a dict or list."""
        found, at = [], self.index + 1
        while at <= self.index + self._descendants:
            child = self._view._field(at)
            found.append(child)
            at += 1 + child._descendants
        return found

    @property
    def metadata(self) -> dict[str, str]:
        """Text of this column."""
        return {key: text for node, key, text in self._view._core.metadata() if node == self.index}

    def _chosen(self, rows: Any) -> _core.Selection:
        if rows is None:
            return self._view._whole(self.scope)
        return choose(self._view, [_pattern(self.path)], rows, self.scope)

    @overload
    def __getitem__(self, rows: str) -> Field: ...
    @overload
    def __getitem__(self, rows: int) -> Any: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int] | Sequence[bool] | Array) -> list[Any]: ...
    def __getitem__(self, rows: Any) -> Any:
        """A cell, cells, or the column below of a name."""
        if isinstance(rows, str):
            for child in self.children:
                if child.name == rows:
                    return child
            return self._view[f"{self.path}.{rows}"]
        if hasattr(rows, "__index__") and tuple(getattr(rows, "shape", ())) == ():
            row = rows.__index__()
            if not -self.rows <= row < self.rows:
                raise error_of(Status.OUT_OF_RANGE, f"row {row} of {self.rows}", path=self.path)
            return self._view._core.read_cells(self.index, row % self.rows, 1)[0]
        if isinstance(rows, slice):
            first, stop, step = rows.indices(self.rows)
            if step == 1:
                return self._view._core.read_cells(self.index, first, max(0, stop - first))
        return self._chosen(rows).cells(self.index)

    def __iter__(self) -> Iterator[Any]:
        """All cells."""
        for first in range(0, self.rows, 1024):
            yield from self._view._core.read_cells(self.index, first, min(1024, self.rows - first))

    def tolist(self) -> list[Any]:
        """All cells as Python values."""
        return self._view._core.read_cells(self.index, 0, self.rows)

    def numpy(self, rows: Any = None, *, fill: Any = None, bits: bool = False, copy: bool = False) -> Array:
        """The column as a numpy array [rows, ...].

        Dense numbers lie in the packed buffer where they can (read-only; the array keeps the view alive) and are copied
        otherwise; ``copy=True`` always copies. Other codecs give an object array with a value for each row; flat
        ragged numbers are faster with `ragged`.

        Args:
            rows: which; a slice keeps the array in place.
            fill: what null and missing cells become; without it they are refused.
            bits: bfloat16 and float8 as integers, instead of ml_dtypes' types.
            copy: a writable array of its own.

        >>> import numpy as np, packbuf
        >>> field = packbuf.open(packbuf.pack({"x": np.arange(6.0).reshape(3, 2)}))["x"]
        >>> field.numpy(slice(None, None, -2))
        array([[4., 5.],
               [0., 1.]])
        """
        self._need_leaf()
        return Columns(self._chosen(rows), self).numpy(fill, bits, copy)

    def ragged(self, rows: Any = None, *, fill: Any = None) -> Ragged:
        """Ragged numbers as they are stored: elements and offsets. With `fill`, absent rows are empty."""
        return Columns(self._chosen(rows), self).ragged(False, fill)

    def torch(
        self, rows: Any = None, *, device: Any = None, non_blocking: bool = False, share: bool = False, fill: Any = None
    ) -> Any:
        """The column as a new torch tensor; ragged numbers as a jagged nested tensor.

        Args:
            rows: which.
            device: where to; by way of pinned memory to CUDA, where ``non_blocking`` lets the copy go on meanwhile.
            non_blocking: as torch has it.
            share: no copy: the tensor lies in the packed buffer, must not be written to, and keeps the view alive.
            fill: what null and missing cells become; without it they are refused.
        """
        self._need_leaf()
        return Columns(self._chosen(rows), self).torch(device, non_blocking, share, fill)

    def _arrow(self) -> tuple[_core.Selection, int | None]:
        return self._chosen(None), self.index

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """Dense numbers, or the elements of ragged ones end to end, for ``np.from_dlpack`` and ``torch.from_dlpack``.

        Lent read-only where they lie there so, else copied.

        >>> import numpy as np, packbuf
        >>> np.from_dlpack(packbuf.open(packbuf.pack({"ids": [[1, 2, 3], [4]]}))["ids"])
        array([1, 2, 3, 4])
        """
        self._need_leaf()
        chosen = self._chosen(None)
        return _exchange.dlpack(chosen, self.index, stream=stream, max_version=max_version, device=dl_device, copy=copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        """The processor."""
        return (1, 0)

    def _need_leaf(self) -> None:
        if self.kind != "leaf":
            raise error_of(Status.WRONG_TYPE, f"a {self.kind} is no array: take the columns below it", path=self.path)


def _pattern(path: str) -> str:
    """An exact path as a pattern."""
    return ("\\!" + path[1:] if path.startswith("!") else path).replace("*", "\\*")


class View(_exchange.Arrow, Mapping[str, Field]):
    """An open packed buffer: a mapping of its fields.

    ``view["meta"]`` is a field by name, ``view["meta.step"]`` one by path. The view keeps the memory alive and reads it
    whenever it is asked for something; any number of threads may read, and a fork may go on with it.
    """

    _core: CoreView
    _wholes: list[CoreSelection | None]
    ref: Ref | None = None
    """Of a view that came from a store: what it is."""

    def __init__(self) -> None:
        raise error_of(Status.INVALID_ARGUMENT, "views come from packbuf.open, or from a store")

    @classmethod
    def _of(cls, core: CoreView) -> View:
        view = cls.__new__(cls)
        view._core = core
        view._wholes = [None, None]
        return view

    def _whole(self, scope: int) -> CoreSelection:
        """All rows of all fields or batch values: kept, since a selection of its own for a field looks at all nodes."""
        whole = self._wholes[scope]
        if whole is None:
            whole = self._wholes[scope] = _core.Selection(self._core, scope, [], None)
        return whole

    def _field(self, index: int) -> Field:
        return Field(self, self._core.node(index))

    # ---- the mapping ----

    def __getitem__(self, name: str) -> Field:
        """A field by its name, or any column by its path."""
        if not isinstance(name, str):
            raise error_of(Status.WRONG_TYPE, "a field is found by its name; rows by view.rows(first, stop)")
        escaped = name.replace("\\", "\\\\").replace(".", "\\.").replace("[", "\\[")
        for path in dict.fromkeys((escaped, name)):
            with contextlib.suppress(NotFound):
                return Field(self, self._core.find(0, path))
        for field in self._top(0) if "\0" in name else ():  # which no path has, but a stranger's field may
            if field.name == name:
                return field
        raise error_of(Status.NOT_FOUND, f"no column has this path; {self._known(self)}", path=name)

    def _known(self, names: Iterable[str]) -> str:
        few = len(self) <= _FEW_NAMES  # of many `in` and `get` would pay
        return f"the fields are {', '.join(one[:64] for one in names)}" if few else f"list(view) has {len(self)} fields"

    def __iter__(self) -> Iterator[str]:
        """Names of the fields, in order."""
        return (field.name for field in self._top(0))

    def __len__(self) -> int:
        """How many fields; `num_rows` is how many rows."""
        return self._core.counts[1]

    def _top(self, scope: int) -> list[Field]:
        found, at = [], 0
        while at < self._core.counts[0]:
            field = self._field(at)
            if field.scope == scope:
                found.append(field)
            at += 1 + field._descendants
        return found

    # ---- what there is ----

    @property
    def num_rows(self) -> int:
        """How many rows."""
        return self._core.rows

    @property
    def nbytes(self) -> int:
        """Bytes of the packed buffer."""
        return self._core.nbytes

    @property
    def batch_values(self) -> dict[str, Any]:
        """Values of the batch as a whole."""
        return self._core.read_batch_values()

    @property
    def batch_value_names(self) -> list[str]:
        """Their names, in order; nothing of their data is read."""
        return [field.name for field in self._top(1)]

    @property
    def metadata(self) -> dict[str, str]:
        """Text of the batch; that of a field is `Field.metadata`."""
        return {key: text for node, key, text in self._core.metadata() if node is None}

    @property
    def columns(self) -> list[Field]:
        """All columns, parents before their children."""
        return [field for field in map(self._field, range(self._core.counts[0])) if field.scope == 0]

    # ---- reading ----

    def rows(self, first: int | None = None, stop: int | None = None) -> list[dict[str, Any]]:
        """Rows as dicts, as ``list[first:stop]`` would have them.

        >>> import packbuf
        >>> packbuf.open(packbuf.pack([{"a": 1}, {"a": 2}, {"b": 3}])).rows(-2)
        [{'a': 2}, {'b': 3}]
        """
        begin, end, _ = slice(first, stop).indices(self.num_rows)
        return self._core.read_rows(begin, max(0, end - begin))

    def select(self, fields: Sequence[str] | str | None = None, rows: Any = None) -> Selection:
        r"""Choose fields by path or pattern, and rows.

        A pattern is an escaped path in which ``*`` stands for any characters of a name, ``[*]`` for any item and ``**``
        for any steps; ``"!pattern"`` takes away, and ``\!name`` is a name that begins so.

        >>> import packbuf
        >>> view = packbuf.open(packbuf.pack([{"a": i, "m": {"x": -i, "y": "t"}} for i in range(5)]))
        >>> view.select(["m.*"], slice(None, None, 2)).numpy()["m.x"]
        array([ 0, -2, -4])
        >>> view.select("!m.y", [4, 0]).tolist()
        [{'a': 4, 'm': {'x': -4}}, {'a': 0, 'm': {'x': 0}}]
        """
        return Selection(self, fields, rows)

    def select_values(self, names: Sequence[str] | str | None = None) -> Selection:
        """Choose batch values, which are one row, by path or pattern, for `Selection.ranges` and `Selection.tolist`.

        >>> import packbuf
        >>> view = packbuf.open(packbuf.pack({"a": [1]}, batch_values={"step": 7, "name": "x"}))
        >>> view.select_values("step").tolist()
        [{'step': 7}]
        """
        return Selection(self, names, None, scope=1)

    def fetched(self, ranges: Sequence[tuple[int, int]], memory: Any) -> View:
        """The same, of `open_head`, with these ranges of the packed buffer, which lie in `memory` one after the other.

        They ascend. The new view has no other ranges, and keeps the memory alive.
        """
        return View._of(self._core.fetched(self._core, memory, list(ranges)))

    def verify_fetched(self) -> int:
        """Check the data that was fetched by the checksums of its chunks of 64 KiB; returns how many chunks that were.

        Only chunks that were fetched whole can be checked (``ranges(chunks=True)``). Checks the index first.
        """
        self._core.verify(LEVELS["index"])
        return self._core.verify_fetched()

    def _arrow(self) -> tuple[CoreSelection, int | None]:
        return self._whole(0), None

    def verify(self, level: Verify = "all") -> None:
        """Check the records of the head, also the index, or everything; raises `Malformed` with rule and offset."""
        known = word(LEVELS, level, "verify")
        if level != "open":
            self._core.verify(known)

    @property
    def row_order_token(self) -> bytes:
        """The 16 bytes that fragments of the same rows in the same order share; zeros: none was given."""
        return self._core.row_order_token

    def schema(self) -> Schema:
        """The columns and their types, as text and as a fingerprint.

        >>> import packbuf
        >>> a, b = (packbuf.open(packbuf.pack({"x": values})).schema() for values in ([1, 2], [7]))
        >>> a == b, a.fingerprint == b.fingerprint
        (True, True)
        """
        return Schema(self._core.schema_text(), self._core.fingerprint().hex())

    def expect(self, schema: Schema | str) -> None:
        """Refuse (SCHEMA_MISMATCH) a batch whose columns are not those of a schema, with the first that differs."""
        self._core.expect(schema.text if isinstance(schema, Schema) else text(schema, "a schema"))

    def detach(self) -> View:
        """The same over a copy of the bytes, for memory that will be used again."""
        copy = _core.Packed.copy_of(self._bytes())
        return View._of(self._core.reopened(copy))

    def _bytes(self) -> memoryview:
        if self._core.partial:
            raise error_of(Status.NOT_FETCHED, "only ranges of the packed buffer are here")
        return memoryview(self._core)[: self.nbytes]

    # ---- as batches of other packages ----

    def tensordict(self, rows: Any = None, *, device: Any = None, share: bool = False) -> Any:
        """A `tensordict.TensorDict`: one that was packed comes back as it was.

        Of other batches, columns of numbers become tensors, ragged ones jagged nested tensors, the rest non-tensor
        data. `share` leaves dense columns in the packed buffer where they can be, as `Field.torch` has it.
        """
        return _adapt.tensordict(self, _adapt.How(rows, device, share))

    def dataproto(self, rows: Any = None, *, device: Any = None, share: bool = False) -> Any:
        """verl's `DataProto`: one that was packed comes back as it was.

        Of other batches, columns of numbers become its tensors, the rest non-tensor data, batch values its meta_info.
        """
        return _adapt.data_proto(self, _adapt.How(rows, device, share))

    # ---- for humans ----

    def inspect(self) -> Table:
        """A table of the columns: codec, dtype, shape, how they are stored, raw and stored bytes."""
        return _inspect.table(self)

    def _repr_html_(self) -> str:
        return self.inspect()._repr_html_()

    def __repr__(self) -> str:
        return f"<packbuf.View: {self.num_rows} rows, {len(self)} fields, {self.nbytes} bytes>"

    def __eq__(self, other: object) -> bool:
        """Views are equal when they are the same."""
        return self is other

    def __hash__(self) -> int:
        return id(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles as a copy of the bytes."""
        return open, (bytes(self._bytes()),)
