"""bench/peers.py JSON: what Python users send instead: pyarrow IPC, pickle 5 (in band, and out of band), safetensors and
numpy's savez, on whole batches of $PACKBUF_DATA, as many copies as fill 256 MiB; one thread, CPU time of the process, beside
a copy of the same arrays into arrays that are there already. Appends rows to the report: op pack, unpack, pack + unpack.
Unpacking ends with arrays one may read: views into the message where the format allows that.
May use: numpy, pyarrow, safetensors. Must not know: packbuf."""
import gc
import glob
import io
import json
import os
import pickle
import statistics
import sys
import time

import numpy as np

ROUNDS = 15
TOTAL = 256 << 20


def load(which):
    """The arrays of a batch; ragged ones too are arrays and their offsets."""
    paths = sorted(glob.glob(os.path.join(os.environ["PACKBUF_DATA"], f"batch_{which}", "*.npy")))
    return {os.path.basename(path)[:-4]: np.load(path) for path in paths}


def made():
    """A dense batch for those who have no data."""
    random = np.random.default_rng(1)
    ids = np.minimum(random.zipf(1.2, (1024, 1280)), 151935).astype(np.int64)
    lengths = np.clip(random.lognormal(5.5, 0.7, 1024), 16, 1024).astype(np.int64)
    mask = (np.arange(1280)[None, :] < 256 + lengths[:, None]).astype(np.int64)
    probs = (-np.exp(random.normal(-0.9, 1.6, ids.shape)) * mask).astype(np.float32)
    return {"input_ids": np.where(mask == 1, ids, 151643), "attention_mask": mask, "old_log_probs": probs}


def arrow():
    import pyarrow as pa
    names = {}

    def pack(batch):
        parts = []
        for name, array in batch.items():  # a tensor message each: arrays of a batch differ in length
            sink = pa.BufferOutputStream()
            pa.ipc.write_tensor(pa.Tensor.from_numpy(array), sink)
            parts.append(sink.getvalue())
            names[len(parts) - 1] = name
        return parts

    def unpack(parts):
        return {names[i]: pa.ipc.read_tensor(pa.BufferReader(part)).to_numpy() for i, part in enumerate(parts)}
    return pack, unpack, lambda parts: sum(part.size for part in parts)


def pickle_in_band():
    return lambda batch: pickle.dumps(batch, 5), pickle.loads, len


def pickle_out_of_band():
    """The arrays stay where they are: a sender that must copy them into one message does so here."""
    def pack(batch):
        buffers = []
        head = pickle.dumps(batch, 5, buffer_callback=buffers.append)
        return head, [bytes(buffer.raw()) for buffer in buffers]
    return pack, lambda parts: pickle.loads(parts[0], buffers=parts[1]), lambda parts: len(parts[0]) + sum(map(len, parts[1]))


def safetensors():
    from safetensors.numpy import load as unpack, save
    return save, unpack, len


def savez():
    def pack(batch):
        out = io.BytesIO()
        np.savez(out, **batch)
        return out.getbuffer()
    return pack, lambda data: dict(np.load(io.BytesIO(data))), len


CODECS = {"pyarrow IPC tensors, views": arrow, "pickle 5": pickle_in_band, "pickle 5, out of band, copied; views": pickle_out_of_band,
          "safetensors": safetensors, "numpy savez": savez}


def timed(run):
    gc.collect()
    start = time.process_time()
    result = run()
    return time.process_time() - start, result


def copy(batches, out):
    for batch, to in zip(batches, out):
        for name, array in batch.items():
            np.copyto(to[name], array)


def measure(batches, out, codec):
    """Median seconds of memcpy, pack, unpack; stored bytes. The first round is compared and does not count."""
    pack, unpack, size = codec
    times = []
    for number in range(ROUNDS + 1):
        plain, _ = timed(lambda: copy(batches, out))
        packing, packed = timed(lambda: [pack(batch) for batch in batches])
        unpacking, back = timed(lambda: [unpack(one) for one in packed])
        stored = sum(map(size, packed))
        if number:
            times.append((plain, packing, unpacking))
        else:
            for batch, result in zip(batches, back):
                for name, array in batch.items():
                    assert array.tobytes() == result[name].tobytes() and array.shape == result[name].shape, name
        del packed, back
    return [statistics.median(column) for column in zip(*times)] + [stored]


def rows_of(which, batch):
    size = sum(array.nbytes for array in batch.values())
    copies = max(1, TOTAL // size)
    batches = [{name: array.copy() for name, array in batch.items()} for _ in range(copies)]
    out = [{name: np.zeros_like(array) for name, array in batch.items()} for _ in range(copies)]
    for name, make in CODECS.items():
        try:
            codec = make()
        except ImportError as error:
            print(f"bench: no {name}: {error}", file=sys.stderr)
            continue
        plain, pack, unpack, stored = measure(batches, out, codec)
        for op, seconds, raw in (("pack", pack, plain), ("unpack", unpack, plain), ("pack + unpack", pack + unpack, 2 * plain)):
            yield {"op": op, "column": f"batch {which}", "what": "", "dtype": "batch", "bytes": copies * size, "threads": 1,
                   "kernels": "", "name": name, "gb_per_s": round(copies * size / max(seconds, 1e-9) * 1e-9, 3),
                   "x_memcpy": round(raw / max(seconds, 1e-9), 3), "x_nt_copy": 0, "stored_ratio": round(copies * size / stored, 4),
                   "narrow_ratio": round(copies * size / stored, 4)}


def main(path):
    rows = []
    batches = ("dense/gsm8k", "ragged/gsm8k", "ragged/agent") if os.environ.get("PACKBUF_DATA") else ("made",)
    for which in batches:
        rows += rows_of(which, load(which) if which != "made" else made())
    with open(path, "w") as file:
        json.dump(rows, file)


main(sys.argv[1])
