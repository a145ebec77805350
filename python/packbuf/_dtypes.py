"""numpy dtypes of what numpy itself does not have: bfloat16 and float8, by ml_dtypes where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np

from packbuf._errors import Status, error_of


def added(name: str | None) -> np.dtype[Any]:
    """The dtype of that name, from ml_dtypes."""
    try:
        found: np.dtype[Any] = np.dtype(getattr(import_module("ml_dtypes"), str(name)))
        return found
    except (ImportError, AttributeError):
        text = f"numpy has no {name}: install ml_dtypes, read it with .torch(), or its bits with .numpy(bits=True)"
        raise error_of(Status.UNSUPPORTED_DTYPE, text) from None
