"""Batches of other packages as fields: TensorDict, verl's DataProto. Known by their shape: neither is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packbuf._errors import Status, error_of


def fields_of(batch: Any) -> tuple[Mapping[Any, Any] | list[Any] | tuple[Any, ...], Mapping[str, Any]]:
    """The fields (or rows) of a batch, and the batch values that it brings along."""
    if isinstance(batch, (list, tuple)):
        return batch, {}
    if isinstance(batch, Mapping):
        return batch, {}
    if _is_data_proto(batch):
        fields = dict(_tensordict_fields(batch.batch)) if batch.batch is not None else {}
        return {**fields, **batch.non_tensor_batch}, dict(batch.meta_info)
    if _is_tensordict(batch):
        return dict(_tensordict_fields(batch)), {}
    if is_arrow(batch):
        return {}, {}
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


def _tensordict_fields(batch: Any) -> Any:
    """(name, column) pairs; a nested TensorDict becomes a column of dicts, with the tensors of each row."""
    rows = batch.batch_size[0] if len(batch.batch_size) else 0
    for name, column in batch.items():
        if hasattr(column, "tolist") and type(column).__name__ in {"NonTensorStack", "NonTensorData"}:
            values = column.tolist()
            yield name, values if isinstance(values, list) and len(values) == rows else [values] * rows
        elif _is_tensordict(column):
            inner = dict(_tensordict_fields(column))
            yield name, [{key: values[row] for key, values in inner.items()} for row in range(rows)]
        else:
            yield name, column
