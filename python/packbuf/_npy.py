"""numpy's files: .npy, one array, and .npz, a zip of them. Nothing in them is ever unpickled."""

from __future__ import annotations

import ast
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from packbuf import _formats
from packbuf._arguments import number
from packbuf._errors import Status, error_of
from packbuf._formats import Arrays, array_over, columns_of, memory_of, paired, size_of
from packbuf._select import Array
from packbuf._view import Field

_MAGIC = b"\x93NUMPY"
_MOST_HEADER = 10000  # as numpy has it: the text is parsed as Python
_DESCR = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU][1-9][0-9]{0,8}|M8\[[0-9]{0,3}[A-Za-z]{1,2}\])")
_LOCAL, _LOCAL_MAGIC, _UTF8 = 30, b"PK\x03\x04", 0x800
_ALIGNMENT = 64
_UNPACKED_BYTES, _UNPACKED_TIMES = 1 << 30, 64  # what compressed arrays may come to, whichever is more


def from_npy(source: Any) -> Array:
    """The array of a .npy file, mapped and read-only; or of bytes.

    Raises Error for what is malformed, and for arrays of objects, which are pickles, and structured ones.

    >>> import io, numpy as np, packbuf
    >>> file = io.BytesIO(); np.save(file, np.arange(6).reshape(2, 3))
    >>> packbuf.pack({"x": packbuf.from_npy(file.getvalue())}).nbytes > 0
    True
    """
    return _array(memory_of(source), "")


def to_npy(field: Field, path: Any, *, rows: Any = None, fill: Any = None) -> None:
    """Write a column of numbers as a .npy file; `fill` is what null and missing cells become.

    bfloat16 and float8 have no name there: they are written as unsigned integers of the same bits.
    """
    array = field.numpy(rows, fill=fill, bits=True) if field.codec == "ndarray" else None
    if array is None:
        text = f"a column of codec {field.codec or field.kind} is not one array: to_npz has ragged ones"
        raise error_of(Status.UNSUPPORTED_OPERATION, text, path=field.path)
    with _formats.written(path) as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def from_npz(source: Any, *, verify: bool = True, decoded_bytes: int | None = None) -> Arrays:
    """The arrays of a .npz file by name, as `pack` takes them: mapped and read-only, or unpacked if compressed.

    `name` and `name.offsets` that fit are one `Ragged`.

    Args:
        source: a path, or bytes.
        verify: the checksums of arrays that are mapped; reads all of them.
        decoded_bytes: the most that compressed arrays may come to, together; None: 1 GiB, or 64 times the size of the
            file where that is more. zip can make 3 GiB of a file of 3 MB.

    >>> import io, numpy as np, packbuf
    >>> file = io.BytesIO(); np.savez(file, a=np.arange(3), b=np.zeros((3, 2)))
    >>> packbuf.open(packbuf.pack(packbuf.from_npz(file.getvalue())))["a"].tolist()
    [0, 1, 2]
    """
    memory, arrays = memory_of(source), dict[str, Array]()
    most = max(_UNPACKED_BYTES, _UNPACKED_TIMES * memory.nbytes)
    if decoded_bytes is not None:
        most = number(decoded_bytes, "decoded_bytes")
    mapped, unpacked = memory.nbytes, most  # of which this much is left
    for name, info, archive in _members(memory):
        if info.compress_type == zipfile.ZIP_STORED:
            data, mapped = _stored(memory, info), mapped - info.file_size
            if mapped < 0:
                raise error_of(Status.BAD_LAYOUT, "members of the zip file overlap", path=name)
            if verify and zlib.crc32(data) != info.CRC:
                raise error_of(Status.DATA_CHECKSUM, "the checksum of the zip file is another", path=name)
        elif info.compress_type == zipfile.ZIP_DEFLATED:
            unpacked -= info.file_size
            if unpacked < 0:
                text = f"more than {most} bytes when unpacked: give decoded_bytes= if the file is to be trusted"
                raise error_of(Status.LIMIT, text, path=name)
            data = _unpacked(archive, info)
        else:
            raise error_of(Status.UNSUPPORTED_OPERATION, f"compressed by method {info.compress_type}", path=name)
        arrays[name] = _array(data, name)
    return Arrays(paired(arrays))


def to_npz(view: Any, path: Any, *, fields: Any = None, rows: Any = None, fill: Any = None) -> None:
    """Write columns of numbers as a .npz file, not compressed; a column below another is named by its path.

    Ragged columns become `name`, the elements of all rows, and `name.offsets`. bfloat16 and float8 are written as
    unsigned integers of the same bits. Text and other columns have no form there: `fields` leaves them out.

    Args:
        view: a `View`, or what `open` takes.
        path: of the file.
        fields: which, as `View.select` has it.
        rows: which.
        fill: what null and missing cells become; without it they are refused.
    """
    columns = list(columns_of(view, fields, rows, fill))
    with _formats.written(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for column in columns:
            _write_member(archive, file, column.name + ".npy", column.array)


# ---- .npy ----


class _Header(NamedTuple):
    dtype: np.dtype[Any]
    fortran: bool
    shape: tuple[int, ...]
    size: int


def _array(memory: memoryview, name: str) -> Array:
    header = _header(memory, name)
    size = size_of(header.shape, header.dtype.itemsize, name)
    left = memory.nbytes - header.size
    if left != size:
        code = Status.TRUNCATED if left < size else Status.TRAILING_BYTES
        raise error_of(code, f"an array of {size} bytes in {left}", path=name)
    if header.dtype.kind == "U" and size:  # numpy would fail later, in whatever reads the text
        points = np.frombuffer(memory[header.size :], np.dtype("u4").newbyteorder(header.dtype.byteorder))
        if points.max() > _LAST_POINT:
            raise error_of(Status.BAD_UTF8, "text with a code point beyond 10FFFF", path=name)
    return array_over(memory[header.size :], header.dtype, header.shape, fortran=header.fortran)


def _header(memory: memoryview, name: str) -> _Header:
    if memory[:6] != _MAGIC:
        raise error_of(Status.BAD_MAGIC, "no .npy file", path=name)
    if memory.nbytes < 12:
        raise error_of(Status.TRUNCATED, "a .npy file ends in its header", path=name)
    major, minor = memory[6], memory[7]
    if (major, minor) not in {(1, 0), (2, 0), (3, 0)}:
        raise error_of(Status.UNSUPPORTED_VERSION, f".npy {major}.{minor}", path=name)
    start = 10 if major == 1 else 12
    (length,) = struct.unpack_from("<H" if major == 1 else "<I", memory, 8)
    if length > _MOST_HEADER:
        raise error_of(Status.LIMIT, f"a header of {length} bytes", path=name)
    if start + length > memory.nbytes:
        raise error_of(Status.TRUNCATED, "a .npy file ends in its header", path=name)
    try:
        text = bytes(memory[start : start + length]).decode("utf-8" if major == 3 else "latin-1")
        told = ast.literal_eval(text.strip(" \n"))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        raise error_of(Status.BAD_HEADER, "the header of a .npy file is a Python dict", path=name) from None
    if not isinstance(told, dict) or told.keys() != {"descr", "fortran_order", "shape"}:
        raise error_of(Status.BAD_HEADER, "the header has descr, fortran_order and shape", path=name)
    if type(told["fortran_order"]) is not bool or not isinstance(told["shape"], tuple):
        raise error_of(Status.BAD_HEADER, "fortran_order is a bool, shape a tuple", path=name)
    return _Header(_dtype(told["descr"], name), told["fortran_order"], told["shape"], start + length)


def _dtype(descr: Any, name: str) -> np.dtype[Any]:
    if not isinstance(descr, str):
        raise error_of(Status.UNSUPPORTED_DTYPE, "a structured array: save its fields by themselves", path=name)
    if descr.lstrip("<>|=").startswith("O"):
        raise error_of(Status.UNSUPPORTED_DTYPE, "an array of objects is a pickle, and stays one", path=name)
    if not _DESCR.fullmatch(descr):
        raise error_of(Status.UNSUPPORTED_DTYPE, f"a .npy file of dtype {descr[:40]!r}", path=name)
    try:
        return np.dtype(descr)
    except (TypeError, ValueError):
        raise error_of(Status.UNSUPPORTED_DTYPE, f"numpy has no dtype {descr[:40]!r}", path=name) from None


_LAST_POINT = 0x10FFFF  # of Unicode


# ---- .npz ----


# what zipfile raises for what is none; NotImplementedError is a RuntimeError
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, ValueError, struct.error, zlib.error)


def _members(memory: memoryview) -> Iterator[tuple[str, zipfile.ZipInfo, zipfile.ZipFile]]:
    """Names of the arrays and where they are, each name once."""
    seen = set()
    try:
        archive = zipfile.ZipFile(_Window(memory))
    except (*_ZIP_ERRORS, OverflowError, MemoryError, IndexError) as error:
        raise error_of(Status.BAD_MAGIC, f"no .npz file ({error})") from None
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if not info.filename.endswith(".npy"):
            raise error_of(Status.UNSUPPORTED_OPERATION, "a .npz file holds .npy files", path=name)
        if name in seen:
            raise error_of(Status.DUPLICATE_NAME, "two arrays of the same name", path=name)
        seen.add(name)
        yield name, info, archive


def _stored(memory: memoryview, info: zipfile.ZipInfo) -> memoryview:
    """The bytes of a member that is not compressed, where they lie."""
    name, at = info.filename, info.header_offset
    local = memory[at : at + _LOCAL] if at >= 0 else memory[:0]
    if local.nbytes != _LOCAL or local[:4] != _LOCAL_MAGIC:
        raise error_of(Status.BAD_LAYOUT, "the zip file has no member there", path=name)
    if info.flag_bits & 1:
        raise error_of(Status.UNSUPPORTED_OPERATION, "an encrypted member", path=name)
    names, extra = struct.unpack_from("<HH", local, 26)
    start = at + _LOCAL + names + extra
    if memory[at + _LOCAL :][:names] != info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437"):
        raise error_of(Status.BAD_LAYOUT, "the zip file has two names for a member", path=name)
    if info.compress_size != info.file_size or info.file_size > memory.nbytes - start:
        raise error_of(Status.TRUNCATED, "the zip file ends in a member", path=name)
    return memory[start : start + info.file_size]


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> memoryview:
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size + 1)
    except _ZIP_ERRORS as error:
        text = f"a member of the zip file is broken ({error})"
        raise error_of(Status.DATA_CHECKSUM, text, path=info.filename) from None
    if len(data) != info.file_size:
        raise error_of(Status.TRUNCATED, "a member is not as long as the zip file says", path=info.filename)
    return memoryview(data)


class _Window:
    """Memory as the file that zipfile reads."""

    def __init__(self, memory: memoryview) -> None:
        self._memory, self._at = memory, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._memory.nbytes)[whence]
        if self._at < 0:
            raise ValueError("before the start")
        return self._at

    def read(self, count: int = -1) -> bytes:
        end = self._memory.nbytes if count is None or count < 0 else self._at + count
        data = bytes(self._memory[self._at : end])
        self._at += len(data)
        return data


def _write_member(archive: zipfile.ZipFile, file: Any, name: str, array: Array) -> None:
    """A member whose elements begin at a multiple of 64 in the file, so that they can be used where they lie."""
    info = zipfile.ZipInfo(name)
    info.file_size = array.nbytes + _MOST_HEADER
    big = info.file_size > zipfile.ZIP64_LIMIT * 0.95  # zipfile then adds a field of 20 bytes
    taken = file.tell() + _LOCAL + len(name.encode()) + 20 * big + 4
    info.extra = struct.pack("<HH", 0x5042, padding := -taken % _ALIGNMENT) + bytes(padding)
    with archive.open(info, "w", force_zip64=big) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
