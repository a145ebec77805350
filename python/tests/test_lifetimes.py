"""Nothing dangles: views keep the memory, arrays keep the view, what is packed is held until it is written."""

import gc
import mmap
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import numpy as np
import pytest

import packbuf
from packbuf import _core


class Memory(bytearray):
    """A bytearray that can be watched."""


def memory_of(batch, **options):
    return Memory(packbuf.pack(batch, **options))


def test_a_view_keeps_the_memory():
    memory = memory_of({"x": np.arange(100.0)})
    gone = weakref.ref(memory)
    view = packbuf.open(memory)
    with pytest.raises(BufferError):
        memory.append(0)
    del memory
    gc.collect()
    assert gone() is not None and view["x"][99] == 99
    del view
    gc.collect()
    assert gone() is None


def test_an_array_keeps_the_view():
    memory = memory_of({"x": np.arange(100.0).reshape(10, 10)})
    gone = weakref.ref(memory)
    array = packbuf.open(memory)["x"].numpy()[2:4, ::3]
    packed, cell = memory, None
    del memory, packed
    gc.collect()
    assert gone() is not None and array[1, 1] == 33
    cell = packbuf.open(gone())["x"][5]
    del array
    gc.collect()
    assert gone() is not None and cell[9] == 59
    del cell
    gc.collect()
    assert gone() is None


def test_memory_that_is_used_again():
    """Blocks of all sizes come and go, in threads too: nobody's bytes are in anybody else's buffer."""
    sizes = [10, 60 << 10, 70 << 10, 500 << 10, 3 << 20, 9 << 20]

    def work(seed, kept):
        rng = np.random.default_rng(seed)
        for turn in range(40):
            elements = np.full(int(sizes[rng.integers(len(sizes))] / 8 * rng.uniform(0.5, 1.0)), seed * 1000 + turn)
            elements[::2] = turn  # else it is a constant, which takes no room
            kept.append((packbuf.pack({"x": elements}, batch_values={"by": seed}), elements))
            while len(kept) > rng.integers(1, 6):
                packed, elements = kept.pop(int(rng.integers(len(kept))))
                view = packbuf.open(packed, verify="all")
                assert (view["x"].numpy() == elements).all() and view.batch_values == {"by": seed}

    threads = [threading.Thread(target=work, args=(seed, [])) for seed in range(4)]
    failed = []
    hook, threading.excepthook = threading.excepthook, failed.append
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    threading.excepthook = hook
    assert not failed


def test_memory_that_is_used_again_in_a_forked_child():
    batch = {"x": np.arange(200_000)}
    packed = packbuf.pack(batch)
    expected = packed.detach()
    del packed  # its memory waits
    child = os.fork()
    if not child:
        os._exit(packbuf.pack(batch).detach() != expected)
    assert os.waitpid(child, 0)[1] == 0
    assert packbuf.pack(batch).detach() == expected


def test_packed_and_selections():
    packed = packbuf.pack({"x": np.arange(10)})
    gone = weakref.ref(packed)
    chosen = packbuf.open(packed).select("x", slice(2, 4))
    del packed
    gc.collect()
    assert gone() is not None and chosen.numpy()["x"].tolist() == [2, 3]
    del chosen
    gc.collect()
    assert gone() is None


def test_detached_copies():
    memory = memory_of({"x": [1, 2]})
    view = packbuf.open(memory).detach()
    memory[:] = bytes(len(memory))
    assert view["x"].tolist() == [1, 2]
    packed = packbuf.pack({"x": [1, 2]})
    assert packed.detach() == bytes(packed) == bytes(memoryview(packed)) and isinstance(packed.detach(), bytes)
    assert memoryview(packed).readonly and len(packed) == packed.nbytes
    assert memoryview(packbuf.open(memory_of({"x": [1, 2]}))._core).readonly, "though the memory is not"


def test_what_is_detached_is_opened_the_same_way():
    packed = packbuf.pack({"x": np.arange(9), "o": [{1}] * 9, "t": ["text"] * 9}, allow_pickle=True)
    view = packbuf.open(packed, allow_pickle=True, limits={"cell_bytes": 30, "rows": 9}).detach()
    assert view["o"][0] == {1}
    assert isinstance(packbuf.open(packed).detach()["o"][0], packbuf.Opaque)


def test_pickling_copies():
    packed = packbuf.pack({"x": [1, 2]})
    assert pickle.loads(pickle.dumps(packed)).detach() == packed.detach()
    assert pickle.loads(pickle.dumps(packbuf.open(packed)))["x"].tolist() == [1, 2]


def test_references_are_given_back():
    texts, array, table = ["some text " + str(i) for i in range(3)], np.arange(3), {"key that is no name": [b"abc" * 5]}
    before = [sys.getrefcount(thing) for thing in (*texts, array, table, table["key that is no name"][0])]
    for _ in range(3):
        packbuf.pack({"t": texts, "a": array, "d": [table] * 3, "r": [{"x": array}] * 3})
        with pytest.raises(packbuf.Error):
            packbuf.pack({"t": texts, "a": array, "d": [table, object(), None]})
    packbuf.open(packbuf.pack({"t": texts})).rows()
    gc.collect()
    assert before == [sys.getrefcount(thing) for thing in (*texts, array, table, table["key that is no name"][0])]


def test_absent_cells_are_references_too():
    rows = [{"few": "text"} if i % 700 == 0 else {"few": None} if i % 3 == 0 else {} for i in range(5000)]
    counts = {id(thing): sum(row.get("few", packbuf.MISSING) is thing for row in rows) for thing in (None, packbuf.MISSING)}
    view = packbuf.open(packbuf.pack(rows))
    watched = [packbuf.MISSING] if sys.version_info >= (3, 12) else [packbuf.MISSING, None]  # there None lives for ever
    for read in (view["few"].numpy, view["few"].tolist, lambda: list(view["few"]), lambda: view["few"][range(5000)]):
        read()
        for thing in watched:
            before = sys.getrefcount(thing)
            cells = read()
            during = sys.getrefcount(thing) - before
            assert abs(during - counts[id(thing)]) <= (20 if thing is None else 0)
            del cells
            assert abs(sys.getrefcount(thing) - before) <= (20 if thing is None else 0)


def test_memory_does_not_grow():
    import resource

    batch = {"x": np.zeros((1000, 1000)), "t": ["text" * 100] * 1000}
    def work():
        for _ in range(20):
            view = packbuf.open(packbuf.pack(batch))
            view["x"].numpy(), view["t"].tolist(), view.rows(0, 3)
    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work()
    work()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000


class Nasty(packbuf.Media):
    """A value that changes the containers above it while it is asked what it is."""

    def __init__(self, act):
        object.__setattr__(self, "act", act)

    @property
    def data(self):
        self.act()
        return b"x"


@pytest.mark.parametrize("size", [2, 5, 100])
def test_containers_that_change_meanwhile(size):
    inner = ["x" * 50] * size
    inner[0] = Nasty(inner.clear)
    table = {str(i): "y" * 50 for i in range(size)}
    table["0"] = Nasty(table.clear)
    growing = {"a": 1}
    growing["b"] = Nasty(lambda: growing.update({str(i): i for i in range(1000)}))
    for value in (inner, table, growing):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"c": [value]})
        assert caught.value.code == packbuf.Status.INVALID_ARGUMENT and "changed" in caught.value.message
    column = ["z" * 50] * size
    column[0] = Nasty(column.clear)
    assert packbuf.open(packbuf.pack({"c": column}), images="media")["c"][1] == "z" * 50  # held from the start


def test_files(tmp_path):
    path = tmp_path / "batch.pbuf"
    packed = packbuf.pack({"x": np.arange(1000)}, packing="balanced")
    path.write_bytes(packed)
    for source in (path, str(path)):
        assert packbuf.open(source, verify="all")["x"].numpy().sum() == 499500
    path.write_bytes(packed.detach() + b"\0")
    with pytest.raises(packbuf.Malformed) as caught:
        packbuf.open(path)
    assert caught.value.rule == "H9"
    path.write_bytes(b"")
    with pytest.raises(packbuf.Malformed):
        packbuf.open(path)
    with pytest.raises(FileNotFoundError):
        packbuf.open(tmp_path / "nothing")


def test_memory_of_many_kinds():
    packed = packbuf.pack({"x": np.arange(10), "t": ["a"] * 10})
    shared = mmap.mmap(-1, 4096)
    shared[: len(packed)] = packed.detach()
    sources = [packed, packed.detach(), bytearray(packed), memoryview(packed), np.frombuffer(packed, np.uint8), shared]
    for off in (1, 3, 8):  # not aligned: copied out
        sources.append(memoryview(b"\0" * off + packed.detach())[off:])
    for source in sources:
        view = packbuf.open(source, verify="all")
        assert view["x"].numpy().tolist() == list(range(10)) and view["x"][3] == 3 and view["t"][9] == "a"
    with pytest.raises(BufferError):
        packbuf.open(memoryview(packed)[::2])
    with pytest.raises(TypeError):
        packbuf.open(5)


def test_after_a_fork():
    packed = packbuf.pack({"x": np.arange(1 << 20), "t": ["a"] * (1 << 20)}, threads=3)
    view = packbuf.open(packed)
    child = os.fork()
    if child == 0:
        try:
            good = view["x"].numpy()[-1] == (1 << 20) - 1 and len(packbuf.pack({"x": np.arange(1 << 20)}, threads=3)) > 0
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_many_threads_read_one_view():
    x = np.arange(200_000).reshape(200, 1000)
    view = packbuf.open(packbuf.pack({"x": x, "t": [str(i) for i in range(200)]}, packing="balanced"))
    wrong = []

    def read(seed):
        for i in range(20):
            row = (seed * 37 + i * 11) % 200
            if view["t"][row] != str(row) or (view["x"].numpy(slice(row, None, 7)) != x[row::7]).any():
                wrong.append(row)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not wrong


def begun(batch):
    under_way = _core.Batch(None, 4, 6, True, True, 0, 0, b"", False, None)
    for name, column in batch.items():
        under_way.add(name, column)
    under_way.measure()
    return under_way


def moves():
    """What works without the GIL, by name."""
    numbers = np.random.default_rng(0).integers(0, 100, (64, 1 << 14))
    under_way = begun({"x": numbers})
    memory = bytearray(under_way.measure())
    view = packbuf.open(packbuf.pack({"x": numbers, "t": [str(i) for i in range(50_000)]} | {"x": numbers.reshape(-1)[: 50_000 * 20].reshape(50_000, 20)}, packing="balanced"))
    return {
        "written": lambda: under_way.write_into(memory, 1),
        "written, many": lambda: _core.write_many([under_way], [memory], 1),
        "checked": view.verify,
        "unpacked": view["x"].numpy,
        "read as values": view["t"].tolist,
        "read as rows": lambda: view.rows(0, 2000),
    }


@pytest.mark.parametrize("name", ["written", "written, many", "checked", "unpacked", "read as values", "read as rows"])
def test_threads_run_while_bytes_move(name):
    work, ticks, stop = moves()[name], [], threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(1)
            time.sleep(0)

    ticking = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)  # nobody gets the GIL who is not given it
    try:
        ticking.start()
        for _ in range(200):
            before = len(ticks)
            work()
            if len(ticks) > before:
                break
        else:
            pytest.fail("no other thread ran meanwhile")
    finally:
        stop.set()
        sys.setswitchinterval(interval)
        ticking.join()


def test_workers_are_threads():
    """As many as asked for: with a buffer for each at least."""
    batches = [begun({"x": np.random.default_rng(i).integers(0, 100, 1 << 20)}) for i in range(4)]
    memories, most, stop = [bytearray(batch.measure()) for batch in batches], [0], threading.Event()

    def count():
        while not stop.is_set():
            most[0] = max(most[0], len(os.listdir("/proc/self/task")))

    counting = threading.Thread(target=count)
    counting.start()
    try:
        before = len(os.listdir("/proc/self/task"))
        for _ in range(200):
            _core.write_many(batches, memories, 4)
            if most[0] >= before + 3:
                break
        assert most[0] == before + 3
    finally:
        stop.set()
        counting.join()


WAITING = """
import packbuf, numpy
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
x = numpy.random.default_rng(0).integers(0, 1 << 60, 3 << 20)
before = resident()
kept = [packbuf.pack({"x": x}) for _ in range(12)]
held = resident() - before
del kept
waiting = resident() - before
assert held > 12 * (24 << 20), held
assert waiting < 100 << 20, waiting
"""


def test_memory_that_waits_has_a_bound():
    ended = subprocess.run([sys.executable, "-c", WAITING], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_what_is_packed_is_held_until_it_is_written():
    """Whoever allocates may take everything away that was handed over."""

    def made():
        text = [[{f"key {i} {j}": f"text {i} of {j} " * 3} for j in range(9)] for i in range(50)]
        return {"t": text, "b": [[f"bytes {i}".encode() * 5, f"more {i}".encode()] for i in range(50)], "s": [f"a text {i} " * 4 for i in range(50)], "a": [np.arange(i, i + 40) for i in range(50)], "d": np.arange(5000).reshape(50, 100) * 7, "n": [2**70 + i for i in range(50)]}

    expected = packbuf.pack(made()).detach()
    batch, litter = made(), []

    def alloc(sizes):
        for column in batch.values():
            for cell in column if isinstance(column, list) else ():
                cell.clear() if isinstance(cell, list) else None
            column.clear() if isinstance(column, list) else None
        batch.clear()
        gc.collect()
        litter.extend([[{f"KEY {i} {j}": f"TEXT {i} OF {j} " * 3} for j in range(9)] for i in range(200)])
        litter.extend([f"BYTES {i}".encode() * 5 for i in range(200)] + [f"A TEXT {i} " * 4 for i in range(200)] + [np.full(40, i) for i in range(200)] + [np.zeros(5000, int)])
        return [bytearray(size) for size in sizes]

    (buffer,), (size,) = packbuf.pack_many([batch], alloc)
    assert bytes(buffer[:size]) == expected and not batch


@pytest.mark.parametrize("width", [np.int32, np.int64])
def test_lengths_of_ragged_rows(width):
    items, offsets, lengths = np.arange(100), np.arange(0, 100, 10, width), np.arange(10, dtype=width)
    batch = begun({})
    with pytest.raises(packbuf.Error, match="one dtype"):
        batch.add_ragged("x", items, offsets, lengths.astype(np.int64 if width is np.int32 else np.int32))
    with pytest.raises(packbuf.Error) as caught:
        batch.add_ragged("x", items, offsets[:9], lengths)
    assert caught.value.code is packbuf.Status.ROW_COUNT
    under_way = _core.Batch(None, 0, 6, True, True, 0, 0, b"", False, None)
    under_way.add_ragged("x", items, offsets, lengths)
    memory = bytearray(under_way.measure())
    offsets[:], lengths[:] = np.iinfo(width).max // 2, np.iinfo(width).max // 2  # after they were found to be good
    under_way.write_into(memory, 1)
    assert [row.tolist() for row in packbuf.open(memory, verify="all")["x"]] == [list(range(i * 10, i * 11)) for i in range(10)]


def test_in_asyncio():
    import asyncio

    async def work(i):
        packed = await asyncio.to_thread(packbuf.pack, {"x": np.full((100, 100), i)})
        return packbuf.open(packed)["x"].numpy()[0, 0]

    async def main():
        return await asyncio.gather(*map(work, range(8)))

    assert asyncio.run(main()) == list(range(8))


DAEMONS = """
import threading, time, numpy, packbuf
store = packbuf.connect("local:?size=16m")
store.put("k", {"x": numpy.arange(9)})
def work():
    while True:
        store.get("k")
        packbuf.pack({"x": [[1]]})
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
"""


def test_daemon_threads_when_the_interpreter_ends():
    for _ in range(3):
        ended = subprocess.run([sys.executable, "-c", DAEMONS], capture_output=True, check=False)
        assert ended.returncode == 0 and b"leaked" not in ended.stderr, ended.stderr


ENDS = {
    "all of it alive": """
        import atexit
        store = packbuf.connect("local:?size=16m")
        ref = store.put("k", BATCH)
        view, raw, ledger, server = store.get(ref), store.get_bytes(ref), packbuf.Ledger(store), packbuf.serve(store)
        ledger.adopt(ref)
        reading, chosen, array = ledger.get(ref), store.select(ref, "x"), view["x"].numpy()
        client = packbuf.connect(server.uri, pool_size=1 << 22)
        far = client.get("k")
        atexit.register(lambda: print(view["x"][3] + far["x"][3] + store.counters()["leases"] - 1))
    """,
    "a server before its client, a store before its server": """
        store = packbuf.connect("local:?size=16m")
        server = packbuf.serve(store)
        client = packbuf.connect(server.uri, pool_size=1 << 22)
        view = client.get(client.put("k", BATCH))
        store.close()
        del store
        server.close(0)
        del server
        client.close()
        del client
        gc.collect()
        print(view["x"][3] + 6)
    """,
    "a store under those who work with it": """
        store = packbuf.connect("local:?size=16m")
        ref = store.put("k", BATCH)
        def work():
            try:
                while True:
                    assert store.get(ref)["x"].numpy()[3] == 3 and store.put("q", BATCH)
            except packbuf.Disconnected:
                pass
        threads = [threading.Thread(target=work) for _ in range(3)]
        [thread.start() for thread in threads]
        time.sleep(0.05)
        store.close()
        [thread.join() for thread in threads]
        print(9)
    """,
    "forks among threads": """
        store, stop = packbuf.connect("local:?size=16m"), threading.Event()
        def work():
            while not stop.is_set():
                packbuf.pack(BATCH, threads=2)
                store.put("q", BATCH)
        threads = [threading.Thread(target=work) for _ in range(3)]
        [thread.start() for thread in threads]
        for _ in range(5):
            child = os.fork()
            if child == 0:
                os._exit(packbuf.open(packbuf.pack(BATCH))["x"][3] != 3)
            assert os.waitpid(child, 0)[1] == 0
        stop.set()
        [thread.join() for thread in threads]
        print(9)
    """,
    "cycles, and an exception that holds a frame": """
        class Holder:
            pass
        def fails():
            view = store.get(ref)
            return view["nope"]
        store, kept = packbuf.connect("local:?size=16m"), Holder()
        ref = store.put("k", BATCH)
        kept.view, kept.kept = store.get(ref), kept
        kept.rows = iter(kept.view["x"])
        next(kept.rows)
        try:
            fails()
        except packbuf.NotFound as error:
            kept.error = error
        assert store.counters()["leases"] == 2
        del kept
        gc.collect()
        print(9 + store.counters()["leases"])
    """,
}
BEFORE = "import gc, os, threading, time\nimport numpy as np\nimport packbuf\nBATCH = {'x': np.arange(1000), 't': ['text'] * 1000}\n"


@pytest.mark.parametrize("end", ENDS)
def test_odd_orders_of_the_end(end):
    """In Python's development mode, where what is wrong with memory, or was not closed, is said."""
    script = BEFORE + textwrap.dedent(ENDS[end])
    ended = subprocess.run([sys.executable, "-X", "dev", "-c", script], capture_output=True, text=True, timeout=170, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "9\n", "")
