#!/usr/bin/env python3
"""TAP: the specification against itself. Its reader (spec/reader.py) reads every valid vector as the tagged JSON beside
it and finds in every invalid one the rule, error, offset and level that index.tsv names; every rule of section 13 has
an invalid vector; the tables, the vectors and the worked example are what their scripts write; and no single flipped
bit, with checksums as they were or computed again, makes the reader raise anything but its own error, or hang."""
import faulthandler
import pathlib
import re
import struct
import subprocess
import sys

sys.dont_write_bytecode = True
ROOT = pathlib.Path(__file__).resolve().parent.parent
VECTORS = ROOT / "spec" / "vectors"
sys.path.insert(0, str(ROOT / "spec"))

from reader import ERROR_OF_RULE, Packed, PackbufError, byte_length, crc32c  # noqa: E402

# Small vectors that together have every codec, storage and mask.
FLIPPED = ("lists_of_types", "list_of_nulls", "sequence_data", "media_odd_attribute", "msgpack", "metadata",
           "rank_above_need", "unknown_packing_inside", "types_constant", "json",
           "empty_strings_in_lists", "prefix_leaders", "shared_absent_cells_keep_nothing",
           "shared_list_attribute_leaves", "prefix_absent_cells",
           "blocks_small_lines", "blocks_small_filled_split", "blocks_small_dictionary", "blocks_small_offsets")
count = failed = 0


def result(name, problems):
    global count, failed
    count += 1
    failed += bool(problems)
    print(f"{'not ok' if problems else 'ok'} {count} - {name}")
    for problem in problems[:20]:
        print(f"# {problem}")
    sys.stdout.flush()


def error_of(raw, level, limits=None):
    """The error at this level, or None: (rule, error, offset)."""
    try:
        Packed(raw, limits=limits).verify(level)
    except PackbufError as error:
        return error.rule, error.error, error.offset
    return None


def valid_problems():
    for path in sorted(VECTORS.glob("valid/*.pbuf")):
        try:
            text = Packed(path.read_bytes()).to_json() + "\n"
        except PackbufError as error:
            yield f"{path.name}: {error}"
            continue
        if text.encode() != path.with_suffix(".json").read_bytes():
            yield f"{path.name}: not the tagged JSON beside it"


def index():
    for line in (VECTORS / "invalid" / "index.tsv").read_text(encoding="utf-8").splitlines():
        name, level, rule, error, offset, _ = line.split("\t")
        yield name, level, (rule, error, int(offset))


def invalid_problems():
    for name, level, expected in index():
        raw = (VECTORS / "invalid" / name).read_bytes()
        for at in ("head", "index", "full"):
            found = error_of(raw, at)
            if at == level:
                if found != expected:
                    yield f"{name}: {found}, not {expected}"
                break
            if found:
                yield f"{name}: {found} at level {at} already"


def rule_problems():
    spec = (ROOT / "spec" / "packbuf.md").read_text(encoding="utf-8")
    rules = dict(re.findall(r"^\| ([HNBMSID]\d+) \| ([A-Z_0-9]+) \|", spec, re.M))
    if rules != ERROR_OF_RULE:
        yield f"reader.py's rules are not those of section 13: {set(rules.items()) ^ set(ERROR_OF_RULE.items())}"
    for rule in sorted(set(rules) - {expected[0] for _, _, expected in index()}):
        yield f"no invalid vector breaks {rule}"


def file_problems():
    there = {p.name for p in VECTORS.glob("invalid/*.pbuf")}
    for name in sorted(there ^ {name for name, _, _ in index()}):
        yield f"{name}: a file without its line, or a line without its file"
    names = {p.stem for p in VECTORS.glob("valid/*.pbuf")}
    for file in ("canonical.txt", "canonical_packed.txt"):
        for line in (VECTORS / "valid" / file).read_text().splitlines():
            name = line.split()[0]
            if name not in names:
                yield f"{file}: there is no {name}"
                continue
            profile = (VECTORS / "valid" / f"{name}.pbuf").read_bytes()[14]
            if (profile in (1, 2, 3)) != (file == "canonical_packed.txt"):
                yield f"{file}: {name} is of another profile"


def script_problems(*command):
    run = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    return (run.stdout + run.stderr).splitlines() or ["it failed"] if run.returncode else []


def cli_problems():
    reader = [sys.executable, "spec/reader.py"]
    for arguments, code, out in ((["spec/vectors/valid/ints.pbuf"], 0, (VECTORS / "valid" / "ints.json").read_text()),
                                 (["--verify", "spec/vectors/valid/ints.pbuf"], 0, "ok\n"),
                                 (["--verify", "head", "spec/vectors/invalid/i1_bit.pbuf"], 0, "ok\n"),
                                 (["--verify", "index", "spec/vectors/invalid/i5_value.pbuf"], 1,
                                  r"I5 BAD_MASK \d+ d\.x .+\n"),
                                 (["--verify", "full", "spec/vectors/invalid/h2_magic.pbuf"], 1,
                                  r"H2 BAD_MAGIC 0 - .+\n")):
        run = subprocess.run(reader + arguments, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
        if run.returncode != code or not (run.stdout == out or re.fullmatch(out, run.stdout)):
            yield f"{arguments}: {run.returncode} {run.stdout!r}"


def example_problems():
    """The bytes of the worked example as they stand on the page."""
    page = (ROOT / "spec" / "packbuf.md").read_text(encoding="utf-8")
    page = page.split("<!-- WORKED_EXAMPLE -->")[1].split("<!-- end WORKED_EXAMPLE -->")[0]
    raw, zeros = b"", False
    for line in re.findall(r"^(?:[0-9a-f]{8}.*|\*)$", page, re.M):
        if line != "*":
            at, part = int(line[:8], 16), bytes.fromhex(line[10:57])
            if zeros:
                raw = raw.ljust(at, b"\0")
            if at != len(raw):
                yield f"line {line[:8]} follows {len(raw):08x}"
            raw += part
        zeros = line == "*"
    if raw != (VECTORS / "valid" / "worked_example.pbuf").read_bytes():
        yield "not the bytes of the vector"


def block_problems():
    """The example of section 20: header and payload as they stand on the page, and the units that the reader finds."""
    page = (ROOT / "spec" / "packbuf.md").read_text(encoding="utf-8")
    text = page.split("**Example.** 150 units")[1].split("## 21.")[0]
    header, payload = (bytes.fromhex(part) for part in re.findall(r"^`([0-9a-f ]+)`", text, re.M))
    packed = Packed((VECTORS / "valid" / "blocks_worked.pbuf").read_bytes())
    packed.verify("full")
    data = packed.fields[0].buffer(1)
    if packed.bytes[data.headers_offset:data.headers_offset + 16] != header:
        yield "not the header of the vector"
    if data.length != 128 or packed.bytes[data.offset:data.offset + 16] != payload:
        yield "not the payload of the vector"
    if struct.unpack("<150H", data.raw(0, 150)) != tuple(1000 + i * i % 29 for i in range(150)):
        yield "not the units of the page"


def limit_problems():
    """D9 of what is walked at full length: aliases and packed buffers, the index first. The limit is a byte less than
    each of the sums."""
    for name in ("blocks_aliases", "blocks_aliases_in_index", "blocks_beside_plain", "blocks_beside_unknown",
                 "balanced_filled", "shared_index_alias"):
        raw = (VECTORS / "valid" / f"{name}.pbuf").read_bytes()
        packed = Packed(raw)
        packed.verify("full")
        walked, largest = 0, max(byte_length(b.count, b.dtype) for b in packed.buffers)
        for data in (False, True):
            for b in packed.buffers:
                if (b.role == 1) == data and 1 <= b.role <= 12 and (b.storage == 5 or b.packing == 1):
                    walked += byte_length(b.count, b.dtype)
                    if walked > largest:
                        found = error_of(raw, "full" if data else "index", {"decoded_bytes": walked - 1})
                        if found != ("D9", "LIMIT", b.at + 16):
                            yield f"{name}: {found}, not D9 at {b.at + 16}, with {walked - 1} bytes allowed"
        if error_of(raw, "full", {"decoded_bytes": max(walked, largest)}):
            yield f"{name}: not valid with {max(walked, largest)} bytes allowed"


def reseal(raw):
    """Computes the checksums again, as far as the lengths in the header make sense."""
    total, head, index = struct.unpack_from("<QQQ", raw, 24)
    if raw[20] & 1 and head + index <= len(raw):
        for i, at in enumerate(range(head + index, len(raw), 65536)):
            if head + 4 * i + 4 <= len(raw):
                struct.pack_into("<I", raw, head + 4 * i, crc32c(raw[at:at + 65536]))
    if head <= len(raw):
        struct.pack_into("<I", raw, 56, crc32c(raw[head:head + index]))
        struct.pack_into("<I", raw, 60, crc32c(raw[:60] + bytes(4) + raw[64:head]))


def flip_problems(name):
    original = (VECTORS / "valid" / f"{name}.pbuf").read_bytes()
    for bit in range(8 * len(original)):
        for again in (False, True):
            raw = bytearray(original)
            raw[bit >> 3] ^= 1 << (bit & 7)
            if again:
                reseal(raw)
            faulthandler.dump_traceback_later(60, exit=True)
            try:
                Packed(raw, limits={"shown": 2**20}).to_json()
                if not again:
                    # only what no checksum covers may pass
                    yield f"bit {bit} flipped, and nothing was found"
            except PackbufError:
                pass
            except Exception as error:  # noqa: BLE001 - that is the test
                yield f"bit {bit}, checksums {'again' if again else 'as they were'}: {error!r}"
    faulthandler.cancel_dump_traceback_later()


result("every valid vector reads as its tagged JSON", list(valid_problems()))
result("every invalid vector breaks its rule, at its level and place", list(invalid_problems()))
result("every rule has an invalid vector", list(rule_problems()))
result("files and index agree", list(file_problems()))
result("the command line of reader.py", list(cli_problems()))
result("the tables of packbuf.md are those of core/status.h", script_problems("tools/spec_tables.py", "--check"))
result("the vectors are what build.py writes", script_problems("spec/vectors/build.py", "--check"))
result("the worked example of packbuf.md is what annotate.py writes",
       script_problems("spec/vectors/annotate.py", "--check"))
result("the worked example of packbuf.md has the bytes of its vector", list(example_problems()))
result("the example of a block on the page has the bytes of its vector", list(block_problems()))
result("aliases and packed buffers count toward decoded_bytes", list(limit_problems()))
for vector in FLIPPED:
    result(f"every flipped bit of {vector}", list(flip_problems(vector)))
print(f"1..{count}")
sys.exit(bool(failed))
