"""examples/transferqueue against the real package: the cases of its own tests, its frames both ways, its put and get."""

from __future__ import annotations

import ctypes
import pickle
import random
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from conftest import ROOT
from mutations import Tally, mutants

import packbuf

torch = pytest.importorskip("torch")
pytest.importorskip("transfer_queue")

sys.path.insert(0, str(ROOT / "examples" / "transferqueue"))

import old_frames
import serial_utils as ours
from tensordict import NonTensorData, TensorDict
from transfer_queue.utils import serial_utils as theirs

warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
torch.manual_seed(1)


def nested(layout, *shapes):
    return torch.nested.as_nested_tensor([torch.randn(*shape) for shape in shapes], layout=layout)


def same(a, b) -> bool:
    """Equal in value, type, dtype, shape, layout; lists and tuples are one."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or (a.dtype, a.is_nested, a.layout) != (b.dtype, b.is_nested, b.layout):
            return False
        if a.is_nested:
            return all(map(same, a.unbind(), b.unbind())) and len(a.unbind()) == len(b.unbind())
        return a.shape == b.shape and a.contiguous().reshape(-1).view(torch.uint8).tolist() == b.contiguous().reshape(-1).view(torch.uint8).tolist()
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and all(map(same, list(a.flat), list(b.flat)))
    if isinstance(a, TensorDict):
        return isinstance(b, TensorDict) and a.batch_size == b.batch_size and same(dict(a.items()), dict(b.items()))
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and (a == b or (a != a and b != b))


def there_and_back(module, value, **options):
    return module.decode(module.encode(value), **options)


def bytearrays(sizes):
    return [bytearray(size) for size in sizes]


def one_region(sizes):
    """Slices of one tensor, as TransferQueue's mooncake client allocates them."""
    region = torch.zeros(sum(sizes), dtype=torch.uint8)
    return list(region.split(sizes)) if sizes else []


VALUES = {
    "primitives": [42, 3.14, "hello", b"bytes", None, True, -(2**63), 2**64 - 1],
    "nested dicts": [{"a": {"b": {"c": [1, 2, {"d": "e"}]}}}, {"x": []}, {}],
    "a tensor": [torch.randn(3, 4)],
    "mixed tensors": [torch.randn(2, 3), torch.ones(5, dtype=torch.bfloat16), torch.arange(6, dtype=torch.int64), torch.zeros(2, dtype=torch.float8_e4m3fn)],
    "numpy": [np.arange(6.0).reshape(2, 3), np.arange(4, dtype=np.int32)],
    "dict with a tensor, and a list": [{"t": torch.randn(2, 2), "n": 1}, [1, "two", 3.0]],
    "4-D and 5-D": [torch.randn(2, 3, 4, 5), torch.randn(2, 1, 3, 2, 2).to(torch.bfloat16)],
    "nested tensors": [nested(torch.strided, (4, 3), (2, 3)), nested(torch.jagged, (4, 5), (2, 5)), nested(torch.jagged, (3,), (1,)).to(torch.bfloat16)],
    "one dict with a tensor": [{"ids": torch.arange(10), "meta": {"uid": "x", "n": [1, 2]}}],
    "rows": [[{"a": 1, "t": torch.zeros(2)}, {"a": None, "b": "x"}], [{}], [{"object": 1}], [{"object": 1}, {"a": 1}], [{1: 2}], [{"a": 1}]],
    "views": [torch.randn(16, 16)[:, :5], torch.randn(16, 16)[::2], torch.randn(4, 4)[..., 1:], torch.randn(4, 6).t(), torch.randn(9, 9)[1:-1, 2:8:2]],
    "shapes": [torch.tensor(3), torch.zeros(1000, 1), torch.zeros(1, 1000), torch.zeros((3, 0)), torch.empty(0), torch.tensor(2.5).expand(5, 1)],
    "special": [torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0]), float("inf"), "é" * 70000, "x" * 2_000_000],
    "text arrays": [np.array(["a", "bcd", "é"]), np.array([b"x", b"yy"], dtype="S10"), np.array([["a"], ["b"]])],
    "arrays": [np.arange(10)[::3], np.zeros((2, 0)), np.array(5), np.array([True, False]), np.array([1 + 2j]), np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1)],
    "tensordicts": [
        TensorDict({"a": torch.randn(2, 3), "t": TensorDict({"x": torch.arange(2), "u": TensorDict({"y": torch.zeros(2, 1)}, [2])}, [2])}, [2]),
        TensorDict({"strided": torch.randn(2, 5), "jagged": nested(torch.jagged, (3, 4), (2, 4)), "nested": nested(torch.strided, (4, 3), (2, 3))}, [2]),
        TensorDict({"e": torch.empty(3, 0), "n": torch.randn(3, 5)}, [3]),
        TensorDict({}, [0]),
        *(TensorDict({"d": torch.randn(size, 10)}, [size]) for size in (1, 32)),
        TensorDict({str(dtype): torch.ones(2, 3).to(dtype) for dtype in (torch.float16, torch.float64, torch.int8, torch.int16, torch.bool)}, [2]),
    ],
}
OBJECT_ARRAYS = [
    np.array(["a", None], dtype=object),
    np.array([1, "x", {"k": [1]}, [2]], dtype=object),
    np.array([{"a": 1}, {"b": 2}], dtype=object).reshape(2, 1),
    np.empty((0,), dtype=object),
]


# ---- its own tests ----


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_as_from_theirs(name):
    for value in VALUES[name]:
        assert same(value, there_and_back(ours, value)), value
        assert same(there_and_back(theirs, value), there_and_back(ours, value)), value


@pytest.mark.parametrize("alloc", [bytearrays, one_region, lambda sizes: [np.zeros(n, np.uint8) for n in sizes], lambda sizes: [memoryview(bytearray(n)) for n in sizes]])
@pytest.mark.parametrize("name", VALUES)
def test_batches(name, alloc):
    buffers, sizes = ours.batch_encode_into(VALUES[name], alloc)
    assert same(VALUES[name], ours.batch_decode_from(buffers))
    parallel, others = ours.batch_encode_into(VALUES[name], bytearrays, num_workers=4)
    assert sizes == others and parallel == [bytes(ours._memory(buffer)) for buffer in buffers]


def test_jagged_tensors_with_holes():
    holes = torch.nested.nested_tensor_from_jagged(torch.arange(8), torch.tensor([0, 4, 8]), torch.tensor([2, 3]))
    assert [row.tolist() for row in there_and_back(ours, holes).unbind()] == [[0, 1], [4, 5, 6]]


def test_many_tensors_by_many_workers():
    tensors = [torch.randn(random.Random(i).randint(1, 300), 7) for i in range(64)]
    buffers, sizes = ours.batch_encode_into(tensors, bytearrays, num_workers=8)
    assert sizes == [len(buffer) for buffer in buffers]
    assert same(tensors, ours.batch_decode_from(buffers))


def test_larger_buffers():
    buffers, sizes = ours.batch_encode_into([{"a": 1}, "x"], lambda sizes: bytearrays([n + 32 for n in sizes]))
    assert [len(buffer) - 32 for buffer in buffers] == sizes
    assert ours.batch_decode_from([memoryview(b)[:n] for b, n in zip(buffers, sizes)]) == [{"a": 1}, "x"] == ours.batch_decode_from(buffers)


def test_no_objects():
    asked = []
    assert ours.batch_encode_into([], lambda sizes: asked.append(sizes) or []) == ([], [])
    assert asked == [[]] and ours.batch_decode_from([]) == []


@pytest.mark.parametrize("module", [ours, old_frames, theirs])
@pytest.mark.parametrize("items", [[b"hello", b"world!", b"x"], [], [b"x" * 100], [b"", b"a", b""], [b""], [np.arange(3), bytearray(2)]])
def test_frames_in_a_buffer(module, items):
    size = module.calc_packed_size(items)
    whole = bytearray(17 + size + 23)
    module.pack_into(memoryview(whole)[17 : 17 + size], items)
    assert bytes(whole[:17]) == bytes(17) and bytes(whole[17 + size :]) == bytes(23)
    assert [bytes(frame) for frame in ours.unpack_from(whole[17:])] == [bytes(memoryview(item)) for item in items]


def test_frames_are_views():
    rows = np.random.default_rng(0).integers(0, 256, (40, 64), dtype=np.uint8)
    items = [np.concatenate([rows[0]] * 32 + [row]) for row in rows] + [rows[0], rows[0]]  # that share what they begin with
    buffer = np.zeros(ours.calc_packed_size(items), np.uint8)
    ours.pack_into(buffer, items)
    frames = ours.unpack_from(buffer)
    assert [bytes(frame) for frame in frames] == [bytes(item) for item in items]
    start, end = buffer.ctypes.data, buffer.ctypes.data + buffer.nbytes
    assert all(start <= np.asarray(frame).ctypes.data < end for frame in frames)


def test_an_object_is_its_own_buffer():
    """Encoded, put into a buffer, taken out: nothing is packed twice."""
    frames = ours.encode({"t": torch.arange(5)})
    buffer = bytearray(ours.calc_packed_size(frames) + 9)
    ours.pack_into(buffer, frames)
    assert buffer[:-9] == bytes(frames[0])
    assert same(ours.decode(ours.unpack_from(buffer)), {"t": torch.arange(5)})
    twice = [bytes(frames[0]), b"x"]  # beside another frame it is a frame like any
    buffer = bytearray(ours.calc_packed_size(twice))
    ours.pack_into(buffer, twice)
    assert [bytes(frame) for frame in ours.unpack_from(buffer)] == twice


@pytest.mark.parametrize("module", [ours, old_frames])
def test_targets_that_cannot_be(module):
    for frames in (ours.encode({"a": 1}), [b"ab", b"c"]):
        size = module.calc_packed_size(frames)
        with pytest.raises(ValueError, match="CAPACITY") as failure:
            module.pack_into(bytearray(size - 1), frames)
        assert failure.value.needed == size
        with pytest.raises(ValueError, match="READ_ONLY"):
            module.pack_into(bytes(size), frames)


def test_tensors_are_views_and_keep_the_buffer():
    value = {"t": torch.arange(1000), "n": np.arange(1000.0), "j": nested(torch.jagged, (400,), (500,))}
    buffers, _ = ours.batch_encode_into([value], lambda sizes: [torch.zeros(n, dtype=torch.uint8) for n in sizes])
    start, end = buffers[0].data_ptr(), buffers[0].data_ptr() + len(buffers[0])
    (back,) = ours.batch_decode_from(buffers)
    del buffers
    assert all(start <= at < end for at in (back["t"].data_ptr(), back["n"].ctypes.data, back["j"].values().data_ptr()))
    back["t"][3] = -1  # the buffer was writable
    assert same(back["n"], value["n"]) and same(back["j"], value["j"]) and back["t"][:5].tolist() == [0, 1, 2, -1, 4]


# ---- what theirs pickles ----


class Thing:
    """Neither packbuf nor msgpack has it."""

    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return isinstance(other, Thing) and self.x == other.x


def test_what_needs_no_pickle_here():
    for value in [*OBJECT_ARRAYS, torch.float32, {"dtype": torch.bfloat16}, {1, 2}, frozenset("ab"), {"deep": [{"s": {1}}]}]:
        assert same(value, there_and_back(ours, value)), value
    data = there_and_back(ours, TensorDict({"n": NonTensorData("text", batch_size=[2]), "x": torch.zeros(2)}, [2]))
    assert data["n"] == "text" and data.batch_size == (2,)
    assert there_and_back(ours, [{"k": 2**70}]) == [{"k": 2**70}]  # theirs pickles the whole message for one such number


@pytest.mark.parametrize("value", [Thing(1), {"a": [Thing(1)]}, len, lambda: 1, torch.eye(2).to_sparse(), {"f": Thing}])
def test_pickle_only_when_asked(value):
    for module in (ours, old_frames):
        with pytest.raises(packbuf.Error, match="UNENCODABLE"):
            module.encode(value)
    frames = ours.encode(value, allow_pickle=True)
    assert isinstance(ours.decode(frames), (packbuf.Opaque, dict))
    back = ours.decode(frames, allow_pickle=True)
    assert type(back) is type(value)


def test_a_refusal_names_the_place():
    with pytest.raises(packbuf.Unencodable) as failure:
        ours.encode({"a": [0, Thing(1)]})
    assert failure.value.path == "object.a[1]"


def test_unpickling_only_when_asked():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    body = pickle.dumps(Trap())
    for frames in (
        [old_frames._WHOLE_PICKLE, body],
        theirs.encode({"x": np.array([Trap()], dtype=object)}),
        ours.encode(packbuf.Opaque("pickle", body)),
        [b"\xc7" + bytes([len(body), 3]) + body, b"12345678"],  # where the description of a tensor should be
    ):
        try:
            cell = ours.decode(frames)
        except packbuf.Error as error:
            assert "plain data" in str(error)
            continue
        cell = cell["x"] if isinstance(cell, dict) else cell
        assert isinstance(cell, packbuf.Opaque) and cell.serializer == "pickle"


def test_marks_are_no_values_of_a_caller():
    """A dict that looks like what stands for a TensorDict is a dict."""
    for key in ("__packbuf__", "__tq_tensordict__"):
        value = {key: "tensordict", "batch_size": [2], "data": {"x": torch.zeros(2)}, "set": {1}}
        assert same(value, there_and_back(ours, value))
    forged = packbuf.pack({"object": [{"__packbuf__": packbuf.Opaque("transferqueue", b"?")}]}, metadata={"transferqueue": "object"})
    with pytest.raises(packbuf.Unsupported):
        ours.decode([forged])


@pytest.mark.parametrize(
    "kind, parts",
    [
        (b"jagged", {"values": torch.arange(4), "offsets": torch.tensor([0, 9])}),
        (b"jagged", {"values": torch.arange(4), "offsets": torch.tensor([0, 3, 2])}),
        (b"jagged", {"values": torch.arange(4), "offsets": torch.tensor([1, 3])}),
        (b"jagged", {"values": torch.arange(4), "offsets": torch.tensor([-1, 3])}),
        (b"jagged", {"values": torch.arange(4), "offsets": torch.empty(0, dtype=torch.int64)}),
        (b"jagged", {"values": [1], "offsets": "x"}),
        (b"nested", {"layout": "odd", "rows": []}),
        (b"nested", {"layout": ["strided"], "rows": []}),
        (b"nested", {"layout": "strided", "rows": ["x"]}),
        (b"objects", {"shape": [7], "values": [1]}),
        (b"text", {"dtype": "O", "shape": [1], "data": np.zeros(8, np.uint8)}),
        (b"text", {"dtype": "<U1", "shape": [1], "data": np.full(4, 255, np.uint8)}),
        (b"text", {"dtype": "<U1", "shape": [1 << 60], "data": np.zeros(4, np.uint8)}),
        (b"tensordict", {"batch_size": [3], "data": {"x": torch.zeros(2)}}),
        (b"tensordict", {"batch_size": "x", "data": 7}),
        (b"text", {"dtype": "<U0", "shape": [1 << 33], "data": np.zeros(0, np.uint8)}),
        (b"dtype", {"name": "Tensor"}),
        (b"batch_meta", {}),
        (b"batch_meta", {"field_schema": {}, "global_indexes": [1], "partition_ids": []}),
        (b"batch_meta", {"field_schema": 7, "global_indexes": [], "partition_ids": []}),
        (b"batch_meta", {"field_schema": {"a": {"shape": 7}}, "global_indexes": [], "partition_ids": []}),
        (b"batch_meta", {"field_schema": {}, "global_indexes": [], "partition_ids": [], "__class__": 7}),
        (b"set", {"values": [[]]}),
        (b"set", {}),
    ],
)
def test_forged_marks_are_refused(kind, parts):
    value = {"__packbuf__": packbuf.Opaque("transferqueue", kind), **parts}
    packed = packbuf.pack({"object": [value]}, metadata={"transferqueue": "object"})
    with pytest.raises(packbuf.Error):
        ours.decode([packed])


# ---- old frames, both ways ----


@pytest.mark.parametrize("name", VALUES)
def test_old_frames_both_ways(name):
    for value in VALUES[name]:
        if isinstance(value, np.ndarray) and value.ndim == 0:
            continue  # theirs cannot view a 0-d array as bytes, and pickles it
        assert same(value, ours.decode(theirs.encode(value))), value
        assert same(there_and_back(theirs, value), theirs.decode(old_frames.encode(value))), value
        if not any(memoryview(frame).nbytes == 0 for frame in theirs.encode(value)):
            buffers, _ = theirs.batch_encode_into([value], bytearrays)
            assert same([value], ours.batch_decode_from(buffers))
            frames = old_frames.encode(value)
            buffer = bytearray(old_frames.calc_packed_size(frames))
            old_frames.pack_into(buffer, frames)
            assert same(value, theirs.batch_decode_from([memoryview(buffer)])[0])


def test_old_pickles_are_opaque():
    array = OBJECT_ARRAYS[1]
    cell = ours.decode(theirs.encode({"a": array}))["a"]
    assert cell.serializer == "pickle" and isinstance(cell.data, bytes)
    assert same(ours.decode(theirs.encode({"a": array}), allow_pickle=True)["a"], array)
    assert ours.decode(theirs.encode(2**70), allow_pickle=True) == 2**70
    assert theirs.decode(old_frames.encode([2**70, Thing(3)], allow_pickle=True)) == [2**70, Thing(3)]


def test_old_tensors_are_aligned():
    """The old layout puts them anywhere; kernels of torch want them at multiples of their elements."""
    value = {"a": b"x" * 3, "t": torch.arange(5), "d": torch.ones(3, dtype=torch.float64), "u": torch.ones(3, dtype=torch.uint8)}
    for shift in range(8):
        (buffer,), _ = theirs.batch_encode_into([value], bytearrays)
        (back,) = ours.batch_decode_from([memoryview(bytearray(shift) + buffer)[shift:]])
        assert same(value, back) and all(back[name].data_ptr() % back[name].itemsize == 0 for name in "tdu")


def refused(frames, **options):
    """That frames are refused by name, and why."""
    with pytest.raises(packbuf.Error) as failure:
        ours.decode(frames, **options)
    return failure.value.code.name


def ext(code, meta):
    body = meta if isinstance(meta, bytes) else old_frames._plain_dumps(meta)
    return b"\xc8" + struct.pack(">HB", len(body), code) + body


def test_hostile_descriptions():
    data = bytes(8)
    for meta, code in [
        (("float32", (2,), 1), None),
        (("float32", (3,), 1), "BAD_SHAPE"),
        (("float32", (1 << 62, 4), 1), "BAD_SHAPE"),
        (("float32", (0, 1 << 62, 1 << 62), 1), "BAD_SHAPE"),
        (("float32", tuple([1] * 40), 1), "BAD_SHAPE"),
        (("float32", ((2,),), 1), "BAD_SHAPE"),
        (("float32", (2,), 2), "BAD_REFERENCE"),
        (("float32", (2,), 0), "BAD_REFERENCE"),
        (("float32", (2,), 1 << 80), "BAD_REFERENCE"),
        (("Tensor", (2,), 1), "UNSUPPORTED_DTYPE"),
        (("qint8", (8,), 1), "UNSUPPORTED_DTYPE"),
        (("load", (2,), 1), "UNSUPPORTED_DTYPE"),
        (("float32", (2,)), "BAD_MSGPACK"),
        ("float32", "BAD_MSGPACK"),
        (b"\x80\x04cos\nsystem\n.", "BAD_MSGPACK"),
        (b"\x80\x04)R.", "BAD_MSGPACK"),
        (b"", "BAD_MSGPACK"),
        (b"\x80\x04t.", "BAD_MSGPACK"),
        (b"\x80\x04\x87.", "BAD_MSGPACK"),
        (b"\x80\x04h\x05.", "BAD_MSGPACK"),
    ]:
        frames = [ext(3, meta), data]
        assert (refused(frames) if code else ours.decode(frames).tolist() and None) == code, meta
    assert refused([b"\x92" + 2 * ext(3, ("uint8", (8,), 1)), data]) == "BAD_REFERENCE"  # one frame, two tensors
    assert refused([ext(3, ("bool", (8,), 1)), b"\x02" * 8]) == "BAD_BOOL"
    assert refused([ext(5, ("bool", (8,), 1)), b"\x02" * 8]) == "BAD_BOOL"
    assert refused([ext(5, ("<U2", (1,), 1)), b"\xff" * 8]) == "BAD_UTF8"
    for name in ("object", "O", "i4,O", "[('a', 'O')]", "V8", "", "x" * 99, "S99999999999", "(2,)i4", "S0", "<U0", "str", "bytes", "U"):
        assert refused([ext(5, (name, (1,), 1)), data]) in {"UNSUPPORTED_DTYPE", "BAD_SHAPE"}, name
    for meta in ({}, {"layout": "odd", "tensors": []}, {"layout": ["strided"], "tensors": []}, {"layout": "strided", "tensors": [7]}, {"layout": "strided", "tensors": "x"}, []):
        assert refused([ext(4, meta), data]) == "BAD_MSGPACK"
    for name in ("S0", "<U0", "str", "bytes", "a0"):  # no byte, and numpy would make 4 GiB of them
        assert refused([ext(5, (name, (1 << 32,), 1)), b""]) == "UNSUPPORTED_DTYPE", name
    assert refused([ext(9, b"")]) == "BAD_MSGPACK"
    assert refused([b"\xdd\xff\xff\xff\xff"]) == refused([b""]) == refused([b"\xc1\xfe\xed"]) == "BAD_MSGPACK"
    assert refused([b"\x91" * 100000]) == "DEPTH"
    assert refused([]) == "TRUNCATED"


def test_hostile_tables():
    good = bytearray(old_frames.calc_packed_size([b"abc", b"de"]))
    old_frames.pack_into(good, [b"abc", b"de"])
    for place, value, code in [
        (0, 2**32 - 1, "TRUNCATED"),
        (0, 3, "TRUNCATED"),
        (0, 1, "BAD_OFFSETS"),
        (4, 0, "BAD_OFFSETS"),
        (4, 2**32 - 1, "BAD_OFFSETS"),
        (8, 4, "BAD_OFFSETS"),
        (8, 2**32 - 1, "TRUNCATED"),
        (16, 3, "TRUNCATED"),
    ]:
        bad = bytearray(good)
        struct.pack_into("<I", bad, place, value)
        with pytest.raises(packbuf.Malformed) as failure:
            ours.unpack_from(bad)
        assert failure.value.code.name == code, (place, value)
    for size in range(len(good)):
        with pytest.raises(packbuf.Malformed):
            ours.unpack_from(good[:size])


def test_few_bytes_that_stand_for_many(monkeypatch):
    """Constants and rows that are alike are stored once; who decodes is not made to hold them all."""
    zero = np.zeros((), np.uint8)

    def alike(kind, *shape):
        return packbuf.pack({"frames": np.broadcast_to(zero, shape)}, metadata={"transferqueue": kind})

    hostile = [alike("object", 1 << 28), alike("object", 1, 1 << 40), packbuf.pack({}, rows=1 << 40, metadata={"transferqueue": "object"})]
    hostile += [packbuf.pack({str(i): np.broadcast_to(zero, (1 << 20,)) for i in range(200)}, metadata={"transferqueue": "object"})]
    for packed in hostile:
        with pytest.raises(packbuf.Error, match="LIMIT"):
            ours.decode([packed])
    for shape in ((1 << 20, 1 << 12), (1 << 14, 1 << 18), (1 << 26, 0), (1 << 60, 1), (1, 1 << 40), (3, 4096)):
        with pytest.raises(packbuf.Error, match="LIMIT"):
            ours.unpack_from(alike("frames", *shape))
    assert ours.decode(ours.encode(torch.zeros(1).expand(1 << 20))).shape == (1 << 20,)
    with pytest.raises(packbuf.Error, match="LIMIT"):
        ours.decode(ours.encode(torch.zeros(1).expand(1 << 20)), limits={"decoded_bytes": 1 << 20})
    for items in ([bytes(100000)] * 3, [bytes(1 << 20)], [b""] * 5000):  # and what is honest comes back
        buffer = bytearray(ours.calc_packed_size(items))
        ours.pack_into(buffer, items)
        assert ours.unpack_from(buffer) == items
    monkeypatch.setattr(ours, "_MOST_CELLS", 1 << 15)
    many = alike("object", 1 << 17)
    with pytest.raises(packbuf.Error, match="a limit of rows="):
        ours.decode([many])
    assert len(ours.decode([many], limits={"rows": 1 << 17})) == 1 << 17
    rows = [{"a": 0}] * 20000  # too many alike for columns: one value
    assert ours.decode(ours.encode(rows)) == rows


def test_names_import_nothing(monkeypatch):
    """A dtype's name is looked up among dtypes: torch imports packages when it is asked for their names."""
    monkeypatch.setattr(torch, "__getattr__", lambda name: pytest.fail(f"torch is asked for {name}"))
    assert refused([ext(3, ("_inductor", (8,), 1)), bytes(8)]) == "UNSUPPORTED_DTYPE"
    with pytest.raises(packbuf.Error, match="no dtype _inductor"):
        ours.decode([packbuf.pack({"object": [{"__packbuf__": packbuf.Opaque("transferqueue", b"dtype"), "name": "_inductor"}]}, metadata={"transferqueue": "object"})])


SEEDS = [value for name in ("mixed tensors", "nested tensors", "text arrays", "tensordicts", "one dict with a tensor") for value in VALUES[name]]


def read_all(value) -> None:
    """Touches every byte."""
    if isinstance(value, torch.Tensor):
        for tensor in value.unbind() if value.is_nested else [value]:
            tensor.contiguous().reshape(-1).view(torch.uint8).sum()
    elif isinstance(value, np.ndarray):
        value.tolist()
    elif isinstance(value, (dict, TensorDict)):
        for item in value.values():
            read_all(item)
    elif isinstance(value, list):
        for item in value:
            read_all(item)


def survive(tally, decode, data):
    """It is refused, or read, every byte of it."""
    value = tally.of(lambda: decode(data))
    read_all(value)
    return value


def test_mutated_old_buffers():
    tally = Tally()
    for seed, value in enumerate(SEEDS):
        (buffer,), _ = theirs.batch_encode_into([value], bytearrays)
        for bad in mutants(bytes(buffer), 60, seed):
            survive(tally, lambda data: ours.batch_decode_from([data]), bytearray(bad))
    tally.check(20, 200, 4)


def test_mutated_old_frames():
    tally = Tally()
    for seed, value in enumerate(SEEDS):
        first, *frames = theirs.encode(value)
        for i, bad in enumerate(mutants(bytes(memoryview(first)), 60, seed)):
            others = [next(mutants(bytes(memoryview(frame)), 1, i)) for frame in frames] if i % 3 == 0 else frames
            survive(tally, ours.decode, [bytearray(bad), *others])
    tally.check(20, 200, 4)


def test_mutated_buffers():
    """With checksums, what is read is what was written."""
    checked, opened = Tally(), Tally()
    for seed, value in enumerate(SEEDS):
        (frame,) = ours.encode(value)
        for bad in mutants(bytes(frame), 60, seed):
            found = survive(checked, lambda data: ours.decode([data]), bytearray(bad))
            assert found is None or bytes(ours.encode(found)[0]) == bytes(frame)
            survive(opened, lambda data: ours.decode([data], verify="open"), bytearray(bad))
    checked.check(1, 500, 4)
    opened.check(50, 200, 4)
    assert opened.read > checked.read


# ---- in place of the original, in the real package ----


@pytest.fixture
def installed():
    restore = ours.install()
    yield
    restore()


@pytest.mark.usefixtures("installed")
def test_its_messages():
    from transfer_queue.utils.zmq_utils import ZMQMessage, ZMQRequestType

    body = {"data": VALUES["tensordicts"][1], "n": np.ones((2, 2)), "indexes": [1, 2]}
    sent = ZMQMessage.create(ZMQRequestType.PUT_DATA, "sender", body, "receiver")
    frames = sent.serialize()
    assert len(frames) == 1
    back = ZMQMessage.deserialize(frames)
    assert (back.request_type, back.request_id, back.timestamp) == (sent.request_type, sent.request_id, sent.timestamp)
    assert same(back.body, body)


def test_its_metadata_needs_no_pickle(installed):
    """A message of the controller carries a BatchMeta, which the original pickles."""
    from transfer_queue.metadata import BatchMeta
    from transfer_queue.utils.zmq_utils import ZMQMessage, ZMQRequestType

    schema = {"ids": {"dtype": torch.int64, "shape": (4,)}, "text": {"dtype": None, "shape": None, "is_non_tensor": True}, "r": {"dtype": torch.bfloat16, "shape": None, "per_sample_shapes": [(3,), None]}}
    for meta in (
        BatchMeta([3, 5], ["p", "q"], schema, np.array([1, 0]), {"k": [1]}, [{"uid": "a"}, {}], [{}, {"ids": {"packed_size": 7}}]),
        BatchMeta([], []),
    ):
        message = ZMQMessage.create(ZMQRequestType.GET_META_RESPONSE, "controller", {"metadata": meta})
        (frame,) = message.serialize()
        back = ZMQMessage.deserialize([frame]).body["metadata"]
        assert type(back) is BatchMeta and same([getattr(back, name) for name in meta.__slots__], [getattr(meta, name) for name in meta.__slots__])
        shapes = [(one["shape"], one.get("per_sample_shapes")) for one in back.field_schema.values()]
        assert shapes == [((4,), None), (None, None), (None, [(3,), None])][: len(shapes)]
        assert b"pickle" not in bytes(frame)
    with pytest.raises(packbuf.Unencodable, match="function"):  # it runs in the storage unit, so it wants pickle
        ZMQMessage.create(ZMQRequestType.PUT_DATA, "client", {"data_parser": test_many_tensors_by_many_workers}).serialize()


def test_install_puts_things_back():
    before = theirs.encode, sys.modules["transfer_queue.utils.zmq_utils"].decode
    restore = ours.install()
    assert theirs.encode is not before[0]
    restore()
    assert (theirs.encode, sys.modules["transfer_queue.utils.zmq_utils"].decode) == before


@pytest.mark.usefixtures("installed")
def test_its_storage_unit(monkeypatch):
    """A real storage unit behind its socket: put, get in another order, put again, clear."""
    import zmq
    from transfer_queue.storage import simple_storage
    from transfer_queue.utils import zmq_utils

    monkeypatch.setattr(simple_storage, "get_node_ip_address", lambda: "127.0.0.1")
    unit = simple_storage.SimpleStorageUnit.__ray_metadata__.modified_class({"total_storage_size": 10})
    context = zmq.Context()
    socket = zmq_utils.create_zmq_socket(context, zmq.DEALER, "127.0.0.1", identity=b"TQ_STORAGE_test")
    kinds = zmq_utils.ZMQRequestType
    try:
        socket.connect(unit.get_zmq_server_info().to_addr("put_get_socket"))
        socket.setsockopt(zmq.RCVTIMEO, 60000)

        def ask(kind, **body):
            frames = zmq_utils.ZMQMessage.create(kind, "test", body, unit.storage_unit_id).serialize()
            socket.send_multipart(frames, copy=False)
            return zmq_utils.ZMQMessage.deserialize(socket.recv_multipart(copy=False))

        data = {"ids": [torch.arange(3), torch.arange(4)], "meta": ["a", {"b": np.ones(2), "c": [1, None]}]}
        assert ask(kinds.PUT_DATA, global_indexes=[3, 5], data=data, data_parser=None).request_type == kinds.PUT_DATA_RESPONSE
        got = ask(kinds.GET_DATA, fields=["meta", "ids"], global_indexes=[5, 3])
        assert same(got.body["data"], {name: column[::-1] for name, column in data.items()})
        missing = ask(kinds.GET_DATA, fields=["ids"], global_indexes=[4])
        assert missing.request_type == kinds.GET_ERROR
        assert ask(kinds.CLEAR_DATA, global_indexes=[3, 5]).request_type == kinds.CLEAR_DATA_RESPONSE
    finally:
        socket.close(linger=0)
        context.term()
        unit.shutdown()


def test_all_of_it():
    """Its controller, storage units and client, on their sockets: what end_to_end.py does, here without Ray."""
    script = ROOT / "examples" / "transferqueue" / "end_to_end.py"
    done = subprocess.run([sys.executable, str(script), "--threads"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "each one packed buffer; no pickle" in done.stdout and "leaked" not in done.stderr


class MemoryStore:
    """The calls of Mooncake's store that the client makes, over a dict; every address must be registered."""

    def __init__(self):
        self.objects, self.registered = {}, {}

    def register_buffer(self, address, size):
        self.registered[address] = size
        return 0

    def unregister_buffer(self, address):
        del self.registered[address]
        return 0

    def _check(self, address, size):
        assert any(start <= address and address + size <= start + length for start, length in self.registered.items())

    def batch_upsert_from(self, keys, addresses, sizes, config=None):
        for key, address, size in zip(keys, addresses, sizes):
            self._check(address, size)
            self.objects[key] = ctypes.string_at(address, size)
        return [0] * len(keys)

    def batch_get_into(self, keys, addresses, sizes):
        for key, address, size in zip(keys, addresses, sizes):
            self._check(address, size)
            ctypes.memmove(address, self.objects[key], min(size, len(self.objects[key])))
        return [len(self.objects[key]) for key in keys]


@pytest.mark.usefixtures("installed")
def test_its_mooncake_client():
    """Its own put and get, with their batches, threads and regions."""
    client_module = pytest.importorskip("transfer_queue.storage.clients.mooncake_client")
    client = object.__new__(client_module.MooncakeStoreClient)
    client._store, client.use_gdr, client._gdr_staging, client.replica_config = MemoryStore(), False, None, None
    values = [torch.randn(3, 2), "text", {"t": torch.arange(4)}, *range(900), *VALUES["nested tensors"][:0], np.arange(3)]
    keys = [f"k{i}" for i in range(len(values))]
    meta = client.put(keys, values)
    assert not client._store.registered
    shapes = [list(value.shape) if isinstance(value, torch.Tensor) else [] for value in values]
    dtypes = [value.dtype if isinstance(value, torch.Tensor) else None for value in values]
    assert same(client.get(keys, shapes, dtypes, meta), values)
    client._store.objects["k1"] = client._store.objects["k1"][:-1] + b"\xff"  # what arrives is not what was sent
    with pytest.raises(packbuf.Error):
        client.get(["k1"], [[]], [None], [meta[1]])
