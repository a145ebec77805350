"""Everything about torch. Nothing here imports it but on behalf of a caller who asked for tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from packbuf._errors import Status, error_of

if TYPE_CHECKING:
    from packbuf._core import Selection

BITS = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
"""Dtypes that numpy lacks, and those their bits travel in."""


def is_tensor(value: object) -> bool:
    """Whether it is a torch tensor; False while nobody has imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def need() -> Any:
    """The module torch; imports it, because the caller asks for tensors."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        raise error_of(Status.UNSUPPORTED_OPERATION, "torch is not installed") from None
    return torch


# ---- on the way in ----


def describe(tensor: Any) -> tuple[Any, int, str, tuple[int, ...], tuple[int, ...]]:
    """What an unusual tensor is: (tensor to hold, address, dtype, shape, strides in bytes)."""
    torch = sys.modules["torch"]
    if tensor.is_nested:
        raise error_of(Status.UNENCODABLE, "a nested tensor within a value: it is packed as a field of its own")
    if tensor.layout is not torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise error_of(Status.UNENCODABLE, f"a tensor of layout {layout}: call .to_dense()")
    if tensor.is_quantized:
        raise error_of(Status.UNSUPPORTED_DTYPE, "a quantized tensor: call .dequantize() or .int_repr()")
    tensor = tensor.detach().resolve_conj().resolve_neg()
    tensor = to_host(tensor)
    size = tensor.element_size()
    name = str(tensor.dtype).removeprefix("torch.")
    strides = tuple(step * size for step in tensor.stride())
    return tensor, tensor.data_ptr(), name, tuple(tensor.shape), strides


def to_host(tensor: Any) -> Any:
    """One copy of a device's tensor, which is waited for, into pinned memory where there is any; of the CPU: itself."""
    if tensor.device.type == "cpu":
        return tensor
    if tensor.device.type == "meta":
        raise error_of(Status.UNSUPPORTED_DEVICE, "a tensor on the device meta has no data")
    if tensor.is_nested:
        return tensor.cpu()
    return memory(tensor.shape, tensor.dtype, tensor.device).copy_(tensor)


def memory(shape: Any, kind: Any, device: Any) -> Any:
    """Memory of this host for what comes from a device or goes there: of CUDA pinned, where there is any."""
    torch = need()
    kind = dtype(kind) if isinstance(kind, str) else kind
    device = torch.device(device) if isinstance(device, (str, int)) else device
    try:
        return torch.empty(shape, dtype=kind, pin_memory=getattr(device, "type", None) == "cuda")
    except RuntimeError:
        return torch.empty(shape, dtype=kind)


def rows_of(tensor: Any) -> tuple[Any, Any, Any] | list[Any] | None:
    """A nested tensor as (values, offsets, lengths or None) where it can be, else as a list; None: it is not nested."""
    torch = sys.modules["torch"]
    jagged = getattr(sys.modules.get("torch.nested._internal.nested_tensor"), "NestedTensor", ())
    if not isinstance(tensor, jagged):
        return list(to_host(tensor.detach()).unbind()) if tensor.is_nested else None
    # by its fields where it has them: each of its methods goes through dispatch in Python, 20 us a column
    values = getattr(tensor, "_values", None)
    values = values.detach() if isinstance(values, torch.Tensor) else tensor.detach().values()
    if getattr(tensor, "_ragged_idx", 0) == 1 and values.is_contiguous():
        lengths = tensor.lengths()
        return to_host(values), to_host(tensor.offsets()), None if lengths is None else to_host(lengths)
    return list(to_host(tensor.detach()).unbind())


# ---- on the way out ----


def dtype(name: str) -> Any:
    """The dtype of that name."""
    return getattr(need(), name)


def tensor(elements: np.ndarray[Any, Any], name: str) -> Any:
    """A cell that was a tensor: a copy, since torch has no read-only tensors."""
    torch = need()
    if name in BITS:
        return torch.from_numpy(elements.copy()).view(dtype(name))
    return torch.from_numpy(elements.copy())


def in_place(elements: np.ndarray[Any, Any], name: str) -> Any:
    """A cell that was a tensor, over the same memory; copied only where that is not aligned."""
    made = need().from_numpy(elements if elements.flags.aligned else elements.copy())
    return made.view(dtype(name)) if name in BITS else made


def shared(elements: np.ndarray[Any, Any], name: str) -> Any:
    """A tensor over the same memory. Writing to it is forbidden, and torch does not know."""
    import warnings  # noqa: PLC0415

    torch = need()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "the given array is not writable"
        made = torch.from_numpy(elements)
    return made.view(dtype(name)) if name in BITS else made


def column(selection: Selection, node: int, name: str, device: Any) -> Any:
    """A dense column as a new tensor, in pinned memory where it will go on to CUDA."""
    rows, _, size, _, shape = selection.size(node)
    made = memory((rows, *shape), name, device)
    selection.copy_to_address(node, made.data_ptr(), size)
    return made


def as_bytes(tensor: Any) -> Any:
    """The memory of a tensor of one dimension as a numpy array."""
    return tensor.view(need().uint8).numpy()


def sent(tensor: Any, device: Any, non_blocking: bool) -> Any:
    """A tensor of this host on a device. torch keeps pinned memory until the copy is done, whoever drops it."""
    return tensor if device is None else tensor.to(device, non_blocking=non_blocking)


def jagged(ragged: Any, values: Any, send: Callable[[Any], Any], tail: tuple[int, ...] | None = None) -> Any:
    """Ragged rows as one nested tensor, where their elements are and `send` sends offsets.

    tail: what follows their first dimension, where it is known beforehand.
    """
    torch = need()
    flat_rows = ragged.shapes is None and bool((ragged.ndims == 1).all())
    if flat_rows and not tail:
        return torch.nested.nested_tensor_from_jagged(values, send(torch.from_numpy(ragged.offsets)))
    tail = ragged.tail() if tail is None and len(ragged) else tail
    if tail is not None:
        lengths = np.diff(ragged.offsets) if ragged.shapes is None else ragged.shapes[0]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        items = values.reshape(int(offsets[-1]), *tail)
        return torch.nested.nested_tensor_from_jagged(items, send(torch.from_numpy(offsets)))
    if not len(ragged):
        return torch.nested.nested_tensor([], dtype=values.dtype, device=values.device)
    return torch.nested.as_nested_tensor(cells(ragged, values))


def cells(ragged: Any, values: Any) -> list[Any]:
    """Each row as a tensor of its own shape."""
    ends, rows = ragged.offsets, []
    for row in range(len(ragged)):
        shape = [] if ragged.shapes is None else [int(n) for n in ragged.shapes[: ragged.ndims[row], row]]
        flat = values[int(ends[row]) : int(ends[row + 1])]
        rows.append(flat.reshape(shape if ragged.shapes is not None or not ragged.ndims[row] else [-1]))
    return rows


def nested(ragged: Any, values: Any, layout: str, name: str) -> Any:
    """Ragged rows as one nested tensor of a layout, where their elements are; name: the dtype where there are none."""
    torch = need()
    if layout not in {"strided", "jagged"}:
        raise error_of(Status.WRONG_TYPE, f"{layout!r} is no layout of nested tensors")
    layout = getattr(torch, layout)
    if not len(ragged):
        return torch.nested.nested_tensor([], dtype=dtype(name), layout=layout, device=values.device)
    return torch.nested.as_nested_tensor(cells(ragged, values), layout=layout)
