"""Arrow and DLPack: what pyarrow, polars, duckdb, numpy and torch read of a packed buffer, and what is packed of theirs."""

import ctypes
import gc
import importlib
import json
import os
import sys
import threading
import weakref
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need

import packbuf


def peer(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        need(None, f"{name} is not installed")


@pytest.fixture
def pa():
    return peer("pyarrow")


@pytest.fixture
def pl():
    return peer("polars")


@pytest.fixture
def duckdb():
    return peer("duckdb")


class Memory(bytearray):
    """A bytearray that can be watched."""


BATCH = {
    "ids": [[1, 2, 3], [4], [], None],
    "x": np.arange(8.0).reshape(4, 2),
    "text": ["a", None, "", "héllo"],
    "blob": [b"x", b"", None, b"\xff\x00"],
    "flag": np.array([True, False, True, True]),
    "n": [1, None, 3, 4],
    "u8": np.arange(4, dtype=np.uint8),
    "f32": np.array([0, -0.0, np.inf, 1.5], np.float32),
    "when": np.array(["2020-01-01T00:00:00.000001", "1969-12-31", "2022-01-01", "2023-01-01"], "datetime64[us]"),
    "day": np.array(["2020-01-01", "1969-12-31", "2022-01-01", "2023-01-01"], "datetime64[D]"),
    "meta": [{"a": 1, "b": "x"}, {"a": 2, "b": None}, None, {"a": None, "b": "y"}],
    "messages": [[{"role": "u", "content": "hi"}, {"role": "a", "content": "yo"}], [{"role": "u", "content": "q"}], [], None],
    "none": [None] * 4,
}
ROWS = [
    {name: column[i].tolist() if isinstance(column, np.ndarray) and column.ndim > 1 else column[i] for name, column in BATCH.items()}
    for i in range(4)
]


def plain(value):
    """numpy out, times as Python has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.datetime64):
        return value.astype(object)
    return value.item() if isinstance(value, np.generic) else value


EXPECTED = [plain(row) for row in ROWS]


def opened(batch=BATCH, **options):
    return packbuf.open(packbuf.pack(batch, **options), verify="all")


@pytest.mark.parametrize("options", [{}, {"packing": "balanced"}, {"row_sharing": False}])
def test_pyarrow_reads_a_view(pa, options):
    view = opened(metadata={"by": "me", "ids": {"unit": "tokens"}}, **options)
    batch = pa.record_batch(view)
    batch.validate(full=True)
    assert batch.to_pylist() == EXPECTED
    assert batch.schema.metadata == {b"by": b"me"} and batch.schema.field("ids").metadata == {b"unit": b"tokens"}
    assert batch.schema.field("ids").type == pa.large_list(pa.field("item", pa.int64(), nullable=False))
    assert batch.schema.field("text").type == pa.large_string() and batch.schema.field("when").type == pa.timestamp("us")
    assert batch.schema.equals(pa.schema(view), check_metadata=True)
    assert pa.table(view).to_pylist() == EXPECTED


def test_metadata_come_in_and_go_out(pa):
    schema = pa.schema(
        [
            pa.field("ids", pa.int64(), metadata={"unit": "tokens", "ARROW:extension:name": "mine", "": "empty"}),
            pa.field("at", pa.timestamp("us", "UTC"), metadata={"arrow.timezone": "Mars"}),
            pa.field("s", pa.struct([pa.field("y", pa.int8(), metadata={"deep": "yes"})]), metadata={"of": "s"}),
            pa.field("gone", pa.struct([pa.field("t", pa.timestamp("s", "UTC"), metadata={"k": "v"})])),
        ],
        metadata={"by": "me", "packbuf.container": "no"},
    )
    table = pa.table({"ids": [1, 2], "at": [3, 4], "s": [{"y": 5}, None], "gone": [None, None]}, schema=schema)
    view = opened(table)
    assert view.metadata == {"by": "me"} and view["ids"].metadata == {"unit": "tokens", "": "empty"}
    assert view["at"].metadata == {"arrow.timezone": "UTC"} and view["s.y"].metadata == {"deep": "yes"}
    out = pa.schema(view)
    assert out.metadata == {b"by": b"me"} and out.field("ids").metadata == {b"unit": b"tokens", b"": b"empty"}
    assert out.field("s").metadata == {b"of": b"s"} and out.field("s").type.field("y").metadata == {b"deep": b"yes"}
    assert out.field("at").type == pa.timestamp("us", "UTC")
    assert opened(pa.table(view)).metadata == {"by": "me"}
    view = opened(table, metadata={"by": "you", "ids": {"unit": "words"}})  # what is said here wins
    assert view.metadata == {"by": "you"} and view["ids"].metadata == {"unit": "words", "": "empty"}
    assert opened({"x": table.column("ids")})["x"].metadata == {}  # an array has none; a field of its own has
    with pytest.raises(packbuf.Error, match="BAD_UTF8 in ids: metadata"):
        packbuf.pack(table.cast(schema.set(0, pa.field("ids", pa.int64(), metadata={"k": b"\xff"}))))


def test_metadata_that_have_no_place(pa):
    """Of types within lists and dictionaries they are dropped; of those within structs kept."""
    told = pa.struct([pa.field("a", pa.int32(), metadata={"u": "v"})])
    columns = {"items": pa.array([[1]], pa.list_(pa.field("item", pa.int32(), metadata={"u": "v"}))), "list": pa.array([[{"a": 1}]], pa.list_(told)), "kept": pa.array([{"a": 1}], told)}
    view = opened(pa.table(columns))
    assert {field.path: field.metadata for field in view.columns if field.metadata} == {"kept.a": {"u": "v"}}


def test_limits_of_schemas(pa):
    pairs = {f"k{i}": "" for i in range(65536)}
    table = pa.table({"a": [1]})
    assert len(opened(table.replace_schema_metadata(pairs)).metadata) == 65536
    zoned = pa.table({"a": pa.array([1], pa.timestamp("s", "UTC"))}).replace_schema_metadata(pairs)
    for beyond in (table.replace_schema_metadata({**pairs, "k": ""}), zoned):
        with pytest.raises(packbuf.Error, match="LIMIT: more than 65536 metadata pairs"):
            packbuf.pack(beyond)
    deep = pa.int8()
    for _ in range(64):
        deep = pa.list_(deep)
    assert opened({"x": pa.array([None], deep)})["x"].tolist() == [None]
    with pytest.raises(packbuf.Error, match="DEPTH in x"):
        packbuf.pack({"x": pa.array([None], pa.list_(deep))})
    with pytest.raises(packbuf.Error, match="UNSUPPORTED_DTYPE in x: times within lists or dictionaries"):
        packbuf.pack({"x": pa.array([1], pa.timestamp("s")).dictionary_encode()})
    with pytest.raises(packbuf.Error, match="NOT_NULLABLE"):
        packbuf.pack(pa.array([{"a": 1}, None]))


def test_rows_of_fixed_size(pa):
    """They stay what they are beside rows that are null; a permutation that is none is none."""
    for chunks in ([[[1, 2], None, [3, 4]]], [[None, [5, 6]], [[7, 8], None]]):
        rows = pa.chunked_array([pa.array(chunk, pa.list_(pa.int16(), 2)) for chunk in chunks])
        field = opened({"x": rows})["x"]
        assert (field.codec, field.dtype, field.shape) == ("ndarray", "int16", (2,))
        assert [None if row is None else row.tolist() for row in field] == rows.to_pylist()
    field = opened({"x": pa.array([[1, None], None], pa.list_(pa.int16(), 2))})["x"]
    assert field.codec == "json_ragged" and field.tolist() == [[1, None], None]
    cells = np.arange(12.0).reshape(2, 2, 3)
    for permutation, shape in ((None, (2, 3)), ([0, 1], (2, 3)), ([1, 0], (6,))):
        kind = pa.fixed_shape_tensor(pa.float64(), [2, 3], permutation=permutation)
        tensors = pa.ExtensionArray.from_storage(kind, pa.array(cells.reshape(2, 6).tolist(), pa.list_(pa.float64(), 6)))
        assert opened({"x": tensors})["x"].numpy().tolist() == cells.reshape(2, *shape).tolist()


def test_arrow_asks_where_memory_is(pa):
    view = opened()
    for asked in (view, view.select(None, slice(1, None)), view["n"]):
        schema, array = asked.__arrow_c_device_array__(requested_schema=None, later=None)
        named = isinstance(asked, packbuf.Field)
        kind = pa.Array if named else pa.RecordBatch
        found = kind._import_from_c_device_capsule(schema, array)
        found.validate(full=True)
        assert found.is_cpu and found.equals(pa.array(asked) if named else pa.record_batch(asked))
        asked.__arrow_c_device_array__()  # nobody takes it
        with pytest.raises(NotImplementedError, match="stream"):
            asked.__arrow_c_device_array__(stream=5)


@pytest.mark.parametrize("rows", [slice(1, None), slice(None, None, -2), [3, 0, 0], slice(2, 2)])
def test_pyarrow_reads_a_selection(pa, rows):
    view = opened()
    chosen = view.select(["ids", "text", "meta.*", "messages", "flag"], rows)
    batch = pa.record_batch(chosen)
    batch.validate(full=True)
    wanted = [EXPECTED[i] for i in (range(4)[rows] if isinstance(rows, slice) else rows)]
    assert batch.to_pylist() == [{name: row[name] for name in batch.schema.names} for row in wanted]


def test_pyarrow_reads_in_place(pa):
    view = opened({"x": np.arange(1000.0), "ids": [[i] * (i % 3) for i in range(1000)]}, row_sharing=False)
    base = np.frombuffer(memoryview(view._core), np.uint8)
    first, last = base.ctypes.data, base.ctypes.data + len(base)
    batch = pa.record_batch(view)
    for array in (batch.column("x"), batch.column("ids"), batch.column("ids").values):
        assert first <= array.buffers()[1].address < last


def test_pyarrow_reads_fields(pa):
    view = opened()
    assert pa.array(view["text"]).to_pylist() == BATCH["text"]
    assert pa.array(view["meta.b"]).to_pylist() == ["x", None, None, "y"]
    assert pa.chunked_array(view["n"]).to_pylist() == BATCH["n"]
    assert pa.array(opened({"t": np.arange(24.0).reshape(4, 2, 3)})["t"]).to_numpy_ndarray().shape == (4, 2, 3)


def test_what_arrow_has_no_type_for_says_what_it_is(pa):
    ml_dtypes = peer("ml_dtypes")
    batch = {
        "bf": np.arange(4).astype(ml_dtypes.bfloat16),
        "f8": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
        "c": np.arange(4) * 1j,
        "ragged": [np.ones((1, 2), np.int16), np.zeros((2, 3), np.int16), None, np.zeros((0, 1), np.int16)],
        "json": [[1, "a"], [2.5, None, {"k": []}], {}, None],
        "image": [packbuf.Media(b"png", "image/png"), None, packbuf.Media(b"", "image/png"), packbuf.Media(b"x", "image/webp")],
        "tensor": np.arange(24, dtype=np.float16).reshape(4, 3, 2),
    }
    view = opened(batch)
    table = pa.record_batch(view)
    table.validate(full=True)
    assert table.schema.field("bf").metadata == {b"packbuf.dtype": b"bfloat16"} and table.column("bf").to_pylist()[2] == 0x4000
    assert table.column("ragged").to_pylist()[1] == {"data": [0] * 6, "shape": [2, 3]}
    assert table.column("image").to_pylist()[0] == {"bytes": b"png", "mime": "image/png"}
    assert isinstance(table.column("tensor"), pa.FixedShapeTensorArray)
    back = opened(table)
    for name in batch:
        assert repr(back[name].tolist()) == repr(view[name].tolist()), name
        assert back[name].codec == view[name].codec


def test_polars_reads_a_view(pl):
    frame = pl.DataFrame(opened())
    assert plain(frame.rows(named=True)) == EXPECTED
    assert frame.schema["ids"] == pl.List(pl.Int64) and frame.schema["x"] == pl.Array(pl.Float64, 2)
    assert pl.Series(opened()["text"]).to_list() == BATCH["text"]


def test_duckdb_reads_a_view(duckdb):
    view = opened()  # noqa: F841 (duckdb finds it by its name)
    assert duckdb.sql("select sum(n), max(text), list_sum(flatten(list(ids))) from view").fetchall() == [(8, "héllo", 10)]
    names = [name for name in BATCH if name != "none"]
    found = duckdb.sql("select " + ", ".join(f'"{name}"' for name in names) + " from view").fetchall()
    assert [dict(zip(names, row)) for row in found] == [{**{k: row[k] for k in names}, "x": tuple(row["x"])} for row in EXPECTED]


def test_duckdb_has_no_float16(duckdb, pa):
    """The ways around it that the README gives."""
    view = opened({"half": np.array([0.5, 1.5], "float16"), "n": [1, 2]})
    with pytest.raises(duckdb.NotImplementedException):
        duckdb.sql("select n, half from view")
    rest = view.select("n")  # noqa: F841
    assert duckdb.sql("select sum(n) from rest").fetchall() == [(3,)]
    whole = pa.table(view)
    floats = whole.set_column(0, "half", whole["half"].cast("float"))  # noqa: F841
    assert duckdb.sql("select sum(half) from floats").fetchall() == [(2.0,)]


DTYPES = "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 bool".split()


@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype(pa, name):
    array = np.arange(40).astype(name)
    view = opened({"dense": array, "cells": array.reshape(40, 1), "ragged": [array[:1], array[3:7], None, array[:0]] * 10})
    table = pa.record_batch(view)
    table.validate(full=True)
    assert str(table.column("dense").type).replace("double", "float64").replace("halffloat", "float16").replace("float32", "float") in {name, "float"}
    back = opened(table)
    for field in ("dense", "cells", "ragged"):
        assert back[field].dtype == name and plain(back[field].tolist()) == plain(view[field].tolist())
    assert np.array_equal(np.from_dlpack(view["dense"]), array)


def test_tables_are_packed(pa, pl):
    columns = {
        "i": pa.array([1, None, 3, 4], pa.int32()),
        "s": pa.array(["a", "b", None, "dd"]),
        "v": pa.array(["short", None, "a text of more than twelve bytes", ""], pa.string_view()),
        "d": pa.array(["x", "y", None, "x"]).dictionary_encode(),
        "b": pa.array([True, None, False, True]),
        "l": pa.array([[1.5], [], None, [2.5, 3.5]], pa.list_(pa.float32())),
        "h": pa.array([[1, None], [], None, [2]]),
        "w": pa.array([b"abc", b"def", None, b"ghi"], pa.binary(3)),
        "t": pa.array([datetime(2020, 1, 2, 3, 4, 5, 6), None, datetime(1969, 12, 31), None], pa.timestamp("us")),
        "day": pa.array([date(2020, 1, 2), None, date(1969, 12, 31), None]),
        "o": pa.array([{"a": 1, "b": ["x"]}, None, {"a": None, "b": []}, {"a": 2, "b": None}]),
    }
    table = pa.table(columns)
    rows = table.to_pylist()
    for source in (table, table.to_batches()[0], pa.concat_tables([table.slice(0, 3), table.slice(3)])):
        assert opened(source).rows() == rows
    for first in range(4):
        cut = table.slice(first, 3)
        assert opened(cut).rows() == rows[first : first + 3]
        assert opened(pa.concat_tables([cut, table])).rows() == rows[first : first + 3] + rows
    view = opened(table)
    assert (view["l"].dtype, view["i"].dtype, view["t"].parameter, view["day"].parameter) == ("float32", "int32", "us", "D")
    frame = pl.DataFrame({"a": [1, 2, None], "s": ["x", None, "a text of more than twelve bytes"], "l": [[1], None, [2, 3]], "c": ["p", "q", "p"]}).with_columns(
        pl.col("c").cast(pl.Categorical)
    )
    assert opened(frame).rows() == frame.rows(named=True)
    assert opened(pl.concat([frame, frame], rechunk=False)).rows() == frame.rows(named=True) * 2
    assert opened({"a": table["s"], "b": [1, 2, 3, 4], "c": pl.Series([1, 2, 3, 4])}).rows()[1] == {"a": "b", "b": 2, "c": 2}


def test_masks_of_chunks_that_begin_within_a_byte(pa):
    whole = [None if i % 3 == 0 else i for i in range(30)]
    array = pa.array(whole)
    assert opened({"n": pa.chunked_array([array[:8], array[9:]])})["n"].tolist() == whole[:8] + whole[9:]


def test_items_of_lists_are_gathered(pa):
    """Arrays within lists, and attributes of media, of which there are more or less than rows."""
    rows = [[{"v": [[1, 2], [3, 4]]}, {"v": [[5, 6], [7, 8]]}], [{"v": [[9, 10], [11, 12]]}], []]
    view = opened({"m": [[{"v": np.array(item["v"])} for item in row] for row in rows]})
    assert pa.array(view["m"]).to_pylist() == [[{"v": {"data": sum(item["v"], []), "shape": [2, 2]}} for item in row] for row in rows]
    images = [[packbuf.Media(b"%d" % i, "image/png" if i % 2 else None)] for i in range(24)]
    images[2] = images[2] + images[3]
    batch = pa.record_batch(opened({"i": images}).select("i", slice(8, None)))
    assert [item[0]["mime"] for item in batch.column("i").to_pylist()] == [one.mime for (one,) in images[8:]]


def test_a_view_is_no_batch():
    """By way of Arrow what is missing would be null, and batch values would be gone."""
    view = packbuf.open(packbuf.pack({"m": [{"a": 1}, {}]}, batch_values={"step": 3}))
    for part in (view, view.select(), view.select("m", [1]), {"m": view["m"]}):
        with pytest.raises(packbuf.WrongType, match=r"\.tolist\(\)"):
            packbuf.pack(part)
        with packbuf.connect("local:") as store, pytest.raises(packbuf.WrongType):
            store.put("k", part)
    assert packbuf.open(packbuf.pack(view.select("m", [1]).tolist())).rows() == [{"m": {}}]


def test_zones_are_kept(pa):
    table = pa.table({"t": pa.array([datetime(2020, 1, 1)], pa.timestamp("ms", "Europe/Paris"))})
    back = pa.table(opened(table))
    assert back["t"].type == table["t"].type and back.to_pylist() == table.to_pylist()


@pytest.mark.parametrize("kind", ["decimal", "time", "duration", "map", "union"])
def test_refused_by_name(pa, kind):
    from decimal import Decimal

    array = {
        "decimal": lambda: pa.array([Decimal("1.5")]),
        "time": lambda: pa.array([1], pa.time64("us")),
        "duration": lambda: pa.array([1], pa.duration("s")),
        "map": lambda: pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
        "union": lambda: pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]),
    }[kind]()
    with pytest.raises(packbuf.Error, match=kind) as refused:
        packbuf.pack(pa.table({"a.b": array}))
    assert refused.value.path == "a\\.b" and refused.value.code.name == "UNSUPPORTED_DTYPE"


def test_a_view_is_no_field(pa):
    view = opened({"a": [{"k": 1}, {}]})
    with pytest.raises(packbuf.Error, match="a column of a view"):
        packbuf.pack({"a": view["a"]})
    with pytest.raises(packbuf.Error, match="record batch"):
        packbuf.pack(pa.array([1, 2]))


def test_a_stream_that_fails(pa):
    def batches():
        yield pa.record_batch({"a": [1]})
        raise RuntimeError("the disk is gone")

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(packbuf.Error, match="the disk is gone"):
        packbuf.pack(reader)


class OddStream:
    """A stream of Arrow, by its struct: what fails says b"\\xff"; functions may be missing."""

    def __init__(self, missing=None):
        names, call = ["get_schema", "get_next", "get_last_error", "release"], ctypes.c_void_p
        self.functions = [ctypes.CFUNCTYPE(ctypes.c_int, call, call)(lambda *_: 5)] * 2
        self.text = ctypes.create_string_buffer(b"\xff")
        self.functions += [ctypes.CFUNCTYPE(call, call)(lambda _: ctypes.addressof(self.text)), ctypes.CFUNCTYPE(None, call)(lambda _: None)]
        pointers = [None if name == missing else ctypes.cast(function, call).value for name, function in zip(names, self.functions)]
        self.struct = (call * 5)(*pointers, None)

    def __arrow_c_stream__(self, requested_schema=None):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self.struct), b"arrow_array_stream", None)


@pytest.mark.parametrize("missing", ["get_schema", "get_next", "get_last_error", "release"])
def test_a_stream_that_lacks_a_part(missing):
    with pytest.raises(packbuf.Error, match="INVALID_ARGUMENT in a: .* lacks a part"):
        packbuf.pack({"a": OddStream(missing)})


def test_a_stream_whose_words_are_no_text():
    with pytest.raises(packbuf.Error, match="SYSTEM in a: \ufffd"):
        packbuf.pack({"a": OddStream()})


def test_bad_bytes_are_refused_and_not_handed_on(pa):
    packed = bytearray(packbuf.pack({"text": ["some text that is long enough", "more"]}))
    at = packed.index(b"some text")
    packed[at] = 0xFF
    with pytest.raises(packbuf.Error, match="BAD_UTF8 in text"):
        pa.record_batch(packbuf.open(packed))
    with pytest.raises(pa.ArrowInvalid, match="BAD_UTF8 field text"):
        pa.table(packbuf.open(packed))


# ---- lifetimes ----


def test_arrow_keeps_the_memory(pa):
    memory = Memory(packbuf.pack(BATCH))
    gone = weakref.ref(memory)
    table = pa.table(packbuf.open(memory))
    del memory
    gc.collect()
    column = table.column("meta")
    del table
    gc.collect()
    assert gone() is not None and column.to_pylist() == [plain(value) for value in BATCH["meta"]]
    del column
    gc.collect()
    assert gone() is None


def test_capsules_nobody_takes_are_given_back():
    memory = Memory(packbuf.pack({"x": np.arange(100.0)}))
    gone = weakref.ref(memory)
    view = packbuf.open(memory)
    capsules = [view.__arrow_c_schema__(), *view.__arrow_c_array__(), view.__arrow_c_stream__(), view["x"].__dlpack__(), view["x"].__dlpack__(max_version=(1, 0))]
    del memory, view
    gc.collect()
    assert gone() is not None
    del capsules
    gc.collect()
    assert gone() is None


def test_released_on_another_thread(pa):
    memory = Memory(packbuf.pack(BATCH))
    gone = weakref.ref(memory)
    tables = [pa.table(packbuf.open(memory)) for _ in range(8)]
    del memory
    threads = [threading.Thread(target=tables.clear) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert gone() is None


def test_what_is_packed_is_held_until_then(pa):
    table = pa.table({"a": np.arange(1000.0)})
    gone = weakref.ref(table)
    batch = packbuf._pack._begin(table, {})
    del table
    gc.collect()
    packed = batch.pack(1)
    del batch
    gc.collect()
    assert gone() is None and packbuf.open(packed)["a"][999] == 999
    assert pa.total_allocated_bytes() >= 0


# ---- DLPack ----


def test_numpy_from_dlpack():
    view = opened({"x": np.arange(12.0).reshape(6, 2), "ids": [[1, 2, 3], [], [4], [5, 6], [], []]}, row_sharing=False)
    shared = np.from_dlpack(view["x"])
    assert not shared.flags.writeable and np.shares_memory(shared, view["x"].numpy())
    copied = np.from_dlpack(view["x"], copy=True)
    copied[0] = 7
    assert view["x"][0].tolist() == [0, 1] and np.from_dlpack(view["ids"]).tolist() == [1, 2, 3, 4, 5, 6]
    assert view["x"].__dlpack_device__() == (1, 0)


def test_torch_from_dlpack(torch):
    for dtype in (torch.float32, torch.bfloat16, torch.float8_e5m2, torch.int8, torch.complex64, torch.bool):
        tensor = torch.arange(12).reshape(3, 4).to(dtype)
        made = torch.from_dlpack(opened({"x": tensor})["x"])
        assert made.dtype == dtype and torch.equal(made.view(torch.uint8), tensor.view(torch.uint8))


def test_dlpack_refuses():
    view = opened({"x": np.arange(4.0), "n": [1, None, 2, 3], "t": ["a"] * 4, "d": [{"a": 1}] * 4, "one": np.ones(4)})
    for wrong in ({"stream": 1}, {"dl_device": (2, 0)}, {"copy": False}):
        with pytest.raises(BufferError):
            view["x"].__dlpack__(**wrong)
    with pytest.raises(BufferError, match="NOT_NULLABLE in n, row 1"):
        view["n"].__dlpack__()
    with pytest.raises(BufferError, match="WRONG_TYPE"):
        view["t"].__dlpack__()
    with pytest.raises(BufferError, match="NOT_STORED"):
        np.from_dlpack(view["one"], copy=False)
    with pytest.raises(packbuf.Error, match="dict is no array"):
        view["d"].__dlpack__()


class Tensor:
    """An array that is known by its DLPack alone."""

    def __init__(self, array, old):
        self.array, self.old = array, old

    def __dlpack__(self, **options):
        if self.old and options:
            raise TypeError("no keyword arguments")
        return self.array.__dlpack__(**options)


@pytest.mark.parametrize("old", [False, True])
def test_dlpack_is_packed(old):
    array = np.arange(24).reshape(4, 6)
    view = opened({"x": Tensor(array[:, ::-2], old), "y": Tensor(np.arange(4, dtype=np.float32), old)})
    assert np.array_equal(view["x"].numpy(), array[:, ::-2]) and view["y"].tolist() == [0, 1, 2, 3]
    held = np.arange(4)
    count = sys.getrefcount(held)
    packbuf.pack({"x": Tensor(held, old)})
    gc.collect()
    assert sys.getrefcount(held) == count


# ---- real batches ----


def loosely(value):
    """What Arrow keeps: a missing key is null, an array a list."""
    if isinstance(value, dict):
        return {key: found for key, item in sorted(value.items()) if (found := loosely(item)) is not None} or None
    if isinstance(value, (list, tuple, np.ndarray)):
        return [loosely(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def sample_files():
    files = [ROOT / "examples" / "sample" / "rows.jsonl"]
    data = os.environ.get("PACKBUF_DATA")
    if data:
        files += sorted(Path(data).rglob("*.jsonl"))[:6]
    return files


@pytest.mark.parametrize("path", sample_files(), ids=lambda path: path.name)
def test_samples_go_there_and_back(pa, pl, path):
    with open(path) as file:
        rows = [row for row in (json.loads(line) for _, line in zip(range(200), file)) if isinstance(row, dict)]
    view = opened(rows)
    table = pa.table(view)
    table.validate(full=True)
    wanted = [loosely(row) for row in view.rows()]
    assert [loosely(row) for row in opened(table).rows()] == wanted
    assert pl.DataFrame(view).height == len(rows)


def test_a_capsule_is_taken_once():
    class Offers:
        def __dlpack__(self, **_):
            return capsule

    field = packbuf.open(packbuf.pack({"x": np.arange(10)}))["x"]
    for version in (1, 1), None:
        capsule = field.__dlpack__(max_version=version, copy=True)
        back = packbuf.open(packbuf.pack({"x": Offers()}))
        assert back["x"].tolist() == list(range(10))
        with pytest.raises(ValueError, match="PyCapsule"):
            packbuf.pack({"x": Offers()})
