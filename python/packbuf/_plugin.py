"""What the walk in C++ asks about: values that are neither built in nor numpy's nor torch's, and the way back.

Called once for each such value, so what is common never comes here.
"""

from __future__ import annotations

import datetime as dt
import pickle
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from packbuf import _torch
from packbuf._errors import Status, error_of
from packbuf._values import MISSING, Media, Opaque

__all__ = ["MISSING", "decimal", "describe", "integer", "media", "opaque", "time", "time_dtype"]

_EPOCH = dt.datetime(1970, 1, 1)
_DAY = dt.date(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_DIGITS = 4000  # Python refuses to print or parse more than 4300 at once
_RAW_MODES = frozenset(
    {"1", "L", "LA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16", "La", "RGBa"}
)
_CHANNELS = {"LA": 2, "La": 2, "RGB": 3, "YCbCr": 3, "LAB": 3, "HSV": 3, "RGBA": 4, "RGBa": 4, "RGBX": 4, "CMYK": 4}


def decimal(number: int) -> str:
    """Any integer as decimal text.

    >>> decimal(-(10**5000)) == "-1" + "0" * 5000
    True
    """
    number = int.__pos__(number)  # of a subclass, too, what it is and not what it says
    if number < 0:
        return "-" + decimal(-number)
    pieces = []
    while number:
        number, rest = divmod(number, 10**_DIGITS)
        pieces.append(f"{rest:0{_DIGITS}d}" if number else str(rest))
    return "".join(reversed(pieces)) or "0"


def integer(text: str) -> int:
    """And back.

    >>> integer(decimal(7**9000)) == 7**9000
    True
    """
    return -_joined(text[1:]) if text.startswith("-") else _joined(text)


def _joined(digits: str) -> int:
    """By halves: piece by piece, a stranger's megabytes of digits take time by their square."""
    if len(digits) <= _DIGITS:
        return int(digits)
    low = len(digits) // 2
    power: int = 10**low
    return _joined(digits[:-low]) * power + _joined(digits[-low:])


# ---- on the way in ----


def describe(value: Any, allow_pickle: bool, stand_in: Callable[[Any], Any] | None) -> tuple[Any, ...] | None:
    """What a value is, as (word, ...) for walk.cpp; None when packbuf has nothing for it."""
    if isinstance(value, np.ndarray) or _torch.is_tensor(value):  # asked about only where there is a stand-in
        return _replaced(value, stand_in)
    if isinstance(value, memoryview):
        return ("buffer", value) if value.format in {"B", "b", "c"} else ("value", np.asarray(value))
    if isinstance(value, complex):
        return "complex", np.complex128(value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is not None:
            told = _replaced(value, stand_in) or (_pickled(value) if allow_pickle else None)
            return told or ("refuse", "a datetime with a time zone: the zone would be lost")
        return "time", (value - _EPOCH) // _MICROSECOND, "us"
    if isinstance(value, dt.date):
        return "time", (value - _DAY).days, "D"
    if isinstance(value, Media):
        return "media", value.data, value.mime, value.mode, value.height, value.width, value.channels, value.rate
    if isinstance(value, Opaque):
        return "opaque", value.serializer, value.data
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(value, pil.Image):
        return _describe_image(value)
    if value is MISSING:
        return "refuse", "MISSING stands for a key that is not there: leave the key out"
    told = _replaced(value, stand_in)
    if told is not None:
        return told
    if allow_pickle and not isinstance(value, tuple):
        return _pickled(value)
    try:
        view = None if isinstance(value, tuple) else memoryview(value)
    except (TypeError, BufferError, ValueError):
        return None
    return None if view is None else describe(view, allow_pickle, None)


# what may stand in for a value: none of these is asked about again, so that this ends
_KNOWN = (type(None), bool, int, float, complex, str, bytes, bytearray, list, dict, np.generic, Media, Opaque)


def _replaced(value: Any, stand_in: Callable[[Any], Any] | None) -> tuple[Any, ...] | None:
    """What `default` has in place of a value; None: nothing."""
    other = NotImplemented if stand_in is None else stand_in(value)
    if other is NotImplemented:
        return None
    if isinstance(other, Opaque):
        return "opaque", other.serializer, other.data
    if isinstance(other, np.ndarray) and other.dtype.kind not in "OUST":
        return "value", other
    if isinstance(other, _KNOWN):
        return "value", other
    return "refuse", f"default() returned a {type(other).__name__}: what stands in is built in, or numpy's"


def _pickled(value: object) -> tuple[str, str, bytes]:
    return "opaque", "pickle5", pickle.dumps(value, protocol=5)


def _describe_image(image: Any) -> tuple[Any, ...]:
    """Raw pixels where they are all there is; a palette goes into a PNG file, which loses nothing either."""
    if image.mode in _RAW_MODES:
        return "media", image.tobytes(), None, image.mode, image.height, image.width, _CHANNELS.get(image.mode, 1), None
    if image.mode == "P":
        import io  # noqa: PLC0415

        file = io.BytesIO()
        image.save(file, "PNG")
        return "media", file.getvalue(), "image/png", None, image.height, image.width, None, None
    return "refuse", f"a PIL image of mode {image.mode}: convert it"


# ---- on the way out ----


def media(  # noqa: PLR0917
    data: bytes,
    mime: str | None,
    mode: str | None,
    height: int | None,
    width: int | None,
    channels: int | None,
    rate: float | None,
    images: int,
) -> Any:
    """A media cell: raw pixels as a PIL image if PIL is imported (images 1: in any case, 0: never), else `Media`."""
    cell = Media(data, mime=mime, mode=mode, height=height, width=width, channels=channels, rate=rate)
    raw = mime is None and mode is not None and height is not None and width is not None and rate is None
    if raw and (images > 0 or (images < 0 and "PIL.Image" in sys.modules)):
        return cell.image()
    return cell


def opaque(serializer: str, data: bytes, allow_pickle: bool) -> Any:
    """An opaque cell: unpickled only if the reader allowed it."""
    if allow_pickle and serializer == "pickle5":
        return pickle.loads(data)
    return Opaque(serializer, data)


def time(number: int, unit: str) -> dt.datetime | dt.date | np.datetime64:
    """A time that was a datetime or date; of other units, and out of their range, numpy's."""
    try:
        if unit == "us":
            return _EPOCH + number * _MICROSECOND
        if unit == "D":
            return _DAY + dt.timedelta(days=number)
    except (OverflowError, ValueError):
        pass
    return np.datetime64(number, time_unit(unit))  # type: ignore[call-overload,no-any-return]


def time_unit(unit: str) -> str:
    """The unit of a timestamp column, if it is one that numpy has."""
    if unit not in {"s", "ms", "us", "ns", "D"}:
        raise error_of(Status.UNSUPPORTED_DTYPE, f"times in {unit!r}")
    return unit


def time_dtype(unit: str) -> np.dtype[np.datetime64]:
    """The dtype of such a column."""
    return np.dtype(f"datetime64[{time_unit(unit)}]")
