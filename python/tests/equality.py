"""The equality relation of section 16 of the spec, over Python values. Written for the tests, from the spec's words alone."""

from __future__ import annotations

import struct
import sys

import numpy as np

import packbuf


def torch_tensor(value):
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def parts(tensor):
    """dtype, shape and bits of an array, scalar or tensor."""
    if torch_tensor(tensor):
        import torch

        tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
        if tensor.is_sparse:
            raise TypeError("sparse")
        bits = bytes(tensor.flatten().view(torch.uint8).tolist()) if tensor.numel() else b""
        return str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), bits
    array = np.asarray(tensor)
    return str(array.dtype.newbyteorder("=")), array.shape, array.astype(array.dtype.newbyteorder("=")).tobytes()


def kind(value):
    """Which of the types of the relation a value has."""
    if value is None:
        return "null"
    if torch_tensor(value):
        return "tensor"
    if isinstance(value, np.ndarray):
        return "list" if value.dtype.kind in "OUS" else "array"
    if isinstance(value, np.generic) and not isinstance(value, (str, bytes)):
        return "scalar"
    if isinstance(value, complex):
        return "complex"
    for name, types in (
        ("bool", bool),
        ("int", int),
        ("float", float),
        ("string", str),
        ("bytes", (bytes, bytearray, memoryview)),
        ("opaque", packbuf.Opaque),
        ("list", (list, tuple)),
        ("dict", dict),
        ("media", packbuf.Media),
    ):
        if isinstance(value, types):
            return name
    return type(value).__name__


def same(a, b) -> bool:
    """Whether b, which was read, is a, which was written."""
    first, second = kind(a), kind(b)
    if first == "complex":  # a Python complex is a complex128 scalar
        a, first = np.complex128(a), "scalar"
    if first != second:
        return False
    if first in {"tensor", "array", "scalar"}:
        return parts(a) == parts(b)
    if first == "float":
        return struct.pack("<d", a) == struct.pack("<d", b)
    if first == "list":
        a, b = list(a), list(b)
        return len(a) == len(b) and all(map(same, a, b))
    if first == "dict":
        keys, others = {typed(key): key for key in a}, {typed(key): key for key in b}
        return keys.keys() == others.keys() and all(same(a[keys[key]], b[others[key]]) for key in keys)
    if first == "bytes":
        return bytes(a) == bytes(b)
    if first == "string":
        return str(a) == str(b)
    return a == b


def typed(key):
    return kind(key), struct.pack("<d", key) if kind(key) == "float" else key
