#!/usr/bin/env python3
"""TAP: `packbuf pack` writes the canonical form. For each name in spec/vectors/valid/canonical.txt (profile 0) and
canonical_packed.txt (the profile that the file's header names) the columns of NAME.json (tagged JSON) are turned into
rows, batch values and metadata as the command takes them, packed (fields that are named behind it as they ask for), and
compared with NAME.pbuf byte for byte. A vector that says what rows cannot is left out, with a note."""
import base64
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
VALID = ROOT / "spec" / "vectors" / "valid"
sys.path.insert(0, str(ROOT / "spec"))

from reader import Packed, PackbufError  # noqa: E402

MISSING = {"$missing": True}
PACKINGS = "none", "balanced", "fastest", "smallest"  # of profiles 0 to 3
# fields of dense arrays, which come as .npy: the struct format of their elements
ARRAYS = {"worked_example": {"reward": "f"}, "sharing_ndarray": {"prompts": "q"}}
count = failed = 0
left_out = []


def result(name, problems):
    global count, failed
    count += 1
    failed += bool(problems)
    print(f"{'not ok' if problems else 'ok'} {count} - {name}")
    for problem in problems[:20]:
        print(f"# {problem}")
    sys.stdout.flush()


def text(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def cannot(batch):
    """Why rows cannot say this, or None."""
    fields, values = batch["fields"], batch["values"]
    if any(path for path in batch["metadata"]):
        return "metadata of a node"
    if fields and not batch["rows"]:
        return "fields without rows"
    if any("\0" in name for name in (*values, *batch["metadata"].get("", {}))):
        return "a NUL on the command line, or in the name of a batch value"
    if any("" == key or "=" in key for key in batch["metadata"].get("", {})):
        return "an empty key, or one with ="
    if MISSING in values.values() or any(cells and all(cell == MISSING for cell in cells) for cells in fields.values()):
        return "a field that no row has, or a missing batch value"
    if list(fields) != list(dict.fromkeys(name for row in rows(batch) for name in row)):
        return "fields in another order than rows have them"
    return None


def rows(batch):
    return [{name: cells[row] for name, cells in batch["fields"].items() if cells[row] != MISSING}
            for row in range(batch["rows"])]


def npy(path, letter, cells):
    shape = len(cells),
    if isinstance(cells[0], dict):  # arrays
        tensors = [cell["$tensor"] for cell in cells]
        shape, raw = (len(cells), *tensors[0]["shape"]), b"".join(base64.b64decode(tensor["data"])
                                                                  for tensor in tensors)
    else:
        raw = struct.pack(f"<{len(cells)}{letter}", *cells)
    kind = {"f": "f", "q": "i"}[letter]
    dtype = f"<{kind}{struct.calcsize(letter)}"
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head.encode() + raw)


def pack(name, batch, folder, options):
    """What the command wrote, and what it said."""
    arrays = ARRAYS.get(name, {})
    inputs = []
    for field, letter in arrays.items():
        inputs.append(str(folder / f"{field}.npy"))
        npy(folder / f"{field}.npy", letter, batch["fields"].pop(field))
    (folder / "rows.jsonl").write_text("".join(text(row) + "\n" for row in rows(batch)), encoding="utf-8")
    (folder / "values.json").write_text(text(batch["values"]), encoding="utf-8")
    metadata = [f"--metadata={key}={value}" for key, value in batch["metadata"].get("", {}).items()]
    out = folder / "out.pbuf"
    run = subprocess.run([ROOT / "build" / "packbuf", "pack", *inputs, folder / "rows.jsonl", "--values",
                          folder / "values.json", *metadata, *options, "-o", out], capture_output=True, timeout=60)
    return (out.read_bytes() if run.returncode == 0
            else None), (run.stdout + run.stderr).decode(errors="replace").strip()


def differences(ours, theirs):
    """Where two packed buffers differ: the header fields, nodes and buffers first, then the first byte."""
    try:
        a, b = Packed(theirs), Packed(ours)
    except PackbufError as error:
        yield f"what was written is not valid: {error}"
        return
    for what in ("total_length", "head_length", "index_length", "node_count", "buffer_count", "strings"):
        if getattr(a, what) != getattr(b, what):
            yield f"{what}: {getattr(a, what)}, not {getattr(b, what)}"
    for x, y in zip(a.nodes, b.nodes):
        for what in ("path", "kind", "scope", "codec", "dtype", "form", "rank", "rows", "buffer_count", "descendants",
                     "parameter"):
            if getattr(x, what) != getattr(y, what):
                yield f"node {y.index} {y.path}: {what} {getattr(x, what)}, not {getattr(y, what)}"
        for p, q in zip(x.buffers, y.buffers):
            for what in ("role", "dim", "storage", "packing", "dtype", "alias_of", "count", "offset", "length", "value",
                         "headers_offset"):
                if getattr(p, what) != getattr(q, what):
                    of = f"node {y.index} {y.path}, buffer of role {q.role}"
                    yield f"{of}: {what} {getattr(p, what)}, not {getattr(q, what)}"
    at = next((i for i, (x, y) in enumerate(zip(theirs, ours)) if x != y), min(len(ours), len(theirs)))
    yield f"the first byte that differs is at {at}"


def problems(name, asked, batch):
    expected = (VALID / f"{name}.pbuf").read_bytes()
    options = [f"--packing={PACKINGS[expected[14]]}"] + [f"--align={1 << expected[13]}"] * (expected[13] != 6)
    with tempfile.TemporaryDirectory() as folder:
        if asked:
            schema = pathlib.Path(folder) / "schema.json"
            schema.write_text(text({field: {"keep_plain": True} if word == "keep_plain" else {"packing": word}
                                    for field, word in asked}))
            options += ["--schema", schema]
        found, said = pack(name, batch, pathlib.Path(folder), options)
    if found is None:
        return [f"packbuf pack: {said}"]
    return [] if found == expected else list(differences(expected, found))


if not (ROOT / "build" / "packbuf").exists():
    sys.exit("there is no build/packbuf: make all")
for line in (VALID / "canonical.txt").read_text().splitlines() \
        + (VALID / "canonical_packed.txt").read_text().splitlines():
    name, *asked = line.split()
    batch = json.loads((VALID / f"{name}.json").read_text(encoding="utf-8"))
    why = cannot(batch)
    if why:
        left_out.append(f"{name} ({why})")
    else:
        result(f"{name} is packed byte for byte", problems(name, [ask.split("=") for ask in asked], batch))
print(f"# {len(left_out)} of {count + len(left_out)} vectors cannot be said in rows: " + "; ".join(left_out))
print(f"1..{count}")
sys.exit(bool(failed) or not count)
