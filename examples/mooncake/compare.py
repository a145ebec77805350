"""Measures the store beside Mooncake's own structured object store, on one master and one client: keys, bytes, times.

    python compare.py [--rounds 15] [--master HOST:PORT]

PACKBUF_DATA names the folder of the sample data. Without --master one is started on loopback. Both put the same
sections of a DataProto (torch tensors, object arrays) with the same config, and get them as a dict of sections; medians
of interleaved rounds. Ours checks the index of what it reads; theirs has no checksums.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from packbuf_mooncake.local_master import local_master, quiet

quiet()

import numpy as np  # noqa: E402
import torch  # noqa: E402
from mooncake.structured_object_store import MooncakeBundleTransfer  # noqa: E402
from packbuf_mooncake.engine import connect  # noqa: E402
from packbuf_mooncake.structured_store import StructuredStore  # noqa: E402

DATA = Path(os.environ.get("PACKBUF_DATA", "../shared/data"))
SEGMENT, POOL = 1 << 30, 256 << 20


def objects(cells: list[Any]) -> np.ndarray[Any, Any]:
    """One value an element."""
    array = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        array[i] = cell
    return array


def dense(name: str) -> dict[str, Any]:
    """A dense batch as verl has it."""
    folder = DATA / "batch_dense" / name
    rows = [json.loads(line) for line in (folder / "non_tensor.jsonl").read_text().splitlines()]
    values = {key: objects([row.get(key) for row in rows]) for key in dict.fromkeys(k for row in rows for k in row)}
    tensors = {path.stem: torch.from_numpy(np.load(path)) for path in sorted(folder.glob("*.npy"))}
    return {"batch": tensors, "non_tensor_batch": values, "meta_info": {"step": 100, "temperature": 0.7}}


def ragged(name: str) -> dict[str, Any]:
    """A ragged one: an array for each row."""
    found = {path.stem: np.load(path) for path in sorted((DATA / "batch_ragged" / name).glob("*.npy"))}
    ends = {int(found[key][-1]): found.pop(key) for key in ("input_ids_offsets", "response_offsets")}
    values = {}
    for key, flat in found.items():
        offsets = ends.get(len(flat))
        if offsets is not None:
            values[key] = objects([flat[a:b] for a, b in itertools.pairwise(offsets)])
    return {"batch": {}, "non_tensor_batch": values, "meta_info": {}}


class Ours:
    """The store of this folder."""

    def __init__(self, client: Any, config: Any, packing: Any) -> None:
        self.store = StructuredStore(client, config, pool_bytes=POOL, packing=packing)

    def put(self, data: Any) -> Any:
        """Put."""
        return self.store.put_dataproto(data)

    def get(self, ref: Any, **options: Any) -> Any:
        """Get."""
        return self.store.get_dataproto(ref, **options)

    def append(self, ref: Any, data: Any) -> Any:
        """Append."""
        return self.store.append_fields(ref, data, stage="more")

    def remove(self, ref: Any) -> None:
        """Remove."""
        self.store.remove(ref, force=True)


class Theirs:
    """Mooncake's own; with a pool of its own where that is asked for."""

    def __init__(self, client: Any, config: Any, pool: Any) -> None:
        self.store, self.config = MooncakeBundleTransfer(client, buffer_pool=pool), config

    def put(self, data: Any) -> Any:
        """Put."""
        return self.store.put_dataproto(data, config=self.config)

    def get(self, ref: Any, **options: Any) -> Any:
        """Get."""
        return self.store.get_dataproto(ref, **options)

    def append(self, ref: Any, data: Any) -> Any:
        """Append."""
        return self.store.append_dataproto_fields(ref, data, stage="more", config=self.config)

    def remove(self, ref: Any) -> None:
        """Remove."""
        self.store.cleanup_dataproto(ref)


class Watched:
    """A client that notes which keys are put, and how many registrations are made."""

    def __init__(self, client: Any) -> None:
        self.client, self.keys, self.registrations = client, set[str](), 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)
        if not ("put" in name or "pub" in name or name == "register_buffer"):
            return method

        @functools.wraps(method)
        def noted(*args: Any, **options: Any) -> Any:
            if name == "register_buffer":
                self.registrations += 1
            else:
                keys = args[0] if args else options.get("keys", options.get("key"))
                self.keys.update([keys] if isinstance(keys, str) else keys or ())
            return method(*args, **options)

        return noted


def steps(store: Any, data: dict[str, Any]) -> dict[str, Callable[[Any], Any]]:
    """What is timed: name -> function of the ref."""
    sections = [name for section in ("batch", "non_tensor_batch") for name in list(data[section])[-2:]]
    rows = len(next(iter((data["batch"] or data["non_tensor_batch"]).values())))
    some = list(range(0, rows, 8))
    more = {"batch": {"more": torch.ones(rows, 64)}, "non_tensor_batch": {}, "meta_info": {}}
    return {
        "get": store.get,
        "get columns": lambda ref: store.get(ref, fields=sections),
        "get columns, 1/8 of the rows in one run": lambda ref: store.get(
            ref, fields=sections, rows=slice(0, rows // 8)
        ),
        "get columns, every 8th row": lambda ref: store.get(ref, fields=sections, rows=some),
        "append": lambda ref: store.append(ref, more),
    }


def measure(client: Watched, stores: dict[str, Any], data: dict[str, Any], rounds: int) -> dict[str, dict[str, Any]]:
    """Medians in milliseconds, keys and registrations of one put and get."""
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in stores}
    found: dict[str, dict[str, Any]] = {name: {} for name in stores}

    def timed(name: str, step: str, call: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = call()
        taken[name].setdefault(step, []).append((time.perf_counter() - start) * 1e3)
        return result

    for number in range(rounds + 2):
        for name, store in stores.items():
            client.keys.clear()
            before = client.registrations
            ref = timed(name, "put", lambda store=store: store.put(data))  # type: ignore[misc]
            found[name]["keys"] = len(client.keys)
            found[name]["bytes"] = sum(
                client.client.get_size(key) for key in client.keys if client.client.is_exist(key)
            )
            appended = ref
            for step, call in steps(store, data).items():
                try:
                    result = timed(name, step, lambda call=call, ref=ref: call(ref))  # type: ignore[misc]
                except (ValueError, RuntimeError) as error:
                    taken[name].pop(step, None)
                    found[name][f"no {step}"] = str(error)
                    continue
                appended = result if step == "append" else appended
            found[name]["registrations"] = client.registrations - before
            store.remove(appended)
            if appended is not ref:
                with contextlib.suppress(Exception):  # theirs removes what the new ref names
                    store.remove(ref)
        if number == 1:  # the first two rounds warm up
            taken = {name: {} for name in stores}
    for name in stores:
        found[name].update({step: statistics.median(times) for step, times in taken[name].items()})
    return found


def show(title: str, found: dict[str, dict[str, Any]]) -> None:
    """A table; ratios to the first column's."""
    names = list(found)
    print(f"\n{title}\n{'':42}" + "".join(f"{name:>24}" for name in names))
    every = dict.fromkeys(key for one in found.values() for key in one if not key.startswith("no "))
    for row in every:
        ours = found[names[0]].get(row)
        cells = []
        for one in found.values():
            value = one.get(row)
            ratio = f" ({value / ours:.1f}x)" if value is not None and ours and one is not found[names[0]] else ""
            cells.append(
                "refused" if value is None else f"{value:.2f}{ratio}" if isinstance(value, float) else f"{value}{ratio}"
            )
        print(f"{row:42}" + "".join(f"{cell:>24}" for cell in cells))


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--master", help="HOST:PORT of one that runs")
    parser.add_argument("--out", type=Path, help="write the numbers as JSON")
    args = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = args.master or stack.enter_context(local_master(folder / "master.log"))
        made, config = connect(address, segment=SEGMENT, local_buffer=256 << 20)
        stack.callback(made.close)
        client = Watched(made)
        stores: dict[str, Any] = {
            "packbuf, plain": Ours(client, config, None),
            "packbuf, packed": Ours(client, config, "balanced"),
            "mooncake's own": Theirs(client, config, None),
        }
        for name in ("packbuf, plain", "packbuf, packed"):
            stack.callback(stores[name].store.close)
        batches = {"dense gsm8k": dense("gsm8k"), "dense agent": dense("agent"), "ragged gsm8k": ragged("gsm8k")}
        numbers = {}
        for title, data in batches.items():
            numbers[title] = measure(client, stores, data, args.rounds)
            show(title, numbers[title])
        if args.out:
            args.out.write_text(json.dumps(numbers, indent=1))


if __name__ == "__main__":
    main()
