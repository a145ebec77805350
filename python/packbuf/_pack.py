"""Writing: `pack`, `pack_into`, `pack_many`, `measure`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

from packbuf import _adapt, _core, _torch
from packbuf._arguments import flag, mapping, number, only, text, word
from packbuf._errors import Status, error_of
from packbuf._exchange import Arrow
from packbuf._select import Ragged

if TYPE_CHECKING:
    from typing_extensions import Unpack

Packing = Literal["none", "balanced", "fastest", "smallest", "auto"]
Target = TypeVar("Target")

_PACKINGS = {None: 0, "none": 1, "balanced": 2, "fastest": 3, "smallest": 4, "auto": 5}
_MODES = {"strict": 0, "compat": 1}
_FLAGS = {"keep_plain": 1, "not_nullable": 2, "if_present": 4}
_BYTES_A_THREAD = 4 << 20
_MOST_THREADS = 4
_MOST_WORKERS = 1 << 16


class Column(TypedDict, total=False):
    """What may be asked for at a path: the keys of the command's ``--schema`` file, and ``if_present``."""

    codec: str
    """Such as ``"json_ragged"``; also keeps what is nested below it whole."""
    dtype: str
    """Of the numbers; a number that is not exact in it is refused."""
    packing: Packing
    """Of this column alone."""
    keep_plain: bool
    """Stored as it is, every row in its place, to be read without a copy."""
    not_nullable: bool
    """Refuse a null or missing cell."""
    timestamp: str
    """The integers are times since 1970 in ``s``, ``ms``, ``us``, ``ns`` or ``D``."""
    value: bool
    """The path is that of a batch value."""
    if_present: bool
    """The batch may lack the path."""


class PackOptions(TypedDict, total=False):
    """Keyword arguments that `pack`, `pack_into`, `pack_many` and `measure` share."""

    packing: Packing | None
    schema: Mapping[str, Column] | None
    batch_values: Mapping[str, Any] | None
    metadata: Mapping[str, str | Mapping[str, str]] | None
    rows: int | None
    allow_pickle: bool
    default: Callable[[Any], Any] | None
    mode: Literal["strict", "compat"]
    link_gbits: int
    row_sharing: bool
    checksums: bool
    alignment: int
    row_order_token: bytes


def pack(
    batch: Any,
    *,
    packing: Packing | None = None,
    schema: Mapping[str, Column] | None = None,
    batch_values: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str | Mapping[str, str]] | None = None,
    rows: int | None = None,
    threads: int | None = None,
    allow_pickle: bool = False,
    default: Callable[[Any], Any] | None = None,
    mode: Literal["strict", "compat"] = "strict",
    link_gbits: int = 0,
    row_sharing: bool = True,
    checksums: bool = True,
    alignment: int = 64,
    row_order_token: bytes = b"",
) -> _core.Packed:
    """Pack a batch into memory of its own.

    Args:
        batch: a mapping of fields, each a numpy array or torch tensor whose first dimension is the rows (nested
            tensors and `Ragged` too) or an array of Arrow or DLPack, or a list with a value for each row; or a list of
            dicts, one a row; or a `TensorDict`, verl's `DataProto`, or a table of Arrow (pyarrow, polars, ...). Values
            are None, bool, int, float, str, bytes-likes, lists, tuples, dicts, numpy scalars and arrays, tensors, PIL
            images, `Media`, `Opaque`, datetimes and dates.
        packing: how numbers are packed; None: not at all, so that they can be read in place.
        schema: what is asked for at some paths (`Column`); the rest is inferred.
        batch_values: values of the batch as a whole, by name.
        metadata: text of the batch, or, where a value is a mapping, of the field of that path.
        rows: how many rows; needed only when there is no field.
        threads: that write; None: one for each 4 MiB, at most 4. The bytes do not depend on it.
        allow_pickle: pickle values that packbuf has no type for, instead of refusing them.
        default: called, as by `json.dumps`, with a value that would be refused or come back as something else (arrays
            of text or objects, nested tensors within values); what it returns, something built in or numpy's, is packed
            instead. NotImplemented: no change.
        mode: of inference; ``"strict"`` never changes a value or type.
        link_gbits: speed of the link the buffer is for; with ``packing="auto"``, or none given, it decides.
        row_sharing: store equal rows, and common prefixes, once.
        checksums: a CRC-32C for each 64 KiB of data.
        alignment: of the buffers, 64 to 4096 bytes.
        row_order_token: 16 bytes that fragments of the same rows in the same order share.

    Raises:
        Error: whatever is refused, with ``code``, ``path`` and ``row``.

    >>> import packbuf
    >>> packed = packbuf.pack([{"a": 1, "b": "x"}, {"a": None}], metadata={"by": "me"}, batch_values={"step": 7})
    >>> view = packbuf.open(packed)
    >>> view.rows(), view.batch_values, view.metadata
    ([{'a': 1, 'b': 'x'}, {'a': None}], {'step': 7}, {'by': 'me'})
    """
    options = PackOptions(
        packing=packing,
        schema=schema,
        batch_values=batch_values,
        metadata=metadata,
        rows=rows,
        allow_pickle=allow_pickle,
        default=default,
        mode=mode,
        link_gbits=link_gbits,
        row_sharing=row_sharing,
        checksums=checksums,
        alignment=alignment,
        row_order_token=row_order_token,
    )
    under_way = _begin(batch, options)
    return under_way.pack(_threads(threads, under_way))


def measure(batch: Any, **options: Unpack[PackOptions]) -> int:
    """Bytes that `pack_into` wants: exactly what it will write when nothing is packed, else the most it can be.

    >>> import packbuf
    >>> batch = {"a": [1, 2, 3]}
    >>> packbuf.measure(batch) == len(packbuf.pack(batch))
    True
    """
    return _begin(batch, only(options, PackOptions)).measure()


def pack_into(
    batch: Any, buffer: Any | Callable[[int], Any], *, threads: int | None = None, **options: Unpack[PackOptions]
) -> int:
    """Pack a batch into memory of the caller: anything writable and contiguous, torch tensors on the CPU too.

    In place of memory, a function that is given the size that `measure` tells, and returns memory: the batch is then
    looked at once only. Returns the bytes written, from the start of the buffer. Raises CAPACITY, with ``needed``, when
    it is too small.

    >>> import packbuf
    >>> memory = bytearray(4096)
    >>> size = packbuf.pack_into({"a": [1, 2, 3]}, memory)
    >>> packbuf.open(memory)["a"][0:2]
    [1, 2]
    >>> packbuf.pack_into({"a": [1, 2, 3]}, lambda size: bytearray(size)) == size
    True
    """
    under_way = _begin(batch, only(options, PackOptions))
    memory = buffer(under_way.measure()) if callable(buffer) else buffer
    return under_way.write_into(memory, _threads(threads, under_way))


def pack_many(
    objs: Sequence[Any],
    alloc: Callable[[list[int]], Sequence[Target]],
    num_workers: int = 1,
    **options: Unpack[PackOptions],
) -> tuple[list[Target], list[int]]:
    """Pack many batches: one call of the allocator with all sizes, then every batch into its buffer.

    `alloc` gets a list of sizes and returns as many writable buffers, which may be larger. `num_workers` threads write
    at the same time, without the GIL; the bytes do not depend on it. Returns the buffers and the bytes written to each.
    No reference to them is kept.

    >>> import packbuf
    >>> buffers, sizes = packbuf.pack_many([{"a": [1]}, {"a": [2]}], lambda sizes: [bytearray(n) for n in sizes])
    >>> [packbuf.open(buffer)["a"][0] for buffer in buffers]
    [1, 2]
    """
    only(options, PackOptions)
    begun = [_begin(batch, options) for batch in objs]
    buffers = list(alloc([batch.measure() for batch in begun]))
    return buffers, _core.write_many(begun, buffers, max(1, number(num_workers, "num_workers", _MOST_WORKERS)))


def _threads(threads: int | None, batch: _core.Batch) -> int:
    if threads is not None:
        return max(1, number(threads, "threads", _MOST_WORKERS))
    size = batch.measure()
    if size < 2 * _BYTES_A_THREAD:
        return 1
    return min(size // _BYTES_A_THREAD, _MOST_THREADS, len(os.sched_getaffinity(0)))


def _begin(batch: Any, options: PackOptions) -> _core.Batch:
    """The batch with everything added."""
    taken = _adapt.fields_of(batch)
    rows = taken.rows if options.get("rows") is None else options.get("rows")
    begun = _core.Batch(
        None if rows is None else number(rows, "rows"),
        word(_PACKINGS, options.get("packing"), "packing"),
        _alignment(options.get("alignment", 64)).bit_length() - 1,
        flag(options.get("checksums", True), "checksums"),
        flag(options.get("row_sharing", True), "row_sharing"),
        number(options.get("link_gbits", 0), "link_gbits", (1 << 32) - 1),
        word(_MODES, options.get("mode", "strict"), "mode"),
        _token(options.get("row_order_token", b"")),
        flag(options.get("allow_pickle", False), "allow_pickle"),
        _callable(options.get("default")),
    )
    for path, column in mapping(options.get("schema"), "a schema").items():
        _wish(begun, text(path, "a path of the schema"), column)
    if _adapt.is_arrow(batch):
        begun.add_arrow(batch)
    elif isinstance(taken.fields, (list, tuple)):
        begun.add_rows(taken.fields)
    else:
        usual = begun.add_usual(taken.fields) if type(taken.fields) is dict else 0
        for name, column in islice(taken.fields.items(), usual, None):
            _add(begun, text(name, "a field's name"), column)
    for name, value in {**taken.values, **mapping(options.get("batch_values"), "batch_values")}.items():
        begun.add_batch_value(text(name, "a batch value's name"), value)
    for key, words in {**taken.metadata, **mapping(options.get("metadata"), "metadata")}.items():
        _add_metadata(begun, key, words)
    return begun


def _alignment(alignment: Any) -> int:
    found = number(alignment, "alignment")
    if found not in {64, 128, 256, 512, 1024, 2048, 4096}:
        raise error_of(Status.INVALID_ARGUMENT, "alignment is a power of two from 64 to 4096")
    return found


def _token(token: Any) -> bytes:
    if not isinstance(token, bytes) or len(token) not in {0, 16}:
        raise error_of(Status.INVALID_ARGUMENT, "row_order_token has 16 bytes")
    return token


def _callable(default: Any) -> Callable[[Any], Any] | None:
    if default is not None and not callable(default):
        raise error_of(Status.WRONG_TYPE, f"default is a function of a value, not {type(default).__name__}")
    return default  # type: ignore[no-any-return]


def _add_metadata(batch: _core.Batch, key: Any, words: Any) -> None:
    if not isinstance(words, Mapping):
        name = text(key, "a key of metadata")
        batch.add_metadata(None, name, text(words, "metadata", path=name))
        return
    path = text(key, "the path of a field's metadata")
    for inner, told in words.items():
        batch.add_metadata(path, text(inner, "a key of metadata", path=path), text(told, "metadata", path=path))


def _add(batch: _core.Batch, name: str, column: Any) -> None:
    if isinstance(column, Arrow):  # by way of Arrow it would lose what is missing
        raise error_of(Status.WRONG_TYPE, "a column of a view is no field: give its .numpy() or .tolist()", path=name)
    if _torch.is_tensor(column):
        ragged = _torch.rows_of(column)
        if isinstance(ragged, tuple):
            batch.add_ragged(name, *ragged)
            return
        column = column if ragged is None else ragged
    if isinstance(column, Ragged):
        batch.add_ragged(name, *column.items(), None)
        return
    batch.add(name, column)


def _wish(batch: _core.Batch, path: str, column: Any) -> None:
    if not isinstance(column, Mapping):
        words = f"what a schema asks for is a mapping such as {{'dtype': 'int32'}}, not {type(column).__name__}"
        raise error_of(Status.WRONG_TYPE, words, path=path)
    unknown = [key for key in column if key not in Column.__annotations__]
    if unknown:
        words = ", ".join(sorted(Column.__annotations__))
        raise error_of(Status.INVALID_ARGUMENT, f"unknown key {unknown[0]!r}: a column has {words}", path=path)
    asked = {key: flag(column.get(key, False), key, path=path) for key in (*_FLAGS, "value")}
    batch.wish(
        path,
        _core.codec_number(text(column["codec"], "a codec", path=path)) if column.get("codec") else 0,
        text(column.get("dtype", ""), "a dtype", path=path),
        sum(bit for key, bit in _FLAGS.items() if asked[key]),
        text(column.get("timestamp", ""), "a unit of time", path=path),
        word(_PACKINGS, column.get("packing"), "packing", path=path),
        asked["value"],
    )
