"""Tensors of another device, by a stand-in for CUDA: one copy into pinned memory that is waited for, and pinned memory on the way out.

The stand-in says that it is on a device and has no address here; what is copied from it without waiting never arrives.
"""

import gc

import numpy as np
import pytest
from equality import same

import packbuf
from packbuf import Status, _adapt, _torch

torch = pytest.importorskip("torch")


class Place:
    type = "cuda"


class OnDevice(torch.Tensor):
    """A tensor whose bytes only a copy reaches."""

    @property
    def device(self):
        return Place()

    def data_ptr(self):
        return 0x7F00DEAD0000

    def numpy(self, *_, **__):
        raise TypeError("not on the CPU")


class Card:
    """What was asked of torch: memory, and copies in both directions."""

    def __init__(self, monkeypatch):
        self.memory, self.copies, self.sent = [], [], []
        empty, copy_, to = torch.empty, torch.Tensor.copy_, torch.Tensor.to

        def fake_empty(*shape, pin_memory=False, **options):
            made = empty(*shape, **options)
            self.memory.append((made.data_ptr(), pin_memory))
            return made

        def fake_copy(target, source, non_blocking=False):
            if isinstance(source, OnDevice):
                self.copies.append((target.data_ptr(), source.numel()))
                if non_blocking:  # under way, and nobody waits for it
                    return target.fill_(0)
                source = source.as_subclass(torch.Tensor)
            return copy_(target, source)

        def fake_to(tensor, *arguments, non_blocking=False, **options):
            if arguments != ("cuda:0",):
                return to(tensor, *arguments, **options)
            self.sent.append((tensor.data_ptr() if not tensor.is_nested else None, non_blocking, tensor.clone()))
            return tensor.clone()

        monkeypatch.setattr(torch, "empty", fake_empty)
        monkeypatch.setattr(torch.Tensor, "copy_", fake_copy)
        monkeypatch.setattr(torch.Tensor, "to", fake_to)

    def pinned(self):
        return {address for address, pinned in self.memory if pinned}


@pytest.fixture
def card(monkeypatch):
    return Card(monkeypatch)


def on_device(tensor):
    return tensor.as_subclass(OnDevice)


@pytest.mark.parametrize("packing", [None, "balanced"])
def test_in_by_one_pinned_copy_that_is_waited_for(card, packing):
    base = torch.arange(24.0).reshape(4, 6) + 1
    for x in (base, base.to(torch.bfloat16), base.to(torch.float8_e5m2), base.t(), base[::2, 1:4], base[:0], base.clone().requires_grad_()):
        card.copies.clear()
        view = packbuf.open(packbuf.pack({"x": on_device(x), "cells": [on_device(x), None][: len(x)] + [None] * (len(x) - 2)}, packing=packing), tensors="torch")
        assert same(x.detach(), view["x"].torch())
        if len(x):
            assert same(x.detach(), view["cells"][0])
        assert len(card.copies) == (2 if len(x) else 1) and {where for where, _ in card.copies} <= card.pinned()
    assert same(packbuf.open(packbuf.pack({"v": [{"s": on_device(torch.tensor(7.5))}]}), tensors="torch")["v.s"][0], torch.tensor(7.5))


def test_memory_that_cannot_be_pinned(monkeypatch):
    empty = torch.empty

    def fails(*shape, pin_memory=False, **options):
        if pin_memory:
            raise RuntimeError("no memory can be pinned")
        return empty(*shape, **options)

    monkeypatch.setattr(torch, "empty", fails)
    monkeypatch.setattr(torch.Tensor, "copy_", lambda target, source, copy_=torch.Tensor.copy_: copy_(target, source.as_subclass(torch.Tensor)))
    assert packbuf.open(packbuf.pack({"x": on_device(torch.arange(4.0))}))["x"].tolist() == [0, 1, 2, 3]


def test_a_device_by_its_number(card, monkeypatch):
    device = torch.device
    monkeypatch.setattr(torch, "device", lambda which: device("cuda:0" if which == 0 else which))
    for which, pinned in ((0, True), ("cuda:0", True), (device("cuda", 1), True), ("cpu", False), (None, False)):
        made = _torch.memory((2,), "int32", which)
        assert (made.data_ptr() in card.pinned()) == pinned, which
        card.memory.clear()


def test_ragged_rows_by_one_copy(card):
    rows = [torch.arange(n * 2.0).reshape(n, 2) for n in (3, 1, 0, 4)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged)
    nested._values = on_device(nested._values)
    nested._offsets = on_device(nested._offsets)
    view = packbuf.open(packbuf.pack({"x": nested}))
    assert same(rows, view["x"].tolist()) and [count for _, count in card.copies] == [16, 5]
    assert {where for where, _ in card.copies} <= card.pinned()


def test_out_by_way_of_pinned_memory(card):
    x = torch.arange(12.0).reshape(4, 3)
    view = packbuf.open(packbuf.pack({"x": x, "n": [1, None, 3, 4], "r": [[1], [2, 3], [], [4]]}, packing="balanced"))
    for non_blocking in (False, True):
        for field, whole in (("x", x), ("n", torch.tensor([1, -1, 3, 4]))):
            card.sent.clear()
            made = view[field].torch(device="cuda:0", non_blocking=non_blocking, fill=-1)
            ((where, asked, filled),) = card.sent
            assert where in card.pinned() and asked is non_blocking and torch.equal(filled, whole) and torch.equal(made, whole)
    card.sent.clear()
    chosen = view.select(["x", "r"], [2, 0]).torch("cuda:0", non_blocking=True)
    assert torch.equal(chosen["x"], x[[2, 0]]) and same([torch.tensor([], dtype=torch.int64), torch.tensor([1])], list(chosen["r"].unbind()))
    assert [asked for _, asked, _ in card.sent] == [True] * 3, "rows, elements, offsets"
    assert {where for where, _, _ in card.sent} <= card.pinned()
    assert not card.pinned() & {address for address, pinned in card.memory if not pinned}
    card.memory.clear()
    view["x"].torch()
    assert not card.pinned(), "what stays here is not pinned"


@pytest.mark.parametrize("tail", [(), (2,)])
@pytest.mark.parametrize("kind", ["int32", "bfloat16"])
def test_ragged_rows_out_by_way_of_pinned_memory(card, tail, kind):
    """Elements and offsets are pinned, and nothing else is sent: no nested tensor that lies in other memory."""
    rows = [torch.arange(n * 2.0).reshape(n, *tail) if tail else torch.arange(n * 1.0) for n in (3, 1, 0, 4)]
    rows = [row.to(getattr(torch, kind)) for row in rows]
    odd = [torch.ones(2, 3), torch.ones(3, 2), torch.ones(1, 1), torch.ones(0, 5)]
    view = packbuf.open(packbuf.pack({"x": rows, "odd": odd, "n": [[1], None, [2, 3], []], "m": [None, torch.ones(2, 3), torch.ones(1, 3), None]}))
    absent = [torch.tensor(row, dtype=torch.int64) for row in ([1], [], [2, 3], [])]
    for name, fill, whole in (("x", None, rows), ("odd", None, odd), ("n", 0, absent), ("m", 0, [torch.ones(0, 3), torch.ones(2, 3), torch.ones(1, 3), torch.ones(0, 3)])):
        for non_blocking in (False, True):
            card.sent.clear()
            card.memory.clear()
            made = view[name].torch(device="cuda:0", non_blocking=non_blocking, fill=fill)
            assert same(whole, list(made.unbind()))
            assert len(card.sent) == (1 if name == "odd" else 2) and {asked for _, asked, _ in card.sent} == {non_blocking}
            assert [where for where, _, _ in card.sent] == [where for where, pinned in card.memory if pinned], name
    card.memory.clear()
    view["x"].torch()
    assert not card.pinned(), "what stays here is not pinned"


def test_nested_columns_of_a_tensordict_by_way_of_pinned_memory(card):
    tensordict = pytest.importorskip("tensordict")
    rows = [torch.arange(3.0), torch.arange(1.0)]
    batch = {"j": torch.nested.nested_tensor(rows, layout=torch.jagged), "s": torch.nested.nested_tensor(rows)}
    view = packbuf.open(packbuf.pack(tensordict.TensorDict(batch, batch_size=[2])))
    making = _adapt._Making(view, _adapt.How(None, "cuda:0", False))  # TensorDict itself wants the device to be there
    for name, kind, more, copies in (("j", "jagged", [[]], 2), ("s", "nested", ["strided", "float32"], 1)):
        card.sent.clear()
        assert same(rows, list(making._column(name, kind, more, [2]).unbind()))
        assert len(card.sent) == copies and all(where in card.pinned() for where, _, _ in card.sent)


def test_no_place_to_write_to(card):
    view = packbuf.open(packbuf.pack({"x": torch.arange(6.0).reshape(2, 3)}))
    target = on_device(torch.zeros(2, 3))
    lazy = torch.zeros(2, 3, dtype=torch.complex64).conj()
    for call in (
        lambda: view.select().into({"x": target}),
        lambda: packbuf.pack_into({"x": [1]}, on_device(torch.zeros(4096, dtype=torch.uint8))),
        lambda: packbuf.pack_into({"x": [1]}, torch.zeros(4096, dtype=torch.complex64).conj()),
        lambda: view.select().into({"x": torch.zeros(3, 2).t()}),
        lambda: view.select().into({"x": torch.zeros(2, 1).expand(2, 3)}),
    ):
        with pytest.raises(packbuf.Error, match="contiguous and on the CPU") as caught:
            call()
        assert caught.value.code == Status.READ_ONLY
    assert not target.as_subclass(torch.Tensor).any() and not lazy.resolve_conj().any()


def test_into_memory_that_is_pinned():
    class Pinned(torch.Tensor):  # DLPack calls it a device of its own, so it takes the long way
        pass

    x = torch.arange(20).reshape(5, 4)
    view = packbuf.open(packbuf.pack({"x": x, "b": x.to(torch.bfloat16)}))
    out = {"x": torch.zeros(2, 4, dtype=torch.int32).as_subclass(Pinned), "b": torch.zeros(2, 4, dtype=torch.bfloat16).as_subclass(Pinned)}
    view.select(rows=[4, 1]).into(out)
    assert same(x[[4, 1]].int(), out["x"].as_subclass(torch.Tensor)) and same(x[[4, 1]].to(torch.bfloat16), out["b"].as_subclass(torch.Tensor))


def test_what_has_no_data_is_refused():
    jagged = torch.nested.nested_tensor_from_jagged(torch.empty(5, device="meta"), torch.tensor([0, 2, 5], device="meta"))
    for x in (torch.empty(2, device="meta"), torch.empty(2, dtype=torch.bfloat16, device="meta"), jagged):
        with pytest.raises(packbuf.Error) as caught:
            packbuf.pack({"x": x})
        assert caught.value.code == Status.UNSUPPORTED_DEVICE
    with pytest.raises(packbuf.Error) as caught:
        packbuf.pack({"v": [{"x": torch.empty(2, device="meta")}]})
    assert caught.value.code == Status.UNSUPPORTED_DEVICE and caught.value.path == "v.x"


def test_of_the_cpu_nothing_is_copied(card):
    x = torch.arange(6.0)
    assert _torch.to_host(x) is x
    packbuf.pack({"x": x, "t": x.reshape(6, 1).to(torch.bfloat16)})
    assert not card.copies and not card.memory


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e4m3fn", "int64", "bool"])
@pytest.mark.parametrize("packing", ["none", "balanced"])
def test_cells_are_copies(name, packing):
    """Unless tensors="shared" asks for it, writing to a cell leaves the packed buffer as it is."""
    rows = [torch.arange(64).reshape(8, 8).to(getattr(torch, name)), torch.ones(3).to(getattr(torch, name))]
    memory = bytearray(packbuf.pack({"t": rows}, packing=packing))
    before, view = bytes(memory), packbuf.open(memory)
    for cell in view["t"]:
        cell.view(torch.uint8).fill_(1 if name == "bool" else 77)
    gc.collect()
    assert bytes(memory) == before and same(rows, view["t"].tolist())


def test_sharing_wants_all_of_it():
    view = packbuf.open(packbuf.pack({"n": [1.5, None, 2.5], "whole": np.arange(3.0)}, row_sharing=False))
    assert view["whole"].torch(share=True).tolist() == [0, 1, 2]
    with pytest.raises(packbuf.Error) as caught:
        view["n"].torch(share=True, fill=0)
    assert caught.value.code == Status.NOT_STORED
