"""What callers give as text, numbers, flags, words and limits: each kind is checked here, with one error for it.

What `_core` is handed has passed through this room, or is looked at there by itself (values, keys, refs).
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from packbuf._errors import Status, error_of

Options = TypeVar("Options", bound=Mapping[str, object])

_MOST = (1 << 64) - 1
_SHOWN = 40


def text(value: Any, what: str, *, path: str = "") -> str:
    """Text that UTF-8 has: a str without lone surrogates; `what` begins the words of the error."""
    if not isinstance(value, str):
        raise error_of(Status.WRONG_TYPE, f"{what} is a str, not {type(value).__name__}", path=path)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            near = ascii(value[max(0, error.start - _SHOWN) : error.start + _SHOWN])
            words = f"{what} has a lone surrogate, which is no text, at character {error.start}: {near}"
            raise error_of(Status.BAD_UTF8, words, path=path) from None
    return value


def texts(values: Iterable[str] | str | None, what: str) -> list[str]:
    """Some text, or one; None: none."""
    if isinstance(values, str):
        values = [values]
    try:
        found = list(() if values is None else values)
    except TypeError:
        raise error_of(Status.WRONG_TYPE, f"{what} is a str, not {type(values).__name__}") from None
    return [text(value, what) for value in found]


def number(value: Any, what: str, most: int = _MOST) -> int:
    """A whole number from 0."""
    try:
        found = operator.index(value)
    except TypeError:
        raise error_of(Status.WRONG_TYPE, f"{what} is a whole number, not {type(value).__name__}") from None
    if not 0 <= found <= most:
        raise error_of(Status.INVALID_ARGUMENT, f"{what} is a whole number from 0 to {most}, not {found}")
    return found


def flag(value: Any, what: str, *, path: str = "") -> bool:
    """True or False: a word such as "no" would be true."""
    if not isinstance(value, (bool, np.bool_)):
        raise error_of(Status.WRONG_TYPE, f"{what} is True or False, not {value!r:.40}", path=path)
    return bool(value)


def word(words: Mapping[Any, int], word: Any, what: str, *, path: str = "") -> int:
    """The number that a word of an argument stands for; another word is refused with those there are."""
    try:
        return words[word]
    except (KeyError, TypeError):
        known = ", ".join(repr(known) for known in words)
        raise error_of(Status.INVALID_ARGUMENT, f"{what} is one of {known}, not {word!r}", path=path) from None


def mapping(given: Any, what: str) -> Mapping[Any, Any]:
    """What goes by name; None: nothing."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise error_of(Status.WRONG_TYPE, f"{what} is a mapping by name, not {type(given).__name__}")
    return given


def limits(wanted: Mapping[str, int] | None) -> dict[str, int]:
    """Limits by name; which names there are the C++ half knows."""
    given = mapping(wanted, "limits=")
    return {text(name, "a limit's name"): number(most, f"the limit {name}") for name, most in given.items()}


def secret(given: bytes | str | None) -> bytes | None:
    """The bytes of a secret, which no error shows."""
    if given is None:
        return None
    try:
        return given.encode() if isinstance(given, str) else bytes(memoryview(given))
    except UnicodeEncodeError as error:
        words = f"a secret has a lone surrogate, which is no text, at character {error.start}"
        raise error_of(Status.BAD_UTF8, words) from None
    except TypeError:
        raise error_of(Status.WRONG_TYPE, f"a secret is a str or bytes, not {type(given).__name__}") from None


def only(options: Options, kind: type[Any]) -> Options:
    """Those keyword arguments, all of which the TypedDict `kind` has: a misspelt ``ttl`` would keep an object for ever.

    Another word is a TypeError, as it is of every function in Python.
    """
    unknown = [name for name in options if name not in kind.__annotations__]
    if unknown:
        known = ", ".join(sorted(kind.__annotations__))
        raise TypeError(f"there is no option {', '.join(sorted(unknown))}: they are {known}")
    return options
