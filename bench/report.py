"""bench/report.py [--write README]: tables of the last run of build/bench/packing and bench/peers.py: columns, whole batches,
transfers, peers that are better somewhere, targets. Writes build/bench.json (with the quoted rows, marked so). --write puts
the tables between the marks of bench/README.md.
May use: results.py, targets.py. Must not know: how it was measured."""
import json
import os
import platform
import subprocess
import sys
import time

import targets
from results import LARGE, SMALL, Results

HERE = os.path.dirname(os.path.abspath(__file__))
BUILD = os.path.join(os.path.dirname(HERE), "build")
LINKS = (10, 25, 100, 200, 400)  # Gb/s


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + " --- |" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def pair(results, name, column, kernels=None, size=LARGE, threads=1):
    """encode / decode x memcpy, ratio; a smaller working set is said."""
    rows = [results.get(name, op, column, kernels, size, threads) for op in ("encode", "decode")]
    if not rows[0] and size == LARGE:
        rows = [results.get(name, op, column, kernels, None, threads) for op in ("encode", "decode")]
    if not rows[0] or not rows[1]:
        return ""
    return f"{rows[0]['x_memcpy']:.2f} / {rows[1]['x_memcpy']:.2f}, {rows[0]['stored_ratio']:.3g}"


def columns(results):
    yield "### Columns: x memcpy (encode / decode), ratio to the raw type; one thread, 256 MiB"
    yield ""
    names = ["packbuf plain", "packbuf", "packbuf fastest", "packbuf smallest"]
    head = ["column", "memcpy GB/s", "non-temporal copy", "narrowest plain type"] + names
    body = []
    for column in results.columns():
        copy, streamed = (results.get(name, "copy", column, "") for name in ("memcpy", "non-temporal copy"))
        if copy and not column.startswith("batch"):
            body.append([column, f"{copy['gb_per_s']:.1f}", f"{streamed['x_memcpy']:.2f}", f"{1 / copy['narrow_ratio']:.3g}"]
                        + [pair(results, name, column) for name in names])
    yield from table(head, body)
    yield "### Peers: the same; those that are slow have a smaller working set"
    yield ""
    peers = results.peers()
    mains = [c for c in results.columns() if c != "rows" and any(results.get(p, "encode", c, "", None) for p in peers)]
    yield from table(["column"] + peers, [[c] + [pair(results, p, c) for p in peers] for c in mains])


def kernels(results):
    yield "### Lane sets, sizes, threads: x memcpy (encode / decode), ratio; tokens"
    yield ""
    body = []
    for name in ("packbuf fastest", "packbuf fastest, sampled before", "packbuf"):
        for lanes in dict.fromkeys(r["kernels"] for r in results.rows if r["name"] == name):
            for size, text in ((LARGE, "256 MiB"), (SMALL, "512 KiB")):
                cells = [pair(results, name, "tokens", lanes, size, threads) for threads in (1, 2)]
                if any(cells):
                    body.append([name, lanes, text] + cells)
    yield from table(["", "lane set", "working set", "1 thread", "2 threads"], body)


def batches(results):
    rows = [r for r in results.rows if r["op"] in ("pack", "unpack", "pack + unpack", "gather") or r["column"] == "rows" and r["bytes"]]
    if not rows:
        return
    yield "### Whole batches and gathered rows (pack + unpack: beside two memcpys of the raw bytes)"
    yield ""
    yield from table(["batch", "how", "op", "MB", "GB/s", "x memcpy", "ratio"],
                     [[r["column"], r["name"], r["op"], f"{r['bytes'] / 1e6:.0f}", f"{r['gb_per_s']:.1f}", f"{r['x_memcpy']:.2f}",
                       f"{r['stored_ratio']:.2f}"] for r in rows if r["gb_per_s"]])


def transfer(encode, decode, ratio, link):
    """ms for 1 GB of raw bytes: packed, sent, unpacked, one after the other; link in Gb/s. encode, decode in GB/s, or None."""
    return 1000 * ((1 / encode if encode else 0) + 8 / (ratio * link) + (1 / decode if decode else 0))


def crossover(small, fast):
    """The link speed in Gb/s above which `fast` is the faster of two ways, `small` below it; None: never; 0: at any."""
    spent = sum(1 / speed for speed in small[:2] if speed) - sum(1 / speed for speed in fast[:2] if speed)
    saved = 8 * (1 / fast[2] - 1 / small[2])
    if spent <= 0:
        return None if saved >= 0 else 0
    return max(saved / spent, 0)


def limit(small, fast):
    speed = crossover(small, fast) if small and fast else 0
    return "" if not (small and fast) else "never" if speed is None else f"{speed:.0f} Gb/s"


def speeds(results, name, column, ops):
    rows = [results.get(name, op, column, None if ops[0] == "encode" else "", LARGE if ops[0] == "encode" else None) for op in ops]
    return (rows[0]["gb_per_s"], rows[1]["gb_per_s"], rows[0]["stored_ratio"]) if all(rows) else None


def ways(results):
    """What was timed both ways: column, {way: encode, decode, ratio}."""
    cases = [(c, ("encode", "decode"), "packbuf plain") for c in dict.fromkeys(r["what"] for r in results.rows if r.get("what"))]
    cases += [(c, ("pack", "unpack"), "packbuf plain, no sharing, no CRC") for c in
              dict.fromkeys(r["column"] for r in results.rows if r["op"] == "pack")]
    for column, ops, plain_name in cases:
        plain = speeds(results, plain_name, column, ops)
        packed = {word: speeds(results, name, column, ops) for word, name in
                  (("balanced", "packbuf"), ("fastest", "packbuf fastest"), ("smallest", "packbuf smallest"))}
        if plain and packed["balanced"]:
            yield column, {"plain": plain, "in place": (plain[0], None, plain[2]), **packed}


def transfers(results):
    yield "### From a tensor to a tensor on another machine: ms for 1 GB of raw bytes, balanced / fastest / plain / plain read in place"
    yield ""
    yield "Packing, sending and unpacking one after the other, one thread on each side."
    yield ""
    columns = list(ways(results))
    order = ("balanced", "fastest", "plain", "in place")
    yield from table(["column"] + [f"{link} Gb/s" for link in LINKS],
                     [[column] + [" / ".join(f"{transfer(*by[way], link):.0f}" if by[way] else "-" for way in order) for link in LINKS]
                      for column, by in columns])
    yield "From which link speed on the second way is the faster:"
    yield ""
    pairs = [(packed, plain) for packed in ("balanced", "fastest") for plain in ("plain", "in place")]
    pairs += [("smallest", "balanced"), ("balanced", "fastest")]
    yield from table(["column"] + [f"{small}, {fast}" for small, fast in pairs],
                     [[column] + [limit(by[small], by[fast]) for small, fast in pairs] for column, by in columns])


def better_peers(results):
    yield "### Peers that are both faster and smaller than packbuf (balanced)"
    yield ""
    found = []
    for r in results.rows:
        if r["op"] not in ("encode", "decode", "pack + unpack") or r["threads"] != 1 or r["bytes"] == SMALL or r["name"].startswith("packbuf"):
            continue
        ours = results.get("packbuf", r["op"], r["column"], size=None if r["op"] == "pack + unpack" or r["column"] == "rows" else LARGE)
        if ours and r["x_memcpy"] > ours["x_memcpy"] and r["stored_ratio"] > ours["stored_ratio"]:
            found.append([r["column"], r["op"], r["name"]] + [f"{row['x_memcpy']:.2f}, {row['stored_ratio']:.3g}" for row in (r, ours)])
    if found:
        yield from table(["column", "op", "peer", "its x memcpy, ratio", "packbuf's"], found)
    else:
        yield "None."
        yield ""


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.processor())
    compiler = subprocess.run([os.environ.get("CC", "gcc"), "--version"], capture_output=True, text=True).stdout.split("\n")[0]
    return f"{model}, {os.cpu_count()} cores; Linux {platform.release()}; {compiler}; {time.strftime('%Y-%m-%d')}."


def report(results):
    yield machine()
    yield ""
    yield from columns(results)
    yield from kernels(results)
    yield from batches(results)
    yield from transfers(results)
    yield from better_peers(results)
    yield "### Targets"
    yield ""
    yield from table(["", "target", "asked", "measured", ""], [[str(n), *rest] for n, *rest in targets.check(results)])


def write(path, lines):
    with open(path) as file:
        text = file.read()
    start, end = (text.index(mark) for mark in ("<!-- TABLE -->", "<!-- end TABLE -->"))
    with open(path, "w") as file:
        file.write(text[:start] + "<!-- TABLE -->\n" + "\n".join(lines) + text[end:])


def main():
    results = Results.read(os.path.join(BUILD, "bench-packing.json"), os.path.join(BUILD, "bench-peers.json"))
    if not results.rows:
        sys.exit("bench: no rows: run make bench or make bench-quick first")
    with open(os.path.join(HERE, "quoted.json")) as file:
        quoted = [dict(row, bytes=LARGE, threads=1, kernels="", quoted=True) for row in json.load(file)]
    with open(os.path.join(BUILD, "bench.json"), "w") as file:
        json.dump(results.rows + quoted, file, indent=0)
    lines = list(report(results))
    if len(sys.argv) == 3 and sys.argv[1] == "--write":
        write(sys.argv[2], lines)
    else:
        print("\n" + "\n".join(lines))


main()
