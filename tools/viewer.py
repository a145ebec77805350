#!/usr/bin/env python3
"""Puts spec/reader.mjs into spec/viewer.html, which works from file:// and so can import nothing, and the hash of the page's script into its
Content-Security-Policy. With --check it only says whether the page is in step."""
import base64
import hashlib
import pathlib
import re
import sys

SPEC = pathlib.Path(__file__).resolve().parent.parent / "spec"


def reader_text():
    """The reader as a classic script: without exports, and without its command line."""
    text = (SPEC / "reader.mjs").read_text(encoding="utf-8").split("// ---- The command line")[0]
    text = re.sub(r"^export ", "", re.sub(r"\A#!.*\n", "", text), flags=re.M).rstrip()
    if "</script" in text.lower() or "<!--" in text:
        sys.exit("reader.mjs has text that ends a script")
    return text


def filled(page):
    page = re.sub(r'(<script type="text/plain" id="reader">\n).*?(</script>)', lambda m: f"{m[1]}{reader_text()}\n{m[2]}", page, count=1, flags=re.S)
    script = re.search(r"<script>(.*?)</script>", page, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return re.sub(r"'sha256-[^']*'", f"'sha256-{digest}'", page, count=1)


def main():
    path = SPEC / "viewer.html"
    page = path.read_text(encoding="utf-8")
    new = filled(page)
    if "--check" in sys.argv[1:]:
        if new != page:
            sys.exit("spec/viewer.html is not in step with spec/reader.mjs: run tools/viewer.py")
    elif new != page:
        path.write_text(new, encoding="utf-8")


main()
