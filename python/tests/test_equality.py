"""The relation that the other tests hold everything to, held to section 16 of the spec: each of these equals itself alone."""

import struct

import numpy as np
import pytest
from equality import same

import packbuf

try:
    import torch
except ImportError:
    torch = None


def float_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


QUIET, PAYLOAD, NEGATIVE = 0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000
VALUES = [
    None, packbuf.MISSING, [], {}, "", b"", True, False, 1, 0, 1.0, 0.0, -0.0, "1", b"1", "True", 2**64, float(2**64), -1, 2**53 + 1, float(2**53),
    float_of(QUIET), float_of(PAYLOAD), float_of(NEGATIVE), float("inf"), float("-inf"), np.complex128(1j),
    [1], [1.0], [True], [[1]], [None], [[]], ["1"], [1, 2], [2, 1],
    {"a": 1}, {"a": 1.0}, {"a": True}, {"a": None}, {"b": 1}, {1: 1}, {1.0: 1}, {True: 1}, {"1": 1}, {b"1": 1}, {0.0: 1}, {-0.0: 1}, {float_of(QUIET): 1}, {float_of(PAYLOAD): 1}, {None: 1},
    np.int64(1), np.int32(1), np.float64(1), np.float32(1), np.bool_(True), np.array(1), np.array([1]), np.array([[1]]), np.array([1], np.int32), np.array([1.0]), np.array([True]), np.array([1j]),
    np.array([0.0]), np.array([-0.0]), np.array([float_of(QUIET)]), np.array([float_of(PAYLOAD)]), np.zeros((0, 2)), np.zeros((2, 0)), np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-01"], "M8[s]"),
    packbuf.Media(b"1"), packbuf.Media(b"1", mime="image/png"), packbuf.Media(b"1", height=1), packbuf.Media(b"1", rate=1.0), packbuf.Opaque("s", b"1"), packbuf.Opaque("t", b"1"),
]
if torch:
    VALUES += [torch.tensor(1), torch.tensor([1]), torch.tensor([1], dtype=torch.int32), torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.bfloat16), torch.tensor([1.0], dtype=torch.float16), torch.tensor([-0.0]), torch.tensor([0.0]), torch.zeros(0, 2), torch.zeros(2, 0)]


@pytest.mark.parametrize("first", range(len(VALUES)))
def test_each_equals_itself_alone(first):
    equal = [second for second, value in enumerate(VALUES) if same(VALUES[first], value)]
    assert equal == [first], [VALUES[i] for i in equal]
    assert not any(same([VALUES[first]], [value]) or same({"k": VALUES[first]}, {"k": value}) for at, value in enumerate(VALUES) if at != first)


@pytest.mark.parametrize("first", [i for i, value in enumerate(VALUES) if value is not packbuf.MISSING and getattr(value, "dtype", np.dtype(int)) not in ("M8[D]", "M8[s]")])
def test_each_comes_back_as_itself_alone(first):
    """And through a packed buffer: beside others, as a cell, within a list and a dict."""
    value = VALUES[first]
    batch = {"c": [value, None], "l": [[value, "x"], []], "d": [{"k": [value], "z": value}, {}]}
    view = packbuf.open(packbuf.pack(batch), verify="all", tensors="torch" if torch else "numpy")
    assert all(same(column, view[name].tolist()) for name, column in batch.items())
    found = view["c"][0]
    assert [i for i, other in enumerate(VALUES) if same(other, found)] == [first]


def test_what_is_not_kept():
    for a, b in (((1, 2), [1, 2]), (bytearray(b"x"), b"x"), (memoryview(b"x"), b"x"), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (np.arange(3, dtype=">i4"), np.arange(3, dtype="<i4")), (np.arange(6).reshape(2, 3).T, np.arange(6).reshape(2, 3).T.copy()), (1j, np.complex128(1j))):
        assert same(a, b)
