"""What other packages ask of columns: Arrow's PyCapsule interface, and DLPack. None of these packages is imported."""

from __future__ import annotations

from typing import Any

from packbuf import _core
from packbuf._errors import Error

_CPU = 1


class Arrow:
    """Columns that any reader of Arrow takes: pyarrow, polars, duckdb, pandas, ... (``pyarrow.table(view)``).

    Data that lie in the packed buffer as Arrow has them are lent, the rest is copied; null and missing cells are null.
    """

    def _arrow(self) -> tuple[_core.Selection, int | None]:
        """The selection, and the node of it that is shown alone."""
        raise NotImplementedError

    def __arrow_c_schema__(self) -> object:
        """The type, as Arrow's PyCapsule interface has it."""
        chosen, node = self._arrow()
        return chosen.arrow_schema(node)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Type and data; the type is the column's own, whatever is requested."""
        chosen, node = self._arrow()
        return chosen.arrow_array(node)

    def __arrow_c_device_array__(self, requested_schema: object = None, **asked: object) -> tuple[object, object]:
        """The same for readers that ask where memory is: it is the processor's."""
        if any(value is not None for value in asked.values()):
            raise NotImplementedError(f"a packed buffer knows nothing of {', '.join(asked)}")
        chosen, node = self._arrow()
        return chosen.arrow_device_array(node)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Both as a stream of one array."""
        chosen, node = self._arrow()
        return chosen.arrow_stream(node)


def dlpack(
    chosen: _core.Selection,
    node: int,
    *,
    stream: Any,
    max_version: tuple[int, int] | None,
    device: tuple[int, int] | None,
    copy: bool | None,
) -> object:
    """A capsule with a column of numbers; BufferError where there is none, as the array API has it."""
    versioned = max_version is not None and max_version[0] >= 1
    if stream is not None:
        raise BufferError("memory of the processor has no stream")
    if device is not None and tuple(device) != (_CPU, 0):
        raise BufferError("a packed buffer is memory of the processor")
    if copy is False and not versioned:
        raise BufferError("DLPack before 1.0 cannot say read-only: ask for a copy")
    try:
        return chosen.dlpack(node, copy is True, copy is False, versioned)
    except Error as error:
        raise BufferError(str(error)) from error
