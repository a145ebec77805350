#!/usr/bin/env python3
"""Writes the worked example of packbuf.md (section 21): valid/worked_example.pbuf byte for byte, with what the bytes are. The names of the
fields, and where they lie, come from the tables of sections 3 to 6 of that page.

    annotate.py          writes it between the two marks
    annotate.py --check  compares with what is there
"""
import pathlib
import re
import struct
import sys

HERE = pathlib.Path(__file__).resolve().parent
SPEC = HERE.parent / "packbuf.md"
MARKS = "<!-- WORKED_EXAMPLE -->\n", "<!-- end WORKED_EXAMPLE -->"
FORMATS = {(0, 64): "q", (1, 8): "B", (1, 64): "Q", (2, 32): "f"}  # of the dtypes that the example has, but bits


class Page:
    """The tables of the specification."""
    def __init__(self, text):
        self.sections = {int(number): body for number, body in re.findall(r"^## (\d+)\.(.*?)(?=^## |\Z)", text, re.M | re.S)}

    def records(self, section):
        """The tables of a section whose rows are | at | type | name |: lists of (at, bytes, name)."""
        tables = []
        for line in self.sections[section].splitlines():
            if line.startswith("| at |"):
                tables.append([])
            row = re.match(r"\| (\d+) \| (?:u(\d+)|(\d+) bytes) \| (\w+) \|", line)
            if row:
                tables[-1].append((int(row[1]), int(row[2] or 0) // 8 or int(row[3]), row[4]))
        return tables

    def words(self, section, header):
        """The names that a table gives to numbers."""
        table = self.sections[section].split(f"| {header} |", 1)[1].split("\n\n")[0]
        return {int(number): name for number, name in re.findall(r"^\| (\d+) \| `?(\w+)`? \|", table, re.M)}


class Dump:
    def __init__(self, data, page):
        self.data, self.lines, self.at = data, [], 0
        self.header, self.directory = page.records(3)
        (self.node,), (self.buffer,), (self.metadata,) = page.records(4), page.records(5), page.records(6)
        kinds = dict(re.findall(r"(\d) (leaf|dict|list)", page.sections[4]))
        self.words = {"role": page.words(5, "role | name"), "storage": page.words(5, "storage | name"), "codec": page.words(9, "id | codec"),
                      "kind": {int(number): name for number, name in kinds.items()}}

    def title(self, text):
        self.lines.append(f"{'':10}{text}")

    def line(self, size, text):
        """Up to 16 bytes from here."""
        self.lines.append(f"{self.at:08x}  {self.data[self.at:self.at + size].hex(' '):<47}  {text}".rstrip())
        self.at += size

    def number(self, at, size):
        return int.from_bytes(self.data[at:at + size], "little")

    def field(self, at, size, name, value):
        if size > 8 or name in ("magic", "zero"):
            return f"{name} {value}" if value else name
        number = self.number(at, size)
        word = None if value == "plain" else self.words.get(name, {}).get(number)
        text = f"0x{number:08x}" if name.endswith("checksum") or number == 0xFFFFFFFF else str(number)
        return f"{name} {text}" + (f" ({word})" if word else "")

    def record(self, fields, base, values=None):
        """A record, in lines of as many whole fields as 16 bytes hold."""
        while fields:
            count = max(n for n in range(1, len(fields) + 1) if sum(size for _, size, _ in fields[:n]) <= 16)
            here, fields = fields[:count], fields[count:]
            text = ", ".join(self.field(base + at, size, name, (values or {}).get(name)) for at, size, name in here)
            self.line(sum(size for _, size, _ in here), text)

    def zeros(self, end, text="zero bytes"):
        if self.at < end:
            assert not any(self.data[self.at:end])
            self.line(min(16, end - self.at), text)
            if self.at < end:
                self.lines.append("*")
                self.at = end

    def elements(self, dtype, count, data):
        if dtype == (1, 1):
            return ", ".join(str(data[i >> 3] >> (i & 7) & 1) for i in range(count))
        return ", ".join(map(str, struct.unpack(f"<{count}{FORMATS[dtype]}", data[:count * dtype[1] // 8])))

    def get(self, fields, base, name):
        at, size, _ = next(field for field in fields if field[2] == name)
        return self.number(base + at, size)

    def write(self):
        u = lambda name: self.get(self.header + self.directory, 0, name)  # noqa: E731
        self.title("file header")
        self.record(self.header, 0, {"kind": "plain"})
        self.title("directory")
        self.record(self.directory, 0)
        nodes, buffers = 128, 128 + u("node_count") * u("node_stride")
        strings = buffers + u("buffer_count") * u("buffer_stride") + u("metadata_count") * u("metadata_stride") + u("name_count") * u("name_stride")
        text = lambda offset, length: self.data[strings + offset:strings + offset + length].decode()  # noqa: E731
        names, owned = [], []  # of each node; of each buffer the owner, role, dtype, count, offset and length
        for index in range(u("node_count")):
            base = nodes + index * u("node_stride")
            names.append(text(self.get(self.node, base, "name_offset"), self.get(self.node, base, "name_length")))
            self.title(f"node {index}: {'batch value' if self.get(self.node, base, 'scope') else 'field'} {names[-1]}")
            self.record(self.node, base)
        for index in range(u("buffer_count")):
            base = buffers + index * u("buffer_stride")
            get = lambda name: self.get(self.buffer, base, name)  # noqa: E731, B023
            dtype, count, storage = (get("dtype_code"), get("dtype_bits")), get("count"), self.words["storage"][get("storage")]
            what = f"{names[get('node')]}, {self.words['role'][get('role')]}"
            owned.append((what, get("role"), dtype, count, get("offset"), get("length"), storage))
            self.title(f"buffer {index}: {what}")
            value = self.data[base + 40:base + 56]
            self.record(self.buffer, base, {"value": self.elements(dtype, count, value) if storage == "inline" else ""})
        records = []
        for index in range(u("metadata_count")):
            base = self.at
            self.title(f"metadata {index}")
            records.append([self.get(self.metadata, base, name) for name in ("key_offset", "key_length", "value_offset", "value_length")])
            self.record(self.metadata, base)
        self.title("name index: the nodes by scope and name")
        for at in range(self.at, strings, 16):
            size = min(16, strings - at)
            self.line(size, ", ".join(names[self.number(at + i, 4)] for i in range(0, size, 4)))
        self.title("strings")
        for name in names:
            self.line(len(name.encode()), name)
        for key_offset, key_length, value_offset, value_length in records:
            self.line(key_length, text(key_offset, key_length))
            self.line(value_length, text(value_offset, value_length))
        self.zeros(u("head_length"), "zero bytes up to head_length")
        self.title("index: the checksums of the data")
        data = u("head_length") + u("index_length")
        for chunk in range(-(-(u("total_length") - data) // 65536)):
            self.line(4, f"of 64 KiB number {chunk}: 0x{self.number(self.at, 4):08x}")
        self.zeros(-(-self.at // 64) * 64)
        for section in ("index", "data"):
            for what, role, dtype, count, offset, length, storage in owned:
                if storage == "stored" and (self.words["role"][role] == "data") == (section == "data"):
                    assert offset == self.at
                    self.title(f"{section}: {what}")
                    self.stored(dtype, length, what.startswith("text") and section == "data")
                    self.zeros(-(-self.at // 64) * 64)
        assert self.at == len(self.data) == u("total_length")
        self.lines.append(f"{self.at:08x}")
        return "\n".join(self.lines)

    def stored(self, dtype, length, text):
        end = self.at + length
        while self.at < end:
            size = min(16, end - self.at)
            part = self.data[self.at:self.at + size]
            self.line(size, part.decode() if text else self.elements(dtype, size * 8 // dtype[1], part))


INTRODUCTION = """\
Three rows: `reward` is an array of float32 (1.0, 0.0, 0.5), `tokens` int64 tensors of 4, 0 and 2 elements, `text` two strings and a null; the batch value `step` is 7,
and the buffer has one pair of metadata, `tokenizer`: `qwen`. Profile 0 writes these bytes (`vectors/valid/worked_example.pbuf`). A line is an offset, up to 16 bytes and
what they are: names and values of fields in the order of their bytes; `*` stands for zero bytes up to the next offset.

"""


def main(arguments):
    text = SPEC.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    dump = Dump((HERE / "valid" / "worked_example.pbuf").read_bytes(), Page(text)).write()
    new = before + MARKS[0] + INTRODUCTION + "```text\n" + dump + "\n```\n" + MARKS[1] + rest.split(MARKS[1])[1]
    if arguments == ["--check"]:
        if new != text:
            sys.exit("spec/packbuf.md: run spec/vectors/annotate.py: the worked example is not that of its vector")
    else:
        SPEC.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
