"""What a batch is made of: columns of two sections, `batch` (tensors) and `non_tensor_batch` (values), and `meta_info`.

Takes apart a flat dict, a TensorDict, a DataProto or a dict of its three sections, and puts together what was asked
for. What a column was (a torch tensor, a numpy array, a list of values) is noted, so that it comes back as that.

May use: numpy, packbuf's errors; torch and tensordict once the caller has imported them. Must not know: stores, refs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from packbuf import Column, Error, Status, WrongType

Form = Literal["dict", "tensordict", "dataproto"]
SECTIONS = ("batch", "non_tensor_batch", "meta_info")
BATCH, VALUES, META = SECTIONS
FORMS = ("dict", "tensordict", "dataproto")
KINDS = ("torch", "numpy", "values", "stack")


@dataclass(frozen=True)
class FieldSchema:
    """What is asked for of a column; the rest is inferred."""

    codec: str = "auto"
    """As `packbuf.infer` names them."""
    dtype: str = ""
    """Of its numbers; a number that is not exact in it is refused."""
    nullable: bool = True
    """Whether it may have nulls."""
    section: str | None = None
    """Where the column must be, or, of a flat dict, shall be."""

    def column(self) -> Column:
        """The same in packbuf's words."""
        column = Column() if self.nullable else Column(not_nullable=True)
        if self.codec != "auto":
            column["codec"] = self.codec
        if self.dtype:
            column["dtype"] = self.dtype
        return column


@dataclass
class Parts:
    """A batch taken apart."""

    form: Form
    columns: dict[str, Any] = field(default_factory=dict)
    """As packbuf takes them, by name."""
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(section, kind) of each."""
    meta: dict[str, Any] = field(default_factory=dict)

    def add(self, section: str, columns: Iterable[tuple[str, Any]]) -> None:
        """Add columns of a section."""
        for name, column in columns:
            if not isinstance(name, str):
                raise WrongType(Status.WRONG_TYPE, f"columns are named by str, not {type(name).__name__}")
            if name in self.columns:
                raise Error(
                    Status.DUPLICATE_NAME, "sections overlap: the column is in batch and non_tensor_batch", path=name
                )
            kind, self.columns[name] = _column(name, column)
            self.places[name] = section, kind

    def has(self, name: str, schema: FieldSchema) -> bool:
        """Whether there is a column that a schema of this name is about."""
        return name in self.places and schema.section in {None, self.places[name][0]}


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor; torch is never imported for that."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def take_apart(data: Any, schemas: Mapping[str, FieldSchema] | None = None, flat: bool = False) -> Parts:
    """The columns and meta_info of a batch. `flat`: the data are a flat dict even if they look like three sections."""
    schemas = schemas or {}
    for name, schema in schemas.items():
        if schema.section not in {None, *SECTIONS}:
            raise Error(Status.INVALID_ARGUMENT, f"there is no section {schema.section!r}", path=name)
    if _is_tensordict(data):
        parts = _of_sections("tensordict", data, None, None)
    elif isinstance(data, Mapping) and (flat or not _has_sections(data)):
        parts = _of_flat(data, schemas)
    elif isinstance(data, Mapping):
        parts = _of_sections("dataproto", data.get(BATCH), data.get(VALUES), data.get(META))
    elif all(hasattr(data, name) for name in SECTIONS):
        parts = _of_sections("dataproto", data.batch, data.non_tensor_batch, data.meta_info)
    else:
        raise WrongType(Status.WRONG_TYPE, f"a batch is a dict, a TensorDict or a DataProto, not {type(data).__name__}")
    for name, schema in schemas.items():
        found = {parts.places[name][0]} if name in parts.places else set()
        found |= {META} if name in parts.meta else set()
        if found and schema.section is not None and schema.section not in found:
            where = " and ".join(sorted(found))
            raise Error(Status.INVALID_ARGUMENT, f"its schema says {schema.section}, but it is in {where}", path=name)
        if found and not parts.has(name, schema) and schema.column():
            text = "of meta_info a schema says the section alone: values are kept as they are"
            raise Error(Status.INVALID_ARGUMENT, text, path=name)
    return parts


def refuse_unknown(schemas: Mapping[str, FieldSchema] | None, batches: Sequence[Parts]) -> None:
    """A misspelt name in a schema would leave a column to inference."""
    for name in schemas or ():
        if not any(name in batch.places or name in batch.meta for batch in batches):
            raise Error(Status.INVALID_ARGUMENT, "the schema names what the batch does not have", path=name)


def _has_sections(data: Mapping[Any, Any]) -> bool:
    return bool(data) and set(data) <= set(SECTIONS) and all(v is None or hasattr(v, "items") for v in data.values())


def _is_tensordict(value: Any) -> bool:
    return hasattr(value, "batch_size") and hasattr(value, "items") and hasattr(value, "is_empty")


def _of_sections(form: Form, batch: Any, values: Any, meta: Any) -> Parts:
    parts = Parts(form, meta=dict(meta or {}))
    if batch is not None:
        parts.add(BATCH, _tensordict_columns(batch) if _is_tensordict(batch) else batch.items())
    parts.add(VALUES, (values or {}).items())
    return parts


def _tensordict_columns(batch: Any) -> Iterable[tuple[str, Any]]:
    rows = batch.batch_size[0] if len(batch.batch_size) else 0
    for name, column in batch.items():
        is_values = type(column).__name__ in {"NonTensorStack", "NonTensorData"}
        if _is_tensordict(column) and not is_values:
            text = "a TensorDict within a TensorDict: flatten_keys() first, unflatten_keys() afterwards"
            raise WrongType(Status.WRONG_TYPE, text, path=str(name))
        if is_values:
            values = column.tolist()
            yield name, _Stack(values if isinstance(values, list) and len(values) == rows else [values] * rows)
        else:
            yield name, column


class _Stack(list[Any]):
    """Values of a NonTensorStack."""


def _column(name: str, column: Any) -> tuple[str, Any]:
    """What a column is, and what packbuf is given for it."""
    if is_tensor(column):
        return "torch", column
    if isinstance(column, np.ndarray):
        return ("numpy" if column.dtype.kind in "biufcmMV" else "values"), column
    if isinstance(column, _Stack):
        return "stack", list(column)
    if is_list(column):
        return "values", list(column)
    raise WrongType(
        Status.WRONG_TYPE, f"a column is a tensor, an array or a list, not {type(column).__name__}", path=name
    )


# ---- flat dicts: which entries are columns ----


def is_list(value: Any) -> bool:
    """Whether it is a sequence of values."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray, memoryview))


def _is_dense(value: Any) -> bool:
    return (is_tensor(value) or (isinstance(value, np.ndarray) and value.dtype.kind != "O")) and value.ndim > 0


def _is_sized(value: Any) -> bool:
    return _is_dense(value) or is_list(value) or (isinstance(value, np.ndarray) and value.ndim > 0)


def _of_flat(data: Mapping[Any, Any], schemas: Mapping[str, FieldSchema]) -> Parts:
    """Entries with a value for each row are columns, others meta_info; schemas that name a section decide."""
    named = {name: schemas[name].section for name in data if name in schemas and schemas[name].section}
    open_ = {name: value for name, value in data.items() if name not in named}
    rows = _row_count([data[name] for name, section in named.items() if section != META])
    if rows is None:
        rows = _row_count([value for value in open_.values() if _is_dense(value)])
    if rows is None:
        rows = _row_count([value for value in open_.values() if _is_sized(value)])
    parts = Parts("dict")
    for name, value in data.items():
        section = named.get(name) or (
            _is_sized(value) and len(value) == rows and (BATCH if _is_dense(value) else VALUES)
        )
        if section == META or not section:
            parts.meta[name] = value
        else:
            parts.add(section, [(name, value)])
    return parts


def _row_count(columns: list[Any]) -> int | None:
    try:
        sizes = {len(column) for column in columns}
    except TypeError:
        raise WrongType(Status.WRONG_TYPE, "a column has a length") from None
    if len(sizes) > 1:
        text = f"inconsistent batch sizes {sorted(sizes)}: FieldSchema(section=) says which are columns"
        raise Error(Status.ROW_COUNT, text)
    return sizes.pop() if sizes else None


# ---- putting together ----


def object_array(values: Sequence[Any]) -> np.ndarray[Any, Any]:
    """One value an element, whatever the values are."""
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def put_together(
    form: Form, rows: int, columns: dict[str, dict[str, Any]], meta: dict[str, Any], data_cls: Callable[..., Any] | None
) -> Any:
    """The result of a get, from columns by section: values are lists."""
    if form == "dict":
        return _flat(columns, meta)
    if form == "tensordict":
        return _tensordict(rows, columns[BATCH])
    values = {
        name: object_array(cells) if isinstance(cells, list) else cells for name, cells in columns[VALUES].items()
    }
    if data_cls in {None, dict}:
        return {BATCH: columns[BATCH], VALUES: values, META: meta}
    make = getattr(data_cls, "from_dict", None)
    try:
        if callable(make):
            return make(columns[BATCH], values, meta_info=meta)
        return data_cls(batch=columns[BATCH], non_tensor_batch=values, meta_info=meta)
    except TypeError as error:
        name = getattr(data_cls, "__name__", data_cls)
        raise WrongType(Status.WRONG_TYPE, f"{name} is not made from batch, non_tensor_batch and meta_info") from error


def _flat(columns: dict[str, dict[str, Any]], meta: dict[str, Any]) -> dict[str, Any]:
    flat = {**columns[BATCH], **columns[VALUES]}
    both = sorted(flat.keys() & meta.keys())
    if both:
        raise Error(Status.DUPLICATE_NAME, f"Duplicate keys in columns and meta_info: {both}", path=both[0])
    return {**flat, **meta}


def _tensordict(rows: int, columns: dict[str, Any]) -> Any:
    from tensordict import NonTensorStack, TensorDict  # noqa: PLC0415

    made = {name: NonTensorStack(*cells) if isinstance(cells, list) else cells for name, cells in columns.items()}
    return TensorDict(made, batch_size=[rows])
