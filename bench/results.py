"""bench/results.py: the rows of a run, and looking them up. May use: json. Must not know: what is printed."""
import json
import os

ORDER = ["avx512vbmi2", "avx512", "avx2", "simde", "vector", "plain"]  # lane sets, the fastest first
LARGE, SMALL = 256 << 20, 512 << 10


class Results:
    def __init__(self, rows):
        self.rows = rows
        sets = {row["kernels"] for row in rows if row["kernels"]}
        self.best = next((name for name in ORDER if name in sets), "")

    @staticmethod
    def read(*paths):
        rows = []
        for path in paths:
            if os.path.exists(path):
                with open(path) as file:
                    rows += json.load(file)
        return Results(rows)

    def get(self, name, op, what, kernels=None, size=LARGE, threads=1):
        """The row, or None. `what` is a main column's name or a column; kernels None: those of the best set, or the
        codec's own; size None: any."""
        for row in self.rows:
            if (row["name"] == name and row["op"] == op and what in (row.get("what"), row["column"])
                    and row["threads"] == threads and (size is None or row["bytes"] == size)
                    and row["kernels"] in ((self.best, "") if kernels is None else (kernels,))):
                return row
        return None

    def value(self, key, *arguments, **keywords):
        row = self.get(*arguments, **keywords)
        return row[key] if row else None

    def columns(self):
        return list(dict.fromkeys(row["column"] for row in self.rows if row["op"] in ("encode", "copy")))

    def peers(self):
        return list(dict.fromkeys(row["name"] for row in self.rows if row["op"] == "encode" and not row["kernels"] and row["column"] != "rows"))
