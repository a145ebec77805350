"""What a get asks for, which bytes of which object that takes, and what is made of them.

May use: packbuf, refs, sections. Must not know: the engine, where bytes lie while they are read.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from packbuf import Error, Field, NotFound, OutOfRange, Status, View, WrongType
from packbuf_mooncake.refs import Part, Ref
from packbuf_mooncake.sections import BATCH, VALUES, Form, is_tensor, put_together

Rows = slice | np.ndarray[Any, Any]


class GetOptions(TypedDict, total=False):
    """What is wanted of a batch: by default all of it."""

    fields: Sequence[str] | None
    """Columns of any section; or"""
    batch_fields: Sequence[str] | None
    """those of batch, and"""
    non_tensor_fields: Sequence[str] | None
    """those of non_tensor_batch; None, where the other is given, is none."""
    meta_info_keys: Sequence[str] | None
    """Keys of meta_info; None: all."""
    rows: Any
    """A slice with a positive step, indexes (negative ones count from the end, any may come twice), or a mask."""
    data_cls: Any
    """Of a DataProto: made by ``from_dict`` or its constructor; None: a dict of the three sections."""
    destinations: Mapping[str, Any] | None
    """Arrays or CPU tensors of the caller, of the very shape and dtype, that some columns are read into."""


@dataclass
class Plan:
    """What is wanted of one object, and what has come of it."""

    part: Part
    token: str
    columns: list[str]
    meta: list[str]
    rows: Rows | None
    whole: bool
    view: View | None = None
    ranges: list[tuple[int, int]] = field(default_factory=list)

    @property
    def opened(self) -> View:
        """The view, once there is one."""
        if self.view is None:
            raise Error(Status.NOT_FETCHED, "the object was not read", path=self.part.key)
        return self.view


@dataclass
class Wanted:
    """One batch of a get."""

    ref: Ref
    columns: dict[str, tuple[str, str]]
    rows: Rows | None

    def result(self, plans: list[Plan], destinations: Mapping[str, Any], form: Form, data_cls: Any) -> Any:
        """What is made of what has come."""
        found = {
            name: _column(plan.opened, name, self.columns[name][1], plan.rows, destinations.get(name))
            for plan in plans
            for name in plan.columns
        }
        sections: dict[str, dict[str, Any]] = {BATCH: {}, VALUES: {}}
        for name, (section, _) in self.columns.items():
            sections[section][name] = found[name]
        every = range(self.ref.rows)
        rows = every if self.rows is None else every[self.rows] if isinstance(self.rows, slice) else self.rows
        return put_together(form, len(rows), sections, meta_of(plans), data_cls)


def wanted(ref: Ref, options: GetOptions) -> Wanted:
    """What the options of a get ask for, refused where the batch does not have it: nothing has been read yet."""
    unknown = ", ".join(options.keys() - GetOptions.__optional_keys__)
    if unknown:
        raise TypeError(f"there is no option {unknown}: they are {', '.join(sorted(GetOptions.__optional_keys__))}")
    wanted = Wanted(ref, _chosen_columns(ref, options), _chosen_rows(options.get("rows"), ref.rows))
    other = [name for name in options.get("destinations") or () if name not in wanted.columns]
    if other:
        raise _no_columns(other)
    return wanted


def escaped(name: str) -> str:
    """A column's name as a path."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("[", "\\[")


def _patterns(names: Sequence[str]) -> list[str]:
    paths = (escaped(name).replace("*", "\\*") for name in names)
    return ["\\" + path if path.startswith("!") else path for path in paths]


def _no_columns(names: Sequence[str]) -> NotFound:
    return NotFound(Status.NOT_FOUND, f"the batch has no columns {list(names)}", path=names[0])


def _chosen_columns(ref: Ref, options: GetOptions) -> dict[str, tuple[str, str]]:
    """(section, kind) of what is wanted, in the order asked for."""
    fields = options.get("fields")
    by_section = [(BATCH, options.get("batch_fields")), (VALUES, options.get("non_tensor_fields"))]
    if fields is not None and any(names is not None for _, names in by_section):
        raise Error(Status.INVALID_ARGUMENT, "fields cannot be given beside batch_fields and non_tensor_fields")
    if any(isinstance(names, str) for names in (fields, *(names for _, names in by_section))):
        raise WrongType(Status.WRONG_TYPE, "columns are named in a list")
    known = {name: (section, kind) for name, (_, section, kind) in ref.columns().items()}
    if fields is None and all(names is None for _, names in by_section):
        return known
    wanted, unknown = list(fields or ()), [name for name in fields or () if name not in known]
    for section, names in by_section:
        wanted += names or ()
        unknown += [name for name in names or () if name not in known or known[name][0] != section]
    if unknown:
        raise _no_columns(unknown)
    return {name: known[name] for name in wanted}


def _chosen_rows(rows: Any, count: int) -> Rows | None:
    """Rows as a slice, a mask, or indexes from 0 on."""
    if rows is None:
        return None
    if isinstance(rows, slice):
        start, stop, step = rows.indices(count)
        if step < 0:
            raise Error(Status.INVALID_ARGUMENT, "the step of a slice of rows is positive")
        return slice(start, max(start, stop), step)
    chosen = rows.cpu().numpy() if is_tensor(rows) else np.asarray(rows)
    if chosen.ndim != 1:
        raise WrongType(Status.WRONG_TYPE, "rows are a slice, a list of indexes or a mask")
    if chosen.dtype == np.bool_:
        if len(chosen) != count:
            raise Error(Status.ROW_COUNT, f"a mask of {len(chosen)} for {count} rows")
        return np.flatnonzero(chosen)
    if chosen.size and chosen.dtype.kind not in "iu":
        raise WrongType(Status.WRONG_TYPE, f"rows are integers or bools, not {chosen.dtype}")
    chosen = chosen.astype(np.int64)
    for row in chosen[(chosen < -count) | (chosen >= count)]:
        raise OutOfRange(Status.OUT_OF_RANGE, f"row {row} of {count}", row=abs(int(row)))
    return np.where(chosen < 0, chosen + count, chosen)


def ranges_of(plan: Plan, gap: int, chunks: bool) -> list[tuple[int, int]]:
    """What a plan needs beside the head."""
    chosen = [plan.opened.select(_patterns(plan.columns), plan.rows)] if plan.columns else []
    chosen += [plan.opened.select_values(_patterns(plan.meta))] if plan.meta else []
    return chosen[0].ranges(*chosen[1:], gap=gap, chunks=chunks) if chosen else []


# ---- what has come ----


def may_alias(plan: Plan) -> bool:
    """Whether cells of a column would be arrays that lie in the memory it was read from."""
    kinds = {name: kind for name, (_, kind) in plan.part.columns.items()}
    return any(_has_arrays(plan.opened[name]) for name in plan.columns if kinds[name] not in {"torch", "numpy"})


def _has_arrays(field: Field) -> bool:
    if field.kind == "leaf":
        return field.form in {"array", "tensor"}
    return any(map(_has_arrays, field.children))


def meta_of(plans: list[Plan]) -> dict[str, Any]:
    """meta_info of all parts; of a key that several have, the last."""
    found: dict[str, Any] = {}
    for plan in plans:
        if plan.meta:
            found.update(copy.deepcopy(plan.opened.select_values(_patterns(plan.meta)).tolist()[0]))
    return found


def _column(view: View, name: str, kind: str, rows: Rows | None, destination: Any) -> Any:
    field = view[name]
    if destination is not None:
        return _into(view, field, name, rows, destination)
    if kind == "torch":
        return field.torch(rows)
    if kind == "numpy":
        return field.numpy(rows, copy=True)
    return field.tolist() if rows is None else field[rows]


def _into(view: View, field: Field, name: str, rows: Rows | None, destination: Any) -> Any:
    """Copy a column into memory of the caller."""
    has = str(destination.dtype).removeprefix("torch.")
    if has != field.dtype:
        raise Error(Status.INVALID_ARGUMENT, f"the column is {field.dtype}, its destination {has}", path=name)
    view.select(_patterns([name]), rows).into({field.path: destination})
    return destination
