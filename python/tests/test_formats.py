""".npy, .npz and safetensors, both ways against numpy and the package safetensors, and files that nobody wrote so."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import numpy as np
import pytest
from conftest import ROOT
from mutations import Tally, mutants

import packbuf

safetensors = pytest.importorskip("safetensors")
safetensors_numpy = pytest.importorskip("safetensors.numpy")
ml_dtypes = pytest.importorskip("ml_dtypes")

NUMBERS = [np.dtype(name) for name in ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")]


def batch() -> dict:
    return {
        "ids": np.arange(12).reshape(3, 4),
        "mask": np.array([[True, False]] * 3),
        "one": np.arange(3, dtype=np.int8),
        "half": np.arange(3, dtype=np.float16),
        "ragged": [[1, 2, 3], [], [4]],
        "matrices": [np.arange(6.0).reshape(3, 2), np.zeros((0, 2)), np.ones((1, 2))],
        "deep": [{"x": i, "y": float(i)} for i in range(3)],
        "a.b": [1, 2, 3],
    }


def opened(columns, **options) -> packbuf.View:
    return packbuf.open(packbuf.pack(columns, **options), verify="all")


def same_column(a, b) -> None:
    if isinstance(a, packbuf.Ragged):
        assert isinstance(b, packbuf.Ragged) and len(a) == len(b)
        for one, other in zip(a, b):
            np.testing.assert_array_equal(one, other, strict=True)
    else:
        np.testing.assert_array_equal(a, b, strict=True)


def same_columns(a, b) -> None:
    assert list(a) == list(b)
    for name in a:
        same_column(a[name], b[name])


def status(call) -> str:
    with pytest.raises(packbuf.Error) as failure:
        call()
    return failure.value.code.name


def npz(*, compressed=False, **arrays) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npy(array, **options) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


# ---- npy ----


@pytest.mark.parametrize("array", [
    *(np.arange(6).astype(dtype).reshape(2, 3) for dtype in NUMBERS), np.array(5), np.zeros((3, 0)), np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.arange(4, dtype=">i4"), np.array(["a", "é"]), np.array([b"x"]), np.array(["2020-01-01"], dtype="datetime64[D]"), np.array([1 + 2j]), np.zeros((1,) * 20),
])  # fmt: skip
def test_npy_of_numpy(array, tmp_path):
    np.save(tmp_path / "a.npy", array)
    for source in (tmp_path / "a.npy", npy(array), npy(array, allow_pickle=False)):
        read = packbuf.from_npy(source)
        np.testing.assert_array_equal(read, array, strict=True)
        assert read.dtype == array.dtype and not read.flags.writeable


def test_npy_to_numpy(tmp_path):
    view = opened(batch())
    for name in ("ids", "mask", "one", "half"):
        packbuf.to_npy(view[name], tmp_path / "a.npy")
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), view[name].numpy(), strict=True)
    packbuf.to_npy(view["ids"], tmp_path / "a.npy", rows=slice(None, None, -1))
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), batch()["ids"][::-1])
    assert status(lambda: packbuf.to_npy(view["ragged"], tmp_path / "a.npy")) == "UNSUPPORTED_OPERATION"
    assert status(lambda: packbuf.to_npy(opened({"x": [1, None]})["x"], tmp_path / "b.npy")) == "NOT_NULLABLE"
    assert not (tmp_path / "b.npy").exists()


def header(text: str | bytes, version=1, data=b"") -> bytes:
    body = text if isinstance(text, bytes) else text.encode("latin-1")
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(body)) + body + data


@pytest.mark.parametrize("data, code", [
    (b"", "BAD_MAGIC"), (b"\x93NUMP", "BAD_MAGIC"), (b"\x93NUMPY\x01\x00", "TRUNCATED"), (b"\x93NUMPY\x09\x00\x00\x00\x00\x00", "UNSUPPORTED_VERSION"),
    (header("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}")[:30], "TRUNCATED"),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "LIMIT"),
    (header("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", data=b"cos\nsystem\n."), "UNSUPPORTED_DTYPE"),
    (npy(np.array([{}], dtype=object)), "UNSUPPORTED_DTYPE"), (npy(np.zeros(2, dtype=[("a", "i4")])), "UNSUPPORTED_DTYPE"), (npy(np.zeros(2, "m8[s]")), "UNSUPPORTED_DTYPE"),
    (npy(np.zeros(2, ml_dtypes.bfloat16)), "UNSUPPORTED_DTYPE"), (npy(np.zeros(2, "longdouble")), "UNSUPPORTED_DTYPE"),
    (header("__import__('os').system('x')"), "BAD_HEADER"), (header("(" * 5000), "BAD_HEADER"), (header("{}"), "BAD_HEADER"), (header(b"\xff", 3), "BAD_HEADER"), (header("7    "), "BAD_HEADER"), (header("\0    "), "BAD_HEADER"),
    (header("{'descr': '<i8', 'fortran_order': 0, 'shape': (1,)}"), "BAD_HEADER"), (header("{'descr': '<i8', 'fortran_order': False, 'shape': [1]}"), "BAD_HEADER"),
    (header("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", data=bytes(7)), "TRUNCATED"), (header("{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}", data=bytes(9)), "TRAILING_BYTES"),
    (header("{'descr': '<i8', 'fortran_order': False, 'shape': (-1,)}"), "BAD_SHAPE"), (header("{'descr': '<i8', 'fortran_order': False, 'shape': (True,)}"), "BAD_SHAPE"),
    (header("{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"), "BAD_SHAPE"), (header("{'descr': '<i8', 'fortran_order': False, 'shape': (0, 9223372036854775807)}"), "BAD_SHAPE"),
    (header("{'descr': '<i8', 'fortran_order': False, 'shape': (" + "1," * 40 + ")}", data=bytes(8)), "BAD_SHAPE"),
    (header("{'descr': '<U0', 'fortran_order': False, 'shape': (5,)}"), "UNSUPPORTED_DTYPE"), (header("{'descr': 'S999999999', 'fortran_order': False, 'shape': (5,)}"), "TRUNCATED"),
    (header("{'descr': '|b1', 'fortran_order': False, 'shape': (1,)}", data=b"\x02"), "BAD_BOOL"),
    (header("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", data=b"\xff" * 4), "BAD_UTF8"), (header("{'descr': '>U1', 'fortran_order': False, 'shape': (1,)}", data=b"\0\x11\0\0"), "BAD_UTF8"),
])  # fmt: skip
def test_npy_that_is_none(data, code):
    assert status(lambda: packbuf.from_npy(data)) == code


# ---- npz ----


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_of_numpy(compressed, tmp_path):
    arrays = {"a": np.arange(5), "b": np.zeros((5, 2), np.float16), "empty": np.zeros((0, 3)), "text": np.array(["x"] * 5), "sub/dir": np.array(1.5)}
    data = npz(compressed=compressed, **arrays)
    (tmp_path / "a.npz").write_bytes(data)
    for source in (data, tmp_path / "a.npz", str(tmp_path / "a.npz")):
        same_columns(arrays, packbuf.from_npz(source))
    kept = {name: arrays[name] for name in ("a", "b", "text")}
    assert opened(packbuf.from_npz(npz(**kept)))["text"].tolist() == ["x"] * 5


def test_npz_to_numpy_and_back(tmp_path):
    view = opened(batch())
    packbuf.to_npz(view, tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz", allow_pickle=False) as read:
        assert read.files == ["ids", "mask", "one", "half", "ragged", "ragged.offsets", "matrices", "matrices.offsets", "deep.x", "deep.y", "a.b"]
        np.testing.assert_array_equal(read["ids"], batch()["ids"], strict=True)
        assert read["ragged"].tolist() == [1, 2, 3, 4] and read["ragged.offsets"].tolist() == [0, 3, 3, 4]
        assert read["matrices"].shape == (4, 2) and read["matrices.offsets"].tolist() == [0, 3, 3, 4]
    back = packbuf.from_npz(tmp_path / "a.npz")
    again = opened(back)
    for name in ("ids", "mask", "one", "half", "a.b"):
        np.testing.assert_array_equal(again[name].numpy(), view[name].numpy(), strict=True)
        assert back[name].ctypes.data % 64 == 0 and back[name].base is not None
    for name in ("ragged", "matrices"):
        same_column(view[name].ragged(), again[name].ragged())
    packbuf.to_npz(again, tmp_path / "b.npz")
    assert packbuf.from_npz(tmp_path / "b.npz").keys() == back.keys()


def test_some_of_a_batch(tmp_path):
    view = opened({**batch(), "text": ["a", "b", None], "n": [1, None, 3], "t": np.array(["2020-01-01"] * 3, dtype="datetime64[D]"), "m": [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((1, 1))]})
    assert status(lambda: packbuf.to_npz(view, tmp_path / "a.npz", fields=["text"])) == "UNSUPPORTED_OPERATION"
    assert status(lambda: packbuf.to_npz(view, tmp_path / "a.npz", fields=["n"])) == "NOT_NULLABLE"
    assert status(lambda: packbuf.to_npz(view, tmp_path / "a.npz", fields=["m"])) == "WRONG_TYPE"
    assert not list(tmp_path.iterdir())
    packbuf.to_npz(view, tmp_path / "a.npz", fields=["n", "deep.*", "t"], rows=[2, 1], fill=0)
    read = np.load(tmp_path / "a.npz")
    assert read["n"].tolist() == [3, 0] and read["deep.x"].tolist() == [2, 1] and read["t"].dtype == "datetime64[D]"
    assert status(lambda: packbuf.to_safetensors(view, tmp_path / "b", fields=["t"])) == "UNSUPPORTED_DTYPE"
    assert status(lambda: packbuf.to_npz(opened({"x": [[1]], "x.offsets": [1]}), tmp_path / "c.npz")) == "DUPLICATE_NAME"


def test_nulls_are_filled_or_refused(tmp_path):
    view = packbuf.open(packbuf.pack({"n": [1, None, 3], "r": [[1, 2], None, [3]]}))
    packbuf.to_npy(view["n"], tmp_path / "n.npy", fill=7)
    assert np.load(tmp_path / "n.npy").tolist() == [1, 7, 3]
    with pytest.raises(packbuf.Error, match="NOT_NULLABLE"):
        packbuf.to_npz(view, tmp_path / "r.npz", fields="r")


def test_offsets_that_fit_nothing_are_arrays():
    for offsets in ([0, 2], [1, 3], [0, 2, 1, 3], [[0, 3]], [0.0, 3.0], []):
        read = packbuf.from_npz(npz(x=np.arange(3), **{"x.offsets": np.array(offsets)}))
        assert list(read) == ["x", "x.offsets"] and isinstance(read["x"], np.ndarray)
    read = packbuf.from_npz(npz(x=np.arange(3), **{"x.offsets": np.array([0, 1, 3])}))
    assert [row.tolist() for row in read["x"]] == [[0], [1, 2]]


def crafted(*, compressed=False, **changes) -> bytes:
    """A zip of one member whose directory is not quite right: field name -> value of the central directory."""
    data = bytearray(npz(compressed=compressed, a=np.arange(4)))
    at = data.rindex(b"PK\x01\x02")
    places = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "packed": (20, "<I"), "size": (24, "<I"), "offset": (42, "<I")}
    for name, value in changes.items():
        struct.pack_into(places[name][1], data, at + places[name][0], value)
    return bytes(data)


def test_npz_that_is_none():
    assert status(lambda: packbuf.from_npz(b"")) == status(lambda: packbuf.from_npz(b"PK")) == "BAD_MAGIC"
    assert status(lambda: packbuf.from_npz(crafted(offset=1))) == "BAD_LAYOUT"
    assert status(lambda: packbuf.from_npz(crafted(offset=2**32 - 2))) == "BAD_LAYOUT"
    assert status(lambda: packbuf.from_npz(crafted(size=2**32 - 2, packed=2**32 - 2))) == "TRUNCATED"
    assert status(lambda: packbuf.from_npz(crafted(size=7))) == "TRUNCATED"
    assert status(lambda: packbuf.from_npz(crafted(crc=1))) == "DATA_CHECKSUM"
    assert packbuf.from_npz(crafted(crc=1), verify=False)["a"].tolist() == [0, 1, 2, 3]
    assert status(lambda: packbuf.from_npz(crafted(flags=1))) == "UNSUPPORTED_OPERATION"
    assert status(lambda: packbuf.from_npz(crafted(method=14))) == "UNSUPPORTED_OPERATION"
    assert status(lambda: packbuf.from_npz(crafted(method=8))) == "DATA_CHECKSUM"
    assert status(lambda: packbuf.from_npz(crafted(compressed=True, size=161))) == "TRUNCATED", "a byte less than it says"
    assert status(lambda: packbuf.from_npz(npz(a=np.array([{}], dtype=object)))) == "UNSUPPORTED_DTYPE"
    bomb = npz(compressed=True, a=np.zeros(1 << 20))
    assert len(bomb) < 1 << 15 and status(lambda: packbuf.from_npz(bomb, decoded_bytes=1 << 20)) == "LIMIT"
    assert packbuf.from_npz(bomb)["a"].nbytes == 8 << 20
    both = npz(compressed=True, a=np.zeros(1000), b=np.zeros(1000))  # the limit is of both together
    assert status(lambda: packbuf.from_npz(both, decoded_bytes=12000)) == "LIMIT"
    assert len(packbuf.from_npz(both, decoded_bytes=20000)) == 2
    with io.BytesIO() as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.txt", "x")
        archive.close()
        assert status(lambda: packbuf.from_npz(file.getvalue())) == "UNSUPPORTED_OPERATION"


def test_what_a_small_file_may_unpack_to(monkeypatch):
    """By default 1 GiB, or 64 times the file; who knows the file may say more."""
    huge = crafted(size=(1 << 30) + 1, method=8)
    with pytest.raises(packbuf.Error, match="decoded_bytes=") as failure:
        packbuf.from_npz(huge)
    assert failure.value.code.name == "LIMIT"
    assert status(lambda: packbuf.from_npz(huge, decoded_bytes=1 << 31)) == "DATA_CHECKSUM"
    monkeypatch.setattr("packbuf._npy._UNPACKED_BYTES", 0)
    assert status(lambda: packbuf.from_npz(npz(compressed=True, a=np.zeros(1 << 20)))) == "LIMIT"
    noise = np.random.default_rng(0).integers(0, 99, 1 << 16)
    assert (packbuf.from_npz(npz(compressed=True, a=noise))["a"] == noise).all()


def test_members_that_share_their_bytes():
    """One megabyte that is named a thousand times would be a gigabyte to check."""
    data = bytearray(npz(a=np.zeros(1000)))
    at, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    entries = b""
    for i in range(9):
        entry = bytearray(data[at:end])
        entry[46:47] = b"%d" % i
        entries += entry
    tail = data[end:]
    struct.pack_into("<HHII", tail, 8, 9, 9, len(entries), at)
    assert status(lambda: packbuf.from_npz(bytes(data[:at] + entries + tail))) == "BAD_LAYOUT"


# ---- safetensors ----


def st_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_safetensors_of_the_package(tmp_path):
    arrays = {str(dtype): np.arange(6).astype(dtype).reshape(2, 3) for dtype in NUMBERS} | {"empty": np.zeros((2, 0), np.float32), "scalar": np.array(3.5), "é": np.arange(2), "c": np.array([1j], np.complex64)}
    path = tmp_path / "a.safetensors"
    safetensors_numpy.save_file(arrays, path, metadata={"by": "them"})
    for source in (path, path.read_bytes()):
        read = packbuf.from_safetensors(source)
        assert read.keys() == arrays.keys() and read.metadata == {"by": "them"}
        for name in arrays:
            same_column(arrays[name], read[name])
            assert not read[name].flags.writeable
    assert packbuf.open(packbuf.pack({}, rows=0, batch_values=read)).batch_values["scalar"] == 3.5  # tensors of any shape


def test_safetensors_to_the_package(tmp_path):
    path = tmp_path / "a.safetensors"
    columns = {**batch(), "bf16": np.arange(3).astype(ml_dtypes.bfloat16), "fp8": np.arange(3).astype(ml_dtypes.float8_e4m3fn), "fp8b": np.arange(3).astype(ml_dtypes.float8_e5m2)}
    view = opened(columns)
    packbuf.to_safetensors(view, path, metadata={"by": "me"})
    data = path.read_bytes()
    assert (8 + struct.unpack("<Q", data[:8])[0]) % 8 == 0
    with safetensors.safe_open(path, "numpy") as file:
        theirs = {name: file.get_tensor(name) for name in ("ragged", "ragged.offsets", "ids")}
    assert theirs["ragged"].tolist() == [1, 2, 3, 4] and theirs["ragged.offsets"].tolist() == [0, 3, 3, 4]
    np.testing.assert_array_equal(theirs["ids"], columns["ids"], strict=True)
    read = packbuf.from_safetensors(path)
    assert read.metadata == {"by": "me"} and list(read) == ["ids", "mask", "one", "half", "ragged", "matrices", "deep.x", "deep.y", "a.b", "bf16", "fp8", "fp8b"]
    for name in ("bf16", "fp8", "fp8b"):
        np.testing.assert_array_equal(read[name], columns[name], strict=True)
        assert packbuf.from_safetensors(path, bits=True)[name].dtype.kind == "u"
    assert all(array.flags.aligned for array in read.values() if isinstance(array, np.ndarray))
    again = opened(read)
    same_column(again["matrices"].ragged(), view["matrices"].ragged())
    for packing in ("none", "balanced"):  # packed numbers are copied out
        packbuf.to_safetensors(packbuf.pack(columns, packing=packing), tmp_path / packing, metadata={"by": "me"})
        assert (tmp_path / packing).read_bytes() == data


def test_safetensors_as_tensors(torch, tmp_path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.randn(3, 2).to(torch.bfloat16), "f": torch.ones(2).to(torch.float8_e5m2), "i": torch.arange(3), "e": torch.zeros(0)}
    save_file(tensors, path)
    read = packbuf.from_safetensors(path, torch=True)
    for name, tensor in tensors.items():
        assert read[name].dtype is tensor.dtype and torch.equal(read[name].float(), tensor.float()), name
    read["i"][0] = 7  # stays in this process
    assert load_file(path)["i"].tolist() == [0, 1, 2] == packbuf.from_safetensors(path)["i"].tolist()
    jagged = torch.nested.nested_tensor_from_jagged(torch.arange(5), torch.tensor([0, 2, 5]))
    packbuf.to_safetensors(packbuf.pack({"r": jagged, "w": tensors["w"][:2]}), path)
    read = packbuf.from_safetensors(path, torch=True)
    assert [row.tolist() for row in read["r"].unbind()] == [[0, 1], [2, 3, 4]]
    assert packbuf.open(packbuf.pack(read))["r"].torch().layout is torch.jagged
    assert torch.equal(load_file(path)["w"], tensors["w"][:2])


def tensor(dtype="U8", shape=(2,), places=(0, 2), **more) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(places), **more}


@pytest.mark.parametrize("data, code", [
    (b"", "TRUNCATED"), (bytes(7), "TRUNCATED"), (bytes(8), "BAD_JSON"), (st_file(b"{}", length=3), "TRUNCATED"), (st_file(b"{}", length=2**64 - 1), "LIMIT"), (st_file(b" {}"), "BAD_JSON"), (st_file(b"[]"), "BAD_JSON"),
    (st_file(b"{\xff}"), "BAD_JSON"), (st_file(b'{"a":' * 100000), "BAD_JSON"), (st_file(b'{"a":NaN}'), "BAD_JSON"), (st_file(b'{"a":1' + b"0" * 9999 + b"}"), "BAD_JSON"),
    (st_file(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "BAD_JSON"),
    (st_file({"__metadata__": {"a": 1}}), "BAD_METADATA"), (st_file({"__metadata__": []}), "BAD_METADATA"), (st_file({"a": 7}), "BAD_HEADER"), (st_file({"a": tensor(x=1)}, b"ab"), "BAD_HEADER"), (st_file({"a": {}}), "BAD_HEADER"),
    (st_file({"a": tensor("F4")}, b"ab"), "UNSUPPORTED_DTYPE"), (st_file({"a": tensor(7)}, b"ab"), "UNSUPPORTED_DTYPE"), (st_file({"a": tensor("O")}, b"ab"), "UNSUPPORTED_DTYPE"),
    (st_file({"a": tensor(places=(0, 3))}, b"ab"), "BAD_OFFSETS"), (st_file({"a": tensor(places=(2, 0))}, b"ab"), "BAD_OFFSETS"), (st_file({"a": tensor(places=(-2, 0))}, b"ab"), "BAD_OFFSETS"), (st_file({"a": tensor(places=(0, 2.0))}, b"ab"), "BAD_OFFSETS"), (st_file({"a": tensor(places=(0,))}, b"ab"), "BAD_OFFSETS"),
    (st_file({"a": tensor(shape=(3,))}, b"ab"), "BAD_SHAPE"), (st_file({"a": tensor(shape=(-2, -1))}, b"ab"), "BAD_SHAPE"), (st_file({"a": tensor(shape=(2**62, 4))}, b"ab"), "BAD_SHAPE"), (st_file({"a": tensor(shape=(0, 2**62, 4), places=(0, 0))}), "BAD_SHAPE"), (st_file({"a": tensor(shape=(True, 2))}, b"ab"), "BAD_SHAPE"), (st_file({"a": tensor(shape=(1,) * 40, places=(0, 1))}, b"a"), "BAD_SHAPE"),
    (st_file({"a": tensor()}, b"abc"), "TRAILING_BYTES"), (st_file({"a": tensor(places=(1, 3))}, b"abc"), "BAD_LAYOUT"), (st_file({"a": tensor(), "b": tensor()}, b"ab"), "BAD_LAYOUT"), (st_file({"a": tensor(), "b": tensor(places=(1, 3))}, b"abc"), "BAD_LAYOUT"),
    (st_file({"a": tensor("BOOL")}, b"\x01\x02"), "BAD_BOOL"), (st_file({}, b"x"), "TRAILING_BYTES"),
])  # fmt: skip
def test_safetensors_that_are_none(data, code):
    assert status(lambda: packbuf.from_safetensors(data)) == code


def test_the_package_refuses_them_too():
    """What it refuses of the list above is no matter of taste."""
    for data in (st_file({"a": tensor(shape=(3,))}, b"ab"), st_file({"a": tensor()}, b"abc"), st_file({"a": tensor(places=(1, 3))}, b"abc"), st_file({"a": tensor(), "b": tensor()}, b"ab")):
        with pytest.raises(safetensors.SafetensorError):
            safetensors_numpy.load(data)


# ---- any bytes ----

SEEDS = {
    packbuf.from_npy: [npy(np.arange(6.0).reshape(2, 3)), npy(np.array(["ab", "c"])), npy(np.arange(3))],
    packbuf.from_npz: [npz(x=np.arange(3), **{"x.offsets": np.array([0, 1, 3])}), npz(compressed=True, a=np.arange(100), b=np.array(["x"]))],
    packbuf.from_safetensors: [safetensors_numpy.save({"x": np.arange(3), "x.offsets": np.array([0, 1, 3]), "m": np.ones((2, 2), bool)}, {"k": "v"})],
}


def theirs(read, data):
    """The arrays as the package says that made the file."""
    if read is packbuf.from_safetensors:
        return safetensors_numpy.load(data)
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return {"": loaded} if read is packbuf.from_npy else {name: loaded[name] for name in loaded.files}


@pytest.mark.parametrize("read", SEEDS, ids=lambda read: read.__name__)
def test_mutated_files(read):
    """What is read of changed bytes is what their own package reads of them; the rest is refused by name."""
    tally = Tally()
    for seed, original in enumerate(SEEDS[read]):
        for bad in mutants(original, 600, seed):
            found = tally.of(lambda: read(bad))
            if found is None:
                continue
            found = found if isinstance(found, dict) else {"": found}
            arrays = theirs(read, bad)
            for name, array in found.items():
                if isinstance(array, packbuf.Ragged):
                    assert array.offsets.tolist() == arrays[name + ".offsets"].tolist()
                    array = array.values
                assert array.dtype == arrays[name].dtype and array.tobytes() == arrays[name].tobytes()
    tally.check(30, 300, 5)


# ---- whole batches ----


def test_ragged_as_a_column():
    ragged = packbuf.Ragged.of(np.arange(6, dtype=np.int32), np.array([0, 2, 2, 6]))
    view = opened({"r": ragged, "x": [1, 2, 3]})
    same_column(view["r"].ragged(), ragged)
    assert view["r"].codec == "typed_ragged" and view["r"].dtype == "int32"
    for items, offsets in ((np.zeros((0, 3)), [0]), (np.zeros((4, 0)), [0, 1, 4]), (np.zeros((4, 2, 3)), [0, 4, 4])):
        ragged = packbuf.Ragged.of(items, np.array(offsets))
        assert [row.shape for row in ragged] == [(b - a, *items.shape[1:]) for a, b in zip(offsets, offsets[1:])]
        same_column(ragged, opened({"r": ragged})["r"].ragged())
    for offsets in ([0, 9], [0, 3, 2], [-1, 2]):
        with pytest.raises(packbuf.Error):
            packbuf.pack({"r": packbuf.Ragged.of(np.arange(4), np.array(offsets))})


def test_the_sample_of_the_repository(tmp_path):
    arrays = {path.stem: packbuf.from_npy(path) for path in sorted((ROOT / "examples" / "sample").glob("*.npy"))}
    assert len(arrays) > 8
    packed = packbuf.pack(arrays, packing="balanced")
    packbuf.to_npz(packed, tmp_path / "a.npz")
    same_columns(arrays, packbuf.from_npz(tmp_path / "a.npz"))
    packbuf.to_safetensors(packed, tmp_path / "a.safetensors")
    same_columns(arrays, packbuf.from_safetensors(tmp_path / "a.safetensors"))
