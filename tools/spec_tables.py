#!/usr/bin/env python3
"""Writes the rule and error tables of spec/packbuf.md (sections 13 and 14) from the lists in core/status.h; --check only compares."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SPEC = ROOT / "spec" / "packbuf.md"


def entries(text, macro):
    body = text.split(f"#define {macro}(X)", 1)[1].split("\n\n", 1)[0]
    for line in body.splitlines():
        found = re.match(r"\s*X\((.*)\)\s*\\?$", line)
        if found:
            yield [a if a is not None else b for a, b in
                   ((m.group(1), m.group(2)) for m in re.finditer(r'"([^"]*)"|([^\s,"]+)', found.group(1)))]


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def fill(text, name, body):
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end {name} -->"
    if begin not in text:
        return text.replace(name, begin + body + end)
    return text.split(begin)[0] + begin + body + end + text.split(end, 1)[1]


def main():
    header = (ROOT / "core" / "status.h").read_text()
    rules = [[e[0], e[2], e[3], e[4]] for e in entries(header, "PACKBUF_RULE_LIST")]
    errors = [[e[1], e[0], e[2]] for e in entries(header, "PACKBUF_STATUS_LIST")]
    old = SPEC.read_text()
    new = fill(old, "RULES_TABLE", table(["rule", "error", "what holds", "at"], rules))
    new = fill(new, "ERRORS_TABLE", table(["number", "error", "meaning"], errors))
    if "--check" in sys.argv[1:]:
        if old != new:
            sys.exit("spec/packbuf.md: its tables differ from core/status.h: run tools/spec_tables.py")
        return
    SPEC.write_text(new)


if __name__ == "__main__":
    main()
