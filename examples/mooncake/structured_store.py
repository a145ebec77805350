"""A structured-object store on Mooncake's Python client: one packed buffer, one key, per put.

A dict of columns, a TensorDict or verl's DataProto is packed straight into registered memory and put from there; a get
reads all of it, or the head and then the byte ranges of the columns and rows that are wanted. Appending columns writes
a new object and a manifest that lists both. README.md has a tour, the rules, and what each costs.

May use: packbuf; engine, registered_pool, refs, sections beside it. Must not know: how packed buffers are laid out.
"""

from __future__ import annotations

import contextlib
import copy
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
import packbuf
from engine import Counters, Engine, Piece, connect, failure
from packbuf import Error, Field, Fragment, NotFound, OutOfRange, PackOptions, Status, View, WrongType
from refs import TYPE, VERSION, Part, Ref, check_key, export_ref, gone, import_ref, stem
from registered_pool import Pool, Slice
from sections import BATCH, VALUES, FieldSchema, Form, Parts, is_tensor, put_together, take_apart

if TYPE_CHECKING:
    from typing_extensions import Unpack

_NOTE, _LINEAGE = "packbuf.dataproto", "packbuf.lineage"  # metadata of batches, of manifests
_HEADER, _ALIGN = 64, 64
_MOST_KEY = 200  # an append adds to it

Rows = slice | np.ndarray[Any, Any]


@dataclass
class _Plan:
    """What is wanted of one object, and what has come of it."""

    part: Part
    token: str
    columns: list[str]
    meta: list[str]
    rows: Rows | None
    whole: bool
    view: View | None = None
    ranges: list[tuple[int, int]] | None = None


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


class StructuredStore:
    """Batches in Mooncake. Any number of threads may use one.

    Args:
        client: a `MooncakeDistributedStore` that is set up, or anything with its methods.
        config: its `ReplicateConfig` for puts; `connect` gives one that pins what is put.
        pool_bytes: of the memory that is registered, once, for all puts and gets that are under way, and for the views
            that `view` gives out.
        wait: seconds for room in the pool; then FULL.
        prefix: of the keys that are made up.
        packing: of numbers, as `packbuf.pack` has it; None: as they are, the fastest; ``"balanced"``: less to move.
        verify: what is checked of what was read: ``"index"``, or ``"all"`` for all bytes of whole objects and all
            chunks of 64 KiB that ranges lie in.
        gap: two ranges with at most so many bytes between them are read as one.
        whole_below: objects of up to so many bytes are read whole, in one call instead of two.
    """

    def __init__(
        self,
        client: Any,
        config: Any = None,
        *,
        pool_bytes: int = 256 << 20,
        wait: float = 10.0,
        prefix: str = "packbuf",
        packing: Any = None,
        verify: str = "index",
        gap: int = 4096,
        whole_below: int = 65536,
    ) -> None:
        if verify not in {"index", "all"}:
            raise Error(Status.INVALID_ARGUMENT, f"verify is 'index' or 'all', not {verify!r}")
        self._engine, self._pool = Engine(client, config), Pool(client, pool_bytes)
        self._wait, self._prefix, self._packing = wait, check_key(prefix), packing
        self._verify, self._gap, self._whole_below = verify, gap, whole_below
        self._parked: dict[str, None] = {}  # removed, but under a reader's lease: gone for this store

    @classmethod
    def connect(cls, master: str, *, segment: int = 0, host: str = "127.0.0.1", **options: Any) -> StructuredStore:
        """A store on a client of its own of the master at ``HOST:PORT``; `segment`: bytes of memory it brings."""
        client, config = connect(master, segment=segment, host=host)
        return cls(client, config, **options)

    # ---- put ----

    def put(
        self,
        data: Any,
        *,
        key: str | None = None,
        stage: str = "default",
        schema: Mapping[str, FieldSchema] | None = None,
    ) -> Ref:
        """Store a batch: a flat dict, a TensorDict, a DataProto, or a dict of batch, non_tensor_batch and meta_info.

        Of a flat dict, the tensors and arrays, and the lists as long as they, are columns, everything else is
        meta_info. key: the name to store it under; None makes one up. An existing key is DUPLICATE_NAME.
        """
        return self.put_many([data], None if key is None else [key], stage=stage, schema=schema)[0]

    put_dataproto = put

    def put_dict(self, data: Mapping[str, Any], **options: Any) -> Ref:
        """`put` of a flat dict, even one whose keys look like the sections of a DataProto."""
        return self._put([take_apart(data, options.get("schema"), flat=True)], None, **options)[0]

    def put_many(
        self,
        batches: Sequence[Any],
        keys: Sequence[str] | None = None,
        *,
        stage: str = "default",
        schema: Mapping[str, FieldSchema] | None = None,
    ) -> list[Ref]:
        """Store batches with one call of the engine: all of them or none."""
        return self._put([take_apart(batch, schema) for batch in batches], keys, stage=stage, schema=schema)

    def _put(
        self,
        batches: list[Parts],
        keys: Sequence[str] | None,
        *,
        stage: str = "default",
        schema: Mapping[str, FieldSchema] | None = None,
        key: str | None = None,
    ) -> list[Ref]:
        keys = [key] if key is not None else keys
        names = [f"{self._prefix}/{secrets.token_hex(16)}" for _ in batches] if keys is None else list(keys)
        if any(len(check_key(name).encode()) > _MOST_KEY or "#" in name for name in names):
            raise Error(Status.INVALID_ARGUMENT, f"the key of a batch has at most {_MOST_KEY} bytes and no '#'")
        if len(names) != len(batches) or len(set(names)) != len(names):
            raise Error(Status.INVALID_ARGUMENT, "each batch has a key of its own")
        tokens = [secrets.token_bytes(16) for _ in batches]
        parts = self._write(batches, names, tokens, stage, schema, named=keys is not None)
        return [
            Ref(part.key, part.rows, token.hex(), batch.form, (part,))
            for part, token, batch in zip(parts, tokens, batches, strict=True)
        ]

    def _write(
        self,
        batches: list[Parts],
        keys: list[str],
        tokens: list[bytes],
        stage: str,
        schema: Mapping[str, FieldSchema] | None,
        rows: int | None = None,
        named: bool = False,
    ) -> list[Part]:
        """Pack each batch into a slice, and put them from there."""
        slices: list[Slice] = []

        def room(size: int) -> memoryview:
            slices.append(self._pool.take(size, self._wait))
            return slices[-1].part(0, size)

        try:
            sizes = [
                packbuf.pack_into(batch.columns, room, **self._options(batch, token, stage, schema, rows))
                for batch, token in zip(batches, tokens, strict=True)
            ]
            memory = [lease.part(0, size) for lease, size in zip(slices, sizes, strict=True)]
            parts = [_part(*one, stage) for one in zip(map(packbuf.open, memory), keys, batches, strict=True)]
            self._put_all(keys, slices, sizes, named)
            return parts
        finally:
            for lease in slices:
                lease.release()

    def _options(
        self, batch: Parts, token: bytes, stage: str, schema: Mapping[str, FieldSchema] | None, rows: int | None
    ) -> PackOptions:
        places: dict[str, dict[str, str]] = {BATCH: {}, VALUES: {}}
        for name, (section, kind) in batch.places.items():
            places[section][name] = kind
        columns = {escaped(name): wish.column() for name, wish in (schema or {}).items() if name in batch.columns}
        return PackOptions(
            packing=self._packing,
            schema={path: column for path, column in columns.items() if column != {"not_nullable": False}},
            batch_values=batch.meta,
            metadata={_NOTE: json.dumps({"form": batch.form, "stage": stage, **places})},
            rows=0 if rows is None and not batch.columns else rows,
            row_order_token=token,
        )

    def _put_all(self, keys: list[str], slices: list[Slice], sizes: list[int], named: bool) -> None:
        """All of them or none. Keys that callers name may exist: then the engine says 0 and writes nothing, so that
        what is there now has to be looked at. What tells two batches apart is in the header: the checksum of a head
        that has a token of its own."""
        codes = self._engine.put(keys, [lease.address for lease in slices], sizes)
        failed = {key: failure(code, key) for key, code in zip(keys, codes, strict=True) if code != 0}
        if named:
            mine = {key: bytes(lease.part(0, _HEADER)) for key, lease in zip(keys, slices, strict=True)}
            for key, header in self._headers([key for key in keys if key not in failed], sizes):
                if header != mine[key]:
                    failed[key] = Error(Status.DUPLICATE_NAME, "the key is another object's: nothing was put", path=key)
        if failed:
            self._undo([key for key in keys if key not in failed])
            raise next(iter(failed.values()))
        for key in keys:
            self._parked.pop(key, None)

    def _undo(self, keys: list[str]) -> None:
        """Take back what was put, as well as that goes: the error that is the reason matters more."""
        with contextlib.suppress(Exception):
            self._engine.remove(keys, force=True)

    def _headers(self, keys: list[str], sizes: list[int]) -> list[tuple[str, bytes]]:
        """The first bytes of stored objects."""
        if not keys:
            return []
        if not self._engine.has_ranges:
            return [(key, self._whole_header(key)) for key in keys]
        lease = self._pool.take(_HEADER * len(keys), self._wait)
        self._engine.get_ranges([Piece(key, 0, _HEADER, lease.address + i * _HEADER) for i, key in enumerate(keys)])
        return [(key, bytes(lease.part(i * _HEADER, _HEADER))) for i, key in enumerate(keys)]

    def _whole_header(self, key: str) -> bytes:
        size = self._engine.size(key)
        lease = self._pool.take(size, self._wait)
        self._engine.get([Piece(key, 0, size, lease.address)])
        return bytes(lease.part(0, _HEADER))

    # ---- get ----

    def get(self, ref: Ref | Mapping[str, Any], **options: Unpack[GetOptions]) -> Any:
        """Read a batch, or some columns and rows of it (`GetOptions`), as what was put.

        Nothing of the result lies in the pool. Raises KeyError for an unknown column and for an object that is gone.
        """
        return self.get_many([ref], **options)[0]

    def get_dataproto(self, ref: Ref | Mapping[str, Any], **options: Unpack[GetOptions]) -> Any:
        """`get` as the three sections, or as `data_cls`, whatever was put."""
        return self.get_many([ref], form="dataproto", **options)[0]

    def get_dict(self, ref: Ref | Mapping[str, Any], **options: Unpack[GetOptions]) -> Any:
        """`get` as one flat dict, whatever was put."""
        return self.get_many([ref], form="dict", **options)[0]

    def get_many(
        self, refs: Sequence[Ref | Mapping[str, Any]], *, form: Form | None = None, **options: Unpack[GetOptions]
    ) -> list[Any]:
        """`get` of several, with the calls of the engine that one takes."""
        wanted = [_wanted(import_ref(ref), options) for ref in refs]
        plans = [self._plan(one.ref, one.columns, options.get("meta_info_keys"), one.rows) for one in wanted]
        self._fetch([plan for group in plans for plan in group])
        return [
            one.result(group, options.get("destinations") or {}, form or one.ref.form, options.get("data_cls"))
            for one, group in zip(wanted, plans, strict=True)
        ]

    def views(self, ref: Ref | Mapping[str, Any]) -> list[View]:
        """The packed buffers of a batch as they lie in the pool: nothing is copied, and read in place.

        Their memory is the pool's until the views, and whatever was read in place from them, are gone.
        """
        plans = self._plan(import_ref(ref), None, None, None)
        self._fetch(plans, stay=True)
        return [plan.view for plan in plans if plan.view is not None]

    def _plan(
        self, ref: Ref, names: Mapping[str, Any] | None, meta: Sequence[str] | None, rows: Rows | None
    ) -> list[_Plan]:
        """One for each object that has something of what is wanted."""
        plans = []
        for part in ref.parts:
            columns = list(part.columns) if names is None else [name for name in part.columns if name in names]
            keys = [key for key in part.meta if meta is None or key in meta]
            all_of_it = rows is None and len(columns) == len(part.columns) and len(keys) == len(part.meta)
            if not columns and not keys and names is not None:
                continue
            if part.key in self._parked:
                raise gone(part.key)
            whole = all_of_it or part.length <= self._whole_below or not self._engine.has_ranges
            plans.append(_Plan(part, ref.token, columns, keys, rows, whole))
        return plans

    def _fetch(self, plans: list[_Plan], stay: bool = False) -> None:
        """Whole objects in one call, heads of others in one, their ranges in one."""
        whole, rest = [plan for plan in plans if plan.whole], [plan for plan in plans if not plan.whole]
        for plan, memory in self._read(whole, [[(0, plan.part.length)] for plan in whole]):
            plan.view = self._checked(packbuf.open(memory, exact=True), plan)
            if not stay and _may_alias(plan):
                plan.view = packbuf.open(bytes(memory), exact=True)
        for plan, memory in self._read(rest, [[(0, plan.part.head_length)] for plan in rest]):
            plan.view = self._checked(packbuf.open_head(bytes(memory)), plan)
            plan.ranges = _ranges(plan.view, plan, self._gap, self._verify == "all")
        for plan, memory in self._read(rest, [plan.ranges or [] for plan in rest]):
            if plan.view is not None and plan.ranges:
                plan.view = plan.view.fetched(plan.ranges, bytearray(memory) if _may_alias(plan) else memory)
                if self._verify == "all":
                    plan.view.verify_fetched()

    def _read(self, plans: list[_Plan], wanted: list[list[tuple[int, int]]]) -> list[tuple[_Plan, memoryview]]:
        """Ranges of objects into one slice: those of one object end to end."""
        sizes = [sum(length for _, length in ranges) for ranges in wanted]
        places, total = _side_by_side(sizes)
        if total == 0:
            return [(plan, memoryview(b"")) for plan in plans]
        lease = self._pool.take(total, self._wait)
        pieces = []
        for plan, ranges, place in zip(plans, wanted, places, strict=True):
            at = lease.address + place
            for offset, length in ranges:
                pieces.append(Piece(plan.part.key, offset, length, at))
                at += length
        if plans[0].whole:
            self._engine.get(pieces)
        else:
            self._engine.get_ranges(pieces)
        return [(plan, lease.part(place, size)) for plan, place, size in zip(plans, places, sizes, strict=True)]

    def _checked(self, view: View, plan: _Plan) -> View:
        """That what came is what the ref names, and sound as far as that is asked for."""
        part, found = plan.part, packbuf.Fragment.of(view, plan.part.key)
        named = part.length, part.head_length, part.head_checksum, part.rows
        if (found.length, found.head_length, found.head_checksum, found.rows) != named:
            raise Error(Status.FRAGMENT_MISMATCH, "the object is not the one that the ref names", path=part.key)
        if view.row_order_token.hex() != plan.token:
            raise Error(Status.ROW_ORDER, "the object has other rows, or another order of them", path=part.key)
        view.verify("all" if plan.whole and self._verify == "all" else "index")
        lacks = sorted(set(part.columns) - set(view))
        if lacks:
            raise Error(
                Status.FRAGMENT_MISMATCH, f"the object lacks columns that the ref names: {lacks}", path=part.key
            )
        return view

    # ---- append ----

    def append_fields(
        self,
        ref: Ref | Mapping[str, Any],
        data: Any,
        *,
        stage: str,
        overwrite: bool = False,
        schema: Mapping[str, FieldSchema] | None = None,
    ) -> Ref:
        """Add columns and meta_info to a batch: one new object, and a manifest of all. Nothing stored is written again.

        The old ref goes on naming the batch as it was; two appends to one ref make two batches. Nothing is read, but
        meta_info when columns are overwritten.

        Args:
            ref: of the batch.
            data: as for `put`, with the batch's number of rows, in its order.
            stage: of the pipeline. `overwrite` is about all of a stage.
            overwrite: the columns of this stage are replaced: all of them. Without it, a column that exists is
                DUPLICATE_NAME.
            schema: as for `put`.
        """
        ref, batch = import_ref(ref), take_apart(data, schema, flat=False)
        known, rows = ref.columns(), _rows_of(batch)
        batch.form = ref.form
        if rows is not None and known and rows != ref.rows:
            raise Error(Status.ROW_COUNT, f"columns of {rows} rows for a batch of {ref.rows}")
        old = [part for part in ref.parts if overwrite and part.stage == stage]
        replaced = {name for part in old for name in part.columns}
        again = sorted(batch.columns.keys() & (known.keys() - replaced))
        if again:
            raise Error(Status.DUPLICATE_NAME, f"the batch has columns {again} already", path=again[0])
        if not replaced <= batch.columns.keys():
            lacks = sorted(replaced - batch.columns.keys())
            raise Error(
                Status.INVALID_ARGUMENT, f"to overwrite a stage takes all its columns: {lacks} lack", path=lacks[0]
            )
        batch.meta = {**self._meta_of(ref, old), **batch.meta}
        stays = [part for part in ref.parts if part not in old]
        count = rows if rows is not None else ref.rows
        name, token = f"{stem(ref.key)}#{secrets.token_hex(8)}", bytes.fromhex(ref.token)
        (part,) = self._write([batch], [f"{name}.f"], [token], stage, schema, count)
        behind = dict.fromkeys([*ref.lineage, *(one.key for one in old), ref.key])
        lineage = tuple(key for key in behind if key not in {one.key for one in stays})
        made = Ref(f"{name}.m", count, ref.token, ref.form, (*stays, part), lineage)
        try:
            self._put_manifest(made)
        except BaseException:
            self._undo([part.key])
            raise
        return made

    append_dataproto_fields = append_fields

    def _meta_of(self, ref: Ref, parts: list[Part]) -> dict[str, Any]:
        """meta_info of parts that go: it stays, where no other value takes its place."""
        if not any(part.meta for part in parts):
            return {}
        plans = [plan for plan in self._plan(ref, {}, None, None) if plan.part in parts]
        self._fetch(plans)
        return _meta(plans)

    def _put_manifest(self, ref: Ref) -> None:
        packed = packbuf.manifest(ref.listed(), metadata={_LINEAGE: " ".join(ref.lineage)} if ref.lineage else None)
        lease = self._pool.take(len(packed), self._wait)
        try:
            lease.part(0, len(packed))[:] = packed
            self._put_all([ref.key], [lease], [len(packed)], named=False)
        finally:
            lease.release()

    # ---- refs ----

    export_ref, import_ref = staticmethod(export_ref), staticmethod(import_ref)

    def open_ref(self, key: str) -> Ref:
        """The ref of a batch or manifest, from its key alone: what is stored says everything a ref does."""
        size = self._engine.size(check_key(key))
        view = self._open_whole(key, size)
        listed = packbuf.fragments(view)
        if listed is None:
            return _ref_of(key, view.metadata, [key], [view])
        heads = self._open_heads(listed)
        packbuf.join(listed, heads, first_value=True)
        return _ref_of(key, view.metadata, [fragment.key for fragment in listed], heads)

    def _open_whole(self, key: str, size: int) -> View:
        lease = self._pool.take(size, self._wait)
        self._engine.get([Piece(key, 0, size, lease.address)])
        return packbuf.open(bytes(lease.part(0, size)), exact=True, verify="index")

    def _open_heads(self, listed: list[Fragment]) -> list[View]:
        if not self._engine.has_ranges:
            return [self._open_whole(fragment.key, fragment.length) for fragment in listed]
        places, total = _side_by_side([fragment.head_length for fragment in listed])
        lease = self._pool.take(total, self._wait)
        self._engine.get_ranges(
            [Piece(f.key, 0, f.head_length, lease.address + place) for f, place in zip(listed, places, strict=True)]
        )
        return [
            packbuf.open_head(bytes(lease.part(place, f.head_length))) for f, place in zip(listed, places, strict=True)
        ]

    def describe(self, ref: Ref | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Each column's section, stage, codec, dtype and cell shape; from heads and indexes alone."""
        ref = import_ref(ref)
        plans = [_Plan(part, ref.token, [], [], None, False) for part in ref.parts]
        found: dict[str, dict[str, Any]] = {}
        for view, plan in zip(self._open_heads(ref.listed()), plans, strict=True):
            self._checked(view, plan)
            for name, (section, kind) in plan.part.columns.items():
                field = view[name]
                what = {"codec": field.codec or field.kind, "dtype": field.dtype, "shape": field.shape}
                found[name] = {"section": section, "kind": kind, "stage": plan.part.stage, **what}
        return found

    # ---- remove ----

    def remove(self, ref: Ref | Mapping[str, Any], *, force: bool = False) -> int:
        """Remove a batch: all its objects, also those that only older refs of it name.

        The engine refuses while a reader's lease runs (every read grants one of some seconds). Those objects are gone
        for this store at once, and asked for again by `collect`; how many there are is returned. ``force=True`` removes
        them under the reader's hands: its checksums are then all that tells it.
        """
        self._parked.update(dict.fromkeys(import_ref(ref).keys))
        return self.collect(force=force)

    cleanup_dataproto = remove

    def collect(self, *, force: bool = False) -> int:
        """Ask again for what readers' leases kept from being removed; how many objects they still keep."""
        asked = list(self._parked)
        errors = self._engine.remove(asked, force)
        for key in asked:
            if key not in errors:
                self._parked.pop(key, None)
        for error in errors.values():
            if error.code is not Status.LEASED:
                raise error
        return len(errors)

    def close(self, *, force: bool = True) -> None:
        """Remove what is parked, and give the pool's memory back; LEASED while a view still lies in it."""
        self.collect(force=force)
        self._pool.close()

    # ---- for those who watch ----

    @property
    def counters(self) -> Counters:
        """What was asked of the engine so far."""
        return self._engine.counters

    @property
    def registrations(self) -> int:
        """Of memory: one, for good."""
        return self._pool.registrations

    @property
    def idle(self) -> bool:
        """Whether nothing lies in the pool."""
        return self._pool.idle()


# ---- what is asked for ----


@dataclass
class _Wanted:
    """One batch of a get."""

    ref: Ref
    columns: dict[str, tuple[str, str]]
    rows: Rows | None

    def result(self, plans: list[_Plan], destinations: Mapping[str, Any], form: Form, data_cls: Any) -> Any:
        """What is made of what has come."""
        found = {
            name: _column(plan.view, name, self.columns[name][1], plan.rows, destinations.get(name))
            for plan in plans
            if plan.view is not None
            for name in plan.columns
        }
        sections: dict[str, dict[str, Any]] = {BATCH: {}, VALUES: {}}
        for name, (section, _) in self.columns.items():
            sections[section][name] = found[name]
        every = range(self.ref.rows)
        rows = every if self.rows is None else every[self.rows] if isinstance(self.rows, slice) else self.rows
        return put_together(form, len(rows), sections, _meta(plans), data_cls)


def _wanted(ref: Ref, options: GetOptions) -> _Wanted:
    wanted = _Wanted(ref, _chosen_columns(ref, options), _chosen_rows(options.get("rows"), ref.rows))
    unknown = [name for name in options.get("destinations") or () if name not in wanted.columns]
    if unknown:
        raise _unknown(unknown)
    return wanted


def escaped(name: str) -> str:
    """A column's name as a path."""
    return name.replace("\\", "\\\\").replace(".", "\\.").replace("[", "\\[")


def _patterns(names: Sequence[str]) -> list[str]:
    paths = (escaped(name).replace("*", "\\*") for name in names)
    return ["\\" + path if path.startswith("!") else path for path in paths]


def _unknown(names: Sequence[str]) -> NotFound:
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
        raise _unknown(unknown)
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


def _side_by_side(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each goes in one slice, aligned, and the size of that."""
    places, at = [], 0
    for size in sizes:
        places.append(at)
        at += -(-size // _ALIGN) * _ALIGN
    return places, at


def _ranges(view: View, plan: _Plan, gap: int, chunks: bool) -> list[tuple[int, int]]:
    """What a plan needs beside the head."""
    chosen = [view.select(_patterns(plan.columns), plan.rows)] if plan.columns else []
    chosen += [view.select_values(_patterns(plan.meta))] if plan.meta else []
    return chosen[0].ranges(*chosen[1:], gap=gap, chunks=chunks) if chosen else []


# ---- what has come ----


def _may_alias(plan: _Plan) -> bool:
    """Whether cells of a column would be arrays that lie in the memory it was read from."""

    def arrays(field: Field) -> bool:
        return field.form in {"array", "tensor"} if field.kind == "leaf" else any(map(arrays, field.children))

    view, places = plan.view, plan.part.columns
    return view is not None and any(
        arrays(view[name]) for name in plan.columns if places[name][1] not in {"torch", "numpy"}
    )


def _meta(plans: list[_Plan]) -> dict[str, Any]:
    """meta_info of all parts; of a key that several have, the last."""
    found: dict[str, Any] = {}
    for plan in plans:
        if plan.meta and plan.view is not None:
            found.update(copy.deepcopy(plan.view.select_values(_patterns(plan.meta)).tolist()[0]))
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


# ---- refs of what is stored ----


def _rows_of(batch: Parts) -> int | None:
    return next((len(column) for column in batch.columns.values()), None)


def _part(view: View, key: str, batch: Parts, stage: str) -> Part:
    of = packbuf.Fragment.of(view, key)
    places, meta = dict(batch.places), tuple(batch.meta)
    return Part(key, stage, of.length, of.head_length, of.head_checksum, of.rows, places, meta)


def _described(view: View, key: str) -> dict[str, Any]:
    """A part as its object says, in the words of `export_ref`; of a packed buffer of someone else's, as it looks."""
    of, note = packbuf.Fragment.of(view, key), json.loads(view.metadata.get(_NOTE, "{}"))
    places = {name: (section, kind) for section in (BATCH, VALUES) for name, kind in note.get(section, {}).items()}
    if not note:
        dense = {name: field.codec == "ndarray" and not field.nullable for name, field in view.items()}
        places = {name: (BATCH, "numpy") if plain else (VALUES, "values") for name, plain in dense.items()}
    numbers = {name: getattr(of, name) for name in ("length", "head_length", "head_checksum", "rows")}
    return {
        "key": key,
        "stage": note.get("stage", "default"),
        **numbers,
        "columns": places,
        "meta": view.batch_value_names,
    }


def _ref_of(key: str, metadata: Mapping[str, str], keys: list[str], views: list[View]) -> Ref:
    """What objects say about themselves is held to all that a ref from elsewhere is."""
    try:
        note = json.loads(views[0].metadata.get(_NOTE, "{}"))
        parts = [_described(view, one) for view, one in zip(views, keys, strict=True)]
        form = note.get("form", "dict")
    except (ValueError, AttributeError, TypeError) as error:
        raise Error(Status.BAD_METADATA, f"what the object says of its columns: {error}", path=key) from None
    whole = {"rows": max(part["rows"] for part in parts), "token": views[0].row_order_token.hex(), "form": form}
    lineage = metadata.get(_LINEAGE, "").split()
    return import_ref({"type": TYPE, "version": VERSION, "key": key, **whole, "parts": parts, "lineage": lineage})
