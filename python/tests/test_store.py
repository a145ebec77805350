"""Stores from Python: what is put is got, whole or in part; leases end with what looks into them; errors have a class."""

import asyncio
import gc
import json
import math
import multiprocessing as mp
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import ROOT
from stores import KINDS, shm_uri, store_of, store_uri

import packbuf
from packbuf import Status

BATCH = {
    "ids": [[1, 2, 3], [4], [], [5, 6]],
    "text": ["a", None, "c", ""],
    "dense": np.arange(20.0).reshape(4, 5),
    "meta": [{"step": i} for i in range(4)],
}
MEBIBYTE = np.random.rand((1 << 17) - 2048)  # with its head
ROWS = packbuf.open(packbuf.pack(BATCH)).rows()


def same(view):
    return repr(view.rows()) == repr(ROWS)


@pytest.fixture(params=KINDS)
def store(request):
    with store_of(request.param) as opened:
        yield opened


# ---- in and out ----


def test_whole_batches(store):
    ref = store.put("step/1", BATCH, batch_values={"n": 7}, metadata={"by": "me"})
    view = store.get(ref, verify="all")
    assert same(view) and view.batch_values == {"n": 7} and view.metadata == {"by": "me"}
    assert view.ref == ref and view.nbytes == ref.nbytes and view.schema().fingerprint == ref.fingerprint
    assert bytes(store.get_bytes(ref)) == packbuf.pack(BATCH, batch_values={"n": 7}, metadata={"by": "me"}).detach()
    assert same(store.get("step/1")) and same(store.get(store.stat("step/1").ref))
    with pytest.raises(packbuf.Error) as caught:
        store.get(ref, schema="00" * 16)
    assert caught.value.code == Status.SCHEMA_MISMATCH
    assert same(store.get(ref, schema=view.schema()))
    with pytest.raises(packbuf.Error) as caught:
        store.get(ref, limits={"rows": 3})
    assert caught.value.code == Status.LIMIT


@pytest.mark.parametrize("packing", ["balanced", "fastest", "smallest"])
def test_packed_batches(store, packing):
    numbers = np.arange(100_000) % 300
    ref = store.put("k", {"x": numbers}, packing=packing)
    assert ref.nbytes < numbers.nbytes / 2
    assert (store.get(ref)["x"].numpy() == numbers).all()
    assert (store.select(ref, "x", slice(None, None, 7)).numpy()["x"] == numbers[::7]).all()


def test_many_threads_write_the_same_bytes(store):
    x = np.random.default_rng(0).integers(0, 1 << 60, (64, 5000))
    one, four = store.put("one", {"x": x}, threads=1), store.put("four", {"x": x}, threads=4)
    assert bytes(store.get_bytes(one)) == bytes(store.get_bytes(four)) == packbuf.pack({"x": x}).detach()


def test_torch(store, torch):
    x = torch.arange(12, dtype=torch.bfloat16).reshape(4, 3)
    got = store.get(store.put("k", {"x": x, "list": [{"t": x[i]} for i in range(4)]}), tensors="torch")
    assert torch.equal(got["x"].torch(), x) and torch.equal(got["list.t"][2], x[2])
    assert torch.equal(store.select("k", "x", [3, 0]).torch()["x"], x[[3, 0]])


def test_refs_are_plain_data(store):
    ref, other = store.put("a/key/é", BATCH), store.put("b", BATCH)
    copies = [pickle.loads(pickle.dumps(ref)), packbuf.Ref.parse(str(ref)), packbuf.Ref.parse(json.loads(json.dumps(str(ref))))]
    for copy in copies:
        assert copy == ref and hash(copy) == hash(ref) and copy is not ref and same(store.get(copy))
    assert ref != other and ref != "a/key/é" and ref is not None and len({ref, other, *copies}) == 2
    assert (ref.key, ref.kind, ref.uri) == ("a/key/é", "batch", store.uri) and 0 < ref.head_nbytes < ref.nbytes and ref.generation > 0
    with pytest.raises(AttributeError):
        ref.key = "b"
    for text in ("", "pbref1:", str(ref)[:-1] + "\x00", str(ref) + " ", str(ref).replace("pbref1", "pbref2"), str(ref)[:40], "é"):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.Ref.parse(text)
        assert caught.value.code in {Status.INVALID_ARGUMENT, Status.UNSUPPORTED_VERSION}


def test_refs_by_their_text(store):
    """The text of a ref is that ref, wherever a key will do: not the newest of its key, and no key of its own."""
    old = store.put("k", BATCH)
    assert same(store.get(str(old))) and store.exists(str(old)) and store.stat(str(old)).ref == old
    new = store.put("k", BATCH)
    with pytest.raises(packbuf.Stale):
        store.get(str(old))
    assert store.get_many(["k", str(new)])[1].ref == new
    store.remove(str(new))
    assert not store.exists("k")
    broken = str(new)[:-1].replace("pbref1:", "pbref1:x")[:200]  # a key like any
    for call in (store.get, store.stat, store.get_bytes):
        with pytest.raises(packbuf.NotFound, match="there is no object of this key") as caught:
            call(broken)
        assert caught.value.path == broken


def test_refs_of_a_stranger(store):
    """A ref that was tampered with names what it names, or nothing: never other bytes."""
    text, random = str(store.put("key", BATCH)), np.random.default_rng(0)
    came = 0
    for _ in range(400):
        letters = list(text)
        for _ in range(random.integers(1, 3)):
            letters[random.integers(0, len(letters))] = random.choice(list("0123456789abcdef:%/é \0"))
        try:
            view = store.get(packbuf.Ref.parse("".join(letters)), timeout=5)
        except packbuf.Error as error:
            assert error.code not in {Status.TIMEOUT, Status.DISCONNECTED, Status.PROTOCOL}, error
        else:
            came += 1
            assert same(view)
    assert 0 < came < 400, "what is not looked at (the URI) may change"


def test_keys(store):
    for key in ("", "a b", "a\n", "a\0b", "x" * 256, "\ud800", "a#b", "x" * 201, 5, None, b"a"):
        with pytest.raises(packbuf.Error) as caught:
            store.put(key, BATCH)
        assert caught.value.code == Status.INVALID_ARGUMENT, key
    for key in ("", "a b", "a\0b", "x" * 256, "\ud800", 5, None):
        for call in (store.get, store.stat, store.get_bytes, store.exists, lambda key: store.select(key, "ids")):
            with pytest.raises(packbuf.Error) as caught:
                call(key)
            assert caught.value.code == Status.INVALID_ARGUMENT, key
    longest = "é" * 100
    assert same(store.get(store.put(longest, BATCH))) and store.list("é")[0].ref.key == longest


def test_bytes(store):
    data = os.urandom(100_000)
    for source in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8), packbuf.pack(BATCH), b""):
        ref = store.put_bytes("raw", source)
        got = store.get_bytes(ref)
        assert bytes(got) == bytes(memoryview(source)) and got.readonly and ref.kind == "bytes" and ref.nbytes == len(got)
    with pytest.raises(TypeError):
        store.put_bytes("raw", "text")
    with pytest.raises(packbuf.Malformed):
        store.get(store.put_bytes("raw", b"not a packed buffer" * 10))


def test_looking_around(store):
    assert not store.exists("a") and store.list() == []
    refs = store.put_many([(f"job/{i}", BATCH) for i in range(100)])
    store.put("other", BATCH, evictable=True, ttl=50)
    assert {found.ref.key for found in store.list("job/")} == {ref.key for ref in refs} and len(store.list()) == 101
    stat = store.stat(refs[3])
    assert stat.ref == refs[3] and stat.age >= 0 and stat.expires_in is None and stat.leases == 0 and not stat.evictable
    other = store.stat("other")
    assert other.evictable and 0 < other.expires_in <= 50
    view = store.get(refs[3])
    if store.uri.startswith(("local", "shm")):
        assert store.stat(refs[3]).leases == 1
    del view
    facts = store.describe()
    assert facts["objects"] == 101 and 0 < facts["used"] <= facts["size"] and facts["transport"] == store.uri.partition(":")[0]
    assert "newest" in facts["can"] and repr(store) == f"<packbuf.Store {store.uri}>"
    assert store.collect() == 0
    assert len(store.stat_many(refs)) == 100
    with pytest.raises(packbuf.SomeFailed) as caught:
        store.stat_many([refs[0], "nobody"])
    assert caught.value.results[0].ref == refs[0] and list(caught.value.failed) == ["nobody"]


# ---- errors ----


def test_errors_have_a_class(store):
    with pytest.raises(packbuf.NotFound) as caught:
        store.get("nobody")
    assert isinstance(caught.value, KeyError) and caught.value.path == "nobody" and caught.value.row is None
    old = store.put("k", {"x": [1]})
    new = store.put("k", {"x": [2]})
    for call in (store.get, store.stat, store.get_bytes, lambda ref: store.select(ref, "x"), lambda ref: store.append(ref, {"x": [3]})):
        with pytest.raises(packbuf.Stale) as caught:
            call(old)
        assert isinstance(caught.value, KeyError) and caught.value.path == "k"
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), packbuf.Stale)
    assert not store.exists(old) and store.exists(new)
    assert store.remove(old) and store.exists(new), "the removal of an old generation leaves the new one"
    assert store.remove(new) and not store.exists("k") and store.remove(new) and store.remove("nobody")
    with pytest.raises(packbuf.Unencodable) as caught:
        store.put("k", {"x": [1, 2], "y": [{1}, {2}]})
    assert (caught.value.path, caught.value.row) == ("y", 0) and not store.exists("k")
    for timeout in (-1.0, math.nan):
        with pytest.raises(packbuf.Error) as caught:
            store.get("k", timeout=timeout)
        assert caught.value.code == Status.INVALID_ARGUMENT
    for options in ({"verify": "some"}, {"schema": "xy"}, {"schema": "00"}):
        with pytest.raises(packbuf.Error) as caught:
            store.get("k", **options)
        assert caught.value.code == Status.INVALID_ARGUMENT
    for ttl in (0, -1, math.inf, math.nan, 1e9):
        with pytest.raises(packbuf.Error) as caught:
            store.put("k", BATCH, ttl=ttl)
        assert caught.value.code == Status.INVALID_ARGUMENT


def test_full(store):
    refs = []
    with pytest.raises(packbuf.Full) as caught:
        for i in range(100):
            refs.append(store.put(f"k{i}", {"x": MEBIBYTE}, timeout=0.2 if store.uri.startswith("tcp") else 0))
    assert caught.value.code == Status.FULL and 8 < len(refs) < 17
    store.remove(refs[0])
    store.put("again", {"x": MEBIBYTE}, timeout=5)
    with pytest.raises(packbuf.Error) as caught:
        store.put("huge", {"x": np.random.rand(3 << 20)}, timeout=0.2)
    assert caught.value.code in {Status.CAPACITY, Status.FULL}


def test_a_put_waits_for_room():
    with store_of("local") as store:
        refs = [store.put(f"k{i}", {"x": MEBIBYTE}, timeout=0) for i in range(14)]
        remover = threading.Timer(0.1, lambda: [store.remove(ref) for ref in refs])
        remover.start()
        store.put("late", {"x": np.random.rand(1 << 19)}, timeout=60)  # the GIL is free meanwhile, or nobody could remove
        remover.join()
        assert not any(map(store.exists, refs))


@pytest.mark.parametrize("kind", ["local", "shm"])
def test_quota(kind):
    with store_of(kind, quota=1 << 20) as store:
        ref = store.put("a", {"x": np.random.rand(100_000)})
        with pytest.raises(packbuf.Full) as caught:
            store.put("b", {"x": np.random.rand(100_000)}, timeout=0)
        assert caught.value.code == Status.QUOTA
        store.remove(ref)
        store.put("b", {"x": np.random.rand(100_000)})


def test_time_to_live(store):
    for ttl in (0.05, 1e-4):  # the last is less than what a store counts in
        ref = store.put("k", BATCH, ttl=ttl)
        deadline = time.monotonic() + 50
        while store.exists(ref):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(packbuf.NotFound):
            store.get(ref)
    more = store.append(store.put("l", BATCH), BATCH, ttl=50)
    assert 0 < store.stat(more).expires_in <= 50


def test_a_removal_waits_for_leases():
    with store_of("local") as store:
        held = [store.get(store.put("k", BATCH))]
        threading.Timer(0.05, held.clear).start()
        assert store.remove("k", wait=50)


def test_evictable():
    with store_of("local") as store:
        view = store.get(store.put("held", {"x": np.full(1 << 17, 7.0)}, evictable=True, row_sharing=False))
        for i in range(40):
            store.put(f"k{i}", {"x": np.random.rand(1 << 17)}, evictable=True)
        assert store.counters()["evicted"] > 20 and (view["x"].numpy() == 7).all()


def test_timeouts():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(packbuf.Timeout) as caught:
            packbuf.connect(uri, connect_timeout=0.1)
    assert isinstance(caught.value, TimeoutError) and isinstance(caught.value, packbuf.Error)
    with pytest.raises(packbuf.Disconnected) as caught:
        packbuf.connect(uri, connect_timeout=0.1)
    assert isinstance(caught.value, ConnectionError)


def test_what_is_no_store():
    for uri in ("", "nothing:", "shm:", "local:?sise=5", "tcp://", "local:\0"):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.connect(uri)
        assert caught.value.code == Status.INVALID_ARGUMENT, uri
    for options in ({"size": -1}, {"objects": "many"}, {"quota": 1.5}, {"name": "a\0b"}):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.connect("local:", **options)
        assert caught.value.code == Status.INVALID_ARGUMENT, options
    for options in ({"secret": 5}, {"sise": 5}):
        with pytest.raises(TypeError):
            packbuf.connect("local:", **options)
    with pytest.raises(packbuf.NotFound):
        packbuf.connect(f"shm:python-nobody-{os.getpid()}", must_exist=True, size=1 << 20)
    with pytest.raises(packbuf.NotFound, match=f"in shm:python-nobody-{os.getpid()}: .*size"):
        packbuf.connect(f"shm:python-nobody-{os.getpid()}?sessions=4")
    with store_of("shm") as store:
        reader = packbuf.connect(store.uri, read_only=True)
        ref = store.put("k", BATCH)
        assert same(reader.get(ref))
        for call in (lambda: reader.put("k", BATCH), lambda: reader.remove(ref)):
            with pytest.raises(packbuf.Error) as caught:
                call()
            assert caught.value.code == Status.READ_ONLY


def test_words_that_are_no_option():
    with store_of("local") as store:
        ref = store.put("k", BATCH)
        for call in (
            lambda: store.put("k", BATCH, tll=3),
            lambda: store.put_many({"k": BATCH}, tll=3),
            lambda: store.append(ref, BATCH, tll=3),
            lambda: packbuf.Ledger(store).put("k", BATCH, tll=3),
        ):
            with pytest.raises(TypeError, match="no option tll: they are .*ttl"):
                call()
        for call in (
            lambda: store.get(ref, verfy="all"),
            lambda: store.get_many([ref], verfy="all"),
            lambda: store.select(ref, "ids", verfy="all"),
            lambda: store.select_parts(ref, "ids", verfy="all"),
            lambda: packbuf.Ledger(store).get(ref, verfy="all"),
        ):
            with pytest.raises(TypeError, match="no option verfy: they are .*verify"):
                call()
        assert store.get("k").ref == ref, "nothing was put"
        for call in (lambda: store.get(ref, timeout="3"), lambda: store.get(ref, timeout=-1), lambda: store.put_bytes("k", b"", timeout=-1), lambda: packbuf.Ledger(store).adopt(ref, timeout=-1), lambda: store.put("k", BATCH, ttl="3"), lambda: packbuf.connect("local:", timeout=math.nan)):
            with pytest.raises(packbuf.Error, match="a number of seconds, 0 or more") as caught:
                call()
            assert caught.value.code == Status.INVALID_ARGUMENT
        with pytest.raises(packbuf.WrongType, match="URI is text"):
            packbuf.connect(None)
        assert repr(ref) == f"<packbuf.Ref {ref}>"


def test_errors_say_what_the_system_said():
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        uri = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(packbuf.Disconnected, match=re.escape(f"({os.strerror(111)})")) as caught:
            packbuf.connect(uri)
        assert caught.value.offset == 111 and "byte" not in str(caught.value)
        with pytest.raises(packbuf.Error, match=re.escape(f"SYSTEM ({os.strerror(98)})")):
            packbuf.serve("local:?size=1m", uri)


def test_a_key_that_failed_says_where(store):
    with pytest.raises(packbuf.SomeFailed, match=r"2 keys failed; b in x\[1\].y, row 0: object is"):
        store.put_many({"a": {"x": [1]}, "b": {"x": [[1, {"y": object()}]]}})
    with pytest.raises(packbuf.SomeFailed, match="1 keys failed; nobody: "):
        store.get_many(["nobody"])


# ---- many ----


def test_many(store):
    batches = {f"k{i}": {"x": np.full(10, i)} for i in range(300)}
    refs = store.put_many(batches)
    assert [ref.key for ref in refs] == list(batches)
    assert [view["x"][0] for view in store.get_many(refs)] == list(range(300))
    assert store.put_many([]) == [] == store.get_many([])


def test_many_of_which_some_fail(store):
    batches = [("a", {"x": [1]}), ("b", {"x": [{1}]}), ("c#", {"x": [2]}), ("d", {"x": [1], "y": [1, 2]}), ("e", {"x": [3]}), ("f", {"x": np.arange(3)[:, None]})]
    with pytest.raises(packbuf.SomeFailed) as caught:
        store.put_many(batches)
    error = caught.value
    assert {key: why.code.name for key, why in error.failed.items()} == {"b": "UNENCODABLE", "c#": "INVALID_ARGUMENT", "d": "ROW_COUNT"}
    assert error.failed["b"].row == 0 and error.code == Status.UNENCODABLE and "3 of 6" in str(error)
    assert [isinstance(result, packbuf.Ref) for result in error.results] == [True, False, False, False, True, True]
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is packbuf.SomeFailed and again.results[0] == error.results[0] and list(again.failed) == list(error.failed)
    stale = error.results[0]
    store.put("a", {"x": [9]})
    with pytest.raises(packbuf.SomeFailed) as caught:
        store.get_many([stale, "e", "nobody", error.results[5]])
    assert {key: type(why) for key, why in caught.value.failed.items()} == {"a": packbuf.Stale, "nobody": packbuf.NotFound}
    assert caught.value.results[1]["x"].tolist() == [3] and caught.value.results[3]["x"][2].tolist() == [2]
    del caught, error
    assert store.counters()["leases"] == 0


# ---- parts ----


def test_only_what_is_wanted_moves():
    with store_of("tcp", "32m") as store:
        batch = {f"f{i}": np.random.default_rng(i).integers(0, 1 << 60, (256, 256)) for i in range(20)}
        ref = store.put("k", batch)
        before = store.counters()["bytes_moved"]
        chosen = store.select(ref, ["f3", "f7", "f11"], slice(0, 32))
        for name, array in chosen.numpy().items():
            assert (array == batch[name][:32]).all()
        wanted = 3 * 32 * 256 * 8
        assert wanted <= store.counters()["bytes_moved"] - before <= ref.head_nbytes + wanted + 6 * 8192
        with pytest.raises(packbuf.Error) as caught:
            chosen.view["f0"].numpy()
        assert caught.value.code == Status.NOT_FETCHED
        with pytest.raises(packbuf.Error):
            chosen.view.verify("all")
        with pytest.raises(packbuf.Error):
            chosen.view.detach()
        ledger = packbuf.Ledger(store)
        ledger.adopt(ref)
        for select in (store.select, ledger.select):  # what lies between is better read along
            before = store.counters()["bytes_moved"]
            held = select(ref, "f3", [0, 255], gap=1 << 20)
            assert store.counters()["bytes_moved"] - before >= 256 * 256 * 8
            del held


def test_selections(store):
    x, masks = np.arange(60).reshape(20, 3), np.arange(20) % 3 == 0
    batch = {"x": x, "t": [f"text {i}" * i for i in range(20)], "m": [{"a": [i] * i, "b": None if i % 2 else 0.5} for i in range(20)]}
    ref = store.put("k", batch, batch_values={"step": 3})
    whole = packbuf.open(packbuf.pack(batch))
    for fields in (None, "x", ["t"], ["m.*"], "!t"):
        for rows in (None, slice(2, 9), slice(None, None, -3), [5, 5, 0, 19], masks, np.array([], int)):
            for options in ({}, {"verify": "all"}, {"gap": 4096}):
                assert repr(store.select(ref, fields, rows, **options).tolist()) == repr(whole.select(fields, rows).tolist())
    out = np.empty((4, 3), np.int32)
    store.select(ref, "x", [1, 3, 5, 7]).into({"x": out})
    assert (out == x[1:8:2]).all()
    assert store.select(ref, "x", values=True).view.batch_values == {"step": 3}
    with pytest.raises(packbuf.NotFound) as caught:
        store.select(ref, "nothing")
    assert caught.value.path == "nothing"
    with pytest.raises(packbuf.OutOfRange):
        store.select(ref, "x", [20])


@pytest.mark.parametrize("packing", [None, "fastest"])
def test_rows_that_were_fetched_in_pieces(store, packing):
    x = np.random.default_rng(0).random(4096)
    ref = store.put("k", {"x": x, "t": ["a"] * 4096}, packing=packing)
    for rows in (slice(1, None, 1000), slice(5, 40), [3, 900, 60], slice(None, None, -999)):
        chosen = store.select(ref, "x", rows)
        assert (chosen.numpy()["x"] == x[rows]).all() and [row["x"] for row in chosen.tolist()] == x[rows].tolist()


def test_appended(store):
    token = {"row_order_token": b"0123456789abcdef"}
    first = store.put("k", {"x": [1, 2], "t": ["a", "b"]}, **token)
    second = store.append(first, {"x": [3], "t": ["c"]}, **token)
    third = store.append(second, {"x": [4, 5], "t": ["d", None]}, **token)
    assert third.kind == "manifest" and third.key != "k"
    assert store.get(third)["x"].tolist() == [1, 2, 3, 4, 5] and store.get(third).rows()[4] == {"x": 5, "t": None}
    assert store.get(second)["t"].tolist() == ["a", "b", "c"] and store.get(first)["x"].tolist() == [1, 2]
    assert store.get(third).ref == third
    parts = store.select_parts(third, "x", slice(1, 4))
    assert [part.numpy()["x"].tolist() for part in parts] == [[2], [3], [4]]
    with pytest.raises(packbuf.WrongType):
        store.select(third, "x")
    with pytest.raises(packbuf.Error, match="LIMIT"):
        store.get(third, limits={"rows": 4})  # a limit of the whole, whose parts are smaller
    fields = store.append(first, {"reward": [0.5, 1.5]}, by="fields", **token)
    assert store.get(fields).rows() == [{"x": 1, "t": "a", "reward": 0.5}, {"x": 2, "t": "b", "reward": 1.5}]
    with pytest.raises(packbuf.Error) as caught:
        store.append(first, {"late": [1, 2]}, by="fields")
    assert caught.value.code == Status.ROW_ORDER
    with pytest.raises(packbuf.Error):
        store.append(first, {"late": [1, 2]}, by="columns")
    store.remove(third)
    assert not store.exists(third) and not store.exists(second) and not store.exists(first)
    store.remove(fields)
    del parts, caught
    assert store.list() == [] and store.describe()["used"] == 0


def test_what_cannot_be_joined_is_not_appended(store):
    ref = store.put("k", {"x": [1, 2]}, batch_values={"worker": 1}, metadata={"by": "me"})
    more = store.append(ref, {"x": [3]})
    for batch, options, path, words in [
        ({"x": [0.5]}, {}, "x", "(expected ndarray int64 natural [], found ndarray float64 natural [])"),
        ({"x": ["a"]}, {}, "x", "(expected ndarray int64 natural [], found utf8_ragged)"),
        ({"x": [None]}, {}, "x", "(expected ndarray int64 natural [], found null)"),
        ({"x": np.array([[1]])}, {}, "x", "found ndarray int64 array [1])"),
        ({"x": [3], "y": ["a"]}, {}, "y", "lacks a field that others have (expected utf8_ragged)"),
        ({"y": [3]}, {}, "x", "(expected ndarray int64 natural [])"),
        ({"x": [3]}, {"batch_values": {"worker": 2}}, "worker", "batch values"),
        ({"x": [3]}, {"metadata": {"by": "you"}}, "by", "metadata"),
    ]:
        for to in (ref, more, more.key):
            with pytest.raises(packbuf.Error) as caught:
                store.append(to, batch, **options)
            assert caught.value.code == Status.SCHEMA_MISMATCH and caught.value.path == path
            assert words in str(caught.value)
    for options in ({}, {"packing": "smallest"}, {"batch_values": {"worker": 1}}, {"metadata": {"by": "me"}}):
        whole = store.append(more, {"x": [2**40, None]}, fingerprint=False, **options)
        assert store.get(whole)["x"].tolist() == [1, 2, 3, 2**40, None] and store.get(whole).batch_values == {"worker": 1}


@pytest.mark.parametrize("flags", [{}, {"first_value": True}, {"widen": True}])
def test_appends_to_batches_with_long_values(store, flags):
    token = {"row_order_token": b"0123456789abcdef"}
    config = {"config": {"prompt": "longer than what a record holds" * 9, "seeds": np.arange(1000)}}
    other = {"config": {"prompt": "another" * 9, "seeds": np.arange(1000)}}
    ref = store.put("k", {"x": [1, 2]}, batch_values=config, **token)
    for to in (ref, store.append(ref, {"x": [3]}, **flags, **token)):
        rows = len(store.get(to)["x"])
        for values in ({}, config):
            more = store.append(to, {"x": [4]}, batch_values=values, metadata={"by": "me"}, **flags, **token)
            assert store.get(more)["x"].tolist() == [1, 2, 3][:rows] + [4]
        if "first_value" in flags:
            store.append(to, {"x": [4]}, batch_values=other, **flags, **token)
        else:
            with pytest.raises(packbuf.Error, match="SCHEMA_MISMATCH in config.*batch values"):
                store.append(to, {"x": [4]}, batch_values=other, **flags, **token)
        fields = store.append(to, {"y": [5] * rows}, by="fields", **flags, **token)
        assert store.get(fields)["y"].tolist() == [5] * rows


def test_what_differs_is_joined_where_that_is_asked_for(store):
    ref = store.put("k", {"x": [1]}, metadata={"by": "me"}, batch_values={"worker": 1})
    more = store.append(ref, {"x": [0.5], "y": ["a"]}, widen=True)
    assert store.get(more, widen=True).rows() == [{"x": 1}, {"x": 0.5, "y": "a"}]
    with pytest.raises(packbuf.Error, match="SCHEMA_MISMATCH"):
        store.get(more)
    more = store.append(ref, {"x": [2]}, metadata={"by": "you"}, batch_values={"worker": 2}, first_value=True)
    view = store.get(more, first_value=True)
    assert view["x"].tolist() == [1, 2] and view.metadata == {"by": "me"} and view.batch_values == {"worker": 1}
    with pytest.raises(packbuf.Error, match="SCHEMA_MISMATCH.*first_value"):
        store.append(ref, {"x": [2]}, metadata={"by": "you"})


def test_no_part_of_fields_has_the_whole_schema(store):
    """A column that another fragment has is not said to be absent."""
    token = b"order of these  "
    ref = store.put("k", {"x": [1]}, row_order_token=token)
    whole = store.append(ref, {"y": [2]}, by="fields", row_order_token=token)
    schema = store.get(whole).schema()
    assert store.get(whole, schema=schema)["y"].tolist() == [2]
    with pytest.raises(packbuf.Error, match="UNSUPPORTED_OPERATION.*fragment 1.*several fragments"):
        store.select(whole, "x", schema=schema)


def test_errors_say_what_to_do(store):
    ref = store.put("k", {"x": [1]})
    other = packbuf.open(packbuf.pack({"x": [0.5]})).schema()
    ledger, more = packbuf.Ledger(store), store.append(store.put("more", {"x": [1]}), {"x": [2]})
    ledger.adopt(ref)
    for get in (
        lambda: store.get(ref, schema=other),
        lambda: store.get_many([ref], schema=other),
        lambda: store.select(ref, "x", schema=other),
        lambda: store.select_parts(more, "x", [1], schema=other),
        lambda: ledger.get(ref, schema=other),
        lambda: ledger.select(ref, "x", schema=other),
    ):
        with pytest.raises(packbuf.Error) as caught:
            get()
        error = caught.value.results[0] if isinstance(caught.value, packbuf.SomeFailed) else caught.value
        assert error.code == Status.SCHEMA_MISMATCH and error.path == "x"
        assert "(expected ndarray float64 natural [], found ndarray int64 natural [])" in str(error)
    assert ledger.state()["reading"] == 0
    with pytest.raises(packbuf.Error, match="fingerprint, which cannot say where"):
        store.select(ref, "x", schema=other.fingerprint)
    with pytest.raises(packbuf.Error, match="needs? a row_order_token|same 16 bytes"):
        store.append(ref, {"y": [1]}, by="fields")
    with pytest.raises(packbuf.NotFound, match="€: there is no object"):  # a path that is cut between characters
        store.get("€" * 66)
    for key in ("a#b", "a" * 201):
        with pytest.raises(packbuf.Error, match="255 bytes.*at most 200 and no '#'"):
            store.put(key, {"x": [1]})
    store.put_bytes("text", b"any text")
    with pytest.raises(packbuf.Malformed, match=r"^BAD_MAGIC.*no packed buffer.*get_bytes"):
        store.get("text")


# ---- leases ----


def mapping_of(address, path):
    """Whether an address lies in a mapping of a file."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            low, high = (int(end, 16) for end in line.split()[0].split("-"))
            if low <= address < high:
                return line.rstrip().endswith(path)
    return False


def address_of(array):
    return array.__array_interface__["data"][0]


def test_in_shm_nothing_is_copied(torch):
    with store_of("shm") as store:
        x = np.random.rand(1000, 100)
        ref = store.put("k", {"x": x, "ids": [[1, 2], [3]] * 500})
        path = "/dev/shm/packbuf." + store.uri.partition(":")[2]
        view = store.get(ref)
        array, ragged = view["x"].numpy(), view["ids"].ragged()
        assert mapping_of(address_of(array), path) and not array.flags.writeable and not array.flags.owndata
        assert mapping_of(address_of(view["x"].numpy(slice(10, 500, 7))), path)
        assert mapping_of(address_of(store.select(ref, "x", slice(5, 50)).numpy()["x"]), path)
        assert mapping_of(view["x"].torch(share=True).data_ptr(), path)
        assert address_of(store.get(ref)["x"].numpy()) == address_of(array), "two readers, one memory"
        assert mapping_of(address_of(np.frombuffer(store.get_bytes(ref), np.uint8)), path)
        assert store.counters()["bytes_moved"] == store.counters()["copies"] == 0, "packed and read in place"
        assert (array == x).all() and ragged[1].tolist() == [3]


def leases(store):
    """By counting references alone: nothing that holds a lease is part of a cycle."""
    return store.counters()["leases"]


def test_a_lease_ends_with_the_last_that_looks_into_it(store):
    x = np.arange(3000.0).reshape(1000, 3)
    ref = store.put("k", {"x": x})
    assert leases(store) == 0
    view = store.get(ref)
    assert leases(store) == 1
    field = view["x"]
    del view
    assert leases(store) == 1
    array = field.numpy(slice(None, None, 2))[3:]
    chosen = field._view.select("x", slice(0, 5))
    del field
    assert leases(store) == 1
    store.remove(ref)
    for _ in range(10):  # its memory is wanted
        store.put("fill", {"x": np.random.rand(1 << 16)})
    assert (array == x[::2][3:]).all() and (chosen.numpy()["x"] == x[:5]).all()
    del chosen
    assert leases(store) == 1
    cut = memoryview(array)
    del array
    assert leases(store) == 1 and cut[0, 0] == x[6, 0]
    del cut
    assert leases(store) == 0
    store.remove("fill")
    assert store.describe()["used"] == 0


def test_bytes_hold_their_lease(store):
    part = store.get_bytes(store.put_bytes("k", b"0123456789" * 1000))[5:10]
    store.remove("k")
    store.put_bytes("other", b"x" * 10_000)
    assert leases(store) == 1 and bytes(part) == b"56789"
    part.release()
    assert leases(store) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_closing_while_views_live(kind):
    with store_of(kind) as store:
        ref = store.put("k", BATCH)
        view, chosen, part = store.get(ref), store.select(ref, "dense"), store.get_bytes(ref)
        store.close()
        store.close()
        assert store.closed and repr(store) == "<packbuf.Store, closed>"
        for call in (lambda: store.get(ref), lambda: store.put("k", BATCH), lambda: store.counters(), lambda: store.list(), lambda: store.uri):
            with pytest.raises(packbuf.Disconnected) as caught:
                call()
        assert same(view) and (chosen.numpy()["dense"] == BATCH["dense"]).all() and len(part) == ref.nbytes
        del caught
        assert same(view)
        array = view["dense"].numpy()
        del view, chosen, part
        assert array[3, 4] == 19.0


def test_the_session_goes_with_the_last_view():
    with shm_uri() as uri:
        keeper, store = packbuf.connect(uri), packbuf.connect(uri)
        array = store.get(store.put("k", BATCH))["dense"].numpy()
        store.close()
        assert keeper.stat("k").leases == 1
        with pytest.raises(packbuf.Error) as caught:
            keeper.free()
        assert caught.value.code == Status.LEASED
        assert array[0, 1] == 1.0
        del array
        assert keeper.stat("k").leases == 0
        keeper.free()
        with pytest.raises(packbuf.Disconnected):
            keeper.get("k")
        with pytest.raises(packbuf.NotFound):
            packbuf.connect(uri, must_exist=True)


def test_stores_are_not_pickled(store):
    with pytest.raises(TypeError, match="send its uri"):
        pickle.dumps(store)


def test_views_are_pickled_by_value(store):
    view = pickle.loads(pickle.dumps(store.get(store.put("k", BATCH))))
    assert leases(store) == 0 and same(view)


def test_references_are_given_back(store):
    now = str(time.time())  # no constant, which frames of earlier tests may hold until they are collected
    key, text, array = "k" + now, now * 20, np.arange(5000)
    before = [sys.getrefcount(thing) for thing in (key, text, array)]
    for _ in range(3):
        ref = store.put(key, {"t": [text] * 5000, "a": array})
        store.put_many([(key, {"t": [text], "b": array[:1]})])
        with pytest.raises(packbuf.Error):
            store.put(key, {"t": [text], "a": array})
        with pytest.raises(packbuf.Stale):
            store.get(ref)
    assert before == [sys.getrefcount(thing) for thing in (key, text, array)]


def test_nothing_is_registered_after_warming_up(store):
    def work():
        refs = store.put_many([(f"k{i}", {"x": np.random.rand(1000)}) for i in range(8)])
        for view in store.get_many(refs):
            view["x"].numpy().sum()
        store.select(refs[0], "x", slice(3, 9)).numpy()

    work()
    before = store.counters()["registrations"]
    for _ in range(20):
        work()
    assert store.counters()["registrations"] == before


# ---- threads, processes ----


def test_many_threads(store):
    wrong = []

    def work(seed):
        for i in range(30):
            key = f"k{(seed + i) % 5}"
            ref = store.put(key, {"x": np.full(1000, seed * 100 + i)})
            try:
                got = store.get(ref)["x"].numpy()
            except packbuf.Stale:
                continue
            if not (got == seed * 100 + i).all():
                wrong.append(ref)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong and leases(store) == 0


def test_other_threads_run_while_a_call_waits():
    with store_of("local") as store:
        kept = [store.put(f"k{i}", {"x": MEBIBYTE}, timeout=0) for i in range(14)]
        ticks, stop = [], threading.Event()

        def tick():
            while not stop.is_set():
                ticks.append(1)
                time.sleep(0.001)

        ticking = threading.Thread(target=tick)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # nobody gets the GIL who is not given it
        try:
            ticking.start()
            before = len(ticks)
            with pytest.raises(packbuf.Full):
                store.put("late", {"x": np.random.rand(1 << 18)}, timeout=0.3)
            assert len(ticks) > before and kept
        finally:
            stop.set()
            sys.setswitchinterval(interval)
            ticking.join()


def test_in_asyncio(store):
    async def work(i):
        ref = await asyncio.to_thread(store.put, f"k{i}", {"x": np.full(100, i)})
        return (await asyncio.to_thread(store.get, ref))["x"][0]

    async def main():
        return await asyncio.gather(*map(work, range(8)))

    assert asyncio.run(main()) == list(range(8))


def _produce(uri, refs, done):
    with packbuf.connect(uri) as store:
        for i in range(5):
            refs.put(store.put(f"k{i}", {"x": np.full(1000, i), "t": ["text"] * 1000}))
        done.get()


def _consume(uri, refs, answers):
    with packbuf.connect(uri) as store:
        for i in range(5):
            ref = refs.get()
            answers.put((ref.key, store.get(ref)["x"].numpy().sum(), store.select(ref, "t", [7]).tolist()))
            store.remove(ref)


@pytest.mark.parametrize(("kind", "method"), [("shm", "spawn"), ("tcp", "fork")])
def test_two_processes(kind, method):
    context = mp.get_context(method)
    with store_uri(kind) as uri:
        refs, answers, done = context.Queue(), context.Queue(), context.Queue()
        processes = [context.Process(target=_produce, args=(uri, refs, done)), context.Process(target=_consume, args=(uri, refs, answers))]
        [process.start() for process in processes]
        assert [answers.get(timeout=120) for _ in range(5)] == [(f"k{i}", 1000 * i, [{"t": "text"}]) for i in range(5)]
        done.put(None)
        [process.join() for process in processes]
        assert [process.exitcode for process in processes] == [0, 0]
        with packbuf.connect(uri) as store:
            assert store.describe()["objects"] == 0 and store.describe()["used"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_forked_child_leaves_it_alone(kind):
    with store_of(kind) as store:
        ref = store.put("k", BATCH)
        view, ledger = store.get(ref), packbuf.Ledger(store)
        reading = ledger.get(ref)
        child = os.fork()
        if child == 0:
            try:
                good = same(view)  # what was got can be read
                for call in (lambda: store.get(ref), lambda: store.put("k", BATCH), lambda: store.stat("k"), lambda: store.counters(), lambda: ledger.get(ref), lambda: ledger.state(), reading.release):
                    try:
                        call()
                        good = False
                    except packbuf.Disconnected as error:
                        good &= "forked" in str(error)
                view = reading = ledger = None
                gc.collect()
                store.close()
                with store_of(kind) as own:
                    good &= same(own.get(own.put("k", BATCH)))
                os._exit(0 if good else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert store.counters()["leases"] == 2, "the child gave nothing back that is ours"
        assert same(view) and same(store.get(ref)) and same(reading.view)
        assert ledger.state()["reading"] == 1


def _write_for_ever(uri, begun):
    store, i = packbuf.connect(uri), 0
    x = np.random.rand(1 << 16)
    kept = []
    while True:
        i += 1
        kept.append(store.get(store.put("k", {"n": np.full(1 << 16, i), "x": x + i})))
        del kept[:-2]
        begun.value = i


def test_a_killed_writer_leaves_nothing_torn_or_lost():
    context = mp.get_context("spawn")
    with shm_uri() as uri, packbuf.connect(uri) as store:
        for delay in (0.0, 0.013, 0.029):
            begun = context.Value("L", 0)
            writer = context.Process(target=_write_for_ever, args=(uri, begun))
            writer.start()
            deadline = time.monotonic() + 100
            while begun.value < 3:
                assert time.monotonic() < deadline and writer.is_alive()
                time.sleep(0.001)
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
            view = store.get("k", verify="all")
            n = view["n"].numpy()
            assert (n == n[0]).all() and n[0] >= 3
            del view, n
        store.collect()
        store.remove("k")
        assert store.describe()["used"] == 0 and store.describe()["objects"] == 0


# ---- servers ----


def test_servers():
    with packbuf.connect("local:?size=16m") as store, packbuf.serve(store) as server:
        assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", server.uri) and server.host == "127.0.0.1" and str(server.port) in server.uri
        with packbuf.connect(server.uri) as client:
            ref = client.put("k", BATCH)
            assert same(store.get("k")), "local readers read in place what came by the network"
            server.close(timeout=0.1)
            server.close()
            with pytest.raises((packbuf.Disconnected, packbuf.Timeout)):
                client.get(ref, timeout=0.2)
        assert same(store.get("k"))
    with pytest.raises(packbuf.Error):
        packbuf.serve("local:", "udp://127.0.0.1:0")


def test_secrets(monkeypatch):
    monkeypatch.delenv("PACKBUF_SECRET", raising=False)
    with pytest.raises(packbuf.Denied) as caught:
        packbuf.serve("local:", "tcp://0.0.0.0:0")
    assert isinstance(caught.value, PermissionError)
    with packbuf.serve("local:?size=16m", secret="hush") as server:
        for secret in (None, "wrong"):
            with pytest.raises(packbuf.Denied):
                packbuf.connect(server.uri, secret=secret, connect_timeout=60)
        with packbuf.connect(server.uri, secret=b"hush") as store:
            assert same(store.get(store.put("k", BATCH)))


# ---- ledgers ----


def test_readings(store):
    ledger = packbuf.Ledger(store)
    ref = ledger.put("k", BATCH)
    with ledger.get(ref) as view:
        assert same(view) and ledger.state()["reading"] == 1
        array = view["dense"].numpy()
    del view
    assert store.exists(ref) and array[3, 4] == 19.0, "an array still looks into it"
    del array
    assert not store.exists(ref) and ledger.state() == {"batches": 0, "bytes": 0, "reading": 0, "pending": 0, "pending_bytes": 0, "oldest_age": 0.0}
    with pytest.raises(packbuf.NotFound):
        ledger.get(ref)
    ref = ledger.put("k", BATCH)
    with pytest.raises(ZeroDivisionError), ledger.get(ref):
        1 / 0  # noqa: B018
    ledger.get(ref)  # dropped at once
    assert store.exists(ref) and ledger.state()["reading"] == 0, "what was not consumed stays"
    reading = ledger.get(ref)
    reading.put_back()
    reading.put_back()
    with pytest.raises(packbuf.Error):
        reading.view  # noqa: B018
    with pytest.raises(BufferError):
        memoryview(reading._core)
    assert store.exists(ref) and ledger.get(ref).release() and not store.exists(ref)


def test_a_batch_for_two_consumers(store):
    ledger = packbuf.Ledger(store, readings=2)
    for _ in range(2):  # put again, it is counted from the start
        ref = ledger.put("k", BATCH)
        with ledger.get(ref) as view:
            assert same(view)
        del view
        assert store.exists(ref), "the other one has not read it"
        ledger.get(ref).put_back()
        assert store.exists(ref) and ledger.get(ref).release() and not store.exists(ref)
    with pytest.raises(packbuf.Error, match="readings"):
        packbuf.Ledger(store, readings=-1)
    assert repr(ledger) == f"<packbuf.Ledger of {store!r}>" and repr(ledger.get(ledger.put("r", BATCH))).startswith("<packbuf.Reading pbref1:")


def test_a_ledger_outlives_its_names(store):
    ledger = packbuf.Ledger(store)
    reading = ledger.get(ledger.put("k", BATCH))
    view = reading.view
    del ledger
    store.close()
    assert same(view) and not reading.release()
    del view, reading


def test_the_example():
    done = subprocess.run([sys.executable, str(ROOT / "examples" / "rollout.py")], capture_output=True, text=True, timeout=170)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7 and "learner: 96 rows" in done.stdout and ", 0 bytes moved, 0 leases held" in done.stdout
