"""What a column of values would be stored as, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from packbuf import _core
from packbuf._arguments import text, word
from packbuf._table import Table

_KINDS = {1: "leaf", 2: "dict", 3: "list"}
_MODES = {"strict": 0, "compat": 1}
_FORMS = {0: "natural", 1: "list", 2: "array", 3: "tensor", 4: "scalar", 5: "bytes", 6: "media"}


class Inferred(NamedTuple):
    """One node of what was inferred: a dict or list that was expanded, or a leaf with its codec."""

    path: str
    kind: str
    codec: str | None
    accepted: bool
    dtype: str | None
    rank: int
    form: str
    typed: bool
    rows: int
    nulls: int
    missing: int
    children: int
    reason: str | None


class Inference(tuple[Inferred, ...]):
    """All nodes, parents before their children; prints as a table."""

    def table(self) -> Table:
        """The nodes as a table."""
        lines = [
            (
                node.path,
                node.codec or node.kind,
                node.dtype or "",
                str(node.nulls),
                str(node.missing),
                node.reason or "",
            )
            for node in self
        ]
        return Table("", ("PATH", "CODEC", "DTYPE", "NULLS", "MISSING", "REASON"), lines, numbers=(3, 4))

    def __str__(self) -> str:
        """The table as text."""
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def infer(values: Sequence[Any], name: str = "values", *, mode: Literal["strict", "compat"] = "strict") -> Inference:
    """What a column of values would be stored as, with reasons.

    >>> import packbuf
    >>> [(node.path, node.codec, node.dtype) for node in packbuf.infer([{"x": 1}, {"x": 2.5, "y": "a"}], "m")]
    [('m', None, None), ('m.x', 'ndarray', 'float64'), ('m.y', 'utf8_ragged', None)]
    """
    nodes = _core.infer(values, text(name, "a name"), word(_MODES, mode, "mode"))
    return Inference(
        Inferred(
            path,
            _KINDS[kind],
            codec,
            bool(accepted),
            dtype,
            rank,
            _FORMS[form],
            bool(typed),
            rows,
            nulls,
            missing,
            children,
            reason,
        )
        for path, kind, codec, accepted, dtype, rank, form, typed, rows, nulls, missing, children, reason in nodes
    )
