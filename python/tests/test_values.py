"""Any nested values come back equal, whatever the packing, the threads and the way they are read.

PACKBUF_CASES=100000 makes it a campaign: make python-cases.
"""

import datetime as dt
import pickle
import struct
import sys

import numpy as np
import pytest
from equality import same
from hypothesis import given
from hypothesis import strategies as st

import packbuf
from packbuf import Status, _plugin

try:
    import torch
except ImportError:
    torch = None

DTYPES = ["bool", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64", "complex64", "complex128"]


def array_of(data, dtype, shape):
    need = int(np.prod(shape)) * np.dtype(dtype).itemsize
    bits = np.frombuffer((data * (need // max(len(data), 1) + 1))[:need] if data else bytes(need), dtype=np.uint8)
    if dtype == "bool":
        bits = bits & 1
    return bits.view(dtype).reshape(shape).copy()


arrays = st.builds(array_of, st.binary(max_size=24), st.sampled_from(DTYPES), st.lists(st.integers(0, 3), max_size=3).map(tuple))
strided = arrays.map(lambda a: a[::-1] if a.ndim else a) | arrays.map(lambda a: a.T)
scalars = arrays.filter(lambda a: a.size > 0).map(lambda a: a.reshape(-1)[0])
tensors = arrays.map(lambda a: torch.from_numpy(a)) if torch else st.nothing()
bf16 = st.lists(st.integers(0, 65535), max_size=4).map(lambda bits: torch.tensor(bits, dtype=torch.uint16).view(torch.bfloat16)) if torch else st.nothing()
ints = st.integers() | st.integers(-(2**63), 2**64) | st.integers(0, 2**200) | st.sampled_from([2**53 + 1, 2**63, -(2**63), 2**64 - 1])
floats = st.floats() | st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
leaves = st.none() | st.booleans() | ints | floats | st.text(max_size=6) | st.binary(max_size=6) | arrays | strided | scalars | tensors | bf16
names = st.sampled_from(["a", "b", "a.b", "", "k[0]", "\\", "é", "*", "!x"]) | st.text(max_size=3)
keys = names | st.integers() | st.none() | st.booleans() | st.binary(max_size=2) | st.floats(allow_nan=False)


def nest(inner):
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(names, inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=3)
        | st.lists(st.integers(-5, 5), max_size=12)
        | st.lists(st.floats(), max_size=12)
        | st.lists(st.binary(max_size=3), max_size=4)
    )


values = st.recursive(leaves, nest, max_leaves=12)
uniform = st.sampled_from([ints, floats, st.text(max_size=8), st.binary(max_size=8), arrays, tensors, st.booleans() | ints, ints | floats])
columns = st.lists(values, max_size=6) | uniform.flatmap(lambda one: st.lists(one | st.none(), max_size=8)) | st.lists(
    st.dictionaries(names, values, max_size=4) | st.none(), max_size=6
)
packings = st.sampled_from([None, "none", "balanced", "fastest", "smallest"])


@given(columns, packings, st.integers(1, 3))
def test_a_column_comes_back(column, packing, threads):
    packed = packbuf.pack({"c": column}, packing=packing, threads=threads)
    view = packbuf.open(packed, verify="all")
    assert same(column, view["c"].tolist())
    assert same([{"c": cell} for cell in column], view.rows())
    assert packed.detach() == packbuf.pack({"c": column}, packing=packing, threads=1).detach()
    if packing is None:
        assert packbuf.measure({"c": column}) == len(packed)
    if column:
        every = list(range(len(column)))[::2]
        assert same(column[::2], view["c"][every])
        assert same([{"c": column[i]} for i in every], view.select(None, every).tolist())


class Text(str):
    """What is no str itself is looked at in full."""


def in_full(value):
    """The same with nothing in it that inference may take a short way for."""
    if isinstance(value, (list, tuple)):
        return tuple(in_full(item) for item in value)
    if isinstance(value, dict):
        return {key: in_full(item) for key, item in value.items()}
    return Text(value) if type(value) is str else value


def inferred(column):
    try:
        return packbuf.infer(column)
    except packbuf.Error as error:
        return error.code, error.path, error.row


@given(columns)
def test_inference_takes_short_ways_to_the_same_answer(column):
    assert inferred(column) == inferred(in_full(column))


@pytest.mark.parametrize(
    "column",
    [
        [[1, 2, 3], [4]], [[1] * 2000, [0.5] * 2000], [[1], [2**40]], [[2**63], [-1]], [[2**53 + 1], [0.5]], [[2**30 - 1, -(2**30)], [True]], [[[1, 2], [3]], [[4], [5]]],
        [[[1, 2], [3, 4]], [[5, 6], [7, 8]]], [[[[1]], [[2]]]], [{"x": [[1, 2], [3]]}], [{"x": [float("nan")]}, {"x": [{"y": [float("inf")]}]}], [[float("nan"), 1.0], ["\ud800"]],
        ["a", "\ud800"], ["", None], [[], [1]], [[[], [1]]], [["a"], [1]], [{"k": [0.0]}, {"k": [1]}, {"k": None}], [[1.0, 2], [3, 4.0]], [[None, 1]], [([1, 2], [3.0, 4.0])],
    ],
)
def test_inference_of_lists(column):
    assert inferred(column) == inferred(in_full(column))


class Int(int):
    """No int itself."""


LONG = 32  # items of a list from which on inference is told kinds alone
odd_items = st.sampled_from([-6, -5, -1, 0, 256, 257, 2**30, -(2**62), 2**63, 2**64, True, Int(1), 0.5, float("nan"), float("-inf"), None, "a", "\ud800", [1], object()])


@given(st.sampled_from([7, 0.5]), st.integers(LONG - 2, 3 * LONG), st.dictionaries(st.integers(0, 3 * LONG), odd_items, max_size=3), st.integers(0, 5), odd_items)
def test_inference_of_long_lists(usual, length, odd, form, other):
    long = [odd.get(i, usual) for i in range(length)]
    column = [[long, [other] * LONG], [{"k": long}, {"k": other}], [[long, long]] * 2, [(long, other)], [{"k": {"k": long}}, {"j": long, "k": other}], long][form]
    assert inferred(column) == inferred(in_full(column))


@pytest.mark.parametrize("item", [-6, -5, -4, -1, 0, 1, 256, 257, True, Int(3), 2**30 - 1, 2**30, -(2**30), 1.5, float("nan"), float("inf"), None])
@pytest.mark.parametrize("length", [LONG - 1, LONG, LONG + 1, LONG + 7, LONG + 8, LONG + 9, 5 * LONG + 3])
def test_one_item_in_a_long_list(item, length):
    for usual in (0, 256, 1000, 0.5):
        for place in {0, 1, 7, 8, length - 9, length - 8, length - 1}:
            column = [[usual] * length, [usual] * place + [item] + [usual] * (length - place - 1)]
            for more in ([], [[2**63]]):  # which no negative integer may share a column with
                cells = [{"k": cell} for cell in column + more]
                assert packbuf.infer(cells) == packbuf.infer(in_full(cells))
            assert same(column, packbuf.open(packbuf.pack({"c": column}))["c"].tolist())


KEPT = ["", "a", "\0", "x" * 63, "x" * 64, "x" * 200, "\xe9" * 70, "\ud7ff", "\ue000", "\U00010000", "\U0001f600\u0416", None]
ODD = [Text("a"), Text("\ud800"), "\ud800", "\udbff", "\udc00", "a" * 100 + "\udfff", "\U0001f600\udfff", 1, 0.5, True, b"a", [], ["a"], {}, {"k": "\ud800"}, object()]


@pytest.mark.parametrize("length", [LONG - 1, LONG, LONG + 1, LONG + 7, LONG + 9])
@pytest.mark.parametrize("usual", [["a"], ["\xe9", "x" * 64], ["\u0416"], ["\U0001f600"], [None, "a"], KEPT])
def test_one_cell_in_a_column_of_texts(usual, length):
    column = [usual[i % len(usual)] for i in range(length)]
    assert inferred(column) == inferred(in_full(column)) and packbuf.infer(column)[0].codec == "utf8_ragged"
    for place in range(length):
        for cell in KEPT[:: 1 if place < 9 else 5] + ODD:
            changed = [*column[:place], cell, *column[place + 1 :]]
            assert inferred(changed) == inferred(in_full(changed)), (place, cell)


@given(st.lists(st.sampled_from(KEPT), min_size=LONG, max_size=2 * LONG), st.dictionaries(st.integers(0, 2 * LONG), st.sampled_from(ODD), max_size=2), st.integers(0, 3))
def test_inference_of_texts(usual, odd, form):
    texts = [odd.get(i, text) for i, text in enumerate(usual)]
    column = [texts, [{"k": text, "j": "a"} for text in texts], [[{"k": text}] for text in texts], [texts, texts]][form]
    assert inferred(column) == inferred(in_full(column))


def test_inference_makes_no_utf8():
    texts = ["\u0416" * 50 + str(i) for i in range(LONG)]
    before = [sys.getsizeof(text) for text in texts]
    assert packbuf.infer(texts)[0].codec == "utf8_ragged"
    assert [sys.getsizeof(text) for text in texts] == before


@pytest.mark.parametrize("column", [["a", {"k": "x" * 2**20}], ["a", {"k": [1000] * 2**18}], ["a", [[0.125] * 2**18]], ["a", [7] * 2**20], ["a", {"k": [1000] * 2**17}]])
def test_inference_sees_how_large_json_is(column):
    assert packbuf.infer(column)[0].codec == packbuf.open(packbuf.pack({"c": column})).columns[0].codec
    assert inferred(column) == inferred(in_full(column))


@pytest.mark.parametrize("place", [0, 7, 8, 39])
def test_a_nan_that_json_cannot_hold_beyond_the_sample(place):
    odd = struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]
    column = ["a"] * 200 + [[0.5] * place + [odd] + [0.5] * (39 - place)]
    assert packbuf.infer(column) == packbuf.infer(in_full(column)) and packbuf.infer(column)[0].codec == "msgpack_ragged"


def test_a_list_changed_while_it_is_looked_at():
    rows = [{"a": [1] * 100, "b": None, "c": [0.5] * 100} for _ in range(100)]

    class Changes(tuple):
        @property
        def __class__(self):  # asked by what looks at unusual objects
            for row in rows:
                row["a"].clear()
                row["c"] = None
            return tuple

    rows[50]["b"] = Changes()
    assert {node.path for node in packbuf.infer(rows)} >= {"values.a", "values.c"}
    assert rows[0]["a"] == [] and rows[99]["c"] is None


def test_the_first_that_is_refused_is_named():
    rows = [{"a": [1] * 100, "b": [0.5] * 99}, {"a": [1] * 70 + [object()], "b": [{}] * 50 + ["\ud800"]}]
    assert inferred(rows) == inferred(in_full(rows)) == (Status.UNENCODABLE, "[1].a[70]", None)


@given(st.lists(st.dictionaries(names.filter(lambda name: "\0" not in name), values, max_size=5), max_size=5))
def test_rows_come_back(rows):
    view = packbuf.open(packbuf.pack(rows), verify="all")
    assert same(rows, view.rows())


@given(st.dictionaries(names.filter(lambda name: "\0" not in name), values, max_size=4))
def test_batch_values_come_back(values):
    view = packbuf.open(packbuf.pack({}, rows=3, batch_values=values), verify="all")
    assert same(values, view.batch_values) and view.num_rows == 3 and len(view) == 0


@given(st.lists(arrays, max_size=3), st.integers(0, 4))
def test_dense_fields_come_back(arrays, rows):
    batch = {f"f{i}": np.stack([array] * rows) if rows else np.empty((0, *array.shape), array.dtype) for i, array in enumerate(arrays)}
    view = packbuf.open(packbuf.pack(batch, rows=rows))
    for name, array in batch.items():
        back = view[name].numpy()
        assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()


def test_long_integers():
    for number in (10**4299, -(7**9000), 10**12000 + 1):
        assert packbuf.open(packbuf.pack({"n": [number]}))["n"][0] == number


@pytest.mark.parametrize(
    "times",
    [
        [dt.datetime(2020, 1, 1, 2, 3, 4, 567), None, dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999)],
        [dt.date(2020, 2, 29), dt.date(1, 1, 1), None],
        [np.datetime64("2020-01-01T00:00:01", "s"), None],
        [np.array(["2020-01-01", "NaT"], dtype="datetime64[ns]"), np.array([], dtype="datetime64[ns]")],
        [{"at": dt.datetime(2020, 1, 1), "n": 1}, {"at": None}, {}],
    ],
)
def test_times_come_back(times):
    back = packbuf.open(packbuf.pack({"t": times}), verify="all")["t"].tolist()
    assert [type(cell) for cell in back] == [type(cell) for cell in times]
    assert all(a is b or np.array_equal(a, b, equal_nan=isinstance(a, np.ndarray)) for a, b in zip(times, back, strict=True))


def test_values_that_lie_about_themselves():
    for cell in (packbuf.Opaque(5, b"x"), packbuf.Opaque("s", "text"), packbuf.Media(b"", mime=5), packbuf.Media("text"), packbuf.Media(b"", height=-1), packbuf.Media(b"", width="x")):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"c": [None, cell]})
        assert caught.value.path == "c" and caught.value.row == 1
    with pytest.raises(TypeError):
        packbuf.pack({"c": [packbuf.Media(b"", rate="fast")]})
    odd = packbuf.Opaque("a\0b", b"")
    assert packbuf.open(packbuf.pack({"c": [odd]}))["c"][0] == odd


def test_times_as_fields_and_batch_values():
    field = np.array(["2020-01-01", "1969-12-31"], dtype="datetime64[D]")
    view = packbuf.open(packbuf.pack({"t": field}, batch_values={"at": dt.datetime(2021, 5, 6)}))
    assert view["t"].numpy().dtype == field.dtype and (view["t"].numpy() == field).all()
    assert view["t"][1] == field[1] and view.batch_values == {"at": dt.datetime(2021, 5, 6)}


@pytest.mark.parametrize(
    ("column", "path"),
    [
        ([dt.datetime(2020, 1, 1), 5], "t"),
        ([dt.datetime(2020, 1, 1), dt.date(2020, 1, 1)], "t"),
        ([[dt.datetime(2020, 1, 1)]], "t[0]"),
        ([dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)], "t"),
        ([{"a": dt.datetime(2020, 1, 1)}, {"a": "x"}], "t.a"),
    ],
)
def test_times_that_would_change_are_refused(column, path):
    with pytest.raises(packbuf.Unencodable) as caught:
        packbuf.pack({"t": column})
    assert caught.value.code == Status.UNENCODABLE and caught.value.path == path


def test_pickle_only_when_both_sides_say_so():
    column = [{1, 2}, complex, None]
    with pytest.raises(packbuf.Unencodable):
        packbuf.pack({"o": column})
    packed = packbuf.pack({"o": column}, allow_pickle=True)
    assert packbuf.open(packed, allow_pickle=True)["o"].tolist() == column
    cell = packbuf.open(packed)["o"][0]
    assert isinstance(cell, packbuf.Opaque) and cell.serializer == "pickle5"
    again = packbuf.pack({"o": packbuf.open(packed)["o"].tolist()})
    assert packbuf.open(again, allow_pickle=True)["o"].tolist() == column
    zoned = [dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), None]
    assert packbuf.open(packbuf.pack({"o": zoned}, allow_pickle=True), allow_pickle=True)["o"].tolist() == zoned


def test_what_others_serialized_is_never_unpickled():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("it was unpickled",)

    for serializer in ("pickle", "pickle4", "cloudpickle", "", "PICKLE5"):
        cell = packbuf.Opaque(serializer, pickle.dumps(Trap()))
        assert packbuf.open(packbuf.pack({"o": [cell]}, allow_pickle=True), allow_pickle=True)["o"].tolist() == [cell]


def test_images():
    image_module = pytest.importorskip("PIL.Image")
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    for mode in ("RGB", "L", "1", "RGBA", "CMYK", "F", "I"):
        image = image_module.fromarray(pixels).convert(mode)
        view = packbuf.open(packbuf.pack({"i": [image, None], "l": [[image, b"x"], []]}), verify="all")
        back = view["i"][0]
        assert back.mode == mode and back.size == image.size and back.tobytes() == image.tobytes() and view["i"][1] is None
        assert view["l"][0][0].tobytes() == image.tobytes() and view["l"][0][1] == b"x" and view["l"][1] == []
        assert isinstance(packbuf.open(packbuf.pack({"i": [image]}), images="media")["i"][0], packbuf.Media)
    palette = image_module.fromarray(pixels).convert("P")
    back = packbuf.open(packbuf.pack({"i": [palette]}))["i"][0]
    assert back.mime == "image/png" and back.image().convert("RGB").tobytes() == palette.convert("RGB").tobytes()


def test_media_comes_back():
    cells = [packbuf.Media(b"RIFF", mime="audio/wav", rate=16000.0), packbuf.Media(b"", mime="x/y"), None]
    view = packbuf.open(packbuf.pack({"m": cells}))
    assert view["m"].tolist() == cells and view["m"].codec == "media_bytes" and view["m.mime"].tolist()[0] == "audio/wav"


# ---- what stands in for a value ----


def test_default_is_asked_for_what_would_be_refused():
    asked = []

    def default(value):
        asked.append(type(value).__name__)
        if isinstance(value, set):
            return {"set": sorted(value)}
        if isinstance(value, dt.datetime):
            return value.isoformat()
        if isinstance(value, np.ndarray):
            return {"shape": list(value.shape), "items": value.reshape(-1).tolist()}
        return NotImplemented

    zone = dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc)
    column = [{"s": {2, 1}, "n": 5}, {"s": None, "z": zone, "t": np.array([["a"], ["b"]])}, {"o": np.array([{3}], dtype=object), "plain": np.arange(2)}]
    view = packbuf.open(packbuf.pack({"x": column}, default=default))
    assert view["x"][0] == {"s": {"set": [1, 2]}, "n": 5}
    assert view["x"][1] == {"s": None, "z": zone.isoformat(), "t": {"shape": [2, 1], "items": ["a", "b"]}}
    assert view["x"][2]["o"] == {"shape": [1], "items": [{"set": [3]}]}
    assert asked == ["set", "datetime", "ndarray", "ndarray", "set"]
    assert packbuf.open(packbuf.pack({}, rows=0, batch_values={"v": {1}}, default=default)).batch_values == {"v": {"set": [1]}}
    buffers, sizes = packbuf.pack_many([{"x": [{1}]}], lambda sizes: [bytearray(n) for n in sizes], default=default)
    assert sizes == [packbuf.measure({"x": [{1}]}, default=default)] and packbuf.open(buffers[0])["x"][0] == {"set": [1]}


@pytest.mark.parametrize("default", [lambda value: value, lambda value: object(), lambda value: NotImplemented, lambda value: np.array(["x"])])
def test_default_that_does_not_help(default):
    with pytest.raises(packbuf.Unencodable) as failure:
        packbuf.pack({"x": [1, {"a": [{1}]}]}, default=default)
    assert (failure.value.path, failure.value.row) == ("x.a[0]", 1)


def test_default_that_fails_or_never_ends():
    with pytest.raises(ZeroDivisionError):
        packbuf.pack({"x": [{1}]}, default=lambda value: 1 / 0)
    with pytest.raises(packbuf.Error, match="DEPTH"):
        packbuf.pack({"x": [{1}]}, default=lambda value: [value])


def test_default_comes_before_pickle():
    packed = packbuf.pack({"x": [{1}, frozenset()]}, default=lambda value: "set" if isinstance(value, set) else NotImplemented, allow_pickle=True)
    assert packbuf.open(packed, allow_pickle=True)["x"].tolist() == ["set", frozenset()]


def test_dicts_that_default_changes():
    def shrinks(_):
        for key in "abc":
            cell.pop(key, None)
        return 5

    def grows(_):
        cell["d"] = 1
        return 5

    for default in shrinks, grows:
        cell = {"odd": {1}, "a": 1, "b": "x", "c": [2]}
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"x": [cell]}, default=default)
        assert caught.value.code == Status.INVALID_ARGUMENT
        assert "changed while it was packed" in str(caught.value)


def test_a_key_that_default_lets_go_of():
    others = []

    def lets_go(_):
        cell.clear()
        others.extend(f"{i:044d}" for i in range(1000))  # one of them lies where the key was
        return frozenset()

    cell = {"k" * int("44"): {1}}
    with pytest.raises(packbuf.Unencodable) as failure:
        packbuf.pack({"x": [{"k" * 44: 1}, cell]}, default=lets_go)
    assert (failure.value.path, failure.value.row) == ("x." + "k" * 44, 1)


def test_text_that_is_no_utf8_wherever_it_is():
    batch = {
        "mime": [packbuf.Media(b"a", mime="image/jpeg"), packbuf.Media(b"b", mime="image/x-portable")],
        "mode": [packbuf.Media(b"a", mode="modest and more"), packbuf.Media(b"b", mode="modern and less")],
        "opaque": [packbuf.Opaque("serial and more", b"a"), packbuf.Opaque("serious and less", b"b")],
        "text": ["some text here", "some more"],
    }
    packed = bytearray(packbuf.pack(batch, checksums=False))
    for name, word in zip(batch, [b"image/jpeg", b"modest and", b"serial and", b"some text"]):
        bad = bytearray(packed)
        assert packed.count(word) == 1
        bad[packed.index(word)] = 0x80
        for read in (packbuf.Field.tolist, packbuf.Field.numpy, lambda field: field[::2]):
            with pytest.raises(packbuf.Malformed, match="BAD_UTF8|BAD_MSGPACK"):
                read(packbuf.open(bad)[name])


def test_long_numbers_of_strangers_are_read_by_halves(monkeypatch):
    digits, want, long = "123456789" * 90_000, 0, []
    for at in range(0, len(digits), 3000):
        want = want * 10**3000 + int(digits[at : at + 3000])
    joined = _plugin._joined
    monkeypatch.setattr(_plugin, "_joined", lambda text: long.append(len(text) > len(digits) // 8) or joined(text))
    view = packbuf.open(packbuf.pack({"x": [want, -want]}))
    assert view["x"][0] == want and sum(long) < 32
    assert view["x"][1] == -want


class SaysInt:
    __class__ = property(lambda self: int)


class SaysFloats(np.ndarray):
    dtype = property(lambda self: np.dtype("f8"))


@pytest.mark.parametrize("liar", [SaysInt(), np.array([{1}], dtype=object).view(SaysFloats)])
def test_default_that_lies_about_what_it_returns(liar):
    with pytest.raises(packbuf.Error, match="DEPTH"):
        packbuf.pack({"x": [liar]}, default=lambda value: liar)


def test_a_type_whose_name_is_no_text():
    class Kind(type):
        __name__ = property(lambda cls: "\ud800")

    class Odd(metaclass=Kind):
        pass

    for options in {}, {"default": lambda value: Odd()}:
        with pytest.raises(packbuf.Unencodable):
            packbuf.pack({"x": [{1}]} if options else {"x": [Odd()]}, **options)


class Wrong(int):
    """Says of itself what it is not, and changes what it lies in."""

    def __lt__(self, other):
        return self.lies_in.clear() or not int(self) < other

    def __divmod__(self, other):
        return 0, 5

    def __neg__(self):
        return self


def test_subclasses_of_int_are_what_they_are():
    for number in 10**30, -(10**30):
        odd = Wrong(number)
        odd.lies_in = {odd: ["y" * 50]}
        back = packbuf.open(packbuf.pack({"x": [odd], "k": [odd.lies_in]}))
        assert back["x"].tolist() == [number] and back["k"].tolist() == [{number: ["y" * 50]}]


@pytest.mark.parametrize("codec", ["json_ragged", "msgpack_ragged"])
@pytest.mark.parametrize("packing", [None, "smallest"])
def test_keys_that_lie_in_one_place_one_after_the_other(codec, packing):
    rows = [{"m": {f"k\n{i:05d}": i, f"\u00e9\t{i:05d}": [i]}} for i in range(5000)]
    view = packbuf.open(packbuf.pack(rows, schema={"m": {"codec": codec}}, packing=packing))
    for way in view.rows(), view.select("m").tolist(), [{"m": cell} for cell in view["m"]], [{"m": cell} for cell in view["m"].numpy()]:
        assert way == rows
    assert view["m"][::2] == [row["m"] for row in rows[::2]]


@pytest.mark.parametrize("length", [3, LONG, 2000])
def test_inference_of_what_contains_itself(length):
    one: list = []
    one.extend([one] * length)
    first: list = []
    second = [first] * length
    first.extend([second] * length)
    for value in (one, first, {"k": second}):
        with pytest.raises(packbuf.Error, match="DEPTH"):
            packbuf.infer([value, value])


def test_keys_of_one_place_in_memory():
    """Escaped keys are decoded into memory that the next 1024 rows use again."""
    cells = [None] * 3000
    cells[5], cells[1029], cells[2053] = {'x"a': 1}, {'x"b': 2}, {'y"a': ['x"a', 'x"b']}
    field = packbuf.open(packbuf.pack({"m": cells}, schema={"m": {"codec": "json_ragged"}}))["m"]
    assert field.codec == "json_ragged"
    assert field.tolist() == field.numpy().tolist() == list(field) == field[range(3000)] == cells


@given(st.lists(st.sampled_from(["", "a", "b", "ä", "ab" * 4, "ab" * 4 + "c", "ab" * 32, "ab" * 32 + "c", "\0", "\0\0", "a\0"]) | st.text(max_size=70), max_size=200))
def test_texts_that_come_again(texts):
    whole = {"m": {"codec": "json_ragged"}}
    view = packbuf.open(packbuf.pack({"t": texts, "m": [{text: texts[:3]} for text in texts]}, schema=whole if texts else None))
    assert view["t"].tolist() == texts and [list(row) for row in view["m"].tolist()] == [[text] for text in texts]
