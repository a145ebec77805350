"""bench/plot.py JSON FOLDER: speed against stored size of the main columns, an SVG and a PNG. May use: matplotlib."""
import json
import sys

try:
    import matplotlib
except ImportError:
    sys.exit("bench: no matplotlib: no plot")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

COLUMNS = ("tokens", "padded tokens", "mask", "positions", "log-probs", "padded log-probs")
COLORS = {"packbuf": "#c0392b", "packbuf fastest": "#e67e22", "packbuf smallest": "#8e44ad", "packbuf plain": "#7f8c8d"}


def main(path, folder):
    with open(path) as file:
        rows = json.load(file)
    sets = [row["kernels"] for row in rows if row["name"] == "packbuf plain"]
    figure, axes = plt.subplots(2, len(COLUMNS), figsize=(4 * len(COLUMNS), 8), squeeze=False)
    for i, op in enumerate(("encode", "decode")):
        for k, column in enumerate(COLUMNS):
            axis = axes[i][k]
            for row in rows:
                at = row.get("what") or row["column"]
                if row["op"] != op or at != column or row["threads"] != 1 or row["bytes"] == 512 << 10 or not row.get("x_memcpy"):
                    continue
                if row["kernels"] not in ("", *sets) or "stores" in row["name"] or "CRC" in row["name"]:
                    continue
                quoted = row.get("quoted", False)
                ours = row["name"] in COLORS
                axis.scatter(100 / row["stored_ratio"], row["x_memcpy"], s=60 if ours else 25, color=COLORS.get(row["name"], "#2980b9"),
                             marker="x" if quoted else "o", zorder=3)
                axis.annotate(row["name"] + (" (quoted)" if quoted else ""), (100 / row["stored_ratio"], row["x_memcpy"]), fontsize=6,
                              xytext=(4, 3), textcoords="offset points")
            axis.axhline(1, color="black", linewidth=0.8, linestyle=":")
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(True, which="both", linewidth=0.2)
            axis.set_title(f"{column}: {op}", fontsize=9)
            axis.set_xlabel("stored size, % of raw")
            axis.set_ylabel("speed, x memcpy")
    figure.tight_layout()
    figure.savefig(f"{folder}/bench.svg")
    figure.savefig(f"{folder}/bench.png", dpi=80)
    print(f"bench: {folder}/bench.svg, {folder}/bench.png")


main(*sys.argv[1:])
