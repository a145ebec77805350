"""The 170 edge columns on which the codecs that packbuf follows were measured: each comes back equal, or is refused with the error named here.

The numbers are those of tests/matrix.c. The originals lose or refuse dozens.
"""

import collections
import datetime
import decimal
import http
import os
import re

import numpy as np
import pytest
from equality import same

import packbuf
from packbuf import Status

try:
    import torch as t
except ImportError:
    t = None

D = type("D", (dict,), {})
refused = collections.namedtuple("refused", "code path row", defaults=(0,))


def deep(n):
    value = 1
    for _ in range(n):
        value = {"a": value}
    return value


def deepl(n):
    value = 1
    for _ in range(n):
        value = [value]
    return value


def selfref():
    value = []
    value.append(value)
    return value


def columns():
    """The cells by number; a pair where the outcome is not equality: what comes back, or the refusal."""
    big = 2**63
    return {
        1: [1, 2, 3],
        2: [True, False],
        3: [True, 2],
        4: [True, 2.5],
        5: [1, 2.5],
        6: [big - 1],
        7: [big],
        8: [big, -1],
        9: [2**64 - 1],
        10: [2**64],
        11: [2**64, 1],
        12: [-big - 1],
        13: [2**64, 1.0],
        14: [2**53 + 1, 0.5],
        15: [np.float32(1.5), 2.1],
        16: [np.int8(1), 300],
        17: [np.int8(1), np.uint8(200)],
        18: [np.uint64(big + 5), np.int64(-1)],
        19: [np.bool_(True)],
        20: [np.bool_(True), 1],
        21: [np.float16(1)],
        22: [1 + 2j],
        23: [np.complex64(1)],
        24: [float("nan"), float("inf")],
        25: [-0.0],
        26: [None, 1],
        27: [None, True],
        28: [None, None],
        29: [],
        30: [None],
        31: ["a", 1],
        32: ["a", None],
        33: ["a", b"b"],
        34: ["", ""],
        35: (["\ud800"], refused(Status.BAD_UTF8, "r")),
        36: ([{"a": "\ud800"}], refused(Status.BAD_UTF8, "r.a")),
        37: [b"a", b""],
        38: [bytearray(b"x"), memoryview(b"yz"), None],
        39: [[b"a", b"b"], [b"c"]],
        40: [[b"a"], []],
        41: [[], []],
        42: [[], None],
        43: [(), ()],
        44: [(b"a",), (b"b", b"c")],
        45: [[b"a", "s"]],
        46: [{"k": b"x"}, {"k": b"y"}],
        47: [[b"a", None]],
        48: [[1, 2, 3], [4, 5]],
        49: [[1], None],
        50: [[True, False], [True]],
        51: [[True, 2]],
        52: [[True], [2]],
        53: [[1], [2.5]],
        54: [[1, 2], []],
        55: [[1, None, 3]],
        56: [[1.0, float("nan")]],
        57: [["a", "b"], ["c"]],
        58: [[[1, 2], [3]], [[4]]],
        59: [[[1, 2], [3, 4]], [[5, 6], [7, 8]]],
        60: [(1, 2), (3,)],
        61: [[1], (2,)],
        62: [[{"a": 1}] * 9],
        63: [[{"a": 1}] * 8],
        64: [[None], [None, None]],
        65: [[{"k": 1}, None], [{"k": 2}]],
        66: [[big]],
        67: [[-1, big]],
        68: [[2**64]],
        69: [[-1], [big]],
        70: [[1, [2]]],
        71: [[1, "a"]],
        72: [[1j]],
        73: [[np.float32(1.5)]],
        74: [[np.arange(3)], [np.arange(2)]],
        75: [list(range(9))],
        76: [[[1]] * 9],
        77: [np.arange(3, dtype=np.int32), np.arange(2, dtype=np.int32)],
        78: [np.arange(3, dtype=np.int32), np.arange(2, dtype=np.float64)],
        79: [np.arange(3), np.arange(4).reshape(2, 2)],
        80: [np.array([True, False])],
        81: [np.array(["a", "b"])],  # no dtype of the format: a list
        82: [np.array([1, "a"], dtype=object)],  # likewise
        83: [np.array(1), np.array(2)],
        84: [np.arange(2), [1, 2]],
        85: [np.array(["2020-01-01"], dtype="datetime64[D]")],
        86: ([np.zeros(2, dtype=[("a", "i4")])], refused(Status.UNSUPPORTED_DTYPE, "r")),
        87: [np.empty(0, dtype=np.float32)],
        88: [np.empty((2, 0), dtype=np.float32), np.empty((3, 0), dtype=np.float32)],
        89: [np.arange(3, dtype=">i4")],
        90: [np.asfortranarray(np.arange(6).reshape(2, 3))],
        91: [np.arange(2, dtype=np.float16)],
        92: [np.array([1j])],
        93: [np.array([big], dtype=np.uint64), np.array([-1])],
        114: [{"a": 1}, {"b": 2}],
        115: [{"x": 1}, None],
        116: [{}, {}],
        117: [{}, None],
        118: [{1: 2}],
        119: [{"a": 1, 2: 3}],
        120: [{"a.b": 1}],
        121: [{"a[0]": 1}],
        122: [{"a\\b": 1}],
        123: [{"a]": 1}],
        124: [{"": 1}],
        125: [{"": b"x"}],
        126: [{"": {"k": b"x"}}, {}],
        127: [{"a/b": b"x"}],
        128: [{f"k{i}": i for i in range(64)}],
        129: [{f"k{i}": i for i in range(65)}],
        130: [{"a": 1}, [1]],
        131: [{"a": 1}, 1],
        132: [{"a": {"b": 1}}, {"a": None}, {}],
        133: [{"x": None}, {"y": 2}, None],
        134: [D(a=1)],
        135: [{"b": 1, "a": 2}],
        136: [{"a": 1}, {"a": "s"}],
        137: ([{"a": object()}], refused(Status.UNENCODABLE, "r.a")),
        138: [{"b": b"x", "n": {"z": 1}}, {"n": None}, None, {"n": {}}],
        139: [{"a": {"b": b"1"}, "a.b": b"2"}],
        140: [{"é": b"x"}],
        141: [{"l": [{"p": b"x"}, None]}, {"l": []}, {"l": None}, {}],
        142: [[{"p": b"x"}, None], [None]],
        143: [({"p": b"x"},), [{"p": b"y"}]],
        144: [{"a": [1, float("nan"), "x"]}],
        145: [[1, "a", {"k": 2}], ["b"]],
        146: [["x" * (1 << 20) + "y"]],
        147: [["x"]] * 128 + [["x" * (1 << 21)]],
        148: [["x" * 8190]] * 128,
        149: ([{"ok": i} for i in range(200)] + [object()], refused(Status.UNENCODABLE, "r", 200)),
        150: ([{1, 2}], refused(Status.UNENCODABLE, "r")),
        151: [[2**70, "a"]],
        152: [1, "a", None],
        153: [1.5, "x"],
        154: [[np.int64(1), "a"]],
        155: [("a", "b")],
        156: [{1: b"x"}],
        157: ([object()], refused(Status.UNENCODABLE, "r")),
        158: [datetime.datetime(2020, 1, 1)],
        159: ([decimal.Decimal("1.5")], refused(Status.UNENCODABLE, "r")),
        160: [http.HTTPStatus.OK],
        161: [type("S", (str,), {})("x")],
        162: [["a", 2**64 - 1]],
        163: [["a", 2**64]],
        164: [[True, "a"], [1, "b"]],
        165: [1, [2]],
        166: [deep(32)],
        167: ([deep(33)], refused(Status.DEPTH, ...)),
        168: ([deepl(40)], refused(Status.DEPTH, ...)),
        169: [deepl(31)],
        170: ([selfref()], refused(Status.DEPTH, ...)),
    }


def tensor_columns():
    if t is None:
        return {}
    return {
        94: [t.tensor([1, 2]), t.tensor([3])],
        95: [t.tensor([1.0]), t.tensor([1])],
        96: [t.tensor([1]), t.tensor([[1, 2]])],
        97: [t.tensor(1), t.tensor(2)],
        98: [t.zeros(2, dtype=t.bfloat16)],
        99: [t.zeros(2, dtype=t.float8_e4m3fn)],
        100: [t.tensor([True])],
        101: [t.zeros(2, dtype=t.float16)],
        102: [t.tensor([1]), None],
        103: [t.tensor([1]), [1]],
        104: [[t.tensor([1])], [t.tensor([2, 3])]],
        105: [t.empty(0)],
        106: [t.arange(6).reshape(2, 3).t()],
        107: [t.zeros(2, dtype=t.complex64)],
        108: [t.ones(2, requires_grad=True)],
        109: [{"a": t.tensor([1])}, {"a": t.tensor([1, 2])}],
        110: ([t.eye(2).to_sparse()], refused(Status.UNENCODABLE, "r")),
        111: [t.zeros(2, dtype=t.uint16)],
        112: [{"a": t.zeros(2, dtype=t.bfloat16)}],
        113: [{"a": t.tensor([1])}, {"a": t.tensor([1.0])}],
    }


EDGES = {**columns(), **tensor_columns()}


def test_all_rows_are_here():
    if t is None:
        assert os.environ.get("CI") != "true", "torch is not installed"
        pytest.skip("torch is not installed: 20 of the 170 rows did not run")
    assert sorted(EDGES) == list(range(1, 171))
    refusals = {number: edge[1].code.name for number, edge in EDGES.items() if isinstance(edge, tuple)}
    assert refusals == {**dict.fromkeys((35, 36), "BAD_UTF8"), 86: "UNSUPPORTED_DTYPE", **dict.fromkeys((110, 137, 149, 150, 157, 159), "UNENCODABLE"), **dict.fromkeys((167, 168, 170), "DEPTH")}


@pytest.mark.parametrize("packing", [None, "balanced", "smallest"])
@pytest.mark.parametrize("number", EDGES)
def test_edge(number, packing):
    edge = EDGES[number]
    if not isinstance(edge, tuple):
        view = packbuf.open(packbuf.pack({"r": edge}, packing=packing), verify="all")
        back = view["r"].tolist()
        assert same(edge, back), back
        assert same([{"r": cell} for cell in edge], view.rows())
        assert same(edge, list(view["r"])) and same(edge[::-1], view["r"][::-1])
        return
    column, wanted = edge
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack({"r": column}, packing=packing)
    error = caught.value
    assert error.code == wanted.code, error
    if wanted.path is not ...:
        assert (error.path, error.row) == (wanted.path, wanted.row), error
    else:
        assert error.row in (0, None) and re.fullmatch(r"r(\.a){33}|r(\[0\])+|\.\.\.(\[0\])+", error.path), (error.row, error.path)
