"""Batches of other packages: TensorDict and verl's DataProto, as fields and back.

On the way in they are known by their shape and nothing is imported. What fields and batch values do not say (which of
them were non-tensor data, batch sizes, layouts) is kept as metadata, `packbuf.container`, so that they come back as
they were.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from packbuf import _torch
from packbuf._errors import Error, Status, error_of
from packbuf._exchange import Arrow
from packbuf._select import Columns, Ragged

if TYPE_CHECKING:
    from packbuf._view import Field, View

CONTAINER = "packbuf.container"


class Taken(NamedTuple):
    """What a batch is made of."""

    fields: Mapping[Any, Any] | list[Any] | tuple[Any, ...]
    """Columns by name, or rows."""
    values: Mapping[str, Any]
    """Batch values that it brings along."""
    metadata: dict[str, str]
    """What it takes to make it again."""
    rows: int | None = None
    """How many, where that is known without a column."""


# ---- on the way in ----


def fields_of(batch: Any) -> Taken:
    """The fields (or rows) of a batch, and the batch values that it brings along."""
    if isinstance(batch, (list, tuple, dict)) and not hasattr(batch, "batch_size"):
        return Taken(batch, {}, {})
    if _is_data_proto(batch):
        return _take_data_proto(batch)
    if _is_tensordict(batch):  # these are mappings too
        taking = _Taking()
        plan = {"kind": "TensorDict", "batch": taking.tensordict(batch, "")}
        return Taken(taking.fields, taking.values, {CONTAINER: _text(plan)}, _rows(batch))
    if isinstance(batch, Arrow):  # by way of Arrow it would lose what is missing, and its batch values
        words = "a view, or part of one, is no batch: give its .tolist(), or view.tensordict(rows), which keeps dtypes"
        raise error_of(Status.WRONG_TYPE, words)
    if is_arrow(batch):
        return Taken({}, {}, {})
    if isinstance(batch, Mapping):
        return Taken(batch, {}, {})
    name = type(batch).__name__
    raise error_of(Status.WRONG_TYPE, f"a batch is a mapping of fields or a list of dicts, not {name}")


def is_arrow(batch: Any) -> bool:
    """Whether it is a table or record batch of Arrow, whose columns are read without Python."""
    offered = hasattr(batch, "__arrow_c_array__") or hasattr(batch, "__arrow_c_stream__")
    return offered and not isinstance(batch, (Mapping, list, tuple))


def _is_tensordict(batch: Any) -> bool:
    return hasattr(batch, "batch_size") and hasattr(batch, "items") and hasattr(batch, "is_empty")


def _is_data_proto(batch: Any) -> bool:
    return all(hasattr(batch, name) for name in ("batch", "non_tensor_batch", "meta_info"))


def _rows(batch: Any) -> int | None:
    return int(batch.batch_size[0]) if len(batch.batch_size) else None


def _is_a(value: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(value).__mro__)


def _text(plan: Any) -> str:
    return json.dumps(plan, separators=(",", ":"))


def _take_data_proto(batch: Any) -> Taken:
    taking = _Taking()
    plan: dict[str, Any] = {"kind": "DataProto", "non_tensor": []}
    plan["batch"] = None if batch.batch is None else taking.tensordict(batch.batch, "")
    for name, column in (batch.non_tensor_batch or {}).items():
        taking.put(taking.fields, name, column)
        text = column.dtype.str if column.dtype.kind in "OUS" else None
        plan["non_tensor"].append([name, text, list(column.shape[1:])])
    for name, value in (batch.meta_info or {}).items():
        taking.put(taking.values, name, value)
    rows = None if batch.batch is None else _rows(batch.batch)
    return Taken(taking.fields, taking.values, {CONTAINER: _text(plan)}, rows)


class _Taking:
    """Collects columns; those of a TensorDict within another have its name and a dot before theirs."""

    def __init__(self) -> None:
        self.fields: dict[Any, Any] = {}
        self.values: dict[Any, Any] = {}

    @staticmethod
    def put(into: dict[Any, Any], name: Any, column: Any) -> None:
        if name in into:
            raise error_of(Status.DUPLICATE_NAME, f"two columns of the batch are named {name!r}")
        into[name] = column

    def tensordict(self, batch: Any, prefix: str) -> dict[str, Any]:
        """Adds its columns; returns what they do not say."""
        size = [int(length) for length in batch.batch_size]
        columns = [[name, *self._column(prefix + name, column, bool(size))] for name, column in _items(batch)]
        return {"batch_size": size, "columns": columns}

    def _column(self, name: str, column: Any, has_rows: bool) -> list[Any]:
        if _is_a(column, "NonTensorDataBase"):
            self.put(self.values, name, column.data)
            return ["value", [int(length) for length in column.batch_size]]
        if _is_a(column, "NonTensorStack"):
            self.put(self.fields, name, column.tolist())
            return ["stack"]
        if _is_tensordict(column):
            return ["tensordict", self.tensordict(column, name + ".")]
        self.put(self.fields if has_rows else self.values, name, column)
        if not getattr(column, "is_nested", False):
            return ["tensor"]
        layout, dtype = (str(word).removeprefix("torch.") for word in (column.layout, column.dtype))
        if layout == "jagged" and getattr(column, "_ragged_idx", 0) == 1:
            return ["jagged", [int(length) for length in column.values().shape[1:]]]
        return ["nested", layout, dtype]


def _items(batch: Any) -> Iterator[tuple[str, Any]]:
    try:
        yield from batch.items()
    except RuntimeError as error:  # a lazy stack of unequal rows
        text = f"a TensorDict whose rows do not stack: make its columns jagged nested tensors ({error})"
        raise error_of(Status.UNENCODABLE, text) from None


# ---- on the way out ----


class How(NamedTuple):
    """Which rows become tensors, and where."""

    rows: Any
    device: Any
    share: bool


def tensordict(view: View, how: How) -> Any:
    """The view as a TensorDict."""
    plan = _plan(view)
    if plan is None:
        return _anything(view, how)
    return _checked(lambda: _Making(view, how).tensordict(plan["batch"], ""))


def data_proto(view: View, how: How) -> Any:
    """The view as a DataProto."""
    from verl.protocol import DataProto  # noqa: PLC0415

    def made() -> Any:
        plan = _plan(view) or _proto_plan(view)
        making = _Making(view, how)
        batch = None if plan["batch"] is None else making.tensordict(plan["batch"], "")
        columns = {name: making.non_tensor(*entry) for entry in plan.get("non_tensor", ()) for name in entry[:1]}
        return DataProto(batch=batch, non_tensor_batch=columns, meta_info=making.values)

    return _checked(made)


def _checked(make: Callable[[], Any]) -> Any:
    """The metadata may come from anybody: what it says is tried, not believed."""
    try:
        return make()
    except Error:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError, OverflowError) as error:
        raise error_of(Status.WRONG_TYPE, f"the columns are not what {CONTAINER} says: {error}") from error


def _plan(view: View) -> dict[str, Any] | None:
    """What the metadata says it was; None: nothing."""
    text = view.metadata.get(CONTAINER)
    if text is None:
        return None
    try:
        plan = json.loads(text)
    except (ValueError, RecursionError):
        plan = None
    if not isinstance(plan, dict) or "batch" not in plan:
        raise error_of(Status.WRONG_TYPE, f"the metadata {CONTAINER} is not what packbuf writes")
    return plan


def _is_tensor(field: Field) -> bool:
    """Whether a column is a tensor by nature: numbers without nulls."""
    if field.kind != "leaf" or field.logical_type or field.nulls or field.missing:
        return False
    return field.codec == "ndarray" or (field.is_ragged_numbers and bool((field.ragged().ndims > 0).all()))


def _proto_plan(view: View) -> dict[str, Any]:
    """Of a batch that was no DataProto: numbers are its tensors, the rest is non-tensor data."""
    numbers = [field for field in map(view.__getitem__, view) if _is_tensor(field)]
    tensors = [[field.name, "tensor" if field.codec == "ndarray" else "jagged"] for field in numbers]
    named = {name for name, *_ in tensors}
    batch = {"batch_size": [view.num_rows], "columns": tensors} if tensors else None
    return {"batch": batch, "non_tensor": [[name, "|O", []] for name in view if name not in named]}


def _anything(view: View, how: How) -> Any:
    """A TensorDict of a batch that was none."""
    plan = _proto_plan(view)
    columns = (plan["batch"] or {"columns": []})["columns"] + [[name, "stack"] for name, *_ in plan["non_tensor"]]
    order = {name: at for at, name in enumerate(view)}
    columns.sort(key=lambda column: order[column[0]])
    values = [[name, "value", [view.num_rows]] for name in view.batch_values]
    return _Making(view, how).tensordict({"batch_size": [view.num_rows], "columns": columns + values}, "")


def _lengths(numbers: Any) -> list[int]:
    if not isinstance(numbers, list) or not all(type(number) is int and 0 <= number < 1 << 63 for number in numbers):
        raise ValueError("lengths are integers from 0")
    return numbers


class _Making:
    """Makes columns again."""

    def __init__(self, view: View, how: How) -> None:
        self._view, self._how = view, how
        self.values = view.batch_values
        """Those that no TensorDict has taken yet."""

    def tensordict(self, plan: dict[str, Any], prefix: str) -> Any:
        from tensordict import TensorDict  # noqa: PLC0415

        size = _lengths(plan["batch_size"])
        columns = {}
        for name, kind, *more in plan["columns"]:
            columns[name] = self._column(prefix + name, kind, more, size)
        return TensorDict(columns, batch_size=self._size(size), device=self._how.device)

    def _size(self, size: list[int]) -> list[int]:
        """A batch size, of the rows that were asked for."""
        if not size or self._how.rows is None:
            return size
        return [len(self._view.select([], self._how.rows)), *size[1:]]

    def _column(self, name: str, kind: str, more: list[Any], size: list[int]) -> Any:
        if kind == "tensordict":
            return self.tensordict(more[0], name + ".")
        if kind == "value":
            from tensordict import NonTensorData  # noqa: PLC0415

            return NonTensorData(self.values.pop(name), batch_size=self._size(_lengths(more[0])))
        if not size:
            return self.values.pop(name)
        field = self._view[name]
        if kind == "stack":
            return _stack(self._cells(field), len(size))
        if kind == "tensor":
            return self._tensor(field)
        if kind == "jagged":
            tail = tuple(_lengths(more[0])) if more else None
            return _torch.jagged(*self._elements(field), tail)
        if kind == "nested":
            return _torch.nested(*self._elements(field)[:2], *more)
        raise error_of(Status.WRONG_TYPE, f"{kind!r} is no kind of column", path=field.path)

    def _cells(self, field: Field) -> list[Any]:
        cells: list[Any] = field[slice(None) if self._how.rows is None else self._how.rows]
        return cells

    def _elements(self, field: Field) -> tuple[Ragged, Any, Any]:
        return Columns(field._chosen(self._how.rows), field).elements(device=self._how.device)

    def _tensor(self, field: Field) -> Any:
        if self._how.share:
            try:
                return field.torch(self._how.rows, share=True)
            except Error as error:
                if error.code != Status.NOT_STORED:
                    raise
        return field.torch(self._how.rows, device=self._how.device)

    def non_tensor(self, name: str, dtype: str | None, tail: list[int]) -> np.ndarray[Any, Any]:
        """A column of DataProto.non_tensor_batch."""
        field = self._view[name]
        if dtype is None:
            return field.numpy(self._how.rows, copy=True)
        cells = self._cells(field)
        if np.dtype(dtype).kind in "US":
            return np.array(cells, dtype=dtype).reshape(len(cells), *tail)
        made = np.empty((len(cells), *tail), dtype=object)
        for place in product(*map(range, made.shape)):  # one by one: numpy would look into lists and arrays
            cell: Any = cells
            for index in place:
                cell = cell[index]
            made[place] = cell
        return made


def _stack(cells: list[Any], dimensions: int) -> Any:
    from tensordict import NonTensorData, NonTensorStack  # noqa: PLC0415

    if dimensions > 1:
        return NonTensorStack(*(_stack(cell, dimensions - 1) for cell in cells))
    return NonTensorStack(*map(NonTensorData, cells))
