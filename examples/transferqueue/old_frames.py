"""The frames and packed buffers of TransferQueue's own `serial_utils`: read and written, with every bound checked.

Frame 0 is msgpack; the others are the bytes of tensors and arrays, which it names in ext values whose bodies are
pickles of plain tuples. Those are read by the few opcodes that plain data needs: pickle itself runs only for
`allow_pickle`. A packed buffer is: u32 count, then (u32 offset, u32 size) for each frame, then the frames end to end.
May use: msgspec, numpy, torch, packbuf's errors. Must not know: packbuf's format.
"""

from __future__ import annotations

import math
import pickle
import pickletools
import re
import struct
import warnings
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch

from packbuf import Error, Malformed, Opaque, Status

_EXT_PICKLE, _EXT_CLOUDPICKLE, _EXT_TENSOR, _EXT_NESTED, _EXT_NUMPY = 1, 2, 3, 4, 5
_WHOLE_PICKLE = b"\xc1\xfe\xed"  # frame 0, where frame 1 is all of the object
_TENSORDICT = "__tq_tensordict__"
_MOST_U32, _MOST_I64 = (1 << 32) - 1, (1 << 63) - 1
_MOST_DIMENSIONS = 32
LAYOUTS = {"jagged": torch.jagged, "strided": torch.strided}
# by name: to ask torch itself for a name that came from elsewhere may import some of its packages
DTYPES = {name: found for name, found in vars(torch).items() if isinstance(found, torch.dtype)}
SERIALIZERS = frozenset({"pickle", "cloudpickle"})

# tensors over bytes that may not be written to are wanted here, as in the original
warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)


def _refuse(text: str, status: Status = Status.BAD_MSGPACK) -> Malformed:
    return Malformed(status, f"an old frame: {text}")


# ---- pickle, for those who ask for it ----


def pickled(value: Any) -> Opaque:
    """Any object; functions by cloudpickle, as the original does."""
    if callable(value):
        import cloudpickle  # noqa: PLC0415

        return Opaque("cloudpickle", cloudpickle.dumps(value))
    return Opaque("pickle", pickle.dumps(value, protocol=5))


def unpickled(cell: Opaque) -> Any:
    """And back. Runs whatever the bytes say: only for bytes of those who may run code here."""
    return pickle.loads(cell.data)  # cloudpickle's are pickles too


def _cell(serializer: str, data: bytes, allow_pickle: bool) -> Any:
    return unpickled(Opaque(serializer, data)) if allow_pickle else Opaque(serializer, data)


# ---- plain data in pickle's notation, without pickle ----


def _plain_dumps(value: Any) -> bytes:
    """Text, integers from 0, tuples, lists and dicts, as pickle.loads reads them."""

    def body(value: Any) -> bytes:
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        if isinstance(value, int):
            data = value.to_bytes(value.bit_length() // 8 + 1, "little")
            return b"\x8a" + bytes([len(data)]) + data
        if isinstance(value, dict):
            return b"}(" + b"".join(body(key) + body(item) for key, item in value.items()) + b"u"
        items = b"".join(map(body, value))
        return b"(" + items + b"t" if isinstance(value, tuple) else b"](" + items + b"e"

    return b"\x80\x04" + body(value) + b"."


def _plain_loads(data: bytes) -> Any:
    """Such data, whichever protocol wrote it; the opcodes that make objects are not known."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        items = stack[start:]
        del stack[start:]
        return items

    def pairs(items: list[Any]) -> dict[str, Any]:
        if len(items) % 2 or not all(type(key) is str for key in items[::2]):
            raise ValueError("a dict's keys are text")
        return dict(zip(items[::2], items[1::2], strict=True))

    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in {"PROTO", "FRAME"}:
            continue
        if name == "STOP":
            break
        if name in {"BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1"}:
            stack.append(argument)
        elif name == "MARK":
            marks.append(len(stack))
        elif name in {"EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT"}:
            stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[name]())
        elif name in {"TUPLE1", "TUPLE2", "TUPLE3"}:
            items = [stack.pop() for _ in range(int(name[-1]))]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in {"APPEND", "APPENDS"}:
            items = since_mark() if name == "APPENDS" else [stack.pop()]
            list.extend(stack[-1], items)
        elif name in {"SETITEM", "SETITEMS"}:
            items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            dict.update(stack[-1], pairs(items))
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in {"BINGET", "LONG_BINGET"}:
            stack.append(memo[int(argument or 0)])
        else:
            raise ValueError(f"opcode {name} is not plain data")
    (value,) = stack
    return value


def _meta(data: bytes) -> Any:
    try:
        return _plain_loads(data)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, UnicodeError, struct.error) as error:
        raise _refuse(f"the description of a tensor is no plain data ({error})") from None


# ---- frames to objects ----


def array(data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """An array over bytes, if they are exactly as many as dtype and shape say."""
    _check_shape(shape, dtype.itemsize, data.nbytes)
    if not data.nbytes:
        return np.empty(shape, dtype)
    made = np.frombuffer(data, np.uint8)
    _check_bools(made, dtype.kind == "b")
    if dtype.kind == "U" and made.view(f"{dtype.str[0]}u4").max() > 0x10FFFF:
        raise _refuse("text with a code point beyond 10FFFF", Status.BAD_UTF8)
    return made.view(dtype).reshape(shape)


def _check_shape(shape: Any, item_size: int, size: int) -> None:
    plain = isinstance(shape, tuple) and len(shape) <= _MOST_DIMENSIONS
    if not plain or not all(type(length) is int and 0 <= length <= _MOST_I64 for length in shape):
        raise _refuse("a shape is a tuple of lengths", Status.BAD_SHAPE)
    if math.prod(length or 1 for length in shape) * max(item_size, 1) > _MOST_I64:
        raise _refuse("a shape of more than 2^63 bytes", Status.BAD_SHAPE)
    if math.prod(shape) * item_size != size:
        raise _refuse(f"shape {shape} of {item_size} bytes each does not fill {size} bytes", Status.BAD_SHAPE)


def _check_bools(data: np.ndarray[Any, Any], is_bool: bool) -> None:
    if is_bool and data.max() > 1:
        raise _refuse("a bool that is neither 0 nor 1", Status.BAD_BOOL)


class _Reader:
    """Decodes one object. A frame belongs to one tensor, so that what is made is not more than what came."""

    def __init__(self, frames: Sequence[memoryview], allow_pickle: bool) -> None:
        self._frames, self._allow_pickle = frames, allow_pickle
        self._used: set[int] = set()
        self._decoder = msgspec.msgpack.Decoder(ext_hook=self._ext)

    def read(self) -> Any:
        try:
            return self._special(self._decoder.decode(self._frames[0]))
        except RecursionError:
            raise Error(Status.DEPTH, "an old frame: nested too deeply") from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise _refuse(f"no msgpack ({error})") from None

    def _ext(self, code: int, body: memoryview) -> Any:
        data = bytes(body)
        if code in {_EXT_PICKLE, _EXT_CLOUDPICKLE}:
            return _cell("pickle" if code == _EXT_PICKLE else "cloudpickle", data, self._allow_pickle)
        if code == _EXT_TENSOR:
            return self._tensor(_meta(data))
        if code == _EXT_NESTED:
            return self._nested(_meta(data))
        if code == _EXT_NUMPY:
            return self._array(_meta(data))
        raise _refuse(f"ext type {code}")

    def _parts(self, meta: Any) -> tuple[str, Any, memoryview]:
        """(dtype, shape, bytes) of (dtype, shape, index of the frame)."""
        if not (isinstance(meta, tuple) and len(meta) == 3 and type(meta[0]) is str and type(meta[2]) is int):
            raise _refuse("a tensor is described by dtype, shape and index")
        name, shape, index = meta
        if not 1 <= index < len(self._frames):
            raise _refuse(f"frame {index} of {len(self._frames)}", Status.BAD_REFERENCE)
        if index in self._used:
            raise _refuse(f"frame {index} is named twice", Status.BAD_REFERENCE)
        self._used.add(index)
        return name, shape, self._frames[index]

    def _tensor(self, meta: Any) -> torch.Tensor:
        name, shape, data = self._parts(meta)
        dtype = DTYPES.get(name)
        if dtype is None or name.startswith("q"):
            raise _refuse(f"torch has no dtype {name[:32]!r}", Status.UNSUPPORTED_DTYPE)
        _check_shape(shape, dtype.itemsize, data.nbytes)
        if not data.nbytes:
            return torch.empty(shape, dtype=dtype)
        made = np.frombuffer(data, np.uint8)
        _check_bools(made, dtype is torch.bool)
        if made.ctypes.data % dtype.itemsize:  # the old layout aligns nothing
            made = made.copy()
        return torch.frombuffer(made, dtype=torch.uint8).view(dtype).view(shape)

    def _array(self, meta: Any) -> np.ndarray[Any, Any]:
        name, shape, data = self._parts(meta)
        try:
            if not re.fullmatch(r"[<>|=]?[A-Za-z]+[0-9]{0,9}(\[[0-9]*[A-Za-z]{1,2}\])?", name):
                raise TypeError
            dtype = np.dtype(name)
        except (TypeError, ValueError, SyntaxError):
            raise _refuse(f"numpy has no dtype {name[:32]!r}", Status.UNSUPPORTED_DTYPE) from None
        if dtype.hasobject or dtype.kind not in "biufcSUmM" or not dtype.itemsize:  # numpy makes "S0" "S1"
            raise _refuse(f"an array of dtype {dtype}", Status.UNSUPPORTED_DTYPE)
        return array(data, dtype, shape)

    def _nested(self, meta: Any) -> torch.Tensor:
        layout, tensors = (meta.get("layout"), meta.get("tensors")) if isinstance(meta, dict) else (None, None)
        if not isinstance(layout, str) or layout not in LAYOUTS or not isinstance(tensors, list):
            raise _refuse("a nested tensor is described by layout and tensors")
        rows = [self._tensor(part) for part in tensors]
        try:
            return torch.nested.as_nested_tensor(rows, layout=LAYOUTS[layout])
        except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
            raise _refuse(f"no nested tensor ({error})", Status.BAD_SHAPE) from None

    def _special(self, value: Any) -> Any:
        """TensorDicts in place of the dicts that stand for them."""
        if isinstance(value, list):
            return [self._special(item) for item in value]
        if not isinstance(value, dict):
            return value
        if value.get(_TENSORDICT) is not True:
            return {key: self._special(item) for key, item in value.items()}
        from tensordict import TensorDict  # noqa: PLC0415

        try:
            return TensorDict(self._special(value["data"]), batch_size=value["batch_size"])
        except (KeyError, RuntimeError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise _refuse(f"no TensorDict ({error})", Status.BAD_SHAPE) from None


def decode(frames: Sequence[Any], *, allow_pickle: bool = False) -> Any:
    """The object of the original's frames; tensors and arrays lie in them. What was pickled is an `Opaque` unless
    `allow_pickle`.

    Raises Malformed or Error (both ValueErrors), with the reason, for whatever the original could not have written.
    """
    views = [memoryview(frame).cast("B") if memoryview(frame).nbytes else memoryview(b"") for frame in frames]
    if not views:
        raise _refuse("there are no frames", Status.TRUNCATED)
    if len(views) >= 2 and views[0] == _WHOLE_PICKLE:
        return _cell("pickle", bytes(views[1]), allow_pickle)
    return _Reader(views, allow_pickle).read()


# ---- objects to frames ----


class _Writer:
    def __init__(self, allow_pickle: bool) -> None:
        self.frames: list[Any] = [b""]
        self._allow_pickle = allow_pickle
        self._encoder = msgspec.msgpack.Encoder(enc_hook=self._known)

    def write(self, obj: Any) -> list[Any]:
        self.frames[0] = self._encoder.encode(obj)
        return self.frames

    def _known(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_nested:
            layout = "jagged" if value.layout is torch.jagged else "strided"
            tensors = [self._tensor(row) for row in value.detach().unbind()]
            return msgspec.msgpack.Ext(_EXT_NESTED, _plain_dumps({"layout": layout, "tensors": tensors}))
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            return msgspec.msgpack.Ext(_EXT_TENSOR, _plain_dumps(self._tensor(value)))
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufcSUmM":
            flat = np.ascontiguousarray(value)
            bits = flat.reshape(-1).view(np.uint8) if flat.nbytes else np.empty(0, np.uint8)
            return msgspec.msgpack.Ext(_EXT_NUMPY, _plain_dumps((str(value.dtype), value.shape, self._add(bits))))
        if hasattr(value, "batch_size") and hasattr(value, "is_empty") and type(value).__name__ != "NonTensorData":
            return {_TENSORDICT: True, "batch_size": list(value.batch_size), "data": dict(value.items())}
        if not self._allow_pickle:
            name = type(value).__name__
            raise Error(Status.UNENCODABLE, f"{name}: the old frames have it as a pickle, and that was not allowed")
        cell = pickled(value)
        code = _EXT_PICKLE if cell.serializer == "pickle" else _EXT_CLOUDPICKLE
        return msgspec.msgpack.Ext(code, cell.data)

    def _tensor(self, tensor: torch.Tensor) -> tuple[str, tuple[int, ...], int]:
        plain = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
        bits = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.empty(0, np.uint8)
        return str(plain.dtype).removeprefix("torch."), tuple(plain.shape), self._add(bits)

    def _add(self, data: np.ndarray[Any, Any]) -> int:
        self.frames.append(data.data)
        return len(self.frames) - 1


def encode(obj: Any, *, allow_pickle: bool = False) -> list[Any]:
    """An object as frames that the original's `decode` reads; frames after the first are views, not copies."""
    try:
        return _Writer(allow_pickle).write(obj)
    except Error:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        if allow_pickle:
            return [_WHOLE_PICKLE, pickle.dumps(obj, protocol=5)]
        raise Error(Status.UNENCODABLE, f"msgpack has no such value ({error}), and pickle was not allowed") from error


# ---- frames in one buffer ----


def calc_packed_size(items: Sequence[Any]) -> int:
    """Bytes that `pack_into` writes."""
    return 4 + 8 * len(items) + sum(memoryview(item).nbytes for item in items)


def pack_into(target_buffer: Any, items: Sequence[Any]) -> None:
    """Frames into one buffer, in the original's layout. Nothing is written before everything is known to fit."""
    target = memoryview(target_buffer).cast("B")
    size, at = calc_packed_size(items), 4 + 8 * len(items)
    if target.readonly:
        raise Error(Status.READ_ONLY, "the target is read-only")
    if target.nbytes < size:
        raise Error(Status.CAPACITY, f"the target has {target.nbytes} bytes, {size} are needed", needed=size)
    if size > _MOST_U32:
        raise Error(Status.LIMIT, f"{size} bytes: the old layout ends at 4 GiB")
    struct.pack_into("<I", target, 0, len(items))
    for i, item in enumerate(items):
        data = memoryview(item)
        struct.pack_into("<II", target, 4 + 8 * i, at, data.nbytes)
        if data.nbytes:
            target[at : at + data.nbytes] = data.cast("B")
        at += data.nbytes


def unpack_from(source_buffer: Any) -> list[memoryview]:
    """The frames of a buffer, as views. They lie end to end after the table, as the original writes them."""
    source = memoryview(source_buffer).cast("B")
    if source.nbytes < 4:
        raise _refuse(f"{source.nbytes} bytes are no packed buffer", Status.TRUNCATED)
    (count,) = struct.unpack_from("<I", source, 0)
    at = 4 + 8 * count
    if at > source.nbytes:
        raise _refuse(f"a table of {count} frames in {source.nbytes} bytes", Status.TRUNCATED)
    frames = []
    for i, (offset, size) in enumerate(struct.iter_unpack("<II", source[4:at])):
        if offset != at:
            raise _refuse(f"frame {i} lies at {offset}, not at {at}", Status.BAD_OFFSETS)
        if size > source.nbytes - at:
            raise _refuse(f"frame {i} has {size} bytes of {source.nbytes - at}", Status.TRUNCATED)
        frames.append(source[at : at + size])
        at += size
    return frames
