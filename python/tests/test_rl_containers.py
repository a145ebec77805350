"""The real TensorDict and verl's DataProto: in, and back as they were."""

from __future__ import annotations

import datetime as dt
import json
import warnings

import numpy as np
import pytest

import packbuf

torch = pytest.importorskip("torch")
pytest.importorskip("tensordict")

from tensordict import NonTensorData, NonTensorStack, TensorDict, lazy_stack

warnings.filterwarnings("ignore", message="The PyTorch API of nested tensors")
torch.manual_seed(1)


def nested(layout, *shapes, dtype=torch.float32):
    return torch.nested.as_nested_tensor([torch.randn(*shape).to(dtype) for shape in shapes], layout=layout)


def same(a, b) -> bool:
    """Equal in type, dtype, shape, layout, batch size and every bit; a memory-mapped tensor is a tensor."""
    if isinstance(a, torch.Tensor):
        if not isinstance(b, torch.Tensor) or (a.dtype, a.is_nested, a.layout) != (b.dtype, b.is_nested, b.layout):
            return False
        if a.is_nested:
            parts, others = a.unbind(), b.unbind()
            return getattr(a, "_ragged_idx", 0) == getattr(b, "_ragged_idx", 0) and len(parts) == len(others) and all(map(same, parts, others))
        return a.shape == b.shape and (not a.numel() or torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8)))
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and (a.dtype, a.shape) == (b.dtype, b.shape) and all(map(same, list(a.flat), list(b.flat)))
    if isinstance(a, NonTensorData):
        return isinstance(b, NonTensorData) and a.batch_size == b.batch_size and same(a.data, b.data)
    if isinstance(a, NonTensorStack):
        return isinstance(b, NonTensorStack) and a.batch_size == b.batch_size and same(a.tolist(), b.tolist())
    if isinstance(a, TensorDict):
        return isinstance(b, TensorDict) and a.batch_size == b.batch_size and same(dict(a.items()), dict(b.items()))
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def through(batch, **options):
    """Packed, checked in full, opened."""
    return packbuf.open(packbuf.pack(batch, **options), verify="all")


DICTS = {
    "dense": lambda: TensorDict({"ids": torch.arange(6).reshape(3, 2), "lp": torch.randn(3, 4).to(torch.bfloat16), "r": torch.randn(3), "b": torch.tensor([True, False, True])}, [3]),
    "non-tensor": lambda: TensorDict({"x": torch.zeros(2, 3), "step": NonTensorData(7, batch_size=[2]), "who": "me", "s": NonTensorStack("a", {"k": [1, None]}), "l": ["p", ""]}, [2]),
    "nested": lambda: TensorDict({"x": torch.zeros(2), "in": TensorDict({"y": torch.ones(2, 1), "deeper": TensorDict({"z": torch.arange(6).reshape(2, 3), "t": ["a", "b"], "v": "all"}, [2, 3][:1])}, [2])}, [2]),
    "nested, of more batch dimensions": lambda: TensorDict({"in": TensorDict({"z": torch.arange(12).reshape(2, 3, 2)}, [2, 3])}, [2]),
    "jagged": lambda: TensorDict({"a": nested(torch.jagged, (4,), (2,)), "b": nested(torch.jagged, (4, 5), (2, 5)), "c": nested(torch.jagged, (4, 5), (4, 7)), "h": nested(torch.jagged, (3,), (0,), dtype=torch.bfloat16)}, [2]),
    "nested strided": lambda: TensorDict({"a": nested(torch.strided, (4, 3), (2, 4)), "b": nested(torch.strided, (4,), (2,))}, [2]),
    "no rows": lambda: TensorDict({"x": torch.zeros(0, 3), "s": NonTensorStack(), "v": NonTensorData("v", batch_size=[0]), "in": TensorDict({"y": torch.zeros(0, 2, 4, dtype=torch.int8)}, [0])}, [0]),
    "sliced to no rows": lambda: DICTS["non-tensor"]()[:0],
    "no columns": lambda: TensorDict({}, [4]),
    "no batch dimension": lambda: TensorDict({"x": torch.tensor(3.5), "m": torch.zeros(2, 3), "s": "text", "in": TensorDict({"y": torch.arange(2)}, [])}, []),
    "two batch dimensions": lambda: TensorDict({"x": torch.randn(2, 2, 4), "s": NonTensorStack(NonTensorStack("a", "b"), NonTensorStack("c", "d")), "v": NonTensorData([1], batch_size=[2, 2])}, [2, 2]),
    "stacked": lambda: torch.stack([DICTS["dense"](), DICTS["dense"]()]),
    "names with dots": lambda: TensorDict({"a.b": torch.zeros(2), "c": TensorDict({"d.e": torch.ones(2)}, [2])}, [2]),
}


@pytest.mark.parametrize("name", DICTS)
def test_a_tensordict_comes_back(name):
    batch = DICTS[name]()
    view = through(batch)
    assert same(batch, view.tensordict())
    assert same(batch, packbuf.open(packbuf.pack(batch, packing="balanced"), tensors="numpy").tensordict())
    if batch.batch_size and batch.batch_size[0] and not any(getattr(column, "is_nested", False) for column in batch.values()):
        for rows in (slice(1, None), slice(0, 0 if len(batch.batch_size) == 1 else 1), slice(None, None, -1), [0, 0]):
            wanted = batch[list(range(batch.batch_size[0]))[rows] if isinstance(rows, slice) else rows]
            assert same(wanted, view.tensordict(rows)), rows
    if name.startswith("jagged"):
        back = view.tensordict([1])
        assert all(same([column.unbind()[1]], back[key].unbind()) for key, column in batch.items())


def test_no_rows_of_nested_tensors():
    batch = TensorDict({"a": nested(torch.strided, (4, 3), (2, 4), dtype=torch.int64)}, [2])
    none = through(batch).tensordict([])["a"]
    assert none.is_nested and none.dtype is torch.int64 and none.size(0) == 0


def test_columns_are_dense_and_in_place():
    batch = DICTS["nested"]()
    view = through(batch)
    assert list(view) == ["x", "in.y", "in.deeper.z", "in.deeper.t"] and view.batch_values == {"in.deeper.v": "all"}
    assert view["in.deeper.z"].codec == "ndarray" and same(view["in.deeper.z"].torch(), batch["in", "deeper", "z"])
    memory = np.frombuffer(packbuf.pack(batch), np.uint8)
    back = packbuf.open(memory).tensordict(share=True)
    at = back["in", "deeper", "z"].data_ptr()
    assert memory.ctypes.data <= at < memory.ctypes.data + memory.nbytes
    assert same(batch, back)
    alike = TensorDict({"same": torch.zeros(1000)}, [1000])  # stored once, and so nowhere in place
    assert same(alike, through(alike).tensordict(share=True))


def test_a_memory_mapped_tensordict(tmp_path):
    batch = DICTS["nested"]().memmap(str(tmp_path))
    assert same(DICTS["nested"](), through(batch).tensordict())


def test_lazy_stacks():
    rows = [TensorDict({"a": torch.full((2,), i)}, []) for i in range(3)]
    assert same(torch.stack([row["a"] for row in rows]), through(lazy_stack(rows)).tensordict()["a"])
    with pytest.raises(packbuf.Unencodable, match="do not stack"):
        packbuf.pack(lazy_stack([TensorDict({"a": torch.zeros(n)}, []) for n in (1, 2)]))


def test_any_batch_as_a_tensordict():
    view = through({"n": [1, 2], "t": ["x", None], "r": [[1], []], "d": np.zeros((2, 3)), "o": [1, None], "when": [dt.date(2020, 1, 1)] * 2, "m": [{"a": 1}, {}]}, batch_values={"step": 3})
    made = view.tensordict()
    assert list(made.keys()) == ["n", "t", "r", "d", "o", "when", "m", "step"] and made.batch_size == (2,)
    assert made["n"].tolist() == [1, 2] and made["r"].layout is torch.jagged and made["d"].dtype is torch.float64
    assert list(made["t"]) == ["x", None] and list(made["o"]) == [1, None] and made["step"] == 3
    assert made.get("m").tolist() == [{"a": 1}, {}] and made.get("when").tolist()[0] == dt.date(2020, 1, 1)
    assert through([], rows=0).tensordict().batch_size == (0,)
    mixed = [torch.tensor(1.0), torch.ones(3)]  # no nested tensor has rows without dimensions
    assert same(mixed, through({"x": mixed}).tensordict().get("x").tolist())


def test_names_that_meet():
    twice = TensorDict({"a.b": torch.zeros(2), "a": TensorDict({"b": torch.ones(2)}, [2])}, [2])
    with pytest.raises(packbuf.Error, match="DUPLICATE_NAME"):
        packbuf.pack(twice)


def test_what_the_caller_says_wins(proto):
    view = through(proto(meta_info={"step": 3, "lr": 1}), batch_values={"step": 4}, metadata={"packbuf.container": "mine"})
    assert view.batch_values == {"step": 4, "lr": 1} and view.metadata == {"packbuf.container": "mine"}
    with pytest.raises(packbuf.Error, match="ROW_COUNT"):
        packbuf.pack(DICTS["dense"](), rows=4)


def test_metadata_of_the_caller_stays():
    batch = DICTS["dense"]()
    view = through(batch, metadata={"by": "me", "ids": {"unit": "token"}})
    assert view.metadata["by"] == "me" and view["ids"].metadata == {"unit": "token"}
    assert same(batch, view.tensordict())


@pytest.mark.parametrize(
    "text",
    ["", "x", "[]", "{}", "[" * 100000, *(json.dumps({"kind": "TensorDict", "batch": plan}) for plan in (
        7, {}, {"batch_size": [2]}, {"batch_size": [3], "columns": [["a", "tensor"]]}, {"batch_size": "x", "columns": [["a", "tensor"]]},
        {"batch_size": [2], "columns": [["zz", "tensor"]]}, {"batch_size": [2], "columns": [["a", "odd"]]}, {"batch_size": [2], "columns": [7]},
        {"batch_size": [2], "columns": [["a", "jagged", [3]]]}, {"batch_size": [2], "columns": [["a", "nested", "blocked", "x"]]},
        {"batch_size": [2], "columns": [["r", "jagged", [3]]]}, {"batch_size": [2], "columns": [["r", "jagged", [-1]]]}, {"batch_size": [2], "columns": [["a", "value", [2]]]}, {"batch_size": [2, 1 << 70], "columns": [["a", "tensor"]]},
        {"batch_size": [2], "columns": [["a", "tensordict", 7]]},
    ))],
)  # fmt: skip
def test_forged_metadata(text):
    view = through({"a": [1, 2], "r": [[1], [2, 3]]}, metadata={"packbuf.container": text})
    for make in (view.tensordict, view.dataproto):
        with pytest.raises(packbuf.Error):
            made = make()
            raise AssertionError(made)


# ---- verl ----


@pytest.fixture(scope="module")
def proto():
    return pytest.importorskip("verl.protocol").DataProto


def objects(*values):
    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def same_proto(a, b) -> bool:
    return type(a) is type(b) and same(a.batch, b.batch) and same(a.non_tensor_batch, b.non_tensor_batch) and same(a.meta_info, b.meta_info)


PROTOS = {
    "whole": lambda: dict(
        batch=TensorDict({"input_ids": torch.arange(6).reshape(2, 3), "old_log_probs": torch.randn(2, 3), "routed": nested(torch.jagged, (2,), (3,))}, [2]),
        non_tensor_batch={"uid": objects("a", "b"), "raw": objects([{"role": "user", "content": "é"}], None), "images": objects(np.zeros((2, 2), np.uint8), np.ones(3)), "score": np.array([0.5, 1.0]), "name": np.array(["x", "yyy"]), "pair": np.array([[1, "x"], [2, None]], dtype=object)},
        meta_info={"temperature": 1.0, "eos": [1, 2], "do_sample": True, "nested": {"a": None, "t": torch.arange(3)}, "global_steps": 3},
    ),
    "tensors alone": lambda: dict(batch=DICTS["dense"]()),
    "no columns": lambda: dict(batch=DICTS["no columns"]()),
    "no tensors": lambda: dict(non_tensor_batch={"uid": objects(1, None, "x")}, meta_info={"k": []}),
    "meta_info alone": lambda: dict(meta_info={"k": {"deep": [1, {"x": 2.5}]}}),
    "nothing": lambda: {},
    "no rows": lambda: dict(batch=TensorDict({"x": torch.zeros(0, 3)}, [0]), non_tensor_batch={"uid": objects(), "n": np.zeros((0, 2), np.int32)}, meta_info={"step": 0}),
    "names with dots": lambda: dict(batch=TensorDict({"a.b": torch.zeros(1)}, [1]), non_tensor_batch={"c.d": objects(1)}, meta_info={"e.f": 1}),
}


@pytest.mark.parametrize("name", PROTOS)
def test_a_dataproto_comes_back(proto, name):
    batch = proto(**PROTOS[name]())
    view = through(batch)
    assert same_proto(batch, view.dataproto())
    assert view.num_rows == len(batch)
    if name == "whole":
        back = view.dataproto([1])
        assert back.non_tensor_batch["uid"].tolist() == ["b"] and back.batch["input_ids"].tolist() == [[3, 4, 5]]
        assert back.non_tensor_batch["score"].flags.writeable


def test_a_slice_of_a_dataproto(proto):
    batch = proto(**{**PROTOS["whole"](), "batch": DICTS["dense"]()[:2]})
    assert same_proto(batch[0:0], through(batch[0:0]).dataproto()) and same_proto(batch[1:], through(batch).dataproto(slice(1, None)))


def test_any_batch_as_a_dataproto(proto):
    made = through({"x": [1, 2], "t": ["a", None], "r": [[1.0], []]}, batch_values={"step": 3}).dataproto()
    assert isinstance(made, proto) and made.meta_info == {"step": 3}
    assert sorted(made.batch.keys()) == ["r", "x"] and made.non_tensor_batch["t"].tolist() == ["a", None]
    assert through([{"t": "a"}]).dataproto().batch is None


def test_what_a_dataproto_may_not_hold(proto):
    for part in (dict(meta_info={"f": len}), dict(meta_info={1: 2}), dict(non_tensor_batch={"u": objects({1, 2})})):
        with pytest.raises(packbuf.Error):
            packbuf.pack(proto(**part))
    with pytest.raises(packbuf.Error, match="DUPLICATE_NAME"):
        packbuf.pack(proto(batch=TensorDict({"x": torch.zeros(1)}, [1]), non_tensor_batch={"x": objects(1)}))
