"""Packing from Python beside pickle 5 and TransferQueue, on the sample data: interleaved, medians.

    python bench.py [--rounds 15] [--clock wall|cpu] [--out bench-python.json]

PACKBUF_DATA names the folder of the sample data. A batch is taken in the two ways people hold it: as arrays (numpy,
ragged rows as offsets) and as nested rows (a list of dicts of Python lists). Ours is one thread, plain, checksums on.
Peers that are not installed are left out and named.
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

DATA = Path(os.environ.get("PACKBUF_DATA", "../shared/data"))
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


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


def medians(cases: dict, rounds: int, clock) -> dict[str, float]:
    """Median seconds of each, all of them once a round. A pair: what comes first is not measured."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            before, work = case if isinstance(case, tuple) else (None, case)
            ready = (before(),) if before else ()
            gc.disable()
            start = clock()
            kept = work(*ready)
            times[name].append(clock() - start)
            gc.enable()
            del kept, ready
    return {name: statistics.median(found) for name, found in times.items()}


def cases_of(arrays: dict | None, rows: list[dict], options: dict) -> dict:
    cases = {
        "packbuf rows": lambda: pack_open(rows, options),
        "pickle rows": lambda: pickle.dumps(rows, 5),
    }
    if arrays is not None:
        plain = {key: column.values if isinstance(column, RaggedRows) else column for key, column in arrays.items()}
        memory = bytearray(begin(arrays).measure())
        cases["packbuf arrays"] = lambda: pack_open(arrays)
        begun = partial(begin, arrays)  # both find the caches as this leaves them
        cases["packbuf arrays into"] = (begun, lambda _: begin(arrays).write_into(memory, 1))
        cases["packbuf C into"] = (begun, lambda ready: ready.write_into(memory, 1))
        cases["pickle arrays"] = lambda: pickle.dumps(plain, 5)
    if serial_utils is not None:
        cases["TransferQueue rows"] = lambda: queue_pack([rows])
        if arrays is not None:
            tensors = tensors_of(arrays)
            cases["TransferQueue arrays"] = lambda: queue_pack([tensors])
    round_trips = {
        "packbuf rows": lambda: read_arrays(pack_open(rows, options)),
        "pickle rows": lambda: pickle.loads(pickle.dumps(rows, 5)),
    }
    if arrays is not None:
        round_trips["packbuf arrays"] = lambda: read_arrays(pack_open(arrays))
    if serial_utils is not None:
        round_trips["TransferQueue rows"] = lambda: serial_utils.batch_decode_from(queue_pack([rows]))
    return {**cases, **{f"{key}, and back": case for key, case in round_trips.items()}}


def infer_cases(rows: list[dict]) -> dict:
    return {"packbuf infer": lambda: _core.infer(rows, "r", 0)}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "packbuf": packbuf.__version__, "numpy": np.__version__}
    for peer in ("torch", "TransferQueue", "msgspec"):
        try:
            found[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            found[peer] = "not installed"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"no sample data at {DATA}: set PACKBUF_DATA")
    jsonl = [json.loads(line) for line in (DATA / "rows.jsonl").read_text().splitlines()]
    dense_gsm, dense_agent, ragged_gsm, ragged_agent = dense("gsm8k"), dense("agent"), ragged("gsm8k"), ragged("agent")
    batches = {
        "dense gsm8k": (dense_gsm, rows_of(dense_gsm)),
        "dense agent": (dense_agent, rows_of(dense_agent)),
        "ragged gsm8k": (ragged_gsm, rows_of(ragged_gsm)),
        "ragged agent": (ragged_agent, rows_of(ragged_agent)),
        "rows.jsonl": (None, jsonl),
        "rows.jsonl, nearly empty columns kept whole": (None, jsonl, {"schema": WHOLE}),
    }
    about = ", ".join(f"{name} {version}" for name, version in versions().items())
    print(f"{about}; {arguments.clock} time, medians of {arguments.rounds}")
    result = {"versions": versions(), "clock": arguments.clock, "rounds": arguments.rounds, "batches": {}}
    for name, (arrays, rows, *options) in batches.items():
        cases = {**cases_of(arrays, rows, *(options or [{}])), **infer_cases(rows)}
        found = medians(cases, arguments.rounds, CLOCKS[arguments.clock])
        result["batches"][name] = {"ms": {key: 1e3 * seconds for key, seconds in found.items()}}
        report(name, found)
    if arguments.out:
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        Path(arguments.out).write_text(json.dumps(result, indent=2) + "\n")


def report(name: str, found: dict[str, float]) -> None:
    """A line for each case, and how many times faster ours is."""
    print(f"\n{name}")
    for case, seconds in found.items():
        back = ", and back" if case.endswith(", and back") else ""
        beside = "" if case.startswith("packbuf") else "  ".join(
            f"{seconds / found[ours]:.1f} x {ours.removesuffix(back)}"
            for ours in (f"packbuf arrays{back}", f"packbuf rows{back}")
            if ours in found
        )
        print(f"  {case:32s} {1e3 * seconds:9.2f} ms   {beside}")


if __name__ == "__main__":
    main()
