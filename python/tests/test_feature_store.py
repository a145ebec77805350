"""SpecForge's feature store contract on packbuf stores: its own tests, line by line, on shm and tcp.

| its test | here |
| --- | --- |
| roundtrip bit exact; URI names the store; an independent copy; hard pin | test_round_trip, test_a_copy_of_its_own, test_it_is_pinned; of names=, test_some_names, test_some_names_are_checked |
| get after release; the same though the removal is deferred; abort; re-put; retain; two leases | test_after_release, test_release_is_deferred, test_abort, test_put_again, test_retained, test_two_leases |
| wrong credential at attach, None, on the data path, open without | test_credentials |
| cap: MemoryError; a cap that admits one sample and not two | test_budget |
| 11 s old with max 10: freed 1; leased: 0; no max hold: nothing | test_gc_by_age |
| removal fails: pending 1, gc still 1, then freed; flaky free parked, then reconciled | test_a_removal_that_fails |
| drain with injected sleep; forces once leases closed; bounded: RuntimeError, leak still visible | test_drain, test_drain_is_bounded |
| optimizer ack forces only durable samples | test_drain_of_some |
| lease-deferred removal by the engine; drain forces it (-706 without force) | test_an_engine_that_leases: on a double of Mooncake's library |
| drain does not renew the engine's lease: probe count | what is asked of an engine only C can count: tests/store_ledger.c, L18 |
| restart authority adopts and removes | test_adopted |
| equals LocalFeatureStore | test_same_script_same_results |
| abort with lingering bytes | test_abort_with_lingering_bytes |
| store without put_from/get_into: RuntimeError naming both | there is one kind of handle, and it has all of it: a store that cannot be opened says why (test_store.py) |
| keys are exactly run0/s0/g1/NAME; object is 128 bytes and no zip | test_one_object_and_no_pickle: one key a sample, no pickle on the wire |
| re-put: g1 gone, g2 present | test_put_again |
| object cut by 4 bytes | test_a_short_object |
| cross-process: consumer bit exact; stale; abort blocks; release frees; abort under a deferred lease | test_two_processes, test_two_clients (the expected failure of the original does not occur: removal is seen at once) |
| PR 621: zero copy by default; no fallback to pickle; re-put with failed removal warns and supersedes | test_one_object_and_no_pickle, test_put_again_while_leased |
| Local: ref without tensors; get; release idempotent, stale-safe; 50 rounds: 0 bytes; 20 aborts: baseline, oldest_age 0; health; byte estimate | test_round_trip, test_after_release, test_stale_releases, test_fifty_rounds, test_twenty_aborts, test_health, test_estimates |
| Local: disk dump, dump failure, file mode equals offline format, missing key of a file | of its disk format; `Store.get_bytes` to a file is the same bytes (test_a_dump_is_the_object) |
| Local: missing key; stale ref; re-put while leased does not leak; stale release keeps an unconsumed re-put | test_unknown, test_put_again, test_put_again_while_leased, test_stale_releases |
| SharedDir: two instances share only the store; stale handle; use after free; clone; refcount; gc; auth | test_two_clients, test_stale_releases, and those above |
| server capture: retry after a lost response, terminal lost response reclaimed, failed cleanup retryable, gc frees what leases deferred | test_attempts_of_servers; schemas of algorithms are the capture server's |
| architecture: one raw transport in the source | test_one_object_and_no_pickle |
"""

import dataclasses
import json
import multiprocessing as mp
import pickletools
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import ROOT, need
from stores import store_uri

import packbuf

torch = pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "examples" / "specforge"))
from feature_store import AuthPolicy, FeatureSpec, PackbufFeatureStore, SampleRef  # noqa: E402


@pytest.fixture(params=["shm", "tcp"])
def uri(request):
    with store_uri(request.param) as found:
        yield found


def client(uri, **options):
    return PackbufFeatureStore(packbuf.connect(uri, pool_size=1 << 24), store_id="run0", **options)


@pytest.fixture
def store(uri):
    return client(uri)


def tensors(seed=0):
    made = torch.Generator().manual_seed(seed)
    return {
        "hidden_state": torch.randn(4, 8, generator=made).to(torch.bfloat16),
        "target": torch.randn(4, 8, generator=made),
        "input_ids": torch.randint(0, 1 << 40, (7,), generator=made),
    }


EVERY = {
    **tensors(),
    "empty": torch.empty(0, 5),
    "number": torch.tensor(3.5),
    "mask": torch.tensor([[True], [False]]),
    "strided": torch.arange(24).reshape(4, 6)[::2, 1::2],
    "leaf": torch.ones(3, requires_grad=True),
    **{str(dtype)[6:]: torch.arange(5).to(dtype) for dtype in (torch.float64, torch.float16, torch.int32, torch.int16, torch.int8, torch.uint8, torch.float8_e4m3fn)},
}


def same(got, expected):
    assert list(got) == list(expected)
    return all(
        got[name].dtype == expected[name].dtype and got[name].shape == expected[name].shape
        and torch.equal(got[name].contiguous().flatten().view(torch.uint8), expected[name].detach().contiguous().flatten().view(torch.uint8))
        for name in expected
    )


def put(store, seed=0, sample_id="s0"):
    return store.put(tensors(seed), sample_id=sample_id, metadata={"num_tokens": 7, "run_id": "run0"})


def resident(store):
    return store.health()["resident_bytes"]


def in_store(store):
    """Objects that anybody finds."""
    return len(store.store.list("run0/"))


# ---- round trips ----


def test_round_trip(store):
    ref = store.put(EVERY, sample_id="s/0 é", metadata={"num_tokens": 7, "strategy": "dflash", "epoch": 2})
    got, handle = store.get(ref)
    assert same(got, EVERY) and handle.sample_id == "s/0 é" and handle.generation == ref.metadata["generation"]
    assert store.store.uri.replace(":", "").replace("/", "") in ref.feature_store_uri.replace("%3A", "").replace("%2F", "").replace("/", "").replace(":", "")
    assert ref.num_tokens == 7 and ref.strategy == "dflash" and ref.metadata["epoch"] == 2 and ref.run_id == "unknown"
    assert ref.feature_specs["target"] == FeatureSpec("target", (4, 8), "float32")
    text = json.dumps(dataclasses.asdict(ref))  # no tensor in it, and it crosses any control plane
    fields = json.loads(text)
    fields["feature_specs"] = {name: FeatureSpec(**{**spec, "shape": tuple(spec["shape"])}) for name, spec in fields["feature_specs"].items()}
    assert SampleRef(**fields) == ref
    some, _ = store.get(SampleRef(**fields), names=["mask", "target"])
    assert same(some, {name: EVERY[name] for name in ("mask", "target")})
    with pytest.raises(ValueError):
        store.put({}, sample_id="s1", metadata={})


def test_packed(uri):
    store, plain = client(uri, packing="balanced"), client(uri)
    sample = {"ids": torch.arange(1 << 15) % 100}
    refs = [one.put(sample, sample_id="s0", metadata={}) for one in (plain, store)]
    sizes = [packbuf.Ref.parse(ref.feature_store_uri.removeprefix("packbuf:")).nbytes for ref in refs]
    assert 4 * sizes[1] < sizes[0] and same(plain.get(refs[1])[0], sample)


def test_a_copy_of_its_own(store):
    ref = put(store)
    got, _ = store.get(ref)
    got["target"].zero_()
    again, _ = store.get(ref)
    assert same(again, tensors()) and again["target"].data_ptr() != got["target"].data_ptr()


def test_it_is_pinned(store):
    ref = put(store)
    assert not store.store.stat(store.store.list("run0/")[0].ref).evictable
    with pytest.raises(packbuf.Full):
        for i in range(20):
            store.put({"x": torch.rand(1 << 18)}, sample_id=f"fill{i}", metadata={}) if i < 8 else store.store.put(f"fill{i}", {"x": torch.rand(1 << 18)}, timeout=0.1)
    assert same(store.get(ref)[0], tensors())


def test_one_object_and_no_pickle(store):
    put(store)
    found = store.store.list()
    assert [stat.ref.key for stat in found] == ["run0/s0"], "one key a sample: it is there whole or not at all"
    data = bytes(store.store.get_bytes(found[0].ref))
    assert data[:2] != b"PK" and data[:1] != b"\x80"
    with pytest.raises((ValueError, IndexError)):
        pickletools.dis(data, out=open("/dev/null", "w"))
    raw = tensors()["target"].numpy().tobytes()
    assert raw in data, "the raw tensor, and nothing around it that must be parsed"
    source = (ROOT / "examples" / "specforge" / "feature_store.py").read_text()
    assert "import pickle" not in source and "torch.save" not in source


def test_a_dump_is_the_object(store, tmp_path):
    put(store)
    path = tmp_path / "s0.pbuf"
    path.write_bytes(store.store.get_bytes("run0/s0"))
    assert torch.equal(packbuf.open(path)["target"].torch()[0], tensors()["target"])


NAMES = ["a", "a.b", "*", "!a", "a[0]", "b\\", "**", "ab", "[*]"]


def test_some_names(uri):
    """Of what is asked for alone bytes are transferred, whatever it is called; the handle is one like any."""
    producer, consumer = client(uri), client(uri)
    sample = {name: torch.arange(1 << 15) ** 2 + i for i, name in enumerate(NAMES)}
    ref = producer.put(sample, sample_id="s0", metadata={})
    size = packbuf.Ref.parse(ref.feature_store_uri.removeprefix("packbuf:")).nbytes
    for names in [[name] for name in NAMES] + [["ab", "*"], NAMES[::-1]]:
        before = consumer.store.counters()["bytes_moved"]
        got, _ = consumer.get(ref, names=names)
        moved = consumer.store.counters()["bytes_moved"] - before
        assert same(got, {name: sample[name] for name in names})
        assert moved == 0 if uri.startswith("shm") else 0 < moved <= min(size + 4096, len(names) * (sample["a"].nbytes + (2 << 16)) + 8192)
    assert consumer.get(ref, names=[])[0] == {} and list(consumer.get(ref, names=["a", "a"])[0]) == ["a"]
    for names in (["a", "nothing"], ["a?"]):
        out = consumer.health()["active_leases"]
        with pytest.raises(KeyError):
            consumer.get(ref, names=names)
        assert consumer.health()["active_leases"] == out
    alone = client(uri)
    _, handle = alone.get(ref, names=["ab"])
    alone.release(handle)
    with pytest.raises(KeyError):
        consumer.get(ref, names=["ab"])
    assert in_store(producer) == 0


def test_some_names_are_checked(store):
    """What is transferred of some fields is held to its checksums as the whole is."""
    sample = {name: torch.arange(1 << 15) ** 2 * i for i, name in enumerate("abc", 3)}
    ref = store.put(sample, sample_id="s0", metadata={})
    data = bytearray(store.store.get_bytes("run0/s0"))
    data[data.index(sample["b"].numpy().tobytes()) + (1 << 17)] ^= 1
    wrong = store.store.put_bytes("run0/s0", data)
    whole = packbuf.Ref.parse(ref.feature_store_uri.removeprefix("packbuf:"))
    forged = dataclasses.replace(ref, feature_store_uri="packbuf:" + str(whole).replace(f":{whole.generation:x}:", f":{wrong.generation:x}:", 1))
    with pytest.raises(KeyError) as caught:
        store.get(forged, names=["b"])
    assert "DATA_CHECKSUM" in str(caught.value)
    if store.health()["backend"] == "tcp":  # of shm, which is read in place, all of a sample is checked
        assert same(store.get(forged, names=["a"])[0], {"a": sample["a"]}), "other fields are sound"


# ---- lifetimes ----


def test_after_release(store):
    ref = put(store)
    got, handle = store.get(ref)
    store.release(handle)
    store.release(handle)
    with pytest.raises(KeyError):
        store.get(ref)
    assert same(got, tensors()) and resident(store) == 0 and in_store(store) == 0


def test_release_is_deferred(uri, store):
    ref = put(store)
    other = packbuf.connect(uri)
    held = other.get("run0/s0")
    _, handle = store.get(ref)
    store.release(handle)
    with pytest.raises(KeyError):
        store.get(ref)
    with pytest.raises(KeyError):
        client(uri).get(ref)
    assert resident(store) == 0 and torch.equal(held["target"].torch()[0], tensors()["target"])


def test_abort(uri, store):
    ref = put(store)
    store.abort("s0")
    store.abort("s0")
    store.abort("nobody")
    for one in (store, client(uri)):
        with pytest.raises(KeyError):
            one.get(ref)
    assert resident(store) == 0


def test_abort_with_lingering_bytes(uri, store):
    ref = put(store)
    held = packbuf.connect(uri).get("run0/s0")
    got, handle = store.get(ref)
    store.abort("s0")
    with pytest.raises(KeyError):
        store.get(ref)
    assert resident(store) == 0 and same(got, tensors()) and held.num_rows == 1
    store.release(handle)
    again = put(store, 1)
    assert same(store.get(again)[0], tensors(1)), "a newer sample of that id lives"


def test_put_again(uri, store):
    old, new = put(store), put(store, 1)
    assert new.metadata["generation"] > old.metadata["generation"]
    for one in (store, client(uri)):
        with pytest.raises(KeyError):
            one.get(old)
        assert same(one.get(new)[0], tensors(1))
    assert in_store(store) == 1 and store.health()["resident_samples"] == 1


def test_put_again_while_leased(store):
    old = put(store)
    _, handle = store.get(old)
    new = put(store, 1)
    _, newer = store.get(new)
    store.release(handle)
    assert same(store.get(new)[0], tensors(1))
    store.release(newer)
    assert resident(store) > 0, "a third reading is out"
    assert store.health()["active_leases"] == 1


def test_stale_releases(store):
    _, handle = store.get(put(store))
    ref = put(store, 1)
    store.release(handle)
    got, newer = store.get(ref)
    assert same(got, tensors(1))
    store.release(handle)
    assert in_store(store) == 1
    store.release(newer)
    assert in_store(store) == 0 and resident(store) == 0


def test_retained(uri):
    store = client(uri, retain_on_release=True)
    ref = put(store)
    for _ in range(3):
        got, handle = store.get(ref)
        store.release(handle)
        assert same(got, tensors())
    store.abort("s0")
    with pytest.raises(KeyError):
        store.get(ref)


def test_two_leases(store):
    ref = put(store)
    (_, first), (_, second) = store.get(ref), store.get(ref)
    store.release(first)
    store.release(first)
    assert store.drain_sample_removals(["s0"])["removed"] == 0, "it is being read still"
    got, third = store.get(ref)
    store.release(third)
    assert in_store(store) == 1 and same(got, tensors())
    store.release(second)
    assert in_store(store) == 0
    with pytest.raises(KeyError):
        store.get(ref)


def test_unknown(store):
    ref = put(store)
    for change in ({"feature_keys": {"nothing": "s0/nothing"}}, {"feature_store_uri": "mooncake://a/b"}, {"feature_specs": {}}):
        with pytest.raises(KeyError) as caught:
            store.get(dataclasses.replace(ref, **change))
        assert store.health()["active_leases"] == 0, f"nothing is being read, whoever keeps {caught}"
    specs = {**ref.feature_specs, "target": FeatureSpec("target", (8, 4), "float32")}
    with pytest.raises(KeyError):
        store.get(dataclasses.replace(ref, feature_specs=specs))
    assert store.health()["active_leases"] == 0 and same(store.get(ref)[0], tensors())


def test_refs_to_what_is_no_sample(store):
    """A ref may name any object: what is no sample of this store is a KeyError, and is not made to be looked at."""
    ref = store.put({"x": torch.ones(3)}, sample_id="s0", metadata={})
    many = (1 << 28) + (1 << 20)  # more bytes than 1 GiB and 64 times what is stored
    alike = np.broadcast_to(np.zeros((), np.float32), (1, many))
    batches = {"zero": np.zeros((0, 3), np.float32), "text": ["a"], "ragged": [[1.0, 2.0]], "two": np.ones((2, 3), np.float32), "large": alike}
    named = [store.store.put(f"run0/{key}", {"x": x}) for key, x in batches.items()]
    named += [store.store.put_bytes("run0/bytes", b"junk" * 50), store.store.put("other/s0", {"x": np.ones((1, 3), np.float32)})]
    for uri in [f"packbuf:{one}" for one in named if one.key != "run0/large"] + ["packbuf:", "packbuf:pbref1:x", ""]:
        with pytest.raises(KeyError):
            store.get(dataclasses.replace(ref, feature_store_uri=uri))
    with pytest.raises(KeyError):
        store.adopt(dataclasses.replace(ref, feature_store_uri=f"packbuf:{named[-1]}"))
    lies = dataclasses.replace(ref, feature_store_uri=f"packbuf:{named[4]}", feature_specs={"x": FeatureSpec("x", (many,), "float32")})
    for some in (None, ["x"]):
        with pytest.raises(packbuf.Error, match="LIMIT"):
            store.get(dataclasses.replace(lies, feature_keys={"x": "s0/x", "y": "s0/y"}) if some else lies, names=some)
    assert store.health()["active_leases"] == 0 and same(store.get(ref)[0], {"x": torch.ones(3)})
    with pytest.raises(KeyError):
        store.estimate_bytes({"a": FeatureSpec("a", (2,), "_inductor")})


def test_fifty_rounds(store):
    for i in range(50):
        got, handle = store.get(put(store, i, f"s{i}"))
        assert same(got, tensors(i))
        store.release(handle)
    assert resident(store) == 0 and in_store(store) == 0 and store.store.describe()["used"] == 0
    assert store.store.counters()["leases"] == 0 and not store._readings and not store._pending


def test_twenty_aborts(store):
    before = store.health()
    for i in range(20):
        put(store, i, f"s{i}")
        store.abort(f"s{i}")
    assert {**store.health(), "store_used": 0} == {**before, "store_used": 0} and store.health()["oldest_age_s"] == 0 and store.store.describe()["used"] == 0


# ---- bounds ----


def test_budget(uri):
    store = client(uri, max_resident_bytes=16)
    with pytest.raises(MemoryError):
        put(store)
    assert in_store(store) == 0
    one = packbuf.measure({name: tensor.unsqueeze(0) for name, tensor in tensors().items()})
    store = client(uri, max_resident_bytes=one * 5 // 4)
    _, handle = store.get(put(store))
    with pytest.raises(MemoryError):
        put(store, 1, "s1")
    store.release(handle)
    put(store, 1, "s1")


def test_credentials(uri):
    auth = AuthPolicy("hush")
    for wrong in (None, "", "hushed"):
        with pytest.raises(PermissionError):
            client(uri, auth=auth, credential=wrong)
    store = client(uri, auth=auth, credential="hush")
    ref = put(store)
    assert same(store.get(ref)[0], tensors()) and store.health()["auth_required"]
    store.auth = AuthPolicy("another")
    for call in (lambda: put(store), lambda: store.get(ref)):
        with pytest.raises(PermissionError):
            call()
    assert not client(uri).health()["auth_required"]


def test_gc_by_age(uri):
    store = client(uri, max_hold_age_s=10)
    ref, leased = put(store), put(store, 1, "s1")
    _, handle = store.get(leased)
    time.sleep(0.005)
    assert store.gc()["force_freed"] == 0
    swept = store.gc(now=time.monotonic() + 11)
    assert swept["force_freed"] == 1 and swept["force_freed_bytes"] > 400 and swept["release_pending"] == 0
    with pytest.raises(KeyError):
        store.get(ref)
    assert same(store.get(leased)[0], tensors(1)) and handle
    keeps = client(uri)
    ref = put(keeps, 2, "s2")
    assert keeps.gc(now=time.monotonic() + 1e6)["force_freed"] == 0 and same(keeps.get(ref)[0], tensors(2))


FAIL = 1


def flaky(times):
    """A store whose next removals fail: `local`, where that can be planned."""
    store = client("local:?size=16m")
    ref = put(store)
    _, handle = store.get(ref)
    store.store._core.inject([(i, FAIL, packbuf.Status.LEASED) for i in range(times)])
    store.release(handle)
    return store, ref


def test_a_removal_that_fails():
    store, ref = flaky(2)
    assert store.health()["release_pending"] == 1 and resident(store) == 0
    with pytest.raises(KeyError):
        store.get(ref)
    assert store.gc()["release_pending"] == 1
    swept = store.gc()
    assert swept["release_pending"] == 0 and swept["force_freed"] == 1 and swept["force_freed_bytes"] > 400 and in_store(store) == 0


def test_drain():
    store, _ = flaky(2)
    slept = []
    done = store.drain_pending_removals(max_attempts=5, retry_interval_s=0.125, sleep=slept.append)
    assert slept == [0.125] and done["attempts"] == 2 and done["removed"] == 1 and done["release_pending"] == 0
    assert store.health()["release_pending"] == 0 and in_store(store) == 0
    assert store.drain_pending_removals()["removed"] == 0


def test_drain_is_bounded():
    store, _ = flaky(100)
    slept = []
    with pytest.raises(RuntimeError, match="could not drain 1 pending"):
        store.drain_pending_removals(max_attempts=8, retry_interval_s=0.25, sleep=slept.append)
    assert slept == [0.25] * 7 and store.health()["release_pending"] == 1 and store.health()["release_pending_bytes"] > 400
    for bad in ({"max_attempts": 0}, {"retry_interval_s": -1}):
        with pytest.raises(ValueError):
            store.drain_pending_removals(**bad)


def test_drain_of_some():
    store = client("local:?size=16m")
    handles = [store.get(put(store, i, f"s{i}"))[1] for i in range(3)]
    store.store._core.inject([(0, FAIL, packbuf.Status.LEASED), (1, FAIL, packbuf.Status.LEASED)])
    store.release(handles[0])
    store.release(handles[1])
    assert store.drain_sample_removals(["s0", "s2", "nobody"])["removed"] == 1
    assert {stat.ref.key for stat in store.store.list()} == {"run0/s1", "run0/s2"}
    assert store.drain_sample_removals(["s0"])["removed"] == 0
    store.gc()
    assert {stat.ref.key for stat in store.store.list()} == {"run0/s2"} and store.health()["release_pending"] == 0


def test_a_short_object(store):
    ref = put(store)
    data = bytes(store.store.get_bytes("run0/s0"))
    cut = store.store.put_bytes("run0/s0", data[:-4])
    whole = packbuf.Ref.parse(ref.feature_store_uri.removeprefix("packbuf:"))
    text = str(whole).replace(f":{whole.generation:x}:", f":{cut.generation:x}:", 1)
    forged = dataclasses.replace(ref, feature_store_uri="packbuf:" + text)
    assert packbuf.Ref.parse(text).generation == cut.generation and packbuf.Ref.parse(text).nbytes == len(data)
    with pytest.raises(KeyError) as caught:
        store.get(forged)
    assert "SHORT_READ" in str(caught.value)
    flipped = bytearray(data)
    flipped[data.index(tensors()["target"].numpy().tobytes())] ^= 1
    wrong = store.store.put_bytes("run0/s0", flipped)
    text = str(whole).replace(f":{whole.generation:x}:", f":{wrong.generation:x}:", 1)
    with pytest.raises(KeyError) as caught:
        store.get(dataclasses.replace(ref, feature_store_uri="packbuf:" + text))
    assert "DATA_CHECKSUM" in str(caught.value)


def test_health(store):
    ref = put(store)
    _, handle = store.get(ref)
    health = store.health()
    assert (health["resident_samples"], health["active_leases"], health["release_pending"]) == (1, 1, 0)
    assert health["resident_bytes"] == packbuf.Ref.parse(ref.feature_store_uri.removeprefix("packbuf:")).nbytes and health["store_id"] == "run0"
    assert health["backend"] in {"shm", "tcp"} and health["oldest_age_s"] >= 0 and health["store_used"] > 0 and handle


def test_estimates(store):
    assert store.estimate_bytes({"a": FeatureSpec("a", (2, 4), "float32"), "b": FeatureSpec("b", (4,), "bfloat16")}) == 40
    assert put(store).estimated_bytes == 4 * 8 * 2 + 4 * 8 * 4 + 7 * 8


def test_an_engine_that_leases(tmp_path, monkeypatch):
    need(shutil.which("gcc"), "gcc is not installed")
    library = tmp_path / "libmooncake_store.so"
    flags = ["-std=c11", "-shared", "-fPIC", "-fvisibility=hidden", "-I", str(ROOT), "-pthread"]
    subprocess.run(["gcc", *flags, "-o", str(library), str(ROOT / "tests" / "double" / "mooncake.c")], check=True)
    monkeypatch.setenv("MOONCAKE_STORE_LIBRARY", str(library))
    monkeypatch.setenv("DOUBLE_LEASE_MS", "600000")
    store = client("mooncake://localhost:50051")
    ref = put(store)
    got, handle = store.get(ref)
    store.release(handle)
    assert same(got, tensors()) and resident(store) == 0 and store.health()["release_pending"] == 1
    with pytest.raises(KeyError):
        store.get(ref)
    assert store.gc()["release_pending"] == 1, "the engine's lease is not over"
    slept = []
    done = store.drain_pending_removals(sleep=slept.append)
    assert (done["removed"], done["release_pending"], done["attempts"], slept) == (1, 0, 1, [])
    with pytest.raises(packbuf.Error) as caught:
        store.store.list()
    assert caught.value.code == packbuf.Status.UNSUPPORTED_OPERATION


# ---- others ----


def test_adopted(uri):
    ref = put(client(uri))
    restarted = client(uri)
    restarted.adopt(ref)
    assert restarted.health()["resident_samples"] == 1
    _, handle = restarted.get(ref)
    restarted.release(handle)
    assert in_store(restarted) == 0
    with pytest.raises(KeyError):
        restarted.adopt(ref)


def test_attempts_of_servers(uri):
    server, trainer = client(uri), client(uri)
    for i in range(3):
        trainer.track_external_attempt(f"s{i}", generation=1, feature_names=["target"])
    first, lost = put(server, 0, "s0"), put(server, 1, "s1")  # s2 never began
    trainer.adopt(first)
    assert trainer.discard_external_attempts() == 2 and trainer.discard_external_attempts() == 0
    assert same(trainer.get(first)[0], tensors())
    with pytest.raises(KeyError):
        trainer.get(lost)


def test_two_clients(uri):
    producer, consumer = client(uri), client(uri)
    ref = put(producer)
    got, handle = consumer.get(ref)
    assert same(got, tensors())
    producer.abort("s0")
    with pytest.raises(KeyError):
        consumer.get(ref)
    consumer.release(handle)
    old, new = put(producer, 1), put(producer, 2)
    with pytest.raises(KeyError):
        consumer.get(old)
    got, handle = consumer.get(new)
    consumer.release(handle)
    assert same(got, tensors(2)) and in_store(producer) == 0
    with pytest.raises(KeyError):
        producer.get(new)
    producer.gc()
    assert resident(producer) == 0, "what others consumed goes from the books"


def test_same_script_same_results(uri):
    def script(store):
        seen = []

        def note(call):
            try:
                result = call()
                seen.append(sorted(result[0]) if isinstance(result, tuple) else None)
                return result
            except (KeyError, MemoryError) as error:
                seen.append([base.__name__ for base in (KeyError, MemoryError) if isinstance(error, base)])

        refs = [put(store, i, f"s{i % 3}") for i in range(5)]
        held = [note(lambda ref=ref: store.get(ref)) for ref in refs]
        for got in held:
            if got:
                note(lambda got=got: store.release(got[1]))
        note(lambda: store.abort("s1"))
        for ref in refs:
            note(lambda ref=ref: store.get(ref))
        seen.append(store.gc()["release_pending"])
        seen.append([store.health()[name] for name in ("resident_samples", "resident_bytes", "active_leases")])
        return seen

    assert script(client(uri)) == script(client("local:?size=16m"))


def _consumer(uri, inbox, outbox):
    store, held = client(uri), []
    while (task := inbox.get()) is not None:
        do, ref = task
        try:
            if do == "get":
                got, handle = store.get(ref)
                held.append(handle)
                outbox.put({name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in got.items()})
            else:
                store.release(held.pop())
                outbox.put("released")
        except KeyError:
            outbox.put("KeyError")


def test_two_processes(uri):
    context = mp.get_context("fork")
    inbox, outbox = context.Queue(), context.Queue()
    process = context.Process(target=_consumer, args=(uri, inbox, outbox))
    process.start()

    def asks(do, ref=None):
        inbox.put((do, ref))
        return outbox.get(timeout=120)

    store = client(uri)
    old = put(store)
    ref = put(store, 1)
    assert asks("get", old) == "KeyError", "stale"
    assert asks("get", ref) == {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in tensors(1).items()}, "bit exact"
    store.abort("s0")
    assert asks("get", ref) == "KeyError", "aborted, though the consumer's lease is out"
    assert asks("release") == "released"
    ref = put(store, 2)
    assert asks("get", ref) != "KeyError" and asks("release") == "released"
    with pytest.raises(KeyError):
        store.get(ref)
    inbox.put(None)
    process.join()
    assert process.exitcode == 0 and store.store.describe()["used"] == 0
