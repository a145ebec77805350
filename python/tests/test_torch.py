"""Tensors: in without a copy, out as tensors; dtypes that numpy lacks, layouts, strides, views."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from equality import same

import packbuf
from packbuf import Status


def opened(batch, **options):
    return packbuf.open(packbuf.pack(batch, **options))


NAMES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 bfloat16 float32 float64 complex64 complex128 float8_e4m3fn float8_e5m2"


@pytest.mark.parametrize("name", NAMES.split())
@pytest.mark.parametrize("packing", [None, "balanced"])
def test_every_dtype(torch, name, packing):
    x = torch.arange(12).reshape(3, 4).to(getattr(torch, name))
    view = opened({"x": x, "cells": list(x), "v": [{"t": row} for row in x]}, packing=packing)
    assert view["x"].dtype == name
    assert same(x, view["x"].torch()) and same(list(x), view["cells"].tolist()) and same(x[1], view["v"][1]["t"])
    assert same(x[::2], view["x"].torch(slice(None, None, 2))) and same(x[[2, 0]], view["x"].torch([2, 0]))
    if packing is None:
        assert same(x, view["x"].torch(share=True)) or name == "bool"


def unusual(torch):
    base = torch.arange(24.0).reshape(4, 6)
    return {
        "slice": base[:, 1:4],
        "step": base[::2],
        "transposed": base.t(),
        "expanded": torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1).expand(3, 5),
        "grad": torch.ones(4, 2, requires_grad=True),
        "graph": torch.ones(4, 2, requires_grad=True) * 2,
        "parameter": torch.nn.Parameter(torch.ones(2, 3)),
        "conjugate": torch.complex(base, base).conj(),
        "negative": torch.complex(base, base).conj().imag,
        "empty": torch.empty(0, 3),
        "no columns": torch.empty(3, 0),
        "offset": base.flatten()[5:17].view(4, 3),
        "half a view": base.to(torch.bfloat16)[:, ::3],
        "permuted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
    }


def test_unusual_tensors(torch):
    for name, x in unusual(torch).items():
        assert same(x, opened({"x": x})["x"].torch()), name
        assert same([x, None], opened({"x": [x, None]})["x"].tolist()), name
        assert same({"x": x}, opened({"v": [{"x": x}]})["v"][0]), name


def test_tensors_are_not_copied_on_the_way_in(torch):
    x = torch.arange(6.0).reshape(2, 3)
    view = opened({"x": x}, row_sharing=False)
    assert view["x"].torch(share=True).data_ptr() == view["x"].numpy().ctypes.data
    view["x"].torch()[0, 0] = 9  # a copy: writing is fine
    assert view["x"].numpy()[0, 0] == 0 and x[0, 0] == 0


@pytest.mark.parametrize("layout", ["jagged", "strided"])
@pytest.mark.parametrize("name", ["float32", "bfloat16", "int64"])
def test_nested_tensors(torch, layout, name):
    rows = [torch.arange(n * 2).reshape(n, 2).to(getattr(torch, name)) for n in (3, 1, 0, 4)]
    nested = torch.nested.nested_tensor(rows, layout=getattr(torch, layout))
    view = opened({"x": nested})
    assert same(rows, view["x"].tolist()) and view["x"].codec == "ragged_tensor"


def test_jagged_tensors_with_holes(torch):
    holes = torch.nested.nested_tensor_from_jagged(torch.arange(8), torch.tensor([0, 4, 8]), torch.tensor([2, 3]))
    assert same([torch.tensor([0, 1]), torch.tensor([4, 5, 6])], opened({"x": holes})["x"].tolist())
    values = torch.arange(12).reshape(2, 6).t()  # not contiguous
    turned = torch.nested.nested_tensor_from_jagged(values, torch.tensor([0, 2, 6]))
    assert same([values[:2], values[2:]], opened({"x": turned})["x"].tolist())


def test_cells_are_aligned_and_their_own(torch):
    packed = packbuf.pack({"x": [torch.arange(3), torch.arange(2)], "b": [torch.ones(3).bfloat16(), torch.ones(2).bfloat16()]})
    view = packbuf.open(memoryview(b"?" + packed)[1:], tensors="shared")
    cell = view["x"][0]
    assert cell.data_ptr() % 8 == 0 and cell.tolist() == [0, 1, 2]
    view = packbuf.open(memoryview(bytearray(packed)))
    for name in ("x", "b"):
        view[name][0].fill_(7)
    assert view["x"][0].tolist() == [0, 1, 2] and view["b"][0].tolist() == [1, 1, 1]


def test_absent_rows(torch):
    view = opened({"x": [1, None, 3], "r": [None, [1, 2], [3]], "m": [torch.ones(2, 3), None, torch.ones(1, 3)]})
    with pytest.raises(packbuf.Error, match="NOT_STORED"):
        view["x"].torch(share=True, fill=0)
    assert view["x"].torch(fill=0).tolist() == [1, 0, 3]
    assert [row.tolist() for row in view["r"].torch(fill=0).unbind()] == [[], [1, 2], [3]]
    assert [tuple(row.shape) for row in view["m"].torch(fill=0).unbind()] == [(2, 3), (0, 3), (1, 3)]
    assert view["m"].torch([]).numel() == 0


def test_jagged_out(torch):
    rows = [torch.arange(3), torch.arange(1), torch.arange(0)]
    back = opened({"x": rows})["x"].torch()
    assert back.is_nested and back.layout is torch.jagged and same(rows, list(back.unbind()))
    lists = opened({"x": [[1.5], [2.5, 3.5]]})["x"].torch()
    assert [row.tolist() for row in lists.unbind()] == [[1.5], [2.5, 3.5]]
    mixed = opened({"x": [torch.ones(2, 3), torch.ones(1, 3)]})["x"].torch()
    assert [tuple(row.shape) for row in mixed.unbind()] == [(2, 3), (1, 3)]


def test_refused(torch):
    for x, code in [
        (torch.eye(2).to_sparse(), Status.UNENCODABLE),
        (torch.eye(2).to_sparse_csr(), Status.UNENCODABLE),
        (torch.tensor(1.0), Status.INVALID_ARGUMENT),
        (torch.empty(2, device="meta"), Status.UNSUPPORTED_DEVICE),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), Status.UNSUPPORTED_DTYPE),
        (torch.zeros(2, dtype=torch.float8_e4m3fnuz), Status.UNSUPPORTED_DTYPE),
    ]:
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"x": x})
        assert caught.value.code == code and caught.value.path == "x", caught.value


def test_into_tensors(torch):
    x = torch.arange(20).reshape(5, 4)
    view = opened({"x": x, "b": x.to(torch.bfloat16)})
    out = {"x": torch.empty(2, 4, dtype=torch.int32), "b": torch.empty(2, 4, dtype=torch.bfloat16)}
    view.select(rows=[4, 1]).into(out)
    assert same(x[[4, 1]].int(), out["x"]) and same(x[[4, 1]].to(torch.bfloat16), out["b"])
    memory = torch.zeros(4096, dtype=torch.uint8)
    size = packbuf.pack_into({"x": x}, memory)
    assert same(x, packbuf.open(memory.numpy())["x"].torch()) and 0 < size <= 4096
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack_into({"x": x}, torch.zeros(64, 128, dtype=torch.uint8)[:, ::2])
    assert caught.value.code == Status.READ_ONLY


def test_which_type_comes_back(torch):
    packed = packbuf.pack({"x": [torch.ones(2)], "b": torch.ones(1, 2, dtype=torch.bfloat16)})
    assert isinstance(packbuf.open(packed)["x"][0], torch.Tensor)
    assert isinstance(packbuf.open(packed, tensors="numpy")["x"][0], np.ndarray)
    assert packbuf.open(packed)["b"].numpy(bits=True).dtype == np.uint16


def test_nulls(torch):
    view = opened({"n": [1, None]})
    with pytest.raises(packbuf.Unencodable):
        view["n"].torch()
    assert view["n"].torch(fill=7).tolist() == [1, 7]


def test_torch_is_never_imported_by_us(tmp_path):
    import subprocess
    import sys

    code = "import packbuf, sys, numpy; v = packbuf.open(packbuf.pack({'x': numpy.ones((2, 2)), 't': [[1], []]})); v.rows(); v['x'].numpy(); assert 'torch' not in sys.modules and 'PIL' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(Path(packbuf.__file__).parents[1])})


def test_default_for_tensors_that_are_refused(torch):
    def default(value):
        return {"dense": value.to_dense()} if value.is_sparse else list(value.unbind()) if value.is_nested else NotImplemented

    nested = torch.nested.as_nested_tensor([torch.zeros(2), torch.ones(3)], layout=torch.jagged)
    cell = {"s": torch.eye(2).to_sparse(), "n": nested, "t": torch.zeros(1)}
    back = packbuf.open(packbuf.pack({"x": [cell]}, default=default))["x"][0]
    assert torch.equal(back["s"]["dense"], torch.eye(2)) and [row.tolist() for row in back["n"]] == [[0, 0], [1, 1, 1]]
    for useless in (lambda value: value, lambda value: NotImplemented, lambda value: value.to_dense()):
        with pytest.raises(packbuf.Unencodable):
            packbuf.pack({"x": [cell]}, default=useless)


@pytest.mark.parametrize("packing", ["none", "balanced"])
def test_tensors_in_place(torch, packing):
    tensors = [torch.arange(1000, dtype=torch.int64), torch.randn(3, 5).to(torch.bfloat16), torch.zeros((2, 0)), torch.tensor(7)]
    memory = bytearray(packbuf.pack({"t": tensors}, packing=packing))
    view = packbuf.open(memory, tensors="shared", verify="all")
    cells = view["t"].tolist()
    for tensor, cell in zip(tensors, cells):
        assert (cell.dtype, cell.shape) == (tensor.dtype, tensor.shape) and torch.equal(cell.float(), tensor.float())
    start = np.frombuffer(memory, np.uint8).ctypes.data
    if packing == "none":
        assert start <= cells[0].data_ptr() < start + len(memory)
        cells[0][5] = -1
        assert view["t"][0][5] == -1
    del view, memory
    gc.collect()
    assert cells[0][999] == 999
    shifted = bytearray(3) + bytearray(packbuf.pack({"t": tensors}, packing=packing))
    assert torch.equal(packbuf.open(memoryview(shifted)[3:], tensors="shared")["t"][0], tensors[0])


def test_jagged_rows_of_more_dimensions(torch):
    for shapes in ([(3, 2), (1, 2)], [(0, 2), (4, 2)], [(2, 3, 1), (5, 3, 1)], [(2, 0), (3, 0)]):
        rows = [torch.randn(*shape) for shape in shapes]
        back = packbuf.open(packbuf.pack({"r": rows}))["r"].torch()
        assert back.layout is torch.jagged
        assert all(torch.equal(a, b) for a, b in zip(rows, back.unbind(), strict=True))
    back = packbuf.open(packbuf.pack({"r": [torch.zeros(2, 3), torch.zeros(3, 2)]}))["r"].torch()
    assert back.layout is torch.strided and back.is_nested  # they differ in more than their first dimension


@pytest.mark.usefixtures("torch")
def test_absent_rows_are_empty_and_as_the_first_that_is_there():
    view = opened({"x": [None, np.ones((2, 3)), np.ones(4), None]})
    for rows, shapes in (
        ([0, 2], [(0,), (4,)]),
        ([3, 1, 0], [(0, 3), (2, 3), (0, 3)]),
        ([0, 3], [(0, 0), (0, 0)]),
    ):
        assert [array.shape for array in view["x"].numpy(rows, fill=0)] == shapes
        assert [tuple(tensor.shape) for tensor in view["x"].torch(rows, fill=0).unbind()] == shapes
    with pytest.raises(packbuf.WrongType, match="in x: rows of different numbers of dimensions"):
        view["x"].torch(fill=0)


def test_no_rows_have_a_dtype_too(torch):
    view = opened({"x": [np.ones((2, 3), np.int16)] * 2, "y": [np.ones(2, np.int16)] * 2})
    for field in view.values():
        assert field.torch([]).dtype is torch.int16 and not field.torch([]).unbind()
