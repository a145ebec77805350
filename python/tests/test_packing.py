"""Packing: options, errors, many batches, and bytes that are those of the C command and of the reader of the spec."""

import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, need, spec_reader
from equality import same
from mutations import Tally, mutants

import packbuf
from packbuf import Status

SAMPLE = ROOT / "examples" / "sample"


def command_bytes(command, tmp_path, *arguments):
    out = tmp_path / "command.pbuf"
    subprocess.run([command, "pack", *map(str, arguments), "-o", str(out)], check=True, capture_output=True)
    return out.read_bytes()


def row_files():
    files = [SAMPLE / "rows.jsonl"]
    if os.environ.get("PACKBUF_DATA"):
        files.append(Path(os.environ["PACKBUF_DATA"]) / "rows.jsonl")
    return files


@pytest.mark.parametrize("packing", ["none", "balanced", "fastest", "smallest"])
def test_bytes_are_those_of_the_command(command, tmp_path, packing):
    arrays = sorted(SAMPLE.glob("*.npy"))
    ours = packbuf.pack({path.stem: np.load(path) for path in arrays}, packing=packing)
    assert ours.detach() == command_bytes(command, tmp_path, *arrays, "--packing", packing)
    for path in row_files():
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert packbuf.pack(rows, packing=packing).detach() == command_bytes(command, tmp_path, path, "--packing", packing)
        names = list(dict.fromkeys(name for row in rows for name in row))
        if all(len(row) == len(names) for row in rows):
            assert packbuf.pack({name: [row[name] for row in rows] for name in names}, packing=packing).detach() == packbuf.pack(rows, packing=packing).detach()


def test_the_reader_of_the_spec_reads_it():
    reader = spec_reader()
    rows = [json.loads(line) for line in (SAMPLE / "rows.jsonl").read_text().splitlines()][:4]
    batch = {name: [row.get(name) for row in rows] for name in rows[0]} | {"n": list(range(4)), "f": [0.5, -0.0, 1e300, None]}
    for packing in (None, "balanced", "smallest"):
        packed = packbuf.pack(batch, packing=packing, batch_values={"step": 7}, metadata={"by": "me", "n": {"unit": "rows"}})
        text = json.loads(reader.Packed(packed.detach(), file=True).to_json())
        assert text["fields"] == batch and text["values"] == {"step": 7}
        assert text["metadata"] == {"": {"by": "me"}, "n": {"unit": "rows"}}
        view = packbuf.open(packed)
        assert view.schema().text == reader.Packed(packed.detach(), file=True).schema()


def test_lists_of_numbers_take_a_short_way_to_the_same_bytes():
    columns = [
        [[1, 2, 3], [], [4]], [[1], None, [2**62, -(2**63)]], [None, [], [0.5]], [[float("nan")] * 9, [-0.0]], [[1], [2.5]], [[1], [True]],
        [[1, 2], [2**63]], [[], []], [[1] * 20] * 50, [[float(i)] * i for i in range(300)], [[1], (2,)], [[1], "x"], [[1, "x"]], [[2**64]], [[0.5], [1]],
    ]
    for column in columns:
        long = [tuple(cell) if isinstance(cell, list) else cell for cell in column]
        for packing in (None, "balanced"):
            assert packbuf.pack({"c": column}, packing=packing).detach() == packbuf.pack({"c": long}, packing=packing).detach(), column
            rows, others = [{"a": 1, "c": cell} for cell in column] + [{"c": []}], [{"a": 1, "c": cell} for cell in long] + [{"c": ()}]
            assert packbuf.pack(rows, packing=packing).detach() == packbuf.pack(others, packing=packing).detach(), column
            for gap in (1, 70):  # rows that do not have it: before, between and after
                gaps, other_gaps = ([{"a": 2}] * gap + [one for row in some for one in [row] + [{"a": 2}] * gap] for some in (rows, others))
                packed = packbuf.pack(gaps, packing=packing)
                assert packed.detach() == packbuf.pack(other_gaps, packing=packing).detach(), column
                assert same(packbuf.open(packed, verify="all").rows(), packbuf.open(packbuf.pack(other_gaps)).rows())
    asked = packbuf.open(packbuf.pack({"c": [[1], [2]]}, schema={"c": {"dtype": "int8"}}))
    assert asked["c"].dtype == "int8"


def test_many_batches_with_one_call_of_the_allocator():
    batches = [{"x": np.arange(i * 100).reshape(i, 100), "t": ["text"] * i} for i in range(1, 20)] + [[{"a": 1}], {}]
    calls, results = [], []
    for workers in (1, 4, 32):
        def alloc(sizes):
            calls.append(sizes)
            return [bytearray(size + 32) for size in sizes]

        buffers, sizes = packbuf.pack_many(batches, alloc, workers)
        assert calls.pop() == [len(buffer) - 32 for buffer in buffers] and sizes == [len(buffer) - 32 for buffer in buffers]
        results.append([bytes(buffer[:size]) for buffer, size in zip(buffers, sizes, strict=True)])
        assert not calls
    assert results[0] == results[1] == results[2] == [packbuf.pack(batch).detach() for batch in batches]
    packed, sizes = packbuf.pack_many(batches, lambda sizes: [bytearray(size) for size in sizes], 2, packing="smallest")
    assert all(packbuf.open(memoryview(buffer)[:size], verify="all", exact=True).nbytes for buffer, size in zip(packed, sizes, strict=True))
    assert packbuf.pack_many([], lambda sizes: []) == ([], [])


def test_allocators_that_fail():
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack_many([{"a": [1]}], lambda sizes: [])
    assert caught.value.code == Status.INVALID_ARGUMENT
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack_many([{"a": [1]}, {"a": [2]}], lambda sizes: [bytearray(sizes[0]), bytearray(sizes[1] - 1)])
    assert caught.value.code == Status.CAPACITY and caught.value.needed == packbuf.measure({"a": [2]})
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack_many([{"a": [1]}], lambda sizes: [bytes(sizes[0])])
    assert caught.value.code == Status.READ_ONLY
    with pytest.raises(ZeroDivisionError):
        packbuf.pack_many([{"a": [1]}], lambda sizes: 1 // 0)


def test_threads_do_not_change_the_bytes():
    rng = np.random.default_rng(1)
    batch = {"x": rng.integers(0, 50, (300, 4000)), "f": rng.standard_normal((300, 4000), np.float32), "r": [rng.integers(0, 9, n) for n in range(300)]}
    for packing in (None, "balanced"):
        assert len({packbuf.pack(batch, packing=packing, threads=threads).detach() for threads in (None, 1, 2, 5)}) == 1


def test_options_have_effect():
    x = np.tile(np.arange(1000), (50, 1))
    plain, shared = packbuf.pack({"x": x}, row_sharing=False), packbuf.pack({"x": x})
    assert len(shared) < len(plain) / 10 and len(packbuf.pack({"x": x}, row_sharing=False, checksums=False)) < len(plain)
    assert len(packbuf.pack({"x": x}, row_sharing=False, packing="auto", link_gbits=1)) < len(plain) / 5
    assert packbuf.pack({"x": x}, row_sharing=False, packing="auto", link_gbits=400).nbytes == plain.nbytes, "faster than packing"
    assert packbuf.open(packbuf.pack({"x": x}, schema={"x": {"keep_plain": True}}))["x"].numpy().base is not None
    assert len(packbuf.pack({"x": x, "y": x + 1}, alignment=4096)) % 4096 == 0


def test_schemas():
    view = packbuf.open(packbuf.pack({"m": [{"a": 1}, {"a": 2}], "n": [1, 2], "t": [5, 6]}, schema={"m": {"codec": "json_ragged"}, "n": {"dtype": "int8"}, "t": {"timestamp": "s"}, "gone": {"if_present": True}}))
    assert (view["m"].codec, view["n"].dtype, view["t"].numpy().dtype) == ("json_ragged", "int8", np.dtype("M8[s]"))
    for schema, code in [
        ({"n": {"dtype": "int7"}}, Status.UNSUPPORTED_DTYPE),
        ({"n": {"dtype": "float8_e5m2"}}, Status.UNENCODABLE),
        ({"n": {"codec": "zip"}}, Status.INVALID_ARGUMENT),
        ({"n": {"kept": True}}, Status.INVALID_ARGUMENT),
        ({"x": {"dtype": "int8"}}, Status.NOT_FOUND),
        ({"n": {"codec": "utf8_ragged"}}, Status.UNENCODABLE),
    ]:
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"n": [1, 257]}, schema=schema)
        assert caught.value.code == code, caught.value
    with pytest.raises(packbuf.Unencodable) as caught:
        packbuf.pack({"n": [1, None]}, schema={"n": {"not_nullable": True}})
    assert caught.value.code == Status.NOT_NULLABLE and caught.value.row == 1
    with pytest.raises(packbuf.Unencodable, match="NOT_NULLABLE"):
        packbuf.pack({"n": [1]}, batch_values={"step": None}, schema={"step": {"value": True, "not_nullable": True}})


def test_names_of_batch_values():
    view = packbuf.open(packbuf.pack({"a": [1]}, batch_values={"step": 7, "by": {"whom": "me"}}))
    assert view.batch_value_names == ["step", "by"] and list(view) == ["a"]


def test_names_come_before_paths():
    view = packbuf.open(packbuf.pack({"a": [{"b": 2}], "a.b": [1]}))
    assert view["a.b"].tolist() == [1] and view["a"]["b"].tolist() == [2]


def test_rows_of_columns_whose_names_are_patterns():
    names = ["*", "!a", "a", "a*"]
    view = packbuf.open(packbuf.pack({name: [i, i + 10] for i, name in enumerate(names)}))
    assert [view[name].numpy([1]).tolist() for name in names] == [[10], [11], [12], [13]]


def test_schema_of_a_view():
    first, second, other = (packbuf.open(packbuf.pack({"n": column})) for column in ([1], [2, 3], [0.5]))
    assert first.schema() == second.schema() != other.schema() and first.schema().columns[1]["field"] == "n"
    second.expect(first.schema())
    with pytest.raises(packbuf.Error) as caught:
        other.expect(first.schema())
    assert caught.value.code == Status.SCHEMA_MISMATCH and caught.value.path == "n"


@pytest.mark.parametrize(
    ("call", "code", "also"),
    [
        (lambda: packbuf.open(packbuf.pack({"a": [1]}))["b"], Status.NOT_FOUND, KeyError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}))["a"][1], Status.OUT_OF_RANGE, IndexError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}))["a"][[0, 5]], Status.OUT_OF_RANGE, IndexError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]})).select("z*"), Status.NOT_FOUND, KeyError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]})).select(None, [True, False]), Status.ROW_COUNT, ValueError),
        (lambda: packbuf.open(packbuf.pack({"a": [[1]]}))["a"].ragged(slice(0, 9, 0)), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.open(packbuf.pack({"a": ["x"]}))["a"].ragged(), Status.WRONG_TYPE, TypeError),
        (lambda: packbuf.pack({"a": [1], "b": [1, 2]}), Status.ROW_COUNT, ValueError),
        (lambda: packbuf.pack([1]), Status.WRONG_TYPE, TypeError),
        (lambda: packbuf.pack(5), Status.WRONG_TYPE, TypeError),
        (lambda: packbuf.pack({1: [1]}), Status.WRONG_TYPE, TypeError),
        (lambda: packbuf.pack({"a\0": [1]}), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.pack({"\ud800": [1]}), Status.BAD_UTF8, ValueError),
        (lambda: packbuf.pack({"a": [1]}, packing="zip"), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.pack({"a": [1]}, alignment=32), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.pack({"a": [1]}, alignment=100), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.pack({"a": [1]}, row_order_token=b"x"), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.pack({"a": [1]}, metadata={"z": {"k": "v"}}), Status.NOT_FOUND, KeyError),
        (lambda: packbuf.pack_into({"a": [1]}, bytearray(10)), Status.CAPACITY, ValueError),
        (lambda: packbuf.pack_into({"a": [1]}, b"0" * 4096), Status.READ_ONLY, ValueError),
        (lambda: packbuf.open(b"nothing"), Status.TRUNCATED, packbuf.Malformed),
        (lambda: packbuf.open(bytes(200)), Status.BAD_MAGIC, packbuf.Malformed),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits={"nodes": 0}), Status.LIMIT, ValueError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits={"nuts": 0}), Status.INVALID_ARGUMENT, ValueError),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), verify="some"), Status.INVALID_ARGUMENT, ValueError),
    ],
)
def test_errors_have_code_and_class(call, code, also):
    with pytest.raises(packbuf.Error) as caught:
        call()
    error = caught.value
    assert error.code == code and isinstance(error, also) and isinstance(error, ValueError), error
    assert code.name in str(error) and error.message and "\n" not in str(error)
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error) and vars(again) == vars(error)


def test_damage_is_found():
    packed = bytearray(packbuf.pack({"x": np.arange(50_000), "t": ["abc"] * 10 + ["d"] * 49_990}, row_sharing=False))
    packed[-9] ^= 1
    view = packbuf.open(packed)
    view.verify("index")
    with pytest.raises(packbuf.Malformed) as caught:
        view.verify()
    assert caught.value.code == Status.DATA_CHECKSUM and caught.value.rule == "D1" and caught.value.offset is not None


HOSTILE = [{"a": i, "t": "x" * i, "l": [1] * i, "m": {"k": [None, b"x", "y"]}, "v": np.ones(i), "n": list(range(i, i * 90))} for i in range(6)]


def all_of(view):
    """Everything in it, by every way of reading."""
    rows, texts = view.rows(), [str(view.inspect()), view.schema().text]
    for field in view.columns:
        assert len(field.tolist()) == field.rows
        if field.kind == "leaf":
            field.numpy(fill=0)
    return repr(rows), texts


@pytest.mark.parametrize("packing", ["none", "balanced"])
def test_changed_bytes_are_found(packing):
    """By the checksums: what is opened all the same reads as before."""
    original, tally = packbuf.pack(HOSTILE, packing=packing).detach(), Tally()
    wanted = repr(packbuf.open(original).rows())
    for bad in mutants(original, 1500, 7):
        view = tally.of(lambda: packbuf.open(bad, verify="all"))
        assert view is None or repr(view.rows()) == wanted
    tally.check(20, 1000, 5)


@pytest.mark.parametrize("packing", ["none", "balanced"])
def test_hostile_bytes_never_crash(packing):
    """With the head's checksum mended, so that more is reached: all is refused by name, or read, twice the same."""
    original, opened, read, whole = packbuf.pack(HOSTILE, packing=packing).detach(), Tally(), Tally(), Tally()
    spec = spec_reader()
    for bad in map(bytearray, mutants(original, 1500, 8)):
        head = int.from_bytes(bad[32:40], "little")
        if 128 <= head <= len(bad):
            bad[60:64] = bytes(4)
            bad[60:64] = spec.crc32c(bytes(bad[:head])).to_bytes(4, "little")
        view = opened.of(lambda: packbuf.open(bad, limits={"rows": 10_000, "decoded_bytes": 1 << 24}))
        if view is None:
            continue
        found = read.of(lambda: all_of(view))
        assert found is None or found == all_of(view)
        if whole.of(lambda: view.verify() or True):
            assert found is not None or read.refused.keys() & {"LIMIT", "UNSUPPORTED_CODEC"}, "verified, and yet it cannot be read"
    opened.check(500, 150, 5)
    read.check(60, 50, 3)
    whole.check(20, 200, 2)


@pytest.mark.parametrize(
    ("limit", "least", "at_opening"),
    [("head_bytes", 100, True), ("rows", 2, True), ("nodes", 2, True), ("buffers", 2, True), ("metadata", 1, True), ("depth", 1, False), ("decoded_bytes", 10, False), ("cell_bytes", 5, False), ("cell_depth", 2, False)],
)
def test_every_limit_is_that_limit(limit, least, at_opening):
    batch = {"a": [1, 2, 3], "t": ["x" * 100] * 3, "m": [{"p": {"q": 1}}] * 3, "j": [[[[[[1, "a"]]]]]] * 3}
    packed = packbuf.pack(batch, metadata={"a": "b", "c": "d"}, schema={"j": {"codec": "json_ragged"}}, row_sharing=False)
    others = dict.fromkeys(("head_bytes", "rows", "nodes", "buffers", "metadata", "decoded_bytes", "cell_bytes"), 1 << 20) | {"depth": 32, "cell_depth": 32}
    assert packbuf.open(packed, limits=others).rows() == [{name: column[i] for name, column in batch.items()} for i in range(3)]
    for reopened in (False, True):
        with pytest.raises(packbuf.Error) as caught:
            view = packbuf.open(packed, limits={**others, limit: least})
            assert not at_opening
            (view.detach() if reopened else view).rows()
        assert caught.value.code in {Status.LIMIT, Status.DEPTH}, caught.value


def test_vectors_of_the_spec():
    folder = ROOT / "spec" / "vectors"
    need(folder.exists(), "no spec/vectors")
    valid, invalid = sorted((folder / "valid").glob("*.pbuf")), sorted((folder / "invalid").glob("*.pbuf"))
    assert len(valid) > 20 and len(invalid) > 50
    cells, unsupported, rules = 0, set(), set()
    for path in valid:
        view = packbuf.open(path, verify="all", tensors="numpy")
        assert [field.name for field in view.values()] == list(view), path.stem
        for field in view.columns if view._core.kind == 1 else ():
            try:
                cells += len(field.tolist())
            except packbuf.Unsupported:
                unsupported.add(path.stem)
    assert cells > 1000 and {"unknown_codec", "logical_types"} <= unsupported, (cells, unsupported)
    assert all("unknown" in name or name == "logical_types" for name in unsupported), unsupported
    for path in invalid:
        with pytest.raises(packbuf.Error) as caught:
            packbuf.open(path, verify="all")
        rules.add(caught.value.rule)
        assert re.match(rf"{caught.value.rule}_|[a-z]+_", path.stem, re.IGNORECASE), (path.stem, caught.value)
    assert len(rules) > 50


def test_inspect_and_repr():
    x = np.arange(20_000).reshape(20, 1000)
    view = packbuf.open(packbuf.pack({"x": x, "y": x, "t": ["<b>"] * 20, "m": [{"k": 1}] * 20}, packing="balanced", batch_values={"s": 1}))
    table = view.inspect()
    assert "balanced: 20 rows, 4 fields, 1 batch values" in str(table) and "= x" in str(table) and "values:s" in str(table)
    assert view._repr_html_().startswith("<table>") and "20 rows" in repr(view) and "ndarray int64" in repr(view["x"])


def test_the_mapping():
    view = packbuf.open(packbuf.pack({"a.b": [1], "": [2], "m": [{"a.b": 3, "l": [{"x": 4}]}]}))
    assert list(view) == ["a.b", "", "m"] and len(view) == 3 and "a.b" in view and "zz" not in view and view.get("zz") is None
    assert view["a.b"][0] == 1 and view[""][0] == 2 and view["m.a\\.b"][0] == 3 and view["m"]["a.b"][0] == 3
    assert view["m.l[0].x"][0] == 4 and [field.path for field in view["m"].children] == ["m.a\\.b", "m.l"]
    assert dict(view)["m"].kind == "dict" and view["m"].children[1].children[0].children[0].path == "m.l[0].x"


def test_other_batches():
    class TensorDict(dict):
        batch_size = (2,)

        def is_empty(self):
            return not self

    class DataProto:
        batch = TensorDict(x=np.ones((2, 3)), deep=TensorDict(y=np.arange(2)))
        non_tensor_batch = {"uid": np.array(["a", "b"], dtype=object)}
        meta_info = {"step": 7}

    view = packbuf.open(packbuf.pack(DataProto()))
    assert list(view) == ["x", "deep.y", "uid"] and view.batch_values == {"step": 7} and view["uid"].tolist() == ["a", "b"]
