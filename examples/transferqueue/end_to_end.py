"""A batch through all of TransferQueue on packbuf: Ray, its controller, two storage units, its client.

    python examples/transferqueue/end_to_end.py             # 20 s to a minute, most of it Ray's start
    python examples/transferqueue/end_to_end.py --threads   # the same without Ray, in 10 s

Every process of Ray installs our `serial_utils` before its first message (`worker_process_setup_hook`), and pickle is
not allowed in any. What goes wrong is an exception.
May use: transfer_queue, serial_utils. Must not know: sockets, how messages are packed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
import serial_utils
import torch
import transfer_queue
from omegaconf import OmegaConf
from tensordict import NonTensorStack, TensorDict
from transfer_queue import controller
from transfer_queue.storage import simple_storage
from transfer_queue.utils import zmq_utils

ROWS, UNITS = 8, 2


def batch() -> TensorDict:
    """Rows of a rollout: dense and ragged numbers, text, calls of tools."""
    rows = [torch.arange(2 + i, dtype=torch.int64) for i in range(ROWS)]
    calls = [[{"name": "search", "arguments": {"q": "é" * i}}] * (i % 3) or None for i in range(ROWS)]
    columns = {
        "input_ids": torch.arange(ROWS * 1024).reshape(ROWS, 1024) ** 2,
        "log_probs": torch.randn(ROWS, 1024).bfloat16(),
        "response_mask": torch.arange(ROWS * 5).reshape(ROWS, 5) % 2 == 0,
        "responses": torch.nested.as_nested_tensor(rows, layout=torch.jagged),
        "prompt": NonTensorStack(*(f"question {i}" for i in range(ROWS))),
        "calls": NonTensorStack(*calls),
    }
    return TensorDict(columns, batch_size=ROWS)


def compare(got: TensorDict, put: TensorDict) -> None:
    """AssertionError unless every row of every field came back, in whatever order."""
    order = [put["prompt"].index(text) for text in got["prompt"]]
    assert sorted(order) == list(range(ROWS)), order
    for name in put.keys():  # noqa: SIM118 (a TensorDict has rows beside them)
        there, here = got[name], put[name]
        if isinstance(here, torch.Tensor):
            rows = list(zip(there.unbind(), (here[i] for i in order), strict=True))
            assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in rows), name
        else:
            assert list(there) == [here[i] for i in order], name


def watched() -> list[bool]:
    """Whether each message that this process receives from now on is one packed buffer."""
    seen: list[bool] = []
    decode = zmq_utils.decode

    def looks(frames: Any) -> Any:
        seen.append(len(frames) == 1 and bytes(memoryview(frames[0])[:8]) == b"\x89PBUF\r\n\x1a")
        return decode(frames)

    zmq_utils.decode = looks
    return seen


def put_and_get(client: Any) -> None:
    """Put, get, look at metadata, put a field later, clear."""
    data = batch()
    client.put(data=data, partition_id="train")
    asked = {"partition_id": "train", "mode": "fetch"}
    meta = client.get_meta(data_fields=list(data.keys()), batch_size=ROWS, task_name="update_actor", **asked)
    compare(client.get_data(meta), data)
    client.put(data=TensorDict({"reward": torch.ones(ROWS)}, batch_size=ROWS), metadata=meta)
    meta.update_custom_meta([{"uid": str(i)} for i in range(ROWS)])
    client.set_custom_meta(meta)
    later = client.get_meta(data_fields=["reward"], batch_size=ROWS, task_name="critic", **asked)
    assert [row.item() for row in client.get_data(later)["reward"].unbind()] == [1.0] * ROWS
    assert sorted(one["uid"] for one in later.custom_meta) == [str(i) for i in range(ROWS)]
    client.clear_samples(meta)


def in_ray() -> None:
    """Starts Ray, with all of TransferQueue in it; keys and values too."""
    environment = {
        "worker_process_setup_hook": "serial_utils.install",
        "env_vars": {"PYTHONPATH": str(Path(__file__).parent)},
    }
    with tempfile.TemporaryDirectory(prefix="tq", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, runtime_env=environment, _temp_dir=folder)
        try:
            transfer_queue.init(OmegaConf.create({"backend": {"SimpleStorage": {"num_data_storage_units": UNITS}}}))
            put_and_get(transfer_queue.get_client())
            fields = TensorDict({"x": torch.ones(1, 2)}, batch_size=1)
            transfer_queue.kv_put("k", partition_id="kv", fields=fields, tag={"step": 7})
            assert transfer_queue.kv_list("kv") == {"kv": {"k": {"step": 7}}}
            assert torch.equal(transfer_queue.kv_batch_get(["k"], "kv")["x"][0], torch.ones(2))
        finally:
            transfer_queue.close()
            ray.shutdown()


def in_threads() -> None:
    """The same classes as threads of this process, which talk over the same sockets."""
    for module in (controller, simple_storage):
        module.get_node_ip_address = lambda: "127.0.0.1"  # else Ray is asked
    unit_class = simple_storage.SimpleStorageUnit.__ray_metadata__.modified_class
    units = [unit_class({"total_storage_size": None}) for _ in range(UNITS)]
    heart = controller.TransferQueueController.__ray_metadata__.modified_class()
    client = transfer_queue.TransferQueueClient("client", heart.get_zmq_server_info())
    infos = {f"unit {i}": unit.get_zmq_server_info() for i, unit in enumerate(units)}
    client.initialize_storage_manager("SimpleStorage", {"zmq_info": infos})
    put_and_get(client)
    client.close()
    for unit in units:
        unit.shutdown()


def main() -> None:
    """As said at the top."""
    serial_utils.install()
    seen = watched()
    in_threads() if sys.argv[1:] == ["--threads"] else in_ray()
    assert len(seen) >= 10 and all(seen), f"{seen.count(False)} of {len(seen)} messages were not packed"
    print(f"ok: {len(seen)} messages received, each one packed buffer; no pickle")


if __name__ == "__main__":
    main()
