"""A table that prints in a terminal and shows as HTML in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence


class Table:
    """Lines of text in columns, under a caption."""

    def __init__(
        self, caption: str, head: Sequence[str], lines: Sequence[Sequence[str]], *, numbers: Sequence[int] = ()
    ) -> None:
        self.caption, self.head, self.lines, self.numbers = (
            caption,
            tuple(head),
            [tuple(line) for line in lines],
            set(numbers),
        )

    def __str__(self) -> str:
        """The table as text; columns of numbers are right-aligned."""
        widths = [max(len(line[i]) for line in [self.head, *self.lines]) for i in range(len(self.head))]
        text = [self.caption, ""] if self.caption else []
        for line in [self.head, *self.lines]:
            cells = [
                cell.rjust(width) if i in self.numbers else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            text.append("  ".join(cells).rstrip())
        return "\n".join(text)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """The table for a notebook."""

        def row(tag: str, line: Sequence[str]) -> str:
            style = ' style="text-align:right"'
            cells = (
                f"<{tag}{style if i in self.numbers else ''}>{html.escape(cell)}</{tag}>" for i, cell in enumerate(line)
            )
            return "<tr>" + "".join(cells) + "</tr>"

        caption = "<br>".join(html.escape(line) for line in self.caption.splitlines())
        body = "".join(row("td", line) for line in self.lines)
        return f"<table><caption>{caption}</caption><thead>{row('th', self.head)}</thead><tbody>{body}</tbody></table>"
