"""Packed buffers read in parts, manifests, joins."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
from conftest import spec_reader
from equality import same
from mutations import Tally, mutants

import packbuf
from packbuf import Fragment, Status

ROWS = 40
TOKEN = bytes(range(16))


def batch() -> dict:
    rng = np.random.default_rng(7)
    return {
        "ids": rng.integers(0, 1 << 40, (ROWS, 33)),
        "logps": rng.standard_normal((ROWS, 17)).astype(np.float32),
        "wide": np.zeros((ROWS, 0)),
        "ragged": [None if i % 7 == 3 else list(range(i)) for i in range(ROWS)],
        "arrays": [rng.standard_normal((i % 4, 2)) for i in range(ROWS)],
        "text": [None if i % 5 == 4 else f"row {i} é" * (i % 4) for i in range(ROWS)],
        "blob": [bytes([i]) * i for i in range(ROWS)],
        "meta": [{"step": i, "tags": [f"t{i}"] * (i % 3), "none": None} if i % 6 else {"step": -i} for i in range(ROWS)],
    }


VALUES = {"step": 12, "why": "x" * 100, "table": np.arange(50.0)}


@pytest.fixture(scope="module", params=["none", "balanced"])
def stored(request) -> bytes:
    return packbuf.pack(batch(), batch_values=VALUES, packing=request.param, row_order_token=TOKEN).detach()


def head_of(stored: bytes) -> packbuf.View:
    return packbuf.open_head(stored[: packbuf.peek(stored[:64])[0]])


def fetch(stored: bytes, ranges) -> bytes:
    return b"".join(stored[at : at + length] for at, length in ranges)


ROW_SETS = [None, slice(3, 9), slice(None, None, 7), slice(9, 9), [], [-1, 0, -1, 3], np.arange(ROWS) % 3 == 0, [5, 5, 5], [7, 31]]


@pytest.mark.parametrize("rows", ROW_SETS, ids=str)
@pytest.mark.parametrize("fields", [["ids"], ["text", "ragged"], ["meta.step"], ["meta"], ["arrays", "blob", "wide"], None], ids=str)
def test_parts_are_what_the_whole_is(stored, fields, rows):
    head, whole = head_of(stored), packbuf.open(stored)
    chosen = head.select(fields, rows)
    ranges = chosen.ranges()
    assert all(a + n < b for (a, n), (b, _) in zip(ranges, ranges[1:], strict=False))
    view = head.fetched(ranges, fetch(stored, ranges))
    assert same(whole.select(fields, rows).tolist(), view.select(fields, rows).tolist())
    if fields == ["ids"]:
        assert np.array_equal(whole["ids"].numpy(rows), view["ids"].numpy(rows))
        assert np.array_equal(view["ids"].numpy(rows), view["ids"].torch(rows).numpy())


def test_only_what_is_wanted_is_asked_for(stored):
    head = head_of(stored)
    assert sum(n for _, n in head.select("logps", slice(4, 8)).ranges()) < len(stored) // 4
    assert head.select("wide").ranges() == []
    plain = packbuf.pack({"x": np.arange(4000).reshape(1000, 4)}).detach()
    assert [n for _, n in head_of(plain).select("x", [1, 2, 9, 9]).ranges()] == [64, 32]
    assert [n for _, n in head_of(plain).select("x", [1, 2, 9, 9]).ranges(gap=6 * 32)] == [9 * 32]


def test_what_was_not_fetched_is_refused(stored):
    head = head_of(stored)
    ranges = head.select("ids", [4]).ranges()
    view = head.fetched(ranges, fetch(stored, ranges))
    assert list(view) == list(batch()) and view["ids"].dtype == "int64"
    assert view["ids"][4].tolist() == batch()["ids"][4].tolist()
    with pytest.raises(packbuf.Error) as caught:
        view["logps"].numpy(copy=True)
    assert caught.value.code is Status.NOT_FETCHED and caught.value.path == "logps"
    for refused in (view.detach, lambda: pickle.dumps(view), lambda: view.verify("all")):
        with pytest.raises(packbuf.Error) as caught:
            refused()
        assert caught.value.code in {Status.NOT_FETCHED, Status.INVALID_ARGUMENT}, refused


def test_batch_values_in_parts(stored):
    head = head_of(stored)
    chosen = head.select_values(["why", "step"])
    ranges = head.select("ids", [3]).ranges(chosen)
    view = head.fetched(ranges, fetch(stored, ranges))
    assert view.select_values(["why", "step"]).tolist() == [{"step": 12, "why": "x" * 100}]
    assert view["ids"][3].tolist() == batch()["ids"][3].tolist()
    with pytest.raises(KeyError):
        head.select_values("nothing")


def test_ranges_that_lie_are_refused(stored):
    head = head_of(stored)
    ranges = head.select(["ids", "logps"]).ranges()
    memory = fetch(stored, ranges)
    for wrong, code in (
        ((ranges, memory[:-1]), Status.SHORT_READ),
        (([(0, 1 << 63), (1 << 63, 1 << 63)], memory), Status.SHORT_READ),
        (([*reversed([(a, 8) for a, _ in ranges]), (0, 8)], memory), Status.INVALID_ARGUMENT),
        (([(len(stored) - 4, 8)], memory), Status.INVALID_ARGUMENT),
        (([(1 << 63, 8)], memory), Status.INVALID_ARGUMENT),
    ):
        with pytest.raises(packbuf.Error) as caught:
            head.fetched(*wrong)
        assert caught.value.code is code, wrong
    with pytest.raises((TypeError, OverflowError)):
        head.fetched([(-1, 8)], memory)
    with pytest.raises(packbuf.Error) as caught:
        head.select("ids").ranges(packbuf.open(stored).select("ids"))
    assert caught.value.code is Status.INVALID_ARGUMENT
    for short in (0, 63, 64, packbuf.peek(stored)[0] - 1):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.open_head(stored[:short])
        assert caught.value.code is Status.TRUNCATED


def test_chunks_can_be_checked():
    stored = packbuf.pack({"x": np.random.default_rng(1).integers(0, 1 << 62, (1000, 64))}).detach()
    head = head_of(stored)
    ranges = head.select("x", [500]).ranges(chunks=True)
    memory = bytearray(fetch(stored, ranges))
    assert head.fetched(ranges, memory).verify_fetched() == len(memory) // 65536 >= 1
    memory[77] ^= 1
    with pytest.raises(packbuf.Malformed) as caught:
        head.fetched(ranges, memory).verify_fetched()
    assert caught.value.code is Status.DATA_CHECKSUM
    memory[77] ^= 1
    wrong = bytearray(stored)
    wrong[int.from_bytes(stored[32:40], "little") + 63] ^= 1  # where the index is padded
    with pytest.raises(packbuf.Malformed, match="INDEX"):
        head_of(bytes(wrong)).fetched(ranges, memory).verify_fetched()


def test_memory_lives_as_long_as_what_lies_in_it():
    stored = packbuf.pack({"x": np.arange(4096.0).reshape(8, 512)}).detach()

    class Memory(bytearray):
        pass

    head = head_of(stored)
    ranges = head.select("x", slice(2, 4)).ranges()
    memory = Memory(fetch(stored, ranges))
    gone = weakref.ref(memory)
    array = head.fetched(ranges, memory)["x"].numpy(slice(2, 4))
    del head, memory
    gc.collect()
    assert array.sum() == np.arange(4096.0).reshape(8, 512)[2:4].sum()
    del array
    gc.collect()
    assert gone() is None


def test_any_bytes_as_a_head(stored):
    size, crc32c, opened, read = packbuf.peek(stored[:64])[0], spec_reader().crc32c, Tally(), Tally()
    for mend in (False, True):
        for bad in map(bytearray, mutants(stored[64:size], 400, 3)):
            head = bytearray(stored[:64]) + bad
            length = int.from_bytes(head[32:40], "little")
            if mend and length <= len(head):
                head[60:64] = bytes(4)
                head[60:64] = crc32c(bytes(head[:length])).to_bytes(4, "little")
            view = opened.of(lambda: packbuf.open_head(bytes(head)))
            if view is None:
                continue

            def parts():
                ranges = view.select(None, [0, 1]).ranges()
                total = sum(n for _, n in ranges)
                if total > 1 << 20:
                    return total
                memory = b"".join(stored[at : at + n].ljust(n, b"\0") for at, n in ranges)
                return view.fetched(ranges, memory).select(None, [0, 1]).tolist()

            read.of(parts)
    opened.check(100, 300, 3)
    read.check(30, 30, 2)


# ---- manifests and joins ----


def view_of(fields, **options) -> packbuf.View:
    return packbuf.open(packbuf.pack(fields, **{"row_order_token": TOKEN, **options}))


def test_a_manifest_keeps_what_it_is_given():
    views = [view_of({"a": [1, 2]}), view_of({"a": [3]}), view_of({"é": ["x", "y", "z"]})]
    listed = [Fragment.of(views[0], "k/0"), Fragment.of(views[1], "k/1", first_row=2), Fragment.of(views[2], "k/é", appends="fields")]
    made = packbuf.open(packbuf.manifest(listed, metadata={"who": "me"}), verify="all")
    assert packbuf.fragments(made) == listed and made.metadata == {"who": "me"}
    assert packbuf.fragments(views[0]) is None
    whole = packbuf.join(listed, views)
    assert {name: [(part.fragment, part.first_row, part.rows) for part in parts] for name, parts in whole.items()} == {
        "a": [(0, 0, 2), (1, 2, 1)],
        "é": [(2, 0, 3)],
    }
    assert [cell for part in whole["a"] for cell in part.field.tolist()] == [1, 2, 3]
    assert packbuf.open(packbuf.manifest([])).num_rows == 0


@pytest.mark.parametrize(
    "change",
    [{"length": 100}, {"head_length": 64}, {"first_row": 1}, {"rows": 1 << 60}, {"rows": -1}, {"head_checksum": 1 << 32}, {"appends": "columns"}, {"key": "\ud800"}],
    ids=str,
)
def test_manifests_that_cannot_be_are_refused(change):
    good = Fragment.of(view_of({"a": [1, 2]}), "k")
    with pytest.raises(packbuf.Error):
        packbuf.manifest([Fragment(**{**good.__dict__, **change})])


def test_a_fragment_says_what_to_fetch_first():
    packed = packbuf.pack({"a": list(range(1000)), "text": ["x" * (i % 7) for i in range(1000)]}, packing="balanced")
    fragment = packbuf.Fragment.of(packbuf.open(packed), "a")
    assert (fragment.head_length, fragment.length) == packbuf.peek(memoryview(packed)[:64])


def test_a_head_keeps_what_it_was_opened_with():
    schema = {"json": {"codec": "json_ragged"}}
    stored = packbuf.pack({"o": [{1}, {2}], "json": [{"k": "x" * 5000}] * 2}, schema=schema, allow_pickle=True).detach()
    start = stored[: packbuf.peek(stored)[0]]
    head = packbuf.open_head(start, allow_pickle=True)
    ranges = head.select("o").ranges()
    assert head.fetched(ranges, b"".join(stored[at : at + size] for at, size in ranges))["o"].tolist() == [{1}, {2}]
    head = packbuf.open_head(start, limits={"cell_bytes": 100})
    ranges = head.select("json").ranges()
    view = head.fetched(ranges, b"".join(stored[at : at + size] for at, size in ranges))
    with pytest.raises(packbuf.Error, match="LIMIT"):
        view["json"].tolist()
    with pytest.raises(packbuf.Error, match="LIMIT"):
        packbuf.open_head(start, limits={"nodes": 1})


def test_joins_that_do_not_fit_are_refused():
    a, b = view_of({"a": [1, 2]}), view_of({"b": [3, 4]})
    fa = Fragment.of(a, "a")

    def fails(code, fragments, views, **options):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.join(fragments, views, **options)
        assert caught.value.code is code
        return caught.value

    fields = {"appends": "fields"}
    other = view_of({"b": [3, 4]}, row_order_token=bytes(reversed(TOKEN)))
    assert fails(Status.ROW_ORDER, [fa, Fragment.of(other, "b", **fields)], [a, other]).fragment == 1
    none = view_of({"b": [3, 4]}, row_order_token=b"")
    fails(Status.ROW_ORDER, [fa, Fragment.of(none, "b", **fields)], [a, none])
    again = view_of({"a": [7, 8]})
    fails(Status.DUPLICATE_NAME, [fa, Fragment.of(again, "b", **fields)], [a, again])
    fails(Status.FRAGMENT_MISMATCH, [fa, Fragment.of(b, "b", **fields)], [a, again])
    fails(Status.INVALID_ARGUMENT, [fa], [a, b])
    values = view_of({"b": [3, 4]}, batch_values={"v": 1}), view_of({"a": [1, 2]}, batch_values={"v": 2})
    listed = [Fragment.of(values[0], "b"), Fragment.of(values[1], "a", **fields)]
    assert list(packbuf.join(listed, values, first_value=True)) == ["b", "a"]
