"""bench/targets.py: the targets for the packings, each reached, missed or not measured. The peers' figures in them are
quoted: simdcomp 1.28 / 1.12, FastLanes 1.24 / 1.08 (256 MiB) and 89 / 101 GB/s (512 KiB), TurboPFor p4n 0.25 x memcpy.
May use: results.py, nm. Must not know: how it was measured."""
import re
import subprocess

from results import SMALL

SETS = ("avx512", "avx2")  # where a target has two numbers


class Targets:
    def __init__(self, results):
        self.results, self.lines = results, []

    def add(self, number, text, value, least, unit="x", most=False):
        """value None: not measured."""
        if value is None:
            state = "not measured"
        else:
            state = "reached" if (value <= least if most else value >= least) else "missed"
        shown = "" if value is None else f"{value:.2f} {unit}".strip()
        self.lines.append((number, text, f"{'at most' if most else 'at least'} {least} {unit}".strip(), shown, state))

    def sets(self):
        """The lane sets of this run that the two numbers are for: the best AVX-512 set and AVX2."""
        have = {row["kernels"] for row in self.results.rows}
        wide = self.results.best if self.results.best.startswith("avx512") else None
        return [(wide, "AVX-512"), ("avx2" if "avx2" in have else None, "AVX2")]

    def speed(self, number, text, least, name, op, what, **keywords):
        self.add(number, text, self.results.value("x_memcpy", name, op, what, **keywords), least, "x memcpy")

    def ratio(self, number, text, least, name, what):
        self.add(number, text, self.results.value("stored_ratio", name, "encode", what), least)


def quotient(a, b):
    return a / b if a is not None and b else None


def columns(t):
    r = t.results
    for (kernels, label), least in zip(t.sets(), (1.75, 1.65)):
        t.speed(1, f"pack tokens in 18 bits, {label}", least, "packbuf fastest", "encode", "tokens", kernels=kernels)
    best = r.value("x_memcpy", "packbuf fastest", "encode", "tokens")
    t.add(1, "beside simdcomp (quoted)", quotient(best, 1.28), 1.35)
    t.add(1, "beside FastLanes (quoted)", quotient(best, 1.24), 1.4)
    for kernels, label in t.sets() + [("vector", "16-byte vectors")]:
        t.speed(2, f"unpack tokens, {label}", 1.7, "packbuf fastest", "decode", "tokens", kernels=kernels)
    t.add(2, "beside simdcomp (quoted)", quotient(r.value("x_memcpy", "packbuf fastest", "decode", "tokens"), 1.12), 1.5)
    t.add(3, "split: size against 18 bits", quotient(r.value("stored_ratio", "packbuf fastest", "encode", "tokens"),
          r.value("stored_ratio", "packbuf", "encode", "tokens")), 0.81, most=True)
    for (kernels, label), least in zip(t.sets(), (1.45, 1.35)):
        t.speed(3, f"split: pack, {label}", least, "packbuf", "encode", "tokens", kernels=kernels)
        t.speed(3, f"split: unpack, {label}", 1.7, "packbuf", "decode", "tokens", kernels=kernels)
    t.add(3, "split: pack beside TurboPFor p4n (quoted)", quotient(r.value("x_memcpy", "packbuf", "encode", "tokens"), 0.25), 6)
    t.speed(4, "pack the mask", 1.8, "packbuf", "encode", "mask")
    t.ratio(4, "its ratio", 63, "packbuf", "mask")
    t.speed(4, "unpack it, plain stores", 1.7, "packbuf, plain stores", "decode", "mask")
    t.speed(4, "unpack it", 2.3, "packbuf", "decode", "mask")
    t.speed(4, "pack a bool mask", 1.6, "packbuf", "encode", "bool mask")
    t.speed(4, "unpack it", 2.2, "packbuf", "decode", "bool mask")
    t.speed(5, "pack positions", 1.85, "packbuf", "encode", "positions")
    t.speed(5, "unpack them", 1.7, "packbuf", "decode", "positions")
    t.ratio(5, "their ratio", 60, "packbuf", "positions")
    t.speed(5, "pack a constant", 1.85, "packbuf", "encode", "constant")
    t.speed(5, "unpack it", 1.7, "packbuf", "decode", "constant")
    t.ratio(5, "its ratio, as blocks", 500, "packbuf", "constant")
    for what, least in (("padded tokens", 8), ("padded log-probs", 3.2)):
        t.speed(6, f"pack {what}", 1.5, "packbuf", "encode", what)
        t.speed(6, f"unpack {what}", 1.7, "packbuf", "decode", what)
        t.ratio(6, f"ratio of {what}", least, "packbuf", what)


def rows(t):
    r = t.results
    for name, text, least in (("packbuf plain", "gather", (1.1, 1.45)), ("packbuf fastest", "gather and pack", (1.3, 1.3))):
        for rows_of, value in zip(("64 KiB", "2 KiB"), least):
            t.add(7 if name == "packbuf plain" else 8, f"{text} rows of {rows_of}",
                  r.value("x_memcpy", name, "gather", f"rows of {rows_of}", kernels="", size=None), value, "x memcpy a row")
    for (kernels, label), pack, unpack in zip(t.sets(), (1.15, 0.75), (1.5, 1.05)):
        t.speed(9, f"pack tokens in 512 KiB, sampled before, {label}", pack, "packbuf fastest, sampled before", "encode", "tokens", kernels=kernels, size=SMALL)
        t.speed(9, f"unpack, {label}", unpack, "packbuf fastest", "decode", "tokens", kernels=kernels, size=SMALL)
    for size, pack, unpack, text in ((256 << 20, 1.2, 1.6, "256 MiB"), (SMALL, 0.35, 0.4, "512 KiB")):
        t.speed(10, f"pack tokens with 16-byte vectors, {text}", pack, "packbuf fastest, sampled before" if size == SMALL else "packbuf fastest", "encode", "tokens", kernels="vector", size=size)
        t.speed(10, f"unpack, {text}", unpack, "packbuf fastest", "decode", "tokens", kernels="vector", size=size)
    for op, least in (("encode", 0.95), ("decode", 0.97)):
        t.add(11, f"{op} tokens with CRC against without", quotient(r.value("x_memcpy", "packbuf + CRC", op, "tokens"),
              r.value("x_memcpy", "packbuf", op, "tokens")), least)
    for what, name in (("tokens", "packbuf fastest"), ("tokens", "packbuf"), ("mask", "packbuf")):
        for op in ("encode", "decode"):
            t.add(12, f"two threads, {name}, {op} {what}", quotient(r.value("gb_per_s", name, op, what, threads=2),
                  r.value("gb_per_s", name, op, what)), 1.8, "x one")


def whole(t):
    r = t.results

    def seconds(name, op):
        row = r.get(name, op, "rows", kernels="", size=None)
        return row["bytes"] / row["gb_per_s"] if row else None
    t.add(13, "encode rows against the gathering memcpy", r.value("x_memcpy", "packbuf", "encode", "rows", kernels="", size=None), 0.8, "x")
    for name, op, least in (("msgpack-c array", "encode", 9), ("protobuf-c", "encode", 3), ("msgpack-c array", "decode", 20)):
        t.add(13, f"{op} rows beside {name}", quotient(seconds(name, op), seconds("packbuf", op)), least)
    t.add(13, "size of the rows against Arrow's", quotient(1, r.value("stored_ratio", "packbuf", "encode", "rows", kernels="", size=None)), 0.52, most=True)
    for text, least in (("verify the index of 4096 rows", 2000), ("first access", 10)):
        t.add(14, text, r.value("nanoseconds", "packbuf", text, "rows", kernels="", size=None), least, "ns", most=True)
    t.add(15, "check 256 MiB of ASCII", r.value("x_memcpy", "packbuf", "UTF-8", "ASCII", kernels="", size=None), 1.85, "x memcpy")
    for text, match, least in (("the AVX2 kernels of 64 bits", r"avx2.*64|64.*avx2", 24),):
        t.add(16, f"code size, {text}", code_size(match), least, "KiB", most=True)


def batches(t):
    for which, least in (("dense/gsm8k", 6), ("ragged/agent", 5), ("ragged/gsm8k", 2.8)):
        row = t.results.get("packbuf", "pack + unpack", f"batch {which}", kernels="", size=None)
        t.add("-", f"batch {which}: ratio", row and row["stored_ratio"], least)
        t.add("-", f"batch {which}: pack + unpack", row and row["x_memcpy"], 1, "x two memcpys")


def code_size(match):
    """KiB of the functions whose names match, in the benchmark's own program."""
    try:
        listed = subprocess.run(["nm", "-S", "build/bench/packing"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    sizes = [int(size, 16) for size, name in re.findall(r"^\S+ (\S+) [tT] packbuf_i_(\S+)$", listed, re.M) if re.search(match, name)]
    return sum(sizes) / 1024 if sizes else None


def check(results):
    t = Targets(results)
    columns(t)
    rows(t)
    whole(t)
    batches(t)
    return t.lines
