"""Rollout workers and a learner, each a process, over one store.

A worker packs a batch straight into the store's memory and hands over a ref, one line of text; the learner takes two
fields of a quarter of the rows, and nothing else, then removes the batch. `python rollout.py [URI]`: a shm store of its
own without one; tcp:// or verbs://HOST:PORT of `packbuf serve` and mooncake://MASTER:PORT?segment=0 do as well. Needs
the package (`pip install ./python`).
"""

import multiprocessing as mp
import os
import sys

import numpy as np

import packbuf

WORKERS, STEPS, ROWS = 2, 3, 64


def work(uri, number, refs):
    """Generates, puts, and says where."""
    with packbuf.connect(uri) as store:
        for step in range(STEPS):
            random = np.random.default_rng((number, step))
            lengths = random.integers(40, 300, ROWS)
            batch = {
                "tokens": [random.integers(0, 151936, length) for length in lengths],
                "log_probs": [-random.random(length, np.float32) for length in lengths],
                "reward": random.random(ROWS, np.float32),
                "text": [f"response {row} of worker {number}" for row in range(ROWS)],
            }
            ref = store.put(f"step/{step}/worker/{number}", batch, packing="fastest", batch_values={"step": step})
            refs.put(str(ref))


def learn(uri, refs):
    """Gets what it needs of each batch, as they come, and removes them."""
    working, rows, tokens = WORKERS, 0, 0
    with packbuf.connect(uri) as store:
        while working:
            text = refs.get()
            if text is None:
                working -= 1
                continue
            ref = packbuf.Ref.parse(text)
            batch = store.select(ref, ["tokens", "reward"], slice(1, None, 4), values=True)
            ragged = batch.view["tokens"].ragged(slice(1, None, 4))  # elements and offsets; batch.torch() gives tensors
            rewards = batch.numpy()["reward"]
            print(f"{ref.key}: {len(batch)} rows, {len(ragged.values)} tokens, reward {rewards.mean():.2f}", flush=True)
            rows, tokens = rows + len(batch), tokens + len(ragged.values)
            del batch, ragged, rewards  # the lease ends with the last that looks into it
            store.remove(ref)
        moved, held = (store.counters()[name] for name in ("bytes_moved", "leases"))
    print(f"learner: {rows} rows, {tokens} tokens, {moved} bytes moved, {held} leases held", flush=True)


def main(uri=None):
    """Starts them, and takes away the store that was made for them."""
    context = mp.get_context("spawn")  # after a fork each would have to open a store of its own too
    own = packbuf.connect(f"shm:rollout-{os.getpid()}?size=64m") if uri is None else None
    where = own.uri if own else uri
    refs = context.Queue()
    workers = [context.Process(target=work, args=(where, number, refs)) for number in range(WORKERS)]
    learner = context.Process(target=learn, args=(where, refs))
    try:
        for process in (*workers, learner):
            process.start()
        for worker in workers:
            worker.join()
            refs.put(None)  # said for it: a worker that was killed says nothing
        learner.join()
    finally:
        if own:
            own.free(force=True)
            own.close()
    return max(process.exitcode != 0 for process in (*workers, learner))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
