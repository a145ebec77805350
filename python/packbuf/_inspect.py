"""The table of `View.inspect`: as the command ``packbuf inspect`` prints it, with a column of children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from packbuf._table import Table

if TYPE_CHECKING:
    from packbuf._view import Field, View

_STORED, _INLINE, _CONSTANT, _SEQUENCE, _ALIAS = range(1, 6)
_DATA, _ROW_INDEX, _PREFIX = 1, 10, 11
_STORAGES = {_STORED: "stored", _INLINE: "inline", _CONSTANT: "constant", _SEQUENCE: "sequence"}
_PROFILES = {0: "plain", 1: "balanced", 2: "fastest", 3: "smallest"}


def table(view: View) -> Table:
    """The columns, and the batch values below them."""
    head, index, data = view._core.sizes
    nodes, fields, values = view._core.counts
    lines = [_line(view, field) for field in map(view._field, range(nodes))]
    raw = sum(int(line[5]) for line in lines)
    caption = (
        f"packbuf batch, profile {_PROFILES.get(view._core.profile, '?')}: {view.num_rows} rows, {fields} fields, "
        f"{values} batch values\n{view.nbytes} bytes (raw {raw}): head {head}, index {index}, data {data}"
    )
    return Table(
        caption, ("FIELD", "CODEC", "DTYPE", "SHAPE", "STORAGE", "RAW", "STORED", "RATIO"), lines, numbers=(5, 6, 7)
    )


def _line(view: View, field: Field) -> tuple[str, ...]:
    storage, raw, stored = "", 0, 0
    for role, kind, modes, whole, kept, alias, _, _ in view._core.buffers(field.index):
        raw += whole
        stored += kept
        if role == _DATA:
            storage = "+".join(modes) or _STORAGES.get(kind, "?")
            if kind == _ALIAS and alias is not None:
                storage = "= " + _owner(view, alias)
        elif role in {_ROW_INDEX, _PREFIX}:
            storage += ", shared rows" if role == _ROW_INDEX else ", prefixes"
    ratio = f"{raw / stored:.2f}" if stored else "-"
    path = field.path if field.scope == 0 else f"values:{field.path}"
    shape = " ".join(map(str, field.shape)) if field.codec == "ndarray" else "ragged" * field.is_ragged_numbers
    codec = field.codec or field.kind
    dtype = (field.dtype or "") if field.codec == "ndarray" or field.is_ragged_numbers else ""
    return path, codec, dtype, shape, storage, str(raw), str(stored), ratio


def _owner(view: View, buffer: int) -> str:
    for index in range(view._core.counts[0]):
        if any(number == buffer for *_, number, _ in view._core.buffers(index)):
            return view._field(index).path
    return "?"
