"""TransferQueue's `serial_utils` on packbuf: its functions, a packed buffer an object, pickle only when asked for.

    import serial_utils; restore = serial_utils.install()   # in every process, before its first message

What is for: one frame instead of many, 64-byte aligned, with 64-bit sizes and checksums; tensors of a received buffer
are views over it. Frames and packed buffers of the original are still read (old_frames.py). Where the original
pickles by itself, README.md says what happens here.
May use: packbuf, torch, tensordict. Must not know: how a packed buffer is laid out, sockets, stores.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import old_frames
import torch

import packbuf
from packbuf import Opaque, Status

__all__ = [
    "batch_decode_from",
    "batch_encode_into",
    "calc_packed_size",
    "decode",
    "encode",
    "install",
    "pack_into",
    "unpack_from",
]

_MAGIC = b"\x89PBUF\r\n\x1a"
_KIND = "transferqueue"  # the metadata that tells an object from frames
_MARK, _MARK_OF = "__packbuf__", "transferqueue"
_BATCH_META = (  # what the controller's messages carry: the arguments of BatchMeta
    "global_indexes",
    "partition_ids",
    "field_schema",
    "production_status",
    "extra_info",
    "custom_meta",
    "_custom_backend_meta",
)
_FEW_ROWS, _MOST_CELLS, _FEW_FRAMES = 4096, 1 << 22, 1024
_MOST_COLUMNS = 256  # of an object that is rows; one with more keys is kept as one value


# ---- objects and frames ----


def encode(obj: Any, *, allow_pickle: bool = False) -> list[Any]:
    """An object as frames: one packed buffer.

    Raises packbuf.Error (a ValueError) for what packbuf has no type for; with `allow_pickle`, that is pickled.
    """
    return [packbuf.pack(_batch(obj), **_options(allow_pickle))]


def decode(
    frames: Sequence[Any],
    *,
    allow_pickle: bool = False,
    verify: Literal["open", "head", "index", "all"] = "all",
    limits: Mapping[str, int] | None = None,
) -> Any:
    """The object of frames, ours or the original's. Tensors and arrays lie in the frames and keep them alive.

    `verify` and `limits` are those of packbuf.open: "all" reads every byte once; what is alike is stored once, so that
    few bytes can stand for many, and what they may become is 1 GiB and 64 times their number unless said. With
    `allow_pickle` what was pickled is unpickled; without, it stays a `packbuf.Opaque` with its bytes.
    """
    if not len(frames) or not _is_ours(frames[0]):
        return old_frames.decode(frames, allow_pickle=allow_pickle)
    if len(frames) != 1:
        raise packbuf.Error(Status.TRAILING_BYTES, f"{len(frames)} frames, and the first is the whole object")
    memory = _memory(frames[0])
    view = packbuf.open(memory, verify=verify, tensors="shared", limits=_bounds(memory, limits))
    if view.metadata.get(_KIND) != "object":
        raise packbuf.Error(Status.WRONG_TYPE, "a packed buffer, but none that encode() made")
    if "rows" not in (limits or {}) and _cells(view) > max(_MOST_CELLS, 64 * memory.nbytes):
        text = f"{memory.nbytes} bytes stand for {_cells(view)} values; a limit of rows= that is given allows it"
        raise packbuf.Error(Status.LIMIT, text)
    rows: Any = view.rows()
    value = rows[0]["object"] if len(rows) == 1 and rows[0].keys() == {"object"} else rows
    return _rebuilt(value, allow_pickle) if _may_have_marks(view) else value


def _bounds(memory: memoryview, limits: Mapping[str, int] | None = None) -> dict[str, int]:
    return {"decoded_bytes": (1 << 30) + 64 * memory.nbytes, **(limits or {})}


def _cells(view: packbuf.View) -> int:
    """How many values rows have; 0 where that is in proportion to bytes, as each column takes 64 of them."""
    if view.num_rows <= _FEW_ROWS:
        return 0
    columns = list(view.values())
    for field in columns:
        columns += field.children
    return view.num_rows * (1 + len(columns))


def _may_have_marks(view: packbuf.View) -> bool:
    """Whether a cell may be an `Opaque`: a text that says more often yes than it need spares a walk over all values."""
    text = view.schema().text
    return "opaque_ragged" in text or "msgpack_ragged" in text


def _batch(obj: Any) -> Any:
    """An object as a batch: rows (dicts with str keys) as columns, all else as the one cell of a column `object`."""
    return obj if type(obj) is list and obj and _are_rows(obj) else {"object": [obj]}


def _are_rows(rows: list[Any]) -> bool:
    if not all(type(row) is dict for row in rows):
        return False
    keys = set().union(*rows)
    plain = all(type(key) is str and "\0" not in key for key in keys)
    return plain and len(keys) <= min(_MOST_COLUMNS, _MOST_CELLS // len(rows) - 1) and "object" not in keys


def _options(allow_pickle: bool) -> dict[str, Any]:
    return {"metadata": {_KIND: "object"}, "default": partial(_stand_in, allow_pickle)}


def _memory(buffer: Any) -> memoryview:
    """The bytes of anything that TransferQueue holds them in: torch tensors, numpy arrays, zmq frames, bytes-likes."""
    view = memoryview(buffer.numpy() if hasattr(buffer, "numpy") else buffer)
    return view if view.format == "B" and view.ndim == 1 else view.cast("B") if view.nbytes else memoryview(b"")


def _is_ours(buffer: Any) -> bool:
    return _memory(buffer)[: len(_MAGIC)] == _MAGIC


# ---- what packbuf has no type for ----


def _mark(kind: bytes, **parts: Any) -> dict[str, Any]:
    """No value of a caller looks like this: an Opaque of ours is no value of theirs."""
    return {_MARK: Opaque(_MARK_OF, kind), **parts}


def _stand_in(allow_pickle: bool, value: Any) -> Any:
    """What is packed instead of a value, for packbuf's `default`."""
    if isinstance(value, torch.Tensor) and value.is_nested:
        return _nested_mark(value.detach())
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return _mark(b"objects", shape=list(value.shape), values=list(value.flat))
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        bits = np.ascontiguousarray(value).reshape(-1).view(np.uint8) if value.nbytes else np.empty(0, np.uint8)
        return _mark(b"text", dtype=value.dtype.str, shape=list(value.shape), data=bits)
    if hasattr(value, "batch_size") and hasattr(value, "is_empty"):
        if type(value).__name__ == "NonTensorData":
            return _mark(b"non_tensor", batch_size=list(value.batch_size), data=value.data)
        return _mark(b"tensordict", batch_size=list(value.batch_size), data=dict(value.items()))
    if isinstance(value, (set, frozenset)):
        return _mark(b"set" if isinstance(value, set) else b"frozenset", values=list(value))
    if isinstance(value, torch.dtype):
        return _mark(b"dtype", name=str(value).removeprefix("torch."))
    if type(value).__name__ == "BatchMeta" and type(value).__module__ == "transfer_queue.metadata":
        return _mark(b"batch_meta", **{name: getattr(value, name) for name in _BATCH_META})
    return old_frames.pickled(value) if allow_pickle and not isinstance(value, tuple) else NotImplemented


def _nested_mark(tensor: Any) -> dict[str, Any]:
    if tensor.layout is not torch.jagged:
        return _mark(b"nested", layout="strided", rows=list(tensor.unbind()))
    if getattr(tensor, "_ragged_idx", 0) == 1 and tensor.lengths() is None:  # as it lies there: two tensors
        return _mark(b"jagged", values=tensor.values(), offsets=tensor.offsets())
    return _mark(b"nested", layout="jagged", rows=list(tensor.unbind()))


def _jagged(values: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """torch believes offsets, and these come from elsewhere: what is checked is a copy, and the copy is used."""
    own = offsets.clone()
    ends = own.numpy()
    ordered = ends.ndim == 1 and ends.dtype.kind == "i" and len(ends) > 0 and not (np.diff(ends) < 0).any()
    if not ordered or ends[0] != 0 or ends[-1] > len(values):
        raise ValueError("offsets do not fit their values")
    return torch.nested.nested_tensor_from_jagged(values, own)


def _tensordict(data: Any, batch_size: Any) -> Any:
    from tensordict import TensorDict  # noqa: PLC0415

    return TensorDict(data, batch_size=batch_size)


def _non_tensor(data: Any, batch_size: Any) -> Any:
    from tensordict import NonTensorData  # noqa: PLC0415

    return NonTensorData(data, batch_size=batch_size)


def _batch_meta(field_schema: dict[str, dict[str, Any]], **parts: Any) -> Any:
    from transfer_queue.metadata import BatchMeta  # noqa: PLC0415

    for meta in field_schema.values():  # as TransferQueue makes them: shapes are tuples
        if meta.get("shape") is not None:
            meta["shape"] = tuple(meta["shape"])
        if meta.get("per_sample_shapes") is not None:
            meta["per_sample_shapes"] = [shape and tuple(shape) for shape in meta["per_sample_shapes"]]
    return BatchMeta(field_schema=field_schema, **parts)


def _objects(values: list[Any], shape: list[int]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):  # one by one: numpy would look into lists and arrays
        array[i] = value
    return array.reshape(shape)


def _text(dtype: str, shape: list[int], data: np.ndarray) -> np.ndarray:
    if not re.fullmatch(r"[<>|][US][1-9]\d{0,8}", dtype):
        raise ValueError(f"no dtype of text: {dtype}")
    return old_frames.array(np.asarray(data).data, np.dtype(dtype), tuple(shape))


def _dtype(name: str) -> torch.dtype:
    if name not in old_frames.DTYPES:
        raise ValueError(f"torch has no dtype {name}")
    return old_frames.DTYPES[name]


_MAKERS: dict[bytes, Callable[..., Any]] = {
    b"nested": lambda layout, rows: torch.nested.as_nested_tensor(rows, layout=old_frames.LAYOUTS[layout]),
    b"jagged": _jagged,
    b"objects": _objects,
    b"text": _text,
    b"tensordict": _tensordict,
    b"non_tensor": _non_tensor,
    b"set": set,
    b"frozenset": frozenset,
    b"dtype": _dtype,
    b"batch_meta": _batch_meta,
}


_CONTAINERS = frozenset({list, dict, Opaque})


def _rebuilt(value: Any, allow_pickle: bool) -> Any:
    """The value with its marks as what they stand for."""
    if type(value) is list:
        inner = not _CONTAINERS.isdisjoint(map(type, value))  # a list of plain values is kept
        return [_rebuilt(item, allow_pickle) for item in value] if inner else value
    if type(value) is dict:
        mark = value.get(_MARK)
        if isinstance(mark, Opaque) and mark.serializer == _MARK_OF:
            return _made(mark.data, {key: _rebuilt(item, allow_pickle) for key, item in value.items() if key != _MARK})
        return {key: _rebuilt(item, allow_pickle) for key, item in value.items()}
    if isinstance(value, Opaque) and value.serializer in old_frames.SERIALIZERS and allow_pickle:
        return old_frames.unpickled(value)
    return value


def _made(kind: bytes, parts: dict[str, Any]) -> Any:
    maker = _MAKERS.get(kind)
    if maker is None:
        raise packbuf.Unsupported(Status.UNSUPPORTED_CODEC, f"a newer version's {kind!r}")
    try:
        return maker(parts["values"]) if maker in (set, frozenset) else maker(**parts)
    except Exception as error:  # whatever torch, numpy and tensordict say to parts that do not fit
        text = f"what stands for a {kind.decode('latin-1')} is none: {error}"
        raise packbuf.Error(Status.WRONG_TYPE, text) from error


# ---- frames in one buffer ----


def calc_packed_size(items: Sequence[Any]) -> int:
    """Bytes that `pack_into` writes for these frames."""
    if _is_object(items):
        return _memory(items[0]).nbytes
    return packbuf.measure(_frames(items), **_FRAMES)


def pack_into(target_buffer: Any, items: Sequence[Any]) -> None:
    """Writes frames into a buffer, which may be larger. An object of `encode` is copied as it is.

    Raises packbuf.Error (a ValueError): CAPACITY with `needed`, READ_ONLY.
    """
    if not _is_object(items):
        packbuf.pack_into(_frames(items), target_buffer, **_FRAMES)
        return
    item, target = _memory(items[0]), _memory(target_buffer)
    if target.readonly:
        raise packbuf.Error(Status.READ_ONLY, "the target is read-only")
    if target.nbytes < item.nbytes:
        text = f"the target has {target.nbytes} bytes, {item.nbytes} are needed"
        raise packbuf.Error(Status.CAPACITY, text, needed=item.nbytes)
    target[: item.nbytes] = item


def unpack_from(source_buffer: Any) -> list[memoryview]:
    """The frames in a buffer, ours or the original's, as views over it; every bound is checked first."""
    source = _memory(source_buffer)
    if not _is_ours(source):
        return old_frames.unpack_from(source)
    view = packbuf.open(source, verify="index", limits={**_bounds(source), "rows": (1 << 20) + source.nbytes})
    kind = view.metadata.get(_KIND)
    if kind == "object":
        return [source[: view.nbytes]]
    if kind != "frames" or view["frames"].dtype != "uint8":
        raise packbuf.Error(Status.WRONG_TYPE, "a packed buffer, but none that pack_into() made")
    view.verify("all")
    frames: list[memoryview] = []
    for first in range(0, view.num_rows, _FEW_FRAMES):
        frames += map(memoryview, view["frames"][first : first + _FEW_FRAMES])
        if sum(frame.nbytes for frame in frames) > source.nbytes:
            raise packbuf.Error(Status.LIMIT, f"the frames have more bytes than the {source.nbytes} that came")
    return frames


# what is kept plain is a view in what was received; shared rows and constants would be none
_FRAMES: dict[str, Any] = {
    "metadata": {_KIND: "frames"},
    "row_sharing": False,
    "schema": {"frames": {"keep_plain": True}},
}


def _frames(items: Sequence[Any]) -> dict[str, Any]:
    arrays = [np.asarray(_memory(item)) for item in items]
    return {"frames": arrays} if arrays else {"frames": np.empty((0, 0), np.uint8)}


def _is_object(items: Sequence[Any]) -> bool:
    """Whether it is all that `encode` gives: a packed buffer that need not be packed again."""
    if len(items) != 1 or not _is_ours(items[0]):
        return False
    try:
        view = packbuf.open(_memory(items[0]), exact=True)
    except packbuf.Error:
        return False
    return view.metadata.get(_KIND) == "object"


# ---- batches ----


def batch_encode_into(
    objs: list[Any],
    alloc_buff_func: Callable[[list[int]], Sequence[Any]],
    *,
    num_workers: int = 1,
    allow_pickle: bool = False,
) -> tuple[list[Any], list[int]]:
    """Encode objects into buffers of the caller: one call of the allocator with all sizes, one copy of all bytes.

    `alloc_buff_func` returns a writable buffer for each size (torch tensor on the CPU, numpy array, memoryview), which
    may be larger. `num_workers` threads write without the GIL; the bytes do not depend on it. No buffer is held on to:
    the caller keeps them until nobody reads them any more. Returns the buffers and the bytes written to each.
    """
    return packbuf.pack_many([_batch(obj) for obj in objs], alloc_buff_func, num_workers, **_options(allow_pickle))


def batch_decode_from(source_buffers: Sequence[Any], **options: Any) -> list[Any]:
    """The objects in buffers that `batch_encode_into`, ours or the original's, has filled; views over them.

    The options are those of `decode`.
    """
    return [decode([one] if _is_ours(one) else unpack_from(one), **options) for one in source_buffers]


# ---- in place of the original ----


def install(*, allow_pickle: bool = False) -> Callable[[], None]:
    """Puts these functions in place of those of the package transfer_queue; returns what takes them out again.

    A process that understands only the original's frames cannot read ours: install in all of them, readers first. In
    Ray: ``ray.init(runtime_env={"worker_process_setup_hook": "serial_utils.install"})`` (end_to_end.py). Functions that
    are to run in a storage unit (`data_parser`) need `allow_pickle`.
    """
    from transfer_queue.storage.clients import mooncake_client, yuanrong_client  # noqa: PLC0415
    from transfer_queue.utils import serial_utils as original  # noqa: PLC0415
    from transfer_queue.utils import zmq_utils  # noqa: PLC0415

    ours: dict[str, Any] = {
        name: partial(globals()[name], allow_pickle=allow_pickle)
        for name in ("encode", "decode", "batch_encode_into", "batch_decode_from")
    }
    ours |= {name: globals()[name] for name in ("calc_packed_size", "pack_into", "unpack_from")}
    before = []
    for module in (original, zmq_utils, yuanrong_client, mooncake_client):
        for name, function in ours.items():
            if hasattr(module, name):
                before.append((module, name, getattr(module, name)))
                setattr(module, name, function)

    def restore() -> None:
        for module, name, function in before:
            setattr(module, name, function)

    return restore
