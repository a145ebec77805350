"""What .npy, .npz and safetensors files share: memory that is read, arrays over it, and the columns of a view.

Ragged columns have no form of their own there: `name` has the elements of all rows, `name.offsets` where rows begin.
"""

from __future__ import annotations

import io
import math
import mmap
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from packbuf import _torch
from packbuf._errors import Status, error_of
from packbuf._select import Array, Columns, Ragged

if TYPE_CHECKING:
    from packbuf._view import View

OFFSETS = ".offsets"
_MOST_BYTES = (1 << 63) - 1
_MOST_DIMENSIONS = 32


class Arrays(dict[str, Any]):
    """Columns of a file by name, as `pack` takes them, with the text that the file has about itself."""

    metadata: Mapping[str, str]

    def __init__(self, columns: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(columns)
        self.metadata = dict(metadata or {})


# ---- reading ----


def memory_of(source: Any) -> memoryview:
    """The bytes of a file, mapped so that what is written to them stays in this process; or those of a bytes-like."""
    if not isinstance(source, (str, os.PathLike)):
        return memoryview(source).cast("B") if memoryview(source).nbytes else memoryview(b"")
    with io.open(os.fspath(source), "rb") as file:  # noqa: UP020
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def size_of(shape: Any, item_size: int, name: str) -> int:
    """Bytes of an array, whatever a file says of its shape."""
    lengths = shape if isinstance(shape, (list, tuple)) else None
    if lengths is None or not all(type(length) is int and 0 <= length <= _MOST_BYTES for length in lengths):
        raise error_of(Status.BAD_SHAPE, "a shape is a list of lengths", path=name)
    if len(lengths) > _MOST_DIMENSIONS:
        raise error_of(Status.BAD_SHAPE, f"{len(lengths)} dimensions", path=name)
    if math.prod(length or 1 for length in lengths) * item_size > _MOST_BYTES:
        raise error_of(Status.BAD_SHAPE, "an array of more than 2^63 bytes", path=name)
    return math.prod(lengths) * item_size


def array_over(memory: memoryview, dtype: np.dtype[Any], shape: Any, *, fortran: bool = False) -> Array:
    """An array in place, read-only; memory and shape have been compared."""
    flat: Array = np.frombuffer(memory, np.uint8) if memory.nbytes else np.empty(0, np.uint8)
    if dtype == np.bool_ and flat.size and flat.max() > 1:
        raise error_of(Status.BAD_BOOL, "a bool that is neither 0 nor 1")
    made = flat.view(dtype) if flat.size else np.empty(0, dtype)
    made = made.reshape(tuple(shape), order="F" if fortran else "C")
    made.flags.writeable = False
    return made


def paired(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of which some were `name` and `name.offsets`. Offsets that fit nothing are arrays like any."""
    columns: dict[str, Any] = {}
    both = [name for name in arrays if name + OFFSETS in arrays]
    taken = {name + OFFSETS for name in both if _fit(arrays[name], arrays[name + OFFSETS])}
    for name, array in arrays.items():
        if name in taken:
            continue
        columns[name] = _ragged(array, arrays[name + OFFSETS]) if name + OFFSETS in taken else array
    return columns


def _fit(array: Any, offsets: Any) -> bool:
    if array.ndim < 1 or offsets.ndim != 1 or str(offsets.dtype).removeprefix("torch.") != "int64" or not len(offsets):
        return False
    ends = offsets.numpy() if _torch.is_tensor(offsets) else offsets
    return bool(ends[0] == 0 and ends[-1] == len(array) and (ends[1:] >= ends[:-1]).all())


def _ragged(array: Any, offsets: Any) -> Any:
    if _torch.is_tensor(array):
        return _torch.need().nested.nested_tensor_from_jagged(array, offsets)
    return Ragged.of(array, offsets)


# ---- writing ----


class Column(NamedTuple):
    """An array of a file."""

    name: str
    array: Array
    """bfloat16 and float8 as integers."""
    dtype: str
    """Its name, of packbuf."""


def columns_of(source: Any, fields: Any, rows: Any, fill: Any) -> Iterator[Column]:
    """The chosen leaves as arrays; refuses what has no form as one."""
    from packbuf._view import View, open  # noqa: PLC0415

    view: View = source if isinstance(source, View) else open(source)
    selection = view.select(fields, rows)
    names = set()
    for field in selection._leaves:
        chosen, name = Columns(selection._chosen, field), plain_name(field.path)
        if field.codec == "ndarray":
            made = [Column(name, chosen.numpy(fill, True, False), field.dtype or "")]
        elif field.is_ragged_numbers:
            ragged = chosen.ragged(True, fill)
            values, offsets = ragged.items()
            made = [Column(name, values, field.dtype or ""), Column(name + OFFSETS, offsets, "int64")]
        else:
            text = f"a column of codec {field.codec} is no array: choose others with fields="
            raise error_of(Status.UNSUPPORTED_OPERATION, text, path=field.path)
        for column in made:
            if column.name in names:
                raise error_of(Status.DUPLICATE_NAME, f"two arrays are named {column.name!r}", path=field.path)
            names.add(column.name)
            yield column


def plain_name(path: str) -> str:
    """The name of a column in a file: its own where it is a field, else its path."""
    own, escaped = "", False
    for character in path:
        if not escaped and character in ".[":
            return path
        escaped = character == "\\" and not escaped
        own += "" if escaped else character
    return own


def written(path: Any) -> Any:
    """The file to write to."""
    if not isinstance(path, (str, os.PathLike)):
        raise error_of(Status.WRONG_TYPE, f"a path is wanted, not {type(path).__name__}")
    return io.open(os.fspath(path), "wb")  # noqa: UP020
