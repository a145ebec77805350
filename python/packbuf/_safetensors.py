"""safetensors files: eight bytes of length, a header of JSON, tensors end to end. The package is not needed for it."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from packbuf import _dtypes, _formats, _torch
from packbuf._arguments import text
from packbuf._errors import Status, error_of
from packbuf._formats import Arrays, array_over, columns_of, memory_of, paired, size_of

_MOST_HEADER = 100_000_000  # as the original has it
_METADATA = "__metadata__"
_NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "complex64": "C64",
}
_DTYPES = {word: name for name, word in _NAMES.items()}


def from_safetensors(source: Any, *, torch: bool = False, bits: bool = False) -> Arrays:
    """The tensors of a safetensors file by name, as `pack` takes them; `.metadata` is the text it has.

    Nothing is copied. The file is mapped: numpy arrays are read-only, torch tensors may be written to, which stays in
    this process. `name` and `name.offsets` that fit are one `Ragged`, or one jagged nested tensor.

    Args:
        source: a path, or bytes.
        torch: torch tensors instead of numpy arrays.
        bits: bfloat16 and float8 as integers, where ml_dtypes is not installed.

    Raises Error for whatever the format forbids: holes, overlaps, bytes left over, sizes that do not fit.
    """
    memory = memory_of(source)
    header, start = _header(memory)
    metadata = header.pop(_METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise error_of(Status.BAD_METADATA, f"{_METADATA} is text by name")
    data = memory[start:]
    parts = {name: _part(name, told, data.nbytes) for name, told in header.items()}
    _check_places(parts, data.nbytes)
    arrays = {name: _tensor(data, name, part, torch, bits) for name, part in parts.items()}
    return Arrays(paired(arrays), metadata)


def to_safetensors(
    view: Any,
    path: Any,
    *,
    fields: Any = None,
    rows: Any = None,
    fill: Any = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write columns of numbers as a safetensors file; a column below another is named by its path.

    Ragged columns become `name`, the elements of all rows, and `name.offsets`. Text and other columns, complex128 and
    times have no form there: `fields` leaves them out.

    Args:
        view: a `View`, or what `open` takes.
        path: of the file.
        fields: which, as `View.select` has it.
        rows: which.
        fill: what null and missing cells become; without it they are refused.
        metadata: text of the file.
    """
    columns = list(columns_of(view, fields, rows, fill))
    told = {
        text(str(key), "a key of metadata"): text(str(words), "metadata") for key, words in (metadata or {}).items()
    }
    header: dict[str, Any] = {_METADATA: told} if told else {}
    order = sorted(columns, key=lambda column: -column.array.itemsize)  # so that each is aligned to its elements
    at, places = 0, {}
    for column in order:
        places[column.name] = [at, at + column.array.nbytes]
        at += column.array.nbytes
    for column in columns:
        if column.name == _METADATA or column.dtype not in _NAMES or column.array.dtype.kind == "M":
            name = "datetime64" if column.array.dtype.kind == "M" else column.dtype
            raise error_of(Status.UNSUPPORTED_DTYPE, f"no tensor of this name, or of dtype {name}", path=column.name)
        shape = list(column.array.shape)
        header[column.name] = {"dtype": _NAMES[column.dtype], "shape": shape, "data_offsets": places[column.name]}
    words = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    words += b" " * (-len(words) % 8)
    with _formats.written(path) as file:
        file.write(struct.pack("<Q", len(words)) + words)
        for column in order:
            file.write(np.ascontiguousarray(column.array).reshape(-1).view(np.uint8).data)


# ---- reading ----


class _Part(NamedTuple):
    dtype: str
    shape: list[int]
    begin: int
    end: int


def _header(memory: memoryview) -> tuple[dict[str, Any], int]:
    """The header, and where the data begin."""
    if memory.nbytes < 8:
        raise error_of(Status.TRUNCATED, "a safetensors file begins with eight bytes of length")
    (length,) = struct.unpack_from("<Q", memory, 0)
    if length > _MOST_HEADER:
        raise error_of(Status.LIMIT, f"a header of {length} bytes")
    if length > memory.nbytes - 8:
        raise error_of(Status.TRUNCATED, f"a header of {length} bytes in {memory.nbytes - 8}")
    text = bytes(memory[8 : 8 + length])
    try:
        if not text.startswith(b"{"):
            raise ValueError("it begins with {")
        header = json.loads(text.decode(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise error_of(Status.BAD_JSON, f"the header of a safetensors file: {error}") from None
    return header, 8 + length


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _part(name: str, told: Any, size: int) -> _Part:
    if not isinstance(told, dict) or told.keys() != {"dtype", "shape", "data_offsets"}:
        raise error_of(Status.BAD_HEADER, "a tensor has dtype, shape and data_offsets", path=name)
    dtype = _DTYPES.get(told["dtype"]) if isinstance(told["dtype"], str) else None
    if dtype is None:
        raise error_of(Status.UNSUPPORTED_DTYPE, f"a tensor of dtype {str(told['dtype'])[:40]!r}", path=name)
    places = told["data_offsets"]
    plain = isinstance(places, list) and len(places) == 2 and all(type(place) is int for place in places)
    if not plain or not 0 <= places[0] <= places[1] <= size:
        raise error_of(Status.BAD_OFFSETS, f"data_offsets in {size} bytes", path=name)
    if size_of(told["shape"], _item_size(dtype), name) != places[1] - places[0]:
        raise error_of(Status.BAD_SHAPE, f"{places[1] - places[0]} bytes are another shape", path=name)
    return _Part(dtype, told["shape"], *places)


def _item_size(dtype: str) -> int:
    return np.dtype(_torch.BITS.get(dtype, dtype)).itemsize


def _check_places(parts: dict[str, _Part], size: int) -> None:
    """The tensors fill the data end to end: no hole, no overlap, nothing left."""
    at = 0
    for name, part in sorted(parts.items(), key=lambda item: item[1][2:]):
        if part.begin != at:
            raise error_of(Status.BAD_LAYOUT, f"begins at {part.begin}, the one before ends at {at}", path=name)
        at = part.end
    if at != size:
        raise error_of(Status.TRAILING_BYTES, f"{size - at} bytes belong to no tensor")


def _tensor(data: memoryview, name: str, part: _Part, torch: bool, bits: bool) -> Any:
    memory = data[part.begin : part.end]
    plain = np.dtype(_torch.BITS.get(part.dtype, part.dtype))
    if torch:
        made = array_over(memory, plain, part.shape)
        if memory.nbytes and not memory.readonly:
            made.flags.writeable = True
        return _torch.shared(made if made.flags.aligned else made.copy(), part.dtype)
    added = part.dtype in _torch.BITS and not bits
    return array_over(memory, _dtypes.added(part.dtype) if added else plain, part.shape)
