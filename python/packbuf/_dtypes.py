"""numpy dtypes of what numpy itself does not have: bfloat16 and float8, by ml_dtypes where it is installed."""

from __future__ import annotations

from typing import Any

import numpy as np

from packbuf._errors import Status, error_of


def added(name: str | None) -> np.dtype[Any]:
    """The dtype of that name, from ml_dtypes."""
    try:
        import ml_dtypes  # noqa: PLC0415

        return np.dtype(getattr(ml_dtypes, str(name)))
    except (ImportError, AttributeError):
        text = f"numpy has no {name}: install ml_dtypes, read it with .torch(), or its bits with .numpy(bits=True)"
        raise error_of(Status.UNSUPPORTED_DTYPE, text) from None
