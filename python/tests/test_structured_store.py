"""The structured-object store on Mooncake: examples/mooncake.

On a client in memory with the engine's ways, and on the engine itself with its own master. Numbers at the tests are the
lines of the list in examples/mooncake/README.md: what Mooncake's own structured object store is tested for.
"""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import mooncake_world  # first: it finds the adapter
import numpy as np
import pytest
from equality import same
from hypothesis import given
from hypothesis import strategies as st
from mooncake_fake import FakeClient
from packbuf_mooncake import FieldSchema, Pool, Ref, StructuredStore, export_ref, import_ref

import packbuf
from packbuf import Status

POOL = 8 << 20


@pytest.fixture(scope="module")
def real(request, tmp_path_factory):
    pytest.importorskip("mooncake.store", reason="the wheel mooncake-transfer-engine-non-cuda is not installed")
    log = tmp_path_factory.mktemp("mooncake") / "master.log"
    with mooncake_world.real(log) as (client, config):
        yield client, config
    if request.session.testsfailed:
        print(f"the master's log, {log}:\n{log.read_text()[-4000:]}", file=sys.stderr)


@pytest.fixture(params=["fake", "real"])
def world(request):
    """A client and the config of its puts: one in memory, and the engine."""
    if request.param == "fake":
        yield FakeClient(), None
        return
    client, config = request.getfixturevalue("real")
    client.counts.clear()
    yield client, config
    client.remove_all(True)


@pytest.fixture
def store(world):
    client, config = world
    made = StructuredStore(client, config, pool_bytes=POOL, whole_below=0, gap=0)
    yield made
    assert idle(made), "something still lies in the pool"
    made.close()


@pytest.fixture
def fake():
    return FakeClient()


def store_on(client, **options) -> StructuredStore:
    return StructuredStore(client, **{"pool_bytes": POOL, "whole_below": 0, "gap": 0, "wait": 0.0, **options})


def idle(store) -> bool:
    """Whether nothing lies in the pool; exceptions that were caught may hold frames in cycles."""
    return store.idle or gc.collect() < 0 or store.idle


def objects(values) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def plain(value):
    """Object arrays as lists, so that the equality relation of the spec applies."""
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, np.ndarray) and value.dtype == object else value


def equal(a, b) -> bool:
    return same(plain(a), plain(b))


def pick(value, rows):
    """Rows of a column, of whatever kind."""
    if isinstance(value, list):
        return [value[i] for i in np.arange(len(value))[rows]]
    return value[rows]


def fails(code: Status, call, *args, kind: type = packbuf.Error, **options) -> packbuf.Error:
    with pytest.raises(kind) as caught:
        call(*args, **options)
    assert isinstance(caught.value, packbuf.Error) and caught.value.code is code, caught.value
    return caught.value


N = 24


def rollout(torch) -> dict:
    """A batch as an RL pipeline has it: three sections."""
    generator = torch.Generator().manual_seed(3)
    return {
        "batch": {
            "prompt_ids": torch.randint(0, 50000, (N, 64), generator=generator),
            "response_mask": torch.randint(0, 2, (N, 128), generator=generator, dtype=torch.bool),
            "log_probs": torch.randn((N, 128), generator=generator).bfloat16(),
            "rewards": torch.randn((N,), generator=generator),
            "experts": torch.randint(0, 128, (N, 16, 2, 2), generator=generator).to(torch.uint8),
            "returns": np.arange(N * 3, dtype=np.float32).reshape(N, 3),
            "nothing": torch.zeros((N, 0)),
        },
        "non_tensor_batch": {
            "prompt": objects([("", None, "grüße", f"question {i} " * i)[i % 4] for i in range(N)]),
            "ids": np.arange(N, dtype=np.int32),
            "tools": objects([None if i % 5 == 4 else [{"name": f"t{k}", "args": {"x": k}} for k in range(i % 3)] for i in range(N)]),
            "blob": objects([(bytes([i]) * i, None)[i % 7 == 6] for i in range(N)]),
            "routing": objects([None if i == 3 else np.arange(i * 2, dtype=np.int16).reshape(i, 2) for i in range(N)]),
            "extra": objects([{"uid": f"u{i}", "score": None, "image": torch.full((2, i % 3), i)} if i % 4 else {"uid": ""} for i in range(N)]),
        },
        "meta_info": {"step": 7, "temperature": 0.5, "names": ["a", None], "table": np.arange(40.0), "empty": {}},
    }


ROW_SETS = [slice(2, 5), slice(1, 9, 2), slice(9, 9), slice(-3, None), [4, 1, 3], [], [-1, 0, -1, 3], [N - 1, 0, 11, 5], np.arange(N) % 5 == 2, np.zeros(N, bool)]


# ---- put and get: 26 27 31-33 38 72-78 84 85 88 93 101 102 106-108 113 121-133 ----


def test_what_is_put_comes_back(store, torch):  # 26 73 101 128-131
    data = rollout(torch)
    ref = store.put(data)
    got = store.get(ref)
    assert equal(got, data)
    assert list(got["batch"]) == list(data["batch"]) and list(got["non_tensor_batch"]) == list(data["non_tensor_batch"])
    assert got["non_tensor_batch"]["prompt"].dtype == object  # 85
    assert ref.batch_size == N and len(ref.keys) == 1


@pytest.mark.parametrize("rows", ROW_SETS, ids=str)
def test_rows(store, torch, rows):  # 45 49 76 102 103 106 108 132
    data = rollout(torch)
    got = store.get(store.put(data), rows=rows)
    for section in ("batch", "non_tensor_batch"):
        for name, column in data[section].items():
            assert equal(got[section][name], pick(column, rows)), name
    assert equal(got["meta_info"], data["meta_info"])


def test_rows_keep_trailing_dimensions(store, torch):  # 20 107 108
    ref = store.put({"batch": {"a": torch.zeros((10, 16)), "b": np.zeros((10, 0), np.int8), "c": torch.zeros((10, 2, 0, 3))}})
    got = store.get(ref, rows=[])["batch"]
    assert (got["a"].shape, got["b"].shape, got["c"].shape) == ((0, 16), (0, 0), (0, 2, 0, 3))
    assert got["b"].dtype == np.int8
    assert store.get(store.put({"batch": {"z": np.zeros((4, 0))}}))["batch"]["z"].shape == (4, 0)


def test_columns(store, torch):  # 18 22 39 75
    data = rollout(torch)
    ref = store.put(data)
    got = store.get(ref, fields=["rewards", "prompt", "routing"], meta_info_keys=["step"])
    assert equal(got, {"batch": {"rewards": data["batch"]["rewards"]}, "non_tensor_batch": {name: data["non_tensor_batch"][name] for name in ("prompt", "routing")}, "meta_info": {"step": 7}})
    got = store.get(ref, batch_fields=["returns"], meta_info_keys=[])
    assert list(got["batch"]) == ["returns"] and got["non_tensor_batch"] == {} and got["meta_info"] == {}
    got = store.get(ref, non_tensor_fields=["ids"], rows=slice(3, 6))
    assert got["batch"] == {} and got["non_tensor_batch"]["ids"].tolist() == [3, 4, 5]
    assert equal(store.get(ref, fields=[]), {"batch": {}, "non_tensor_batch": {}, "meta_info": data["meta_info"]})
    assert list(store.get(ref, fields=["rewards", "log_probs"])["batch"]) == ["rewards", "log_probs"]


def test_flat_dicts(store, torch):  # 30 84 85 88
    data = {"tokens": torch.arange(6).reshape(3, 2), "scores": np.ones(3), "rows": [[1, 2], None, []], "text": ["a", "", "é"], "other": [1, 2], "name": "run", "lr": 0.1, "scalar": np.float32(3)}
    ref = store.put(data)
    got = store.get(ref)
    assert equal(got, data) and isinstance(got["text"], list)
    assert equal(store.get(ref, rows=slice(1, 3), fields=["text", "tokens"], meta_info_keys=["lr"]), {"tokens": data["tokens"][1:], "text": ["", "é"], "lr": 0.1})
    sections = store.get_dataproto(ref)
    assert list(sections["batch"]) == ["tokens", "scores"] and list(sections["non_tensor_batch"]) == ["rows", "text"]
    assert sections["non_tensor_batch"]["rows"].dtype == object
    assert list(sections["meta_info"]) == ["other", "name", "lr", "scalar"]
    named = {"other": FieldSchema(section="meta_info"), "text": FieldSchema(section="non_tensor_batch")}
    assert equal(store.get(store.put({"text": ["x"], "other": [1, 2]}, schema=named)), {"text": ["x"], "other": [1, 2]})


def test_flat_dicts_whose_keys_look_like_sections(store):  # 93
    data = {"batch": np.arange(3), "meta_info": np.arange(3) * 2}
    ref = store.put(data)
    assert ref.form == "dict" and equal(store.get(ref), data)
    nested = {"batch": {"a": [1]}, "meta_info": {"b": 2}}
    assert equal(store.get(store.put(nested, flat=True)), nested)


def test_two_sections_with_one_name(store):  # 81 82 92 94
    ref = store.put({"batch": {"a": np.arange(2)}, "meta_info": {"a": "meta"}}, schema={"a": FieldSchema(dtype="int64")})
    got = store.get(ref)
    assert got["batch"]["a"].tolist() == [0, 1] and got["meta_info"]["a"] == "meta"
    assert "Duplicate keys" in str(fails(Status.DUPLICATE_NAME, store.get_dict, ref, kind=ValueError))
    assert "overlap" in str(fails(Status.DUPLICATE_NAME, store.put, {"batch": {"a": np.arange(2)}, "non_tensor_batch": {"a": ["x", "y"]}}, kind=ValueError))


def test_tensordicts(store, torch):
    tensordict = pytest.importorskip("tensordict")
    data = tensordict.TensorDict({"a": torch.arange(8).reshape(4, 2), "b": torch.ones(4)}, batch_size=[4])
    data.set_non_tensor("same", "for all")
    data["each"] = tensordict.NonTensorStack("p", "q", "r", "s")
    ref = store.put(data)
    got = store.get(ref, rows=[3, 0])
    assert type(got) is tensordict.TensorDict and got.batch_size == (2,) and ref.form == "tensordict"
    assert got["a"].tolist() == [[6, 7], [0, 1]] and list(got["each"].tolist() if hasattr(got["each"], "tolist") else got["each"]) == ["s", "p"]
    nested = tensordict.TensorDict({"a": data}, batch_size=[4])
    fails(Status.WRONG_TYPE, store.put, nested, kind=TypeError)


def test_verls_dataproto(store, torch):  # 73 77
    verl = pytest.importorskip("verl")
    data = rollout(torch)
    data["batch"] = {name: column for name, column in data["batch"].items() if isinstance(column, torch.Tensor)}
    proto = verl.DataProto.from_dict(tensors=data["batch"], non_tensors=data["non_tensor_batch"], meta_info=data["meta_info"])
    ref = store.put_dataproto(proto)
    got = store.get_dataproto(ref, data_cls=verl.DataProto)
    assert isinstance(got, verl.DataProto) and len(got) == N
    assert equal({"batch": dict(got.batch.items()), "non_tensor_batch": got.non_tensor_batch, "meta_info": got.meta_info}, data)
    part = store.get_dataproto(ref, data_cls=verl.DataProto, fields=["rewards", "prompt"], rows=[5, 5])
    assert len(part) == 2 and part.batch["rewards"][0] == data["batch"]["rewards"][5]


def test_classes_of_results(store):  # 77 78
    class Made:
        def __init__(self, batch, non_tensor_batch, meta_info) -> None:
            self.batch, self.non_tensor_batch, self.meta_info = batch, non_tensor_batch, meta_info

    ref = store.put(Made({"a": np.arange(2)}, {}, {"m": 1}))
    assert store.get(ref, data_cls=Made).meta_info == {"m": 1}
    assert equal(store.get(ref, data_cls=dict), {"batch": {"a": np.arange(2)}, "non_tensor_batch": {}, "meta_info": {"m": 1}})
    fails(Status.WRONG_TYPE, store.get, ref, data_cls=int, kind=TypeError)


def test_jagged_tensors(store, torch):  # 127
    rows = [torch.arange(3), torch.arange(0), torch.arange(5), torch.arange(1)]
    jagged = torch.nested.nested_tensor(rows, layout=torch.jagged)
    ref = store.put({"batch": {"j": jagged}})
    for chosen, want in ((None, [0, 1, 2, 3]), (slice(1, 3), [1, 2]), ([2, 0], [2, 0])):
        got = store.get(ref, rows=chosen)["batch"]["j"]
        assert got.is_nested and [row.tolist() for row in got.unbind()] == [rows[i].tolist() for i in want]
    assert store.get(ref, rows=[])["batch"]["j"].numel() == 0
    other = torch.nested.nested_tensor_from_jagged(torch.arange(16).reshape(2, 8), torch.tensor([0, 3, 8]), jagged_dim=2)
    got = store.get(store.put({"batch": {"j": other}}), rows=[1, 0])["batch"]["j"]
    assert [tuple(row.shape) for row in got.unbind()] == [(2, 5), (2, 3)]
    assert [row.tolist() for row in got.unbind()] == [row.tolist() for row in reversed(other.unbind())]


def test_missing_null_and_empty_are_three(store):  # 83 129 130
    rows = [{"a": 1}, {"a": None}, {}, None, {"a": [], "b": {}}, {"a": [None]}]
    ref = store.put({"x": rows})
    assert equal(store.get(ref)["x"], rows)
    assert equal(store.get(ref, rows=[5, 0, 2, 4])["x"], [rows[i] for i in (5, 0, 2, 4)])
    assert equal(store.get(ref, rows=slice(1, 5))["x"], rows[1:5])


def test_values_that_others_refuse(store, torch):  # 126: mixed dtypes and bfloat16 in ragged rows
    rows = [torch.ones(2, dtype=torch.bfloat16), None, torch.ones((1, 3), dtype=torch.bfloat16)]
    mixed = [torch.ones(2), torch.ones(2, dtype=torch.int8), 3]
    ref = store.put({"r": rows, "m": mixed})
    assert equal(store.get(ref), {"r": rows, "m": mixed})
    fails(Status.UNENCODABLE, store.put, {"x": [object(), object()]}, kind=TypeError)  # 125
    assert idle(store)


def test_metadata_only(store):  # 19: here one small object, not none
    ref = store.put({"batch": {}, "meta_info": {"step": 1}})
    assert ref.batch_size == 0 and equal(store.get(ref)["meta_info"], {"step": 1})
    more = store.append_fields(ref, {"batch": {"a": np.arange(4)}}, stage="two")
    assert more.batch_size == 4 and equal(store.get(more)["meta_info"], {"step": 1}) and store.open_ref(more.key) == more
    assert store.get(store.append_fields(more, {"meta_info": {"step": 2}}, stage="three"))["meta_info"] == {"step": 2}


# ---- schemas: 79-83 88 ----


def test_schemas(store):  # 79 80 88
    schema = {"ids": FieldSchema("typed_ragged", "int32"), "n": FieldSchema(dtype="int64"), "text": FieldSchema("utf8_ragged", nullable=False)}
    data = {"batch": {}, "non_tensor_batch": {"ids": objects([[1, 2], None, [3]]), "n": objects([1, None, 3]), "text": objects(["a", "b", ""])}}
    ref = store.put(data, schema=schema)
    assert equal(store.get(ref)["non_tensor_batch"], data["non_tensor_batch"])
    what = store.describe(ref)
    assert (what["ids"]["codec"], what["ids"]["dtype"], what["text"]["codec"]) == ("typed_ragged", "int32", "utf8_ragged")
    error = fails(Status.UNENCODABLE, store.put, {"text": [3, 4]}, schema={"text": FieldSchema("utf8_ragged")}, kind=TypeError)
    assert (error.path, error.row) == ("text", 0)
    fails(Status.NOT_NULLABLE, store.put, {"text": ["a", None]}, schema={"text": FieldSchema(nullable=False)}, kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.put, data, schema={"ids": FieldSchema(section="batch")}, kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.put, data, schema={"ids": FieldSchema(section="nowhere")}, kind=ValueError)
    for text in ("a.b", "", "a/b", "a\\b", "a[0]", "!a", "*"):  # keys of any name, where others refuse them
        one = store.put({"c": [{text: 1}, {}], text: [1, 2]})
        assert equal(store.get(one, fields=["c", text]), {"c": [{text: 1}, {}], text: [1, 2]})


def test_schemas_of_nothing(store):
    """A schema that no column has is a mistake; one of meta_info alone is not of a column with its name (82)."""
    for call in (
        lambda: store.put({"ids": [1]}, schema={"idz": FieldSchema(dtype="int32")}),
        lambda: store.put({"batch": {"ids": np.arange(2)}, "meta_info": {"note": 1}}, schema={"note": FieldSchema(dtype="int32")}),
        lambda: store.put({"ids": np.arange(2), "note": 1}, schema={"note": FieldSchema(nullable=False)}),
        lambda: store.put_many([{"a": [1]}, {"b": [1]}], schema={"c": FieldSchema()}),
        lambda: store.append_fields(ref, {"more": [1]}, stage="s", schema={"ids": FieldSchema(dtype="int8")}),
    ):
        ref = store.put({"ids": [1]})
        put = store.counters.puts
        fails(Status.INVALID_ARGUMENT, call, kind=ValueError)
        assert store.counters.puts == put
    two = store.put_many([{"a": [1]}, {"b": [1]}], schema={"a": FieldSchema(dtype="int8"), "b": FieldSchema(dtype="int16")})
    assert [store.describe(ref)[name]["dtype"] for ref, name in zip(two, "ab")] == ["int8", "int16"]
    both = {"non_tensor_batch": {"a": objects([1, 2])}, "meta_info": {"a": 7}}
    ref = store.put(both, schema={"a": FieldSchema(section="non_tensor_batch", dtype="int8")})
    assert store.describe(ref)["a"]["dtype"] == "int8" and store.get(ref)["meta_info"]["a"] == 7
    fails(Status.INVALID_ARGUMENT, store.put, both, schema={"a": FieldSchema(section="meta_info", dtype="int8")}, kind=ValueError)
    ref = store.put(both, schema={"a": FieldSchema(section="meta_info")})
    assert store.describe(ref)["a"]["dtype"] == "int64"


def test_batch_sizes_must_agree(store, torch):  # 30 109
    fails(Status.ROW_COUNT, store.put, {"batch": {"a": torch.ones(4), "b": torch.ones(3)}}, kind=ValueError)
    fails(Status.ROW_COUNT, store.put, {"a": torch.ones(4), "b": np.ones(3)}, kind=ValueError)
    fails(Status.ROW_COUNT, store.put, {"a": ["x", "y"], "b": ["z"]}, kind=ValueError)
    for bad in ("text", 3, None, [1, 2]):
        fails(Status.WRONG_TYPE, store.put, bad, kind=TypeError)  # 86
    fails(Status.WRONG_TYPE, store.put, {1: np.arange(2)}, kind=TypeError)
    fails(Status.WRONG_TYPE, store.put, {"batch": {"a": 3}}, kind=TypeError)


# ---- refusals of a get: 22 50 103 ----


def test_what_a_get_refuses(store, torch):  # 22 50 103
    ref = store.put(rollout(torch))
    before = store.counters.calls
    fails(Status.INVALID_ARGUMENT, store.get, ref, fields=["ids"], batch_fields=["rewards"], kind=ValueError)
    fails(Status.NOT_FOUND, store.get, ref, fields=["nope"], kind=KeyError)
    fails(Status.NOT_FOUND, store.get, ref, batch_fields=["prompt"], kind=KeyError)
    fails(Status.WRONG_TYPE, store.get, ref, fields="ids", kind=TypeError)
    fails(Status.OUT_OF_RANGE, store.get, ref, rows=[0, N], kind=IndexError)
    fails(Status.OUT_OF_RANGE, store.get, ref, rows=[-N - 1], kind=IndexError)
    fails(Status.WRONG_TYPE, store.get, ref, rows=["0"], kind=TypeError)
    fails(Status.WRONG_TYPE, store.get, ref, rows=[1.0], kind=TypeError)
    fails(Status.WRONG_TYPE, store.get, ref, rows=3, kind=TypeError)
    fails(Status.INVALID_ARGUMENT, store.get, ref, rows=slice(None, None, -1), kind=ValueError)
    with pytest.raises(ValueError):
        store.get(ref, rows=slice(None, None, 0))
    fails(Status.ROW_COUNT, store.get, ref, rows=[True, False], kind=ValueError)
    fails(Status.NOT_FOUND, store.get, ref, fields=["ids"], destinations={"rewards": np.zeros(N)}, kind=KeyError)
    assert store.counters.calls == before, "the engine was asked for what cannot be"


def test_destinations(store, torch):  # 21 47 50 76 102 103
    data = rollout(torch)
    ref = store.put(data)
    array, tensor = np.empty((3, 3), np.float32), torch.empty((3, 64), dtype=torch.int64)
    got = store.get(ref, fields=["returns", "prompt_ids", "rewards"], rows=[5, 0, 5], destinations={"returns": array, "prompt_ids": tensor})
    assert got["batch"]["returns"] is array and got["batch"]["prompt_ids"] is tensor
    assert np.array_equal(array, data["batch"]["returns"][[5, 0, 5]]) and torch.equal(tensor, data["batch"]["prompt_ids"][[5, 0, 5]])
    for bad, code in (
        (np.empty((4, 3), np.float32), Status.INVALID_ARGUMENT),
        (np.empty((3, 3), np.float64), Status.INVALID_ARGUMENT),
        (np.empty((3, 6), np.float32)[:, ::2], Status.READ_ONLY),
        (np.frombuffer(bytes(36), np.float32).reshape(3, 3), Status.READ_ONLY),
    ):
        fails(code, store.get, ref, fields=["returns"], rows=[1, 2, 3], destinations={"returns": bad}, kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.get, ref, fields=["prompt"], destinations={"prompt": objects([""] * N)}, kind=ValueError)


# ---- one object, one buffer, the bytes that are moved: 14 31 39 40 45 46 58 67 ----


def test_one_key_and_one_call_a_put(fake, torch):  # 14
    store = store_on(fake)
    ref = store.put(rollout(torch))
    assert list(fake.objects) == [ref.key] and len(fake.objects[ref.key]) == ref.nbytes
    assert [name for name, _ in fake.calls] == ["register_buffer", "batch_put_from"]
    assert packbuf.open(fake.objects[ref.key], verify="all", exact=True).num_rows == N  # what is stored is a packed buffer
    store.get(ref)
    assert fake.calls[-1] == ("batch_get_into", [ref.key]) and store.counters.bytes_got == ref.nbytes


def test_only_the_bytes_that_are_wanted(world, torch):  # 39 45: 3 of 20 columns, 1/8 of the rows
    client, config = world
    store = StructuredStore(client, config, pool_bytes=POOL, gap=0)
    rng = np.random.default_rng(0)
    data = {f"c{i}": rng.integers(0, 1 << 60, (256, 40)) for i in range(20)}
    ref = store.put(data)
    moved = store.counters.bytes_got
    wanted = ["c3", "c9", "c17"]
    got = store.get(ref, fields=wanted, rows=slice(64, 96))
    moved = store.counters.bytes_got - moved
    head, data_bytes = ref.parts[0].head_length, 3 * 32 * 40 * 8
    assert all(np.array_equal(got[name], data[name][64:96]) for name in wanted)
    assert moved == head + data_bytes < ref.nbytes / 30
    assert store.counters.calls == 3 and store.counters.ranges == 1 + 3  # the put; the head, three runs of rows
    scattered = store.get(ref, fields=["c3"], rows=[9, 8, 200])
    assert np.array_equal(scattered["c3"], data["c3"][[9, 8, 200]])
    assert store.counters.bytes_got == moved + head + 3 * 320 and store.counters.ranges == 4 + 1 + 2
    assert store.get(ref, fields=["c3"], rows=[])["c3"].shape == (0, 40)
    assert store.counters.bytes_got == moved + 2 * head + 3 * 320, "no row, no data"
    store.close()


def test_columns_of_any_name_in_part(store):
    names = ["!a", "!", "*", "**", "[*]", "a.b", "a[0]", "b\\", "\\!", "a"]
    data = {name: np.arange(3000) ** 2 + i for i, name in enumerate(names)}
    ref = store.put(data)
    for name in names:
        assert equal(store.get(ref, fields=[name], rows=slice(5, 9)), {name: data[name][5:9]}), name


def test_gap_and_small_objects(fake):
    data = {"x": np.random.default_rng(0).integers(0, 1 << 60, (500, 40))}
    store = store_on(fake, gap=320 * 4)
    ref = store.put(data)
    assert np.array_equal(store.get(ref, rows=[1, 5, 20])["x"], data["x"][[1, 5, 20]])
    assert store.counters.ranges == 1 + 2
    small = store_on(fake, whole_below=1 << 20)
    assert np.array_equal(small.get(ref, rows=[1, 5, 20])["x"], data["x"][[1, 5, 20]])
    assert (small.counters.gets, small.counters.ranges, small.counters.bytes_got) == (1, 0, ref.nbytes)


def test_clients_without_ranges(torch):  # 46 57: whole objects instead
    class Old(FakeClient):
        def __getattribute__(self, name):
            if name in {"get_into_ranges", "batch_remove"}:
                raise AttributeError(name)
            return super().__getattribute__(name)

    client, data = Old(), rollout(torch)
    store = store_on(client)
    ref = store.put(data, key="named")
    assert equal(store.get(ref, fields=["prompt"], rows=[3, 1])["non_tensor_batch"]["prompt"], pick(data["non_tensor_batch"]["prompt"], [3, 1]))
    more = store.append_fields(ref, {"a": np.arange(N)}, stage="a")
    assert store.open_ref(more.key) == more and "a" in store.describe(more)
    fails(Status.DUPLICATE_NAME, store.put, data, key="named")
    client.now += 60
    assert store.remove(more) == 0 and client.objects == {}


def test_memory_is_registered_once(world, torch):  # 5 31 48
    client, config = world
    store = StructuredStore(client, config, pool_bytes=POOL, whole_below=0)
    data, registered = rollout(torch), client.count("register_buffer")
    for i in range(20):
        ref = store.append_fields(store.put(data), {"adv": np.ones(N) * i}, stage="adv")
        assert store.get(ref, fields=["adv", "prompt"], rows=[1, 2])["batch"]["adv"].tolist() == [i, i]
        store.get(ref)
        store.remove(ref, force=True)
    assert registered == client.count("register_buffer") == store.registrations == 1
    assert client.count("unregister_buffer") == 0
    store.close()
    assert client.count("unregister_buffer") == 1


def test_nothing_of_a_result_lies_in_the_pool(store, torch):  # 41
    ref = store.put(rollout(torch))
    kept = [store.get(ref), store.get(ref, rows=[3, 4, 5]), store.get(ref, fields=["routing", "extra"], rows=slice(2, 9))]
    assert idle(store)
    before = json.dumps(repr(kept))
    store.put({"x": np.full(POOL // 16, 7)})  # writes where they lay
    assert json.dumps(repr(kept)) == before


def test_views_in_place(store):  # 65 71: zero copies, and the pool waits for them
    data = {"x": np.arange(100_000).reshape(100, 1000)}
    ref = store.put(data)
    (view,) = store.views(ref)
    array = view["x"].numpy(slice(2, 4))
    del view
    assert not store.idle and not array.flags.owndata and np.array_equal(array, data["x"][2:4])
    fails(Status.LEASED, store.close)
    del array
    assert idle(store)


@pytest.mark.parametrize("packing", ["balanced", "auto"])
def test_packings(world, torch, packing):
    client, config = world
    plain_store = StructuredStore(client, config, pool_bytes=POOL)
    store = StructuredStore(client, config, pool_bytes=POOL, packing=packing, whole_below=0, gap=0)
    data = rollout(torch)
    ref = store.put(data)
    assert ref.nbytes < plain_store.put(data).nbytes
    assert equal(store.get(ref), data)
    got = store.get(ref, rows=[7, 2, 7])
    assert all(equal(got["batch"][name], pick(column, [7, 2, 7])) for name, column in data["batch"].items())
    assert idle(store)


def test_many_at_once(store, torch):
    batches = [{"x": np.arange(N * 1000).reshape(N, 1000) ** i, "t": [f"{i}"] * N} for i in range(5)]
    refs = store.put_many(batches)
    assert store.counters.calls == 1 and store.counters.puts == 5
    assert equal(store.get_many(refs), batches) and store.counters.calls == 2
    got = store.get_many(refs, fields=["x"], rows=[3])
    assert store.counters.calls == 4 and [int(one["x"][0, 2]) for one in got] == [3002**i for i in range(5)]
    twice = store.get_many([refs[1], refs[1], refs[2]])  # one call of the engine fills one buffer for a key
    assert [one["t"][0] for one in twice] == ["1", "1", "2"] and np.array_equal(twice[0]["x"], twice[1]["x"])


# ---- append: 10-12 17 22 24 25-27 99 100 104 106 110 111 133 ----


def test_appends(store, torch):  # 17 25 99 100 101
    data = rollout(torch)
    ref = store.put(data)
    put = store.counters.bytes_put
    added = {"batch": {"advantages": torch.randn(N, 128)}, "non_tensor_batch": {"verdict": objects([f"v{i}" for i in range(N)])}, "meta_info": {"step": 8, "kl": 0.1}}
    two = store.append_fields(ref, added, stage="critic")
    assert store.counters.bytes_got == 0 and store.counters.bytes_put - put < ref.nbytes  # nothing old was read or written
    want = {
        "batch": {**data["batch"], **added["batch"]},
        "non_tensor_batch": {**data["non_tensor_batch"], **added["non_tensor_batch"]},
        "meta_info": {**data["meta_info"], **added["meta_info"]},
    }
    assert equal(store.get(two), want) and equal(store.get(ref), data)  # the old ref stays good
    got = store.get(two, rows=[5, 0], fields=["advantages", "prompt"])
    assert torch.equal(got["batch"]["advantages"], added["batch"]["advantages"][[5, 0]])
    three = store.append_fields(two, {"more": np.arange(N)}, stage="critic")  # 11 12: the same stage again
    assert store.get(three, fields=["more", "advantages"])["batch"]["more"].tolist() == list(range(N))
    assert [part.stage for part in three.parts] == ["default", "critic", "critic"] and three.lineage == (two.key,)
    assert {name: what["stage"] for name, what in store.describe(three).items() if name in {"more", "rewards"}} == {"rewards": "default", "more": "critic"}
    assert len(set(three.keys)) == 5 and store.remove(three, force=True) == 0
    assert store.counters.removed == 5


def test_an_append_reads_only_the_parts_it_needs(fake, torch):
    store = store_on(fake)
    ref = store.append_fields(store.put(rollout(torch)), {"adv": np.arange(N * 1000.0).reshape(N, 1000)}, stage="a")
    fake.calls.clear()
    store.get(ref, fields=["adv"], rows=[1], meta_info_keys=[])
    assert {key for _, keys in fake.calls for key in keys} == {ref.parts[1].key}


def test_concurrent_appends_are_branches(store):  # 24 27
    ref = store.put({"a": np.arange(4)})
    left, right = store.append_fields(ref, {"b": np.zeros(4)}, stage="s"), store.append_fields(ref, {"b": np.ones(4)}, stage="s")
    assert (store.get(left)["b"].sum(), store.get(right)["b"].sum()) == (0, 4)


def test_overwriting(store):  # 26 106 110 111 133
    ref = store.put({"text": ["a", "b"], "ids": np.arange(2), "note": "old"})
    scores = store.append_fields(ref, {"s1": np.zeros(2), "s2": ["x", "y"], "kl": 1, "by": "me"}, stage="score")
    fails(Status.DUPLICATE_NAME, store.append_fields, scores, {"s1": np.ones(2)}, stage="score", kind=ValueError)
    fails(Status.DUPLICATE_NAME, store.append_fields, scores, {"ids": np.ones(2)}, stage="score", overwrite=True, kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.append_fields, scores, {"s1": np.ones(2)}, stage="score", overwrite=True, kind=ValueError)
    fails(Status.ROW_COUNT, store.append_fields, scores, {"s1": np.ones(3), "s2": [1, 2, 3]}, stage="score", overwrite=True, kind=ValueError)
    new = store.append_fields(scores, {"s1": np.ones(2), "s2": np.arange(2), "kl": 2}, stage="score", overwrite=True)
    assert equal(store.get(new), {"text": ["a", "b"], "ids": np.arange(2), "s1": np.ones(2), "s2": np.arange(2), "note": "old", "kl": 2, "by": "me"})
    assert equal(store.get(scores)["s2"], ["x", "y"])
    base = store.append_fields(new, {"text": ["c", "d"], "ids": np.arange(2) + 5}, stage="default", overwrite=True)
    assert equal(store.get(base, fields=["text", "s1"], meta_info_keys=["note"]), {"s1": np.ones(2), "text": ["c", "d"], "note": "old"})
    assert store.open_ref(base.key) == base
    keys = base.keys
    assert len(keys) == 7 and store.remove(base, force=True) == 0 and store.counters.removed == 7
    for gone in (ref, scores, new, base):
        fails(Status.NOT_FOUND, store.get, gone, kind=KeyError)


def test_a_failing_append_leaves_nothing(fake):  # 52 53
    store = store_on(fake)
    ref = store.put({"a": np.arange(4)})
    for n, why in ((0, -200), (1, -900)):
        fake.fail("put_from", n, why)
        with pytest.raises(packbuf.Error):
            store.append_fields(ref, {"b": np.arange(4)}, stage="s")
        assert list(fake.objects) == [ref.key] and idle(store)
    fake.fail("put_from", 1, -200)
    fake.fail("remove", 0, OSError("cable"))
    fails(Status.FULL, store.append_fields, ref, {"b": np.arange(4)}, stage="s")  # not the cable
    assert equal(store.get(ref), {"a": np.arange(4)})


# ---- refs: 29 90 95-98 104 ----


def test_refs_are_plain_data(store, torch):  # 29 90 95 104
    data = rollout(torch)
    ref = store.append_fields(store.put(data), {"adv": np.arange(N)}, stage="adv")
    text = json.dumps(store.export_ref(ref))
    back = store.import_ref(json.loads(text))
    assert back == ref and equal(store.get(json.loads(text), fields=["adv"]), store.get(ref, fields=["adv"]))
    more = store.append_fields(json.loads(text), {"z": np.arange(N)}, stage="z")
    assert store.get(more, fields=["z", "adv"])["batch"]["z"].tolist() == list(range(N))
    assert store.open_ref(ref.key) == ref  # from the key alone
    fails(Status.NOT_FOUND, store.open_ref, "nothing/here", kind=KeyError)


BAD_REFS = [
    {"type": "other"}, {"version": 2}, {"key": ""}, {"key": 3}, {"key": "a b"}, {"rows": -1}, {"rows": "4"}, {"rows": True}, {"rows": 5}, {"token": "zz" * 16},
    {"token": "00"}, {"form": "list"}, {"parts": []}, {"parts": "x"}, {"parts": [{}]}, {"parts": None}, {"lineage": "abc"}, {"lineage": [""]}, {"lineage": ["other/object"]},
]  # fmt: skip
BAD_PARTS = [
    {"key": ""}, {"key": "x" * 256}, {"key": "another/batch"}, {"stage": None}, {"length": -1}, {"length": 1 << 60}, {"head_length": 1 << 30}, {"head_checksum": 1 << 32},
    {"rows": 3}, {"columns": []}, {"columns": {"a": "batch"}}, {"columns": {"a": ["meta_info", "torch"]}}, {"columns": {"a": ["batch", "pickle"]}}, {"meta": "ab"}, {"meta": [1]}, {"head_checksum": True},
    {"extra": 1},
]  # fmt: skip


def test_refs_from_elsewhere_are_checked(fake):  # 17 29 95-98 105
    ref = store_on(fake).put({"a": np.arange(4)})
    good = json.loads(json.dumps(export_ref(ref)))
    assert import_ref(good) == ref
    for change in BAD_REFS:
        fails(Status.INVALID_ARGUMENT, import_ref, {**good, **change}, kind=ValueError)
    for change in BAD_PARTS:
        fails(Status.INVALID_ARGUMENT, import_ref, {**good, "parts": [{**good["parts"][0], **change}]}, kind=ValueError)
    part = good["parts"][0]
    for parts in ([part, part], [part, {**part, "key": part["key"] + "#f"}]):
        fails(Status.INVALID_ARGUMENT, import_ref, {**good, "parts": parts}, kind=ValueError)
    for missing in good:
        fails(Status.INVALID_ARGUMENT, import_ref, {name: value for name, value in good.items() if name != missing}, kind=ValueError)
    for nothing in (None, 3, "x", [], {}):
        fails(Status.INVALID_ARGUMENT, import_ref, nothing, kind=ValueError)


SAMPLE = store_on(FakeClient()).put({"a": np.arange(4), "t": ["x"] * 4, "b": 1})


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=3), lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=3), x, max_size=3), max_leaves=8), st.data())
def test_any_data_as_a_ref(value, data):
    good = json.loads(json.dumps(export_ref(SAMPLE)))
    where = data.draw(st.sampled_from([good, good["parts"][0]]))
    where[data.draw(st.sampled_from(sorted(where)))] = value
    try:
        assert isinstance(import_ref(good), Ref)
    except packbuf.Error as error:
        assert error.code is Status.INVALID_ARGUMENT


def test_refs_however_deep_or_long(fake):
    """What strangers send is told in a few words: neither a deep value nor a long one gets into the error."""
    data = export_ref(store_on(fake).put({"a": np.arange(4)}))
    deep: list = []
    inner = deep
    for _ in range(100_000):
        inner.append([])
        inner = inner[0]
    for odd in (deep, {"a": deep}, {"a": [deep, "numpy"]}, "x" * 1_000_000, 1 << 5000, [deep]):
        for bad in [{**data, name: odd} for name in data] + [{**data, "parts": [{**data["parts"][0], name: odd}]} for name in data["parts"][0]]:
            try:
                import_ref(bad)
            except packbuf.Error as error:
                assert len(str(error)) < 1000
    while deep:  # or freeing it would recurse
        deep = deep.pop()


def test_objects_of_strangers(fake):
    """Notes nested too deeply, and few bytes that stand for many."""
    store, token = store_on(fake), bytes(16)
    fake.objects["k"] = bytes(packbuf.pack({"a": np.arange(3)}, metadata={"packbuf.dataproto": "[" * 100_000}, row_order_token=token))
    fails(Status.BAD_METADATA, store.open_ref, "k")
    alike = np.broadcast_to(np.zeros((), np.uint8), (1 << 40,))
    fake.objects["k"] = bytes(packbuf.pack({"a": alike}, row_order_token=token))
    ref = store.open_ref("k")
    assert ref.rows == 1 << 40 and store.get(ref, rows=[7, -1])["a"].tolist() == [0, 0]
    for one in (store, store_on(fake, whole_below=1 << 20)):
        fails(Status.LIMIT, one.get, ref)
        fails(Status.LIMIT, one.get, ref, rows=slice(1 << 33))
    fails(Status.LIMIT, store_on(fake, limits={"decoded_bytes": 1 << 10}).get, ref, rows=slice(1 << 11))


def test_a_ref_that_lies_is_found_out(fake, torch):  # 62 63
    store = store_on(fake)
    ref = store.put(rollout(torch))
    (part,) = ref.parts
    for change, code in (
        ({"head_checksum": part.head_checksum ^ 1}, Status.FRAGMENT_MISMATCH),
        ({"length": part.length - 1}, Status.SHORT_READ),
        ({"length": part.length + 64}, Status.SHORT_READ),
        ({"length": POOL * 2}, Status.CAPACITY),
        ({"columns": {**part.columns, "ghost": ("batch", "torch")}}, Status.FRAGMENT_MISMATCH),
        ({"columns": {**part.columns, "prompt": ("batch", "torch")}}, Status.WRONG_TYPE),
        ({"meta": ("ghost",)}, Status.NOT_FOUND),
    ):
        fails(code, store.get, replace(ref, parts=(replace(part, **change),)))
    fails(Status.TRUNCATED, store.get, replace(ref, parts=(replace(part, head_length=part.head_length - 64),)), fields=["ids"])
    fails(Status.FRAGMENT_MISMATCH, store.get, replace(ref, parts=(replace(part, head_length=part.head_length + 64),)), fields=["ids"])
    fails(Status.ROW_ORDER, store.get, replace(ref, token="00" * 16))
    fails(Status.FRAGMENT_MISMATCH, store.get, replace(ref, rows=N + 1, parts=(replace(part, rows=N + 1),)))
    assert idle(store)


def test_packed_buffers_of_others_can_be_opened(fake):
    store = store_on(fake)
    fake.objects["plain"] = packbuf.pack({"x": np.arange(5), "t": ["a"] * 5, "n": [1, None, 2, 3, 4]}, batch_values={"v": 1}).detach()
    ref = store.open_ref("plain")
    assert equal(store.get(ref), {"x": np.arange(5), "t": ["a"] * 5, "n": [1, None, 2, 3, 4], "v": 1})
    for note in ("[]", "3", "{", '{"form": 3}', '{"batch": [1]}', '{"batch": {"x": ["torch"]}}', '{"batch": {"ghost": "torch"}, "form": "dict"}'):
        fake.objects["bad"] = packbuf.pack({"x": np.arange(5)}, metadata={"packbuf.dataproto": note}).detach()
        with pytest.raises(packbuf.Error):
            store.get(store.open_ref("bad"))
        del fake.objects["bad"]
    listed = packbuf.Fragment.of(packbuf.open(fake.objects["plain"]), "plain")
    fake.objects["m"] = packbuf.manifest([listed]).detach()
    fails(Status.INVALID_ARGUMENT, store.open_ref, "m")  # a manifest of a stranger: removing it would remove "plain"
    fake.objects["junk"] = b"x" * 500
    fails(Status.BAD_MAGIC, store.open_ref, "junk")


# ---- what goes wrong: 23 52-56 ----


def test_short_reads_are_errors(fake, torch):  # 23 119
    store = store_on(fake)
    ref = store.put(rollout(torch))
    for short in (lambda n: n - 1, lambda n: 0, -707, -600):
        fake.fail("get_into", 0, short)
        fails(Status.SHORT_READ, store.get, ref)
        for nth in (0, 1, 2):  # the head; ranges of the data
            fake.fail("get_range", nth, short)
            fails(Status.SHORT_READ, store.get, ref, fields=["prompt_ids", "ids"], rows=[3, 9])
    assert idle(store) and store.get(ref)["meta_info"]["step"] == 7


@pytest.mark.parametrize(("code", "status"), [(-200, Status.FULL), (-800, Status.DISCONNECTED), (-900, Status.DISCONNECTED), (-901, Status.TIMEOUT), (-801, Status.DATA_CHECKSUM), (-1, Status.SYSTEM), (-1600, Status.SYSTEM)])
def test_codes_have_names(fake, code, status):
    store = store_on(fake)
    ref = store.put({"a": np.arange(9)})
    for method, call in (("get_into", lambda: store.get(ref)), ("put_from", lambda: store.put({"a": [1]})), ("get_range", lambda: store.get(ref, rows=[1]))):
        fake.fail(method, 0, code)
        assert str(code) in str(fails(status, call))
    assert idle(store)


def test_objects_that_are_gone_or_others(fake, torch):
    store = store_on(fake, verify="all")
    ref = store.append_fields(store.put(rollout(torch)), {"adv": np.zeros((N, 5000))}, stage="a")
    good = dict(fake.objects)
    some = {"fields": ["adv", "prompt_ids"], "rows": [2, 9]}
    for key in (part.key for part in ref.parts):
        fake.objects.pop(key)
        fails(Status.NOT_FOUND, store.get, ref, kind=KeyError)
        fails(Status.NOT_FOUND, store.get, ref, **some, kind=KeyError)
        fake.objects.update(good)
    (other,) = (store.put(rollout(torch)),)  # as long, but another
    fake.objects[ref.parts[0].key] = fake.objects[other.key]
    fails(Status.FRAGMENT_MISMATCH, store.get, ref)
    fails(Status.FRAGMENT_MISMATCH, store.get, ref, **some)
    fake.objects.update(good)
    view = packbuf.open(good[ref.parts[0].key])
    head, index, _ = view._core.sizes
    at = good[ref.parts[0].key].index(np.asarray(rollout(torch)["batch"]["prompt_ids"])[2].tobytes())
    for place, codes in ((70, {Status.HEAD_CHECKSUM, Status.BAD_HEADER}), (head + index // 2, {Status.INDEX_CHECKSUM, Status.NOT_ZERO}), (at, {Status.DATA_CHECKSUM})):
        bad = bytearray(good[ref.parts[0].key])
        bad[place] ^= 4
        fake.objects[ref.parts[0].key] = bytes(bad)
        for call in (lambda: store.get(ref), lambda: store.get(ref, **some)):
            with pytest.raises(packbuf.Malformed) as caught:
                call()
            assert caught.value.code in codes
    fake.objects.update(good)
    assert equal(store.get(ref, **some), store_on(fake).get(ref, **some)) and idle(store)


def test_a_key_that_exists(store, torch):  # put on an existing key: the engine answers 0 and writes nothing
    ref = store.put({"a": np.arange(4)}, key="job/step-1")
    assert ref.key == "job/step-1" and equal(store.get(ref), {"a": np.arange(4)})
    for again in ({"a": np.arange(4)}, {"a": np.arange(99)}, {"b": [""] * 4}):
        fails(Status.DUPLICATE_NAME, store.put, again, key="job/step-1", kind=ValueError)
    fails(Status.DUPLICATE_NAME, store.put_many, [{"a": [1]}, {"a": [2]}], ["job/step-2", "job/step-1"])
    fails(Status.NOT_FOUND, store.open_ref, "job/step-2", kind=KeyError)  # all or none
    assert equal(store.get(ref), {"a": np.arange(4)}), "what was there is there"
    assert store.remove(ref, force=True) == 0
    assert equal(store.get(store.put({"a": [5]}, key="job/step-1")), {"a": [5]})
    for bad in ("", "a b", "x" * 201, "a#b", "a\n", "é" * 101):  # 60
        fails(Status.INVALID_ARGUMENT, store.put, {"a": [1]}, key=bad, kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.put_many, [{"a": [1]}, {"a": [2]}], ["k", "k"], kind=ValueError)
    fails(Status.INVALID_ARGUMENT, store.put_many, [{"a": [1]}], ["k", "l"], kind=ValueError)


def test_all_or_none(fake):  # 43 52 53 118
    store = store_on(fake)
    batches = [{"a": np.arange(i)} for i in range(1, 5)]
    fake.fail("put_from", 2, -200)
    fails(Status.FULL, store.put_many, batches)
    assert fake.objects == {} and idle(store)
    fake.fail("put_from", 1, -200)
    fake.fail("remove", 0, OSError("cable"))
    fails(Status.FULL, store.put_many, batches)
    assert idle(store)


def test_named_keys_are_taken_back(fake):
    """What was put under keys of the caller's is taken back, and no more than that; what cannot be is named."""
    store, other = store_on(fake), store_on(fake)
    batches, keys = [{"a": np.arange(i)} for i in range(1, 5)], [f"k{i}" for i in range(4)]
    theirs = other.put({"b": [1]}, key="k2")
    fails(Status.DUPLICATE_NAME, store.put_many, batches, keys)
    assert list(fake.objects) == ["k2"] and equal(other.get(theirs), {"b": [1]})
    other.remove(theirs, force=True)
    fake.fail("put_from", 2, lambda code: -900)  # it was put, and the answer was lost
    fails(Status.DISCONNECTED, store.put_many, batches, keys)
    assert fake.objects == {} and idle(store)
    fake.fail("put_from", 2, lambda code: -900)
    fails(Status.DISCONNECTED, store.put_many, batches)
    assert fake.objects == {} and idle(store)
    fake.fail("get_range", 1, -800)  # the look at what is there now fails once
    fails(Status.DISCONNECTED, store.put_many, batches, keys)
    assert fake.objects == {} and idle(store)
    for n in range(4, 9):  # and from then on
        fake.fail("get_range", n, -800)
    fake.fail("put_from", 3, -200)
    fake.fail("get_range", 2, -800)
    error = fails(Status.FULL, store.put_many, batches, keys)
    assert "may still be there, under k2" in str(error) and list(fake.objects) == ["k2"]


def test_a_master_that_is_not_there():
    """The engine would try for 90 s, and at a port that is silent hold the GIL for ten minutes."""
    pytest.importorskip("mooncake.store", reason="the wheel mooncake-transfer-engine-non-cuda is not installed")
    with socket.socket() as silent, socket.socket() as closed, socket.socket() as other:
        for one in (silent, closed, other):
            one.bind(("127.0.0.1", 0))
        silent.listen()
        other.listen()

        def answer():
            with other.accept()[0] as peer:
                peer.recv(64)
                peer.sendall(b"HTTP/1.1 400 Bad Request")

        thread = threading.Thread(target=answer)
        thread.start()
        for one, says in ((closed, "there is no master"), (silent, "there is no master"), (other, "is no master")):
            start = time.monotonic()
            error = fails(Status.UNAVAILABLE, StructuredStore.connect, f"127.0.0.1:{one.getsockname()[1]}", timeout=0.5)
            assert says in str(error) and time.monotonic() - start < 10
        thread.join()
    for bad in ("", "127.0.0.1", "127.0.0.1:port", ":", "127.0.0.1:99999999"):
        with pytest.raises(packbuf.Error):
            StructuredStore.connect(bad, timeout=0.5)


def test_the_engine_is_full(world):
    client, config = world
    if isinstance(client, FakeClient):
        client.capacity = 8 << 20
    store = StructuredStore(client, config, pool_bytes=32 << 20)
    big, refs = {"x": np.random.default_rng(0).integers(0, 1 << 62, (20 << 20) // 8 if config else 600_000)}, []
    with pytest.raises(packbuf.Error) as caught:
        for _ in range(5):
            refs.append(store.put(big))
    assert caught.value.code is Status.FULL and len(refs) >= 1
    assert equal(store.get(refs[0]), big), "what is pinned is not evicted"
    store.remove(refs[0], force=True)
    refs.append(store.put(big))
    store.close()


def test_removing_waits_for_readers(store, world):  # 51 54 112: the lease of a read
    client, _ = world
    refs = [store.put({"a": np.arange(4)}) for _ in range(3)]
    store.get(refs[0])
    assert store.remove(refs[0]) == 1 and store.remove(refs[1]) == 1
    fails(Status.NOT_FOUND, store.get, refs[0], kind=KeyError)  # gone for this store at once
    fails(Status.NOT_FOUND, store.get, refs[0], rows=[1], kind=KeyError)
    if isinstance(client, FakeClient):
        client.now += 6
    until = time.monotonic() + 30
    while store.collect() and time.monotonic() < until:
        time.sleep(mooncake_world.LEASE_MS / 2000)
    assert store.collect() == 0 and store.remove(refs[0]) == 0
    store.get(refs[2])
    assert store.remove(refs[2], force=True) == 0
    for ref in refs:
        fails(Status.NOT_FOUND, store.get, ref, kind=KeyError)


def test_a_removed_key_that_is_put_again(store, world):
    client, _ = world
    ref = store.put({"a": [1]}, key="job/step-1")
    store.get(ref)
    assert store.remove(ref) == 1 and client.remove("job/step-1", True) == 0  # by another, who forces it
    again = store.put({"a": [2]}, key="job/step-1")
    assert store.collect(force=True) == 0 and equal(store.get(again), {"a": [2]})


def test_removals_are_tried_once_more(fake):  # 55
    store = store_on(fake)
    ref = store.append_fields(store.put({"a": np.arange(4)}), {"b": np.arange(4)}, stage="s")
    fake.fail("remove", 1, -900)
    assert store.remove(ref) == 0 and fake.objects == {}
    assert fake.calls[-2][0] == "batch_remove" and fake.calls[-1] == ("remove", [ref.keys[1]])
    ref = store.put({"a": np.arange(4)})
    for n in (0, 1):
        fake.fail("remove", n, -900)
    fails(Status.DISCONNECTED, store.remove, ref)
    assert store.collect() == 0 and fake.objects == {}


# ---- the pool ----


def test_the_pool(fake):
    pool = Pool(fake, 10 * 4096 - 5)
    a, b, c = pool.take(1), pool.take(4097), pool.take(4096)
    assert [one.address - a.address for one in (a, b, c)] == [0, 4096, 3 * 4096] and pool.in_use == 4 * 4096
    fails(Status.FULL, pool.take, 7 * 4096)
    fails(Status.CAPACITY, pool.take, 11 * 4096)
    b.release()
    b.release()
    again = pool.take(8192)
    assert again.address == a.address + 4096 and pool.high_water == 4 * 4096
    kept = again.part(10, 20)
    again = None
    assert not pool.idle()
    fails(Status.LEASED, pool.close)
    kept[:] = b"x" * 20
    kept = a = b = c = None
    gc.collect()
    assert pool.idle() and pool.take(10 * 4096).part(0, 1) is not None
    gc.collect()
    pool.close()
    assert fake.registered == {}


def test_registering_may_fail(fake):
    fake.register_buffer = lambda address, size: -600
    fails(Status.SYSTEM, store_on, fake)


def test_pools_that_are_forgotten(fake):
    pool = Pool(fake, 4096)
    pool.close()
    fails(Status.UNAVAILABLE, pool.take, 1)
    pool = Pool(fake, 4096)
    assert len(fake.registered) == 1
    pool = None
    assert fake.registered == {}
    pool = Pool(fake, 4096)
    fake.health_check = lambda: 1  # closed: to unregister at one crashes the engine
    pool.close()
    assert len(fake.registered) == 1


@given(st.lists(st.tuples(st.integers(1, 12_000), st.integers(0, 5)), max_size=60))
def test_slices_never_overlap(steps):
    pool, held = Pool(FakeClient(), 40 * 4096), {}
    for size, which in steps:
        held.pop(which, None)
        try:
            held[which] = (pool.take(size), size)
        except packbuf.Error as error:
            assert error.code is Status.FULL
        spans = sorted((one.address, one.address + n) for one, n in held.values())
        assert all(end <= begin for (_, end), (begin, _) in zip(spans, spans[1:], strict=False))
        assert pool.in_use <= pool.size
    held.clear()
    assert pool.idle() and len(pool._free) == 1


def test_waiting_for_room(fake):
    pool = Pool(fake, 4096 * 4)
    first = pool.take(4096 * 3)
    threading.Timer(0.05, first.release).start()
    assert pool.take(4096 * 4, wait=50).address == first.address
    gc.collect()
    kept = pool.take(4096)
    fails(Status.FULL, pool.take, 4096 * 4, wait=0.02)
    assert kept is not None


def test_many_threads(world):
    client, config = world
    store = StructuredStore(client, config, pool_bytes=2 << 20, whole_below=0, wait=120)
    wrong = []

    def work(number: int) -> None:
        try:
            for i in range(12):
                data = {"x": np.full((50, 400), number * 1000 + i), "t": [f"{number}.{i}"] * 50}
                ref = store.append_fields(store.put(data), {"y": np.full(50, i)}, stage="y")
                got = store.get(ref)
                assert equal(got, {**data, "y": np.full(50, i)})
                assert store.get(ref, fields=["x"], rows=[7, 3])["x"].tolist() == data["x"][[7, 3]].tolist()
                store.remove(ref, force=True)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert idle(store) and store.registrations == 1
    store.close()


# ---- the client in memory is what the engine is ----


def test_the_ways_of_the_engine(world):
    client, config = world
    more = () if config is None else (config,)
    slab = np.zeros(64 << 10, np.uint8)
    at = slab.ctypes.data
    assert client.register_buffer(at, slab.nbytes) == 0
    assert client.register_buffer(at + 4096, 4096) == -600 and client.register_buffer(at, slab.nbytes) == -600
    slab[:1000] = np.arange(1000) % 251
    assert client.batch_put_from(["a", "b"], [at, at + 10], [1000, 500], *more) == [0, 0]
    assert client.put_from("a", at + 100, 50, *more) == 0 and client.get_size("a") == 1000  # said to be put, and is not
    assert client.put_from("zero", at, 0, *more) == 0 and client.is_exist("zero") == 0
    to = at + (32 << 10)
    assert client.batch_get_into(["a", "none", "b"], [to, to + 1000, to + 2000], [1000, 10, 900]) == [1000, -704, 500]  # a capacity
    assert bytes(slab[32 << 10 :][:1000]) == bytes(slab[:1000])
    assert client.batch_get_into(["a"], [to], [999]) == [-600]
    ranges = client.get_into_ranges([to], [["a", "none", "b"]], [[[0, 100, 200], [300, 301], [400]]], [[[0, 990, 995], [0, 5], [7]]], [[[10, 10, 10], [1, 1], [3]]])
    assert ranges[0][0] == [10, 10, -600] and set(ranges[0][1]) == {-704} and ranges[0][2] == [3]
    assert bytes(slab[(32 << 10) + 100 :][:10]) == bytes(slab[990:1000])
    assert client.batch_remove(["a", "none"], False) == [-706, -704]
    assert client.batch_remove(["a", "b"], True) == [0, 0] and client.remove("a", True) == -704
    assert client.unregister_buffer(at) == 0 and client.unregister_buffer(at) == -600
    unknown = client.get_into_ranges([at], [["a"]], [[[0]]], [[[0]]], [[[1]]])
    assert unknown[0][0][0] < 0


# ---- another process ----

def test_the_readme(real):
    client, _ = real
    text = (mooncake_world.EXAMPLES / "README.md").read_text()
    shown = text[text.index("```python") + 9 : text.index("```", text.index("```python") + 9)]
    found: dict = {}
    exec(shown.replace("127.0.0.1:50051", client.address).replace("segment=1 << 30", "segment=32 << 20"), found)
    assert found["part"]["batch"]["tokens"].tolist() == [[9, 10, 11], [0, 1, 2], [0, 1, 2]]
    assert list(found["part"]["non_tensor_batch"]["calls"]) == [{}, [], []]
    store, ref, scored = found["store"], found["ref"], found["scored"]
    fails(Status.NOT_FOUND, store.get, scored, kind=KeyError)
    fails(Status.NOT_FOUND, store.get, ref, kind=KeyError)
    store.close()


CONSUMER = """
import json, sys
import numpy as np
sys.path.insert(0, {examples!r})
from packbuf_mooncake.local_master import quiet
quiet()
from packbuf_mooncake import FieldSchema, Pool, Ref, StructuredStore, export_ref, import_ref
store = StructuredStore.connect({address!r}, pool_bytes=4 << 20)
ref = json.loads(sys.stdin.readline())
got = store.get(ref, fields=["ids", "prompt"], rows=[3, -1])
more = store.append_fields(ref, {{"seen": np.ones(ref["rows"], np.int8)}}, stage="consumer")
other = StructuredStore.connect({address!r}, pool_bytes=1 << 20)
other.close()
print(json.dumps([got["batch"]["ids"].tolist(), list(got["non_tensor_batch"]["prompt"]), store.export_ref(more)]), flush=True)
sys.stdin.readline()
"""


def test_another_process(real, torch):
    client, config = real
    store = StructuredStore(client, config, pool_bytes=POOL)
    data = {"batch": {"ids": np.arange(N * 3).reshape(N, 3)}, "non_tensor_batch": {"prompt": objects([f"p{i}" for i in range(N)])}}
    ref = store.put(data)
    code = CONSUMER.format(examples=str(mooncake_world.EXAMPLES), address=client.address)
    # the consumer has no memory in the store: what it appends lies in this process
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            process.stdin.write(json.dumps(store.export_ref(ref)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "the consumer ended"
            ids, prompts, appended = json.loads(line)
            assert ids == data["batch"]["ids"][[3, -1]].tolist() and prompts == ["p3", f"p{N - 1}"]
            assert store.get(appended, fields=["seen"])["batch"]["seen"].sum() == N
        finally:
            process.kill()
    store.remove(appended, force=True)
    store.close()
    for call in (lambda: store.get(ref), lambda: store.put(data), lambda: store.remove(ref), lambda: store.open_ref("x")):
        fails(Status.UNAVAILABLE, call)


# ---- any batch ----

cells = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
def test_any_batch_any_rows(data):
    rows = data.draw(st.integers(0, 6))
    columns = {f"c{i}": data.draw(st.lists(cells, min_size=rows, max_size=rows)) for i in range(data.draw(st.integers(1, 3)))}
    columns["d"] = np.arange(rows * 3, dtype=np.int32).reshape(rows, 3)
    store = store_on(FakeClient())
    ref = store.put({"batch": {}, "non_tensor_batch": columns})
    more = store.append_fields(ref, {"non_tensor_batch": {"z": columns["c0"]}}, stage="z")
    chosen = data.draw(st.lists(st.integers(-rows, rows - 1), max_size=5) if rows else st.just([]))
    got = store.get(more, rows=chosen)["non_tensor_batch"]
    assert all(equal(got[name], pick(column, chosen)) for name, column in {**columns, "z": columns["c0"]}.items())
    assert equal(store.get(store.open_ref(more.key))["non_tensor_batch"], {**columns, "z": columns["c0"]})
    assert idle(store)
