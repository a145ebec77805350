"""Values that Python has no type for: media, opaque cells, and the mark of what is not there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NamedTuple, final

from packbuf import _core


@final
class _Missing:
    """A cell that its row does not have: the key is not there, which is not the same as None."""

    def __repr__(self) -> str:
        return "packbuf.MISSING"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()


class Opaque(NamedTuple):
    """Bytes of a named serializer, which packbuf does not run.

    >>> import packbuf
    >>> view = packbuf.open(packbuf.pack({"job": [packbuf.Opaque("msgspec", b"..."), None]}))
    >>> view["job"][0]
    Opaque(serializer='msgspec', data=b'...')
    """

    serializer: str
    data: bytes


@dataclass(frozen=True)
class Media:
    """An encoded file (``mime``) or raw pixels (``mode``, ``height``, ``width``, ``channels``), kept bit for bit.

    >>> import packbuf
    >>> pixel = packbuf.Media(bytes(3), mode="RGB", height=1, width=1, channels=3)
    >>> packbuf.open(packbuf.pack({"image": [pixel]}), images="media")["image"][0] == pixel
    True
    """

    data: bytes
    mime: str | None = None
    mode: str | None = None
    height: int | None = None
    width: int | None = None
    channels: int | None = None
    rate: float | None = None

    def image(self) -> Any:
        """The picture as a `PIL.Image.Image`; imports PIL. Decodes an encoded one."""
        import io  # noqa: PLC0415

        from PIL import Image  # noqa: PLC0415

        if self.mime is None and self.mode and self.height is not None and self.width is not None:
            return Image.frombytes(self.mode, (self.width, self.height), self.data)
        return Image.open(io.BytesIO(self.data))


def packed_of(data: bytes) -> _core.Packed:
    """A packed buffer of its bytes, as unpickling makes it."""
    return _core.Packed.copy_of(data)


def ref_of(text: str) -> _core.Ref:
    """A ref of its text, likewise."""
    return _core.Ref.parse(text)
