"""Fields as arrays: in place where they can, copied where they must, with nulls, selections and memory of the caller."""

import types

import numpy as np
import pytest

import packbuf
from packbuf import Status


def opened(batch, **options):
    return packbuf.open(packbuf.pack(batch, **options))


def test_plain_fields_lie_in_the_packed_buffer():
    packed = packbuf.pack({"x": np.arange(12.0).reshape(3, 4)})
    array = packbuf.open(packed)["x"].numpy()
    memory = np.frombuffer(packed, np.uint8)
    assert np.shares_memory(array, memory) and not array.flags.writeable and array.ctypes.data % 64 == 0
    assert packbuf.open(packed)["x"].numpy(copy=True).flags.writeable


@pytest.mark.parametrize("packing", ["balanced", "smallest"])
def test_packed_fields_are_copied(packing):
    x = np.arange(100_000).reshape(100, 1000)
    packed = packbuf.pack({"x": x}, packing=packing)
    assert len(packed) < x.nbytes / 4
    assert (packbuf.open(packed, verify="all")["x"].numpy() == x).all()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24).reshape(4, 6)[::2, ::-1],
        np.arange(24).reshape(4, 6).T,
        np.asfortranarray(np.arange(24).reshape(4, 6)),
        np.broadcast_to(np.float32(3), (5, 2)),
        np.arange(5, dtype=">u2"),
        np.zeros((3, 0, 2), np.int8),
        np.array([np.nan, -0.0, np.inf]),
        np.arange(6).reshape(6, 1)[:0],
        np.zeros((2, 1, 1, 1, 1, 1, 1, 3), np.uint8),
    ],
)
def test_any_strides_and_byte_orders(array):
    back = opened({"x": array})["x"].numpy()
    native = array.astype(array.dtype.newbyteorder("="))
    assert back.dtype == native.dtype and back.shape == array.shape and back.tobytes() == native.tobytes()


def test_rows_of_arrays():
    view = opened({"x": np.arange(3, dtype=np.float32), "y": np.arange(6).reshape(3, 2)})
    row = view.rows(1, 2)[0]
    assert type(row["x"]) is float and row["x"] == 1 and (row["y"] == [2, 3]).all() and view["x"].numpy().dtype == np.float32


def test_texts_and_objects_as_fields():
    batch = {"u": np.array(["a", "bé"]), "s": np.array([b"x", b"yz"]), "o": np.array([{"k": 1}, None], dtype=object)}
    view = opened(batch)
    assert view.rows() == [{"u": "a", "s": b"x", "o": {"k": 1}}, {"u": "bé", "s": b"yz", "o": None}]
    assert view["u"].codec == "utf8_ragged" and view["s"].numpy().tolist() == [b"x", b"yz"]


@pytest.mark.parametrize(
    ("column", "code"),
    [
        (np.array(5), Status.INVALID_ARGUMENT),
        (np.array("x"), Status.INVALID_ARGUMENT),
        (np.zeros(2, [("a", "i4")]), Status.UNSUPPORTED_DTYPE),
        (np.zeros(2, np.longdouble), Status.UNSUPPORTED_DTYPE),
        (np.zeros(2, "m8[s]"), Status.UNSUPPORTED_DTYPE),
        (np.zeros(2, "M8[W]"), Status.UNSUPPORTED_DTYPE),
        (np.ma.masked_array([1, 2], [0, 1]), Status.UNENCODABLE),
        (np.zeros((1,) * 9), Status.INVALID_ARGUMENT),
        (b"bytes", Status.WRONG_TYPE),
        ("text", Status.WRONG_TYPE),
        ({"a": 1}, Status.WRONG_TYPE),
        (5, Status.WRONG_TYPE),
        (None, Status.WRONG_TYPE),
    ],
)
def test_columns_that_are_refused(column, code):
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack({"f.x": column})
    assert caught.value.code == code and caught.value.path == "f\\.x", caught.value


def test_nulls_need_a_fill():
    view = opened({"n": [1, None, 3], "r": [[1, 2], None, []]})
    with pytest.raises(packbuf.Error) as caught:
        view["n"].numpy()
    assert caught.value.code == Status.NOT_NULLABLE and caught.value.path == "n"
    assert view["n"].numpy(fill=-1).tolist() == [1, -1, 3] and view["n"].valid().tolist() == [True, False, True]
    with pytest.raises(packbuf.Unencodable):
        view["r"].ragged()
    assert [row.tolist() for row in view["r"].ragged(fill=0)] == [[1, 2], [], []]
    assert view["n"].nulls == 1 and view["n"].missing == 0


def test_missing_is_not_null():
    view = packbuf.open(packbuf.pack([{"a": 1}, {}, {"a": None}]))
    assert (view["a"].nulls, view["a"].missing) == (1, 1)
    assert view["a"].tolist() == [1, packbuf.MISSING, None] and view.rows() == [{"a": 1}, {}, {"a": None}]


def test_ragged():
    rows = [np.arange(6).reshape(2, 3), np.zeros((0, 3), int), np.arange(4).reshape(4, 1)]
    ragged = opened({"x": rows})["x"].ragged()
    assert [row.shape for row in ragged] == [(2, 3), (0, 3), (4, 1)] and all((a == b).all() for a, b in zip(rows, ragged, strict=True))
    assert (ragged[-1] == rows[2]).all()
    with pytest.raises(IndexError):
        ragged[3]
    mixed = opened({"x": [np.array(7), np.arange(2)]})["x"].ragged()
    assert mixed[0].shape == () and mixed[1].tolist() == [0, 1]
    assert opened({"x": [[1], [2, 3]]})["x"].ragged().padded(-1, 3).tolist() == [[1, -1, -1], [2, 3, -1]]


ROWS = [None, slice(None), slice(2, 9), slice(None, None, 3), slice(None, None, -1), slice(-3, None), slice(9, 2, -2), slice(5, 5), [], [0], [9, 0, 0, -1], range(2, 8, 3)]


@pytest.mark.parametrize("rows", [*ROWS, np.arange(10) % 3 == 1, [True] + [False] * 9, np.array([3, 4], np.uint8)])
@pytest.mark.parametrize("packing", [None, "smallest"])
def test_selected_rows(rows, packing):
    x, texts, lists = np.arange(30).reshape(10, 3), [f"t{i}" for i in range(10)], [list(range(i)) for i in range(10)]
    view = opened({"x": x, "t": texts, "l": lists, "m": [{"k": i} for i in range(10)]}, packing=packing)
    index = np.arange(10)[slice(None) if rows is None else list(rows) if isinstance(rows, range) else np.array(rows, int) if rows == [] else rows] if not isinstance(rows, np.ndarray) else np.arange(10)[rows]
    chosen = view.select(["x", "t", "l", "m.k"], rows)
    assert len(chosen) == len(index) and chosen.paths == ["x", "t", "l", "m.k"]
    arrays = chosen.numpy()
    assert (arrays["x"] == x[index]).all() and arrays["t"].tolist() == [texts[i] for i in index] and arrays["m.k"].tolist() == list(index)
    assert [row.tolist() for row in arrays["l"]] == [lists[i] for i in index]
    assert (view["x"].numpy(rows) == x[index]).all()
    assert [row["m"]["k"] for row in chosen.tolist()] == list(index)
    if rows is not None:
        assert view["t"][rows] == [texts[i] for i in index]
    out = {"x": np.full((len(index), 3), -1), "m.k": np.empty(len(index), np.int16)}
    chosen.into(out)
    assert (out["x"] == x[index]).all() and out["m.k"].tolist() == list(index)


def test_into_refuses_what_does_not_fit():
    chosen = opened({"x": np.arange(6).reshape(3, 2) * 100, "f": np.ones(3)}).select()
    frozen = np.zeros((3, 2), int)
    frozen.flags.writeable = False
    for out, code in [
        ({"x": np.empty((3, 3), int)}, Status.INVALID_ARGUMENT),
        ({"x": np.empty((3, 2), np.uint8)}, Status.LOSSY),
        ({"x": np.empty((3, 2))}, Status.WRONG_TYPE),
        ({"f": np.empty(3, np.float32)}, Status.WRONG_TYPE),
        ({"x": frozen}, Status.READ_ONLY),
        ({"x": np.empty((2, 3), int).T}, Status.READ_ONLY),
        ({"y": frozen}, Status.NOT_FOUND),
    ]:
        with pytest.raises(packbuf.Error) as caught:
            chosen.into(out)
        assert caught.value.code == code, caught.value


def test_bfloat16_without_torch():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = np.arange(4, dtype=ml_dtypes.bfloat16).reshape(2, 2)
    view = opened({"x": x, "c": [x[0], x[1]], "f8": np.ones(2, ml_dtypes.float8_e4m3fn)})
    assert view["x"].dtype == "bfloat16" and (view["x"].numpy() == x).all() and view["x"].numpy(bits=True).dtype == np.uint16
    assert (view["c"][1] == x[1]).all() and view["f8"].numpy().dtype == ml_dtypes.float8_e4m3fn


def test_numbers_of_mixed_types():
    view = opened({"n": [True, 1, 2.5]})
    assert view["n"].tolist() == [True, 1, 2.5] and [type(cell) for cell in view["n"]] == [bool, int, float]
    assert view["n"].numpy().tolist() == [1.0, 1.0, 2.5]


def test_infer_gives_reasons():
    inference = packbuf.infer([{"x": 1}, {"x": 2, "t": [1, 2]}, None], "m")
    assert [(node.path, node.kind, node.codec, node.nulls, node.missing) for node in inference] == [
        ("m", "dict", None, 1, 0),
        ("m.x", "leaf", "ndarray", 1, 0),
        ("m.t", "leaf", "typed_ragged", 1, 1),
    ]
    assert all(node.reason for node in inference[1:]) and "m.x" in str(inference) and "<table>" in inference._repr_html_()


def test_ragged_rows_that_are_no_arrays():
    class Ragged(packbuf.Ragged):
        def items(self):
            return [1, 2, 3], [0, 3]

    with pytest.raises(packbuf.WrongType):
        packbuf.pack({"x": Ragged.of(np.arange(3), np.array([0, 3]))})


@pytest.mark.parametrize("packing", ["none", "balanced", "smallest"])
def test_offsets_that_change_after_they_were_measured(packing):
    offsets = np.arange(0, 4001, 4)
    rows = packbuf.Ragged.of(np.repeat(np.arange(40), 100), offsets)
    expected = packbuf.pack({"x": rows}, packing=packing).detach()

    def alloc(sizes):
        offsets[1:-1] = np.iinfo(np.int64).max // 2
        return [bytearray(size) for size in sizes]

    (buffer,), (size,) = packbuf.pack_many([{"x": rows}], alloc, packing=packing)
    assert bytes(buffer[:size]) == expected


def test_errors_name_what_there_is():
    packed = packbuf.pack({"ids": [1, 2], "a.b": [3, 4]})
    view = packbuf.open(packed)
    assert view["a.b"][0] == 3
    for missing in ("idz", "a.c"):
        with pytest.raises(packbuf.NotFound, match=r"the fields are ids, a\.b$") as caught:
            view[missing]
        assert caught.value.path == missing and missing not in view
    for missing in ("idz", "a.b", "a.*"):
        with pytest.raises(packbuf.NotFound, match=r"the fields are ids, a\\\.b$") as caught:  # as a pattern wants it
            view.select(["ids", missing])
        assert caught.value.path == missing and view.select(r"a\.*").paths == [r"a\.b"]
    with pytest.raises(packbuf.OutOfRange, match=r"rows\[1\] is -3, of a batch of 2 rows$"):
        view.select("ids", [0, -3])
    with pytest.raises(packbuf.OutOfRange, match=r"rows\[0\] is 2, of"):
        view["ids"].numpy([2])
    assert repr(view.select("ids", [0])) == f"<packbuf.Selection: 1 rows, 1 columns of {view!r}>"
    many = packbuf.open(packbuf.pack({f"f{i}": [1] for i in range(100)}))
    with pytest.raises(packbuf.NotFound, match="has 100 fields$"):
        many["g"]
    with pytest.raises(packbuf.Malformed, match=r"^TRUNCATED \(H8\) at byte \d+, needs \d+ bytes: .* \(the rule: all total_length bytes"):
        packbuf.open(bytes(packed)[:-1])
    with pytest.raises(packbuf.Error, match=f"needs {len(packed)} bytes"):
        packbuf.pack_into({"ids": [1, 2], "a.b": [3, 4]}, bytearray(9))
    with pytest.raises(packbuf.Error, match=r"no limit row: they are .*, rows, "):
        packbuf.open(packed, limits={"row": 1})
    with pytest.raises(packbuf.Error, match=r"no codec json: they are .*json_ragged"):
        packbuf.pack({"a": [1]}, schema={"a": {"codec": "json"}})
    with pytest.raises(packbuf.WrongType, match="a schema is a mapping"):
        packbuf.pack({"a": [1]}, schema="a")


def test_rows_that_are_none():
    field = opened({"x": [1, 2, 3]}, metadata={"by": "me", "x": {"unit": "tokens"}})["x"]
    assert field[-3] == 1 and field[-1] == 3 and field[np.int8(-2)] == 2
    for row in (3, -4, -(2**70), 2**70):
        with pytest.raises(packbuf.OutOfRange, match=f"row {row} of 3"):
            field[row]
    for rows in (slice(0, 2.5), slice("a"), [0.5, 1.0], np.array([1.5]), ["a"], slice(None, None, 1.0)):
        with pytest.raises(packbuf.WrongType):
            field.numpy(rows)
    assert field.numpy(slice(np.int64(1), None)).tolist() == [2, 3]


def test_metadata_is_of_its_place():
    view = opened({"x": [1], "y": [2]}, metadata={"by": "me", "x": {"unit": "tokens", "by": "them"}})
    assert view.metadata == {"by": "me"} and view["x"].metadata == {"unit": "tokens", "by": "them"} and view["y"].metadata == {}


def test_usual_fields_before_unusual_ones():
    """Fields that are added in one call and those after them: the order, the bytes and the refusals are the same."""
    numbers = np.arange(6).reshape(3, 2)
    batch = {"a": numbers, "b": [1, None, 3], "c": numbers[::-1], "d": np.array(["x", "y", "z"]), "e": numbers.T.copy().T}
    packed = packbuf.pack(batch)
    assert list(packbuf.open(packed)) == list(batch)
    assert bytes(packed) == bytes(packbuf.pack(types.MappingProxyType(batch)))  # no dict: one by one
    for name, column, code in [
        ("a.b", np.array(7), Status.INVALID_ARGUMENT),
        ("a.b", np.zeros(4), Status.ROW_COUNT),
        ("a.b", np.zeros(3, [("x", "i4")]), Status.UNSUPPORTED_DTYPE),
        ("\udc80", numbers, Status.BAD_UTF8),
        (7, numbers, Status.WRONG_TYPE),
    ]:
        for after in ({"first": numbers}, {"first": [1, 2, 3]}):
            with pytest.raises(packbuf.Error) as refused:
                packbuf.pack({**after, name: column})
            assert refused.value.code == code
            assert refused.value.path == ("a\\.b" if name == "a.b" else refused.value.path)
