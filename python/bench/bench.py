"""Packing from Python beside pickle 5, TransferQueue and Mooncake, on the sample data: interleaved, medians.

    python bench.py [--rounds 9] [--clock wall|cpu] [--cold] [--out bench-python.json]

PACKBUF_DATA names the folder of the sample data. A batch is taken in the two ways people hold it: as arrays (numpy or
torch, ragged rows by offsets) and as nested rows (a list of dicts of Python lists). Peers take the nested rows, as one
object, which is the best case for TransferQueue. Ours is one thread, plain, checksums on. "and back": peers give their
nested rows again, ours each field as arrays. Peers that are not installed are left out and named.

"Faster than pickle of the nested rows" can be read in three ways, and each is a line of the table: the batch is at
hand as arrays, as it is in training, and pickle gets the nested rows; both get the nested rows, and what pickle writes
is not read; both get the nested rows, and pickle's side ends, like ours, with something that can be read.

Each case runs twice in a round and counts the second time, so that none pays for what the one before it did to the
caches; --cold leaves the first out. "copy the lists" is no peer but a floor: what Python itself takes to copy each
list, that is to go to each number once.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np

import packbuf
from packbuf import _core, _pack

try:
    import torch
    from transfer_queue.utils import serial_utils
except ImportError:
    serial_utils = None
try:
    from mooncake.structured_object_store import infer_structure
except ImportError:
    infer_structure = None

DATA = Path(os.environ.get("PACKBUF_DATA", "../shared/data"))
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PEERS = {
    "torch": "torch",
    "TransferQueue": "TransferQueue",
    "msgspec": "msgspec",
    "mooncake": "mooncake-transfer-engine-non-cuda",
}

# (what, at least so many times as fast, ours, the peer's)
CLAIMS = [
    ("arrays : pickle's dumps", 10, "packbuf arrays", "pickle rows"),
    ("arrays : TransferQueue's encode + pack", 10, "packbuf arrays", "TransferQueue rows"),
    ("rows : pickle's dumps", 10, "packbuf rows", "pickle rows"),
    ("rows : pickle's dumps + loads", 10, "packbuf rows", "pickle rows, and back"),
    ("rows : TransferQueue's encode + pack", 10, "packbuf rows", "TransferQueue rows"),
    ("rows : TransferQueue's, and its unpack + decode", 10, "packbuf rows", "TransferQueue rows, and back"),
    ("rows : copy the lists", None, "packbuf rows", "copy the lists"),
    ("arrays, and back : pickle's dumps + loads", 3, "packbuf arrays, and back", "pickle rows, and back"),
    ("arrays, and back : TransferQueue's", 3, "packbuf arrays, and back", "TransferQueue rows, and back"),
    ("rows, and back : pickle's dumps + loads", 3, "packbuf rows, and back", "pickle rows, and back"),
    ("rows, and back : TransferQueue's", 3, "packbuf rows, and back", "TransferQueue rows, and back"),
    ("infer, a column at a time : Mooncake's", 20, "packbuf infer columns", "Mooncake infer columns"),
    ("infer of all rows : Mooncake's infer_structure", 20, "packbuf infer", "Mooncake infer"),
    ("infer of all rows : copy the lists", None, "packbuf infer", "copy the lists"),
    ("numpy arrays into memory : C alone", 1 / 1.1, "packbuf arrays into", "packbuf C into"),
    ("torch tensors into memory : C alone", 1 / 1.1, "packbuf tensors into", "packbuf C into"),
]

# what few rows have, each with other keys: columns of rows.jsonl that are not worth a column a path
WHOLE = {path: {"codec": "json_ragged"} for path in ("env", "tools", "info", "tool_calls")}


# ---- the batches ----


class RaggedRows:
    """Ragged rows by offsets, as `pack` takes them from a jagged tensor."""

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values, self.offsets = values, offsets

    def tolist(self) -> list:
        flat = self.values.tolist()
        return [flat[a:b] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True)]


def dense(name: str) -> dict:
    return {path.stem: np.load(path) for path in sorted((DATA / "batch_dense" / name).glob("*.npy"))}


def ragged(name: str) -> dict:
    found = {path.stem: np.load(path) for path in sorted((DATA / "batch_ragged" / name).glob("*.npy"))}
    tokens, responses = found.pop("input_ids_offsets"), found.pop("response_offsets")
    for key, values in found.items():
        if len(values) == tokens[-1]:
            found[key] = RaggedRows(values, tokens)
        elif len(values) == responses[-1]:
            found[key] = RaggedRows(values, responses)
    return found


def rows_of(batch: dict) -> list[dict]:
    lists = {name: column.tolist() for name, column in batch.items()}
    return [dict(zip(lists, cells, strict=True)) for cells in zip(*lists.values(), strict=True)]


# ---- ours ----


def begin(batch: object, options: dict | None = None) -> _core.Batch:
    if isinstance(batch, dict) and any(isinstance(column, RaggedRows) for column in batch.values()):
        under_way = _pack._begin({}, options or {})
        for name, column in batch.items():
            if isinstance(column, RaggedRows):
                under_way.add_ragged(name, column.values, column.offsets, None)
            else:
                under_way.add(name, column)
        return under_way
    return _pack._begin(batch, options or {})


def pack_open(batch: object, options: dict | None = None) -> packbuf.View:
    return packbuf.open(begin(batch, options).pack(1))


def read_arrays(view: packbuf.View) -> list:
    leaves = [field for field in view.columns if field.kind == "leaf" and not field.is_attribute]
    return [field.ragged(fill=0) if field.is_ragged_numbers else field.numpy(fill=0) for field in leaves]


# ---- TransferQueue ----


def queue_pack(objects: list) -> list:
    buffers, _ = serial_utils.batch_encode_into(objects, lambda sizes: [bytearray(size) for size in sizes])
    return buffers


def tensors_of(batch: dict) -> dict:
    return {
        name: torch.nested.nested_tensor_from_jagged(torch.from_numpy(column.values), torch.from_numpy(column.offsets))
        if isinstance(column, RaggedRows)
        else torch.from_numpy(column)
        for name, column in batch.items()
    }


# ---- measuring ----


def timed(case, clock) -> float:
    """Seconds that a case takes. A pair: what comes first is not measured."""
    before, work = case if isinstance(case, tuple) else (None, case)
    ready = (before(),) if before else ()
    gc.disable()
    start = clock()
    kept = work(*ready)
    seconds = clock() - start
    gc.enable()
    del kept
    return seconds


def medians(cases: dict, rounds: int, clock, cold: bool) -> dict[str, float]:
    """Median seconds of each, all of them once a round; not cold: right after a run that is not counted."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            if not cold:
                timed(case, clock)
            times[name].append(timed(case, clock))
    return {name: statistics.median(found) for name, found in times.items()}


def infer_columns(rows: list[dict], rounds: int, clock, cold: bool) -> dict[str, float]:
    """Inference of one column after the other, as Mooncake does it with the fields of a batch: the sum of medians."""
    sums: dict[str, float] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        cases = {"packbuf infer columns": lambda: _core.infer(cells, "c", 0)}
        if infer_structure is not None:
            cases["Mooncake infer columns"] = lambda: infer_structure("c", cells, [], [])
        for case, seconds in medians(cases, rounds, clock, cold).items():
            sums[case] = sums.get(case, 0) + seconds
    return sums


def copies(rows: list[dict]) -> list:
    return [[cell.copy() if type(cell) is list else cell for cell in row.values()] for row in rows]


def cases_of(arrays: dict | None, rows: list[dict], options: dict) -> dict:
    """What runs once a round, by name."""
    cases = {
        "packbuf rows": lambda: pack_open(rows, options),
        "packbuf rows, and back": lambda: read_arrays(pack_open(rows, options)),
        "pickle rows": lambda: pickle.dumps(rows, 5),
        "pickle rows, and back": lambda: pickle.loads(pickle.dumps(rows, 5)),
        "copy the lists": lambda: copies(rows),
        "packbuf infer": lambda: _core.infer(rows, "r", 0),
    }
    if serial_utils is not None:
        cases["TransferQueue rows"] = lambda: queue_pack([rows])
        cases["TransferQueue rows, and back"] = lambda: serial_utils.batch_decode_from(queue_pack([rows]))
    if infer_structure is not None:
        cases["Mooncake infer"] = lambda: infer_structure("r", rows, [], [])
    return {**cases, **(array_cases(arrays) if arrays is not None else {})}


def array_cases(arrays: dict) -> dict:
    plain = {key: column.values if isinstance(column, RaggedRows) else column for key, column in arrays.items()}
    memory = bytearray(begin(arrays).measure())
    begun = partial(begin, arrays)  # all three find the caches as this leaves them
    cases = {
        "packbuf arrays": lambda: pack_open(arrays),
        "packbuf arrays, and back": lambda: read_arrays(pack_open(arrays)),
        "packbuf C into": (begun, lambda ready: ready.write_into(memory, 1)),
        "packbuf arrays into": (begun, lambda _: begin(arrays).write_into(memory, 1)),
        "pickle arrays": lambda: pickle.dumps(plain, 5),
    }
    if serial_utils is not None:
        tensors = tensors_of(arrays)
        cases["packbuf tensors into"] = (begun, lambda _: begin(tensors).write_into(memory, 1))
        cases["TransferQueue arrays"] = lambda: queue_pack([tensors])
    return cases


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "packbuf": packbuf.__version__, "numpy": np.__version__}
    for peer, package in PEERS.items():
        try:
            found[peer] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[peer] = "not installed"
    return found


def lines_of(path: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / path).read_text().splitlines()]


def batches() -> Iterator[tuple[str, dict | None, list[dict], dict]]:
    """Name, arrays or None, nested rows, options: one after the other, so that one is in memory."""
    for kind, take in (("dense", dense), ("ragged", ragged)):
        for name in ("gsm8k", "agent"):
            arrays = take(name)
            yield f"{kind} {name}", arrays, rows_of(arrays), {}
    yield "non-tensor gsm8k", None, lines_of("batch_dense/gsm8k/non_tensor.jsonl"), {}
    rows = lines_of("rows.jsonl")
    yield "rows.jsonl", None, rows, {}
    yield "sparse kept whole", None, rows, {"schema": WHOLE}


def ratios(times: dict[str, float]) -> dict[str, float]:
    """How many times as fast ours is, by claim."""
    return {
        what: times[peer] / times[ours] for what, _, ours, peer in CLAIMS if ours in times and peer in times
    }


def show(result: dict) -> None:
    """The times, then the claims: a column for each batch, "!" where less was reached than is asked."""
    names = list(result["batches"])
    width = max(len(name) for name in names) + 2

    def table(title: str, rows: list[str], cell) -> None:
        print(f"\n{title:50s}" + "".join(f"{name:>{width}s}" for name in names))
        for row in rows:
            print(f"{row:50s}" + "".join(f"{cell(row, name):>{width}s}" for name in names))

    def milliseconds(case: str, name: str) -> str:
        found = result["batches"][name]["ms"].get(case)
        return "" if found is None else f"{found:.2f}"

    asked = {what: least for what, least, _, _ in CLAIMS}

    def times_as_fast(what: str, name: str) -> str:
        found = result["batches"][name]["ratios"].get(what)
        if found is None:
            return ""
        return f"{'!' if asked[what] and found < asked[what] else ''}{found:.2f}"

    cases = list(dict.fromkeys(case for name in names for case in result["batches"][name]["ms"]))
    table("milliseconds", cases, milliseconds)
    table("times as fast as", list(asked), times_as_fast)
    print("asked: " + "; ".join(f"{what} {least:.2g}" for what, least in asked.items() if least))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--cold", action="store_true", help="each case finds the caches as another one left them")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no sample data at {DATA}: set PACKBUF_DATA")
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    manner = {"clock": arguments.clock, "rounds": arguments.rounds, "cold": arguments.cold}
    print(f"{about}; {arguments.clock} time, medians of {arguments.rounds}, {'cold' if arguments.cold else 'warm'}")
    result = {"versions": versions(), **manner, "batches": {}}
    for name, *batch in batches():
        gc.freeze()  # what a batch is made of is no garbage
        manner_of = (arguments.rounds, CLOCKS[arguments.clock], arguments.cold)
        times = {**medians(cases_of(*batch), *manner_of), **infer_columns(batch[1], *manner_of)}
        gc.unfreeze()
        milliseconds = {case: 1e3 * seconds for case, seconds in times.items()}
        result["batches"][name] = {"ms": milliseconds, "ratios": ratios(times)}
    show(result)
    if arguments.out:
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
