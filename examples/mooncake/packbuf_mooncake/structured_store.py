"""A structured-object store on Mooncake's Python client: one packed buffer, one key, per put.

A dict of columns, a TensorDict or verl's DataProto is packed straight into registered memory and put from there; a get
reads all of it, or the head and then the byte ranges of the columns and rows that are wanted. Appending columns writes
a new object and a manifest that lists both. README.md has a tour, the rules, and what each costs.

May use: packbuf, the rooms beside it. Must not know: how packed buffers are laid out, what the engine's codes mean.
"""

from __future__ import annotations

import contextlib
import secrets
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import packbuf
from packbuf import Error, Fragment, NotFound, PackOptions, Status, View
from packbuf_mooncake.engine import Counters, Engine, Piece, connect, failure
from packbuf_mooncake.pool import Pool, Slice
from packbuf_mooncake.refs import Part, Ref, check_key, export_ref, gone, import_ref, stem
from packbuf_mooncake.sections import FieldSchema, Form, Parts, refuse_unknown, take_apart
from packbuf_mooncake.stored import manifest_of, note_of, part_of, ref_of
from packbuf_mooncake.wanted import GetOptions, Plan, Rows, escaped, may_alias, meta_of, ranges_of, wanted

if TYPE_CHECKING:
    from typing_extensions import Unpack

_HEADER, _ALIGN = 64, 64
_MOST_KEY = 200  # an append adds to it


@dataclass
class _Item:
    """A batch to put."""

    batch: Parts
    key: str
    token: bytes


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
        limits: on what bytes of others may ask for, as in `packbuf.open`. What is alike is stored once, so few bytes
            can stand for many: an object becomes at most 1 GiB and 64 times its size unless ``decoded_bytes`` is said.
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
        gap: int = 16384,
        whole_below: int = 65536,
        limits: Mapping[str, int] | None = None,
    ) -> None:
        if verify not in {"index", "all"}:
            raise Error(Status.INVALID_ARGUMENT, f"verify is 'index' or 'all', not {verify!r}")
        self._engine, self._pool = Engine(client, config), Pool(client, pool_bytes)
        self._wait, self._prefix, self._packing = wait, check_key(prefix), packing
        self._verify, self._gap, self._whole_below = verify, gap, whole_below
        self._limits = dict(limits or {})
        self._owns_client = False
        self._parked: dict[str, None] = {}  # removed, but under a reader's lease: gone for this store

    @classmethod
    def connect(
        cls,
        master: str,
        *,
        segment: int = 0,
        host: str = "127.0.0.1",
        timeout: float | None = 5.0,
        **options: Any,
    ) -> StructuredStore:
        """A store on a client of its own of the master at ``HOST:PORT``; `segment`: bytes of memory it brings.

        UNAVAILABLE when no master answers within `timeout` seconds.
        """
        client, config = connect(master, segment=segment, host=host, timeout=timeout)
        try:
            made = cls(client, config, **options)
        except BaseException:
            client.close()
            raise
        made._owns_client = True
        return made

    # ---- put ----

    def put(
        self,
        data: Any,
        *,
        key: str | None = None,
        stage: str = "default",
        schema: Mapping[str, FieldSchema] | None = None,
        flat: bool = False,
    ) -> Ref:
        """Store a batch: a flat dict, a TensorDict, a DataProto, or a dict of batch, non_tensor_batch and meta_info.

        Of a flat dict, the tensors and arrays, and the lists as long as they, are columns, everything else is
        meta_info.

        Args:
            data: the batch.
            key: the name to store it under; None makes one up. A name that is taken is DUPLICATE_NAME.
            stage: of the pipeline, that the columns are of.
            schema: what is asked for of some columns.
            flat: it is a flat dict, even if its keys are those of the sections.
        """
        return self.put_many([data], None if key is None else [key], stage=stage, schema=schema, flat=flat)[0]

    put_dataproto = put

    def put_many(
        self,
        batches: Sequence[Any],
        keys: Sequence[str] | None = None,
        *,
        stage: str = "default",
        schema: Mapping[str, FieldSchema] | None = None,
        flat: bool = False,
    ) -> list[Ref]:
        """`put` of several with one call of the engine: all of them or none.

        Where the engine went away meanwhile, what was put cannot be taken back: the error names its keys, if they are
        yours. A `schema` is of all of them; each name in it is a column, or of meta_info, of one at least.
        """
        parts = [take_apart(batch, schema, flat) for batch in batches]
        refuse_unknown(schema, parts)
        names = self._names(len(parts), keys)
        items = [_Item(*one, secrets.token_bytes(16)) for one in zip(parts, names, strict=True)]
        stored = self._write(items, stage, schema, named=keys is not None)
        return [
            Ref(part.key, part.rows, item.token.hex(), item.batch.form, (part,))
            for part, item in zip(stored, items, strict=True)
        ]

    def _names(self, count: int, keys: Sequence[str] | None) -> list[str]:
        if keys is None:
            return [f"{self._prefix}/{secrets.token_hex(16)}" for _ in range(count)]
        if any(len(check_key(key).encode()) > _MOST_KEY or "#" in key for key in keys):
            raise Error(Status.INVALID_ARGUMENT, f"the key of a batch has at most {_MOST_KEY} bytes and no '#'")
        if len(keys) != count or len(set(keys)) != count:
            raise Error(Status.INVALID_ARGUMENT, "each batch has a key of its own")
        return list(keys)

    def _write(
        self,
        items: list[_Item],
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
                packbuf.pack_into(item.batch.columns, room, **self._options(item, stage, schema, rows))
                for item in items
            ]
            memory = [lease.part(0, size) for lease, size in zip(slices, sizes, strict=True)]
            parts = [
                part_of(packbuf.open(bytes_), item.key, item.batch, stage)
                for bytes_, item in zip(memory, items, strict=True)
            ]
            self._put_all([item.key for item in items], slices, sizes, named)
            return parts
        finally:
            for lease in slices:
                lease.release()

    def _options(
        self, item: _Item, stage: str, schema: Mapping[str, FieldSchema] | None, rows: int | None
    ) -> PackOptions:
        batch = item.batch
        asked = {escaped(name): one.column() for name, one in (schema or {}).items() if batch.has(name, one)}
        return PackOptions(
            packing=self._packing,
            schema={path: column for path, column in asked.items() if column},
            batch_values=batch.meta,
            metadata=note_of(batch, stage),
            rows=0 if rows is None and not batch.columns else rows,
            row_order_token=item.token,
        )

    def _put_all(self, keys: list[str], slices: list[Slice], sizes: list[int], named: bool) -> None:
        """All of them or none.

        Keys that callers name may exist: then the engine says 0 and writes nothing, so that what is there now has to
        be looked at. What tells two batches apart is in the header: the checksum of a head with a token of its own.
        """
        headers = [bytes(lease.part(0, _HEADER)) for lease in slices]
        try:
            codes = self._engine.put(keys, [lease.address for lease in slices], sizes)
            for key, code in zip(keys, codes, strict=True):
                if code != 0:
                    raise failure(code, key)
            for key, header, stored in zip(keys, headers, self._headers(keys) if named else headers, strict=True):
                if header != stored:
                    raise Error(Status.DUPLICATE_NAME, "the key is another object's: nothing was put", path=key)
        except BaseException as error:
            remain = self._take_back(dict(zip(keys, headers, strict=True)) if named else dict.fromkeys(keys))
            if remain and isinstance(error, Error):
                error.message += f"; what was put may still be there, under {', '.join(remain)}"
            raise
        for key in keys:
            self._parked.pop(key, None)

    def _take_back(self, put: Mapping[str, bytes | None]) -> list[str]:
        """Remove what was put, key by key, where its header is the one given; the keys of which that cannot be said."""
        remain: list[str] = []
        for key, header in put.items():
            try:
                if header is None or self._headers([key]) == [header]:
                    remain += self._engine.remove([key], force=True)
            except NotFound:
                continue
            except Exception:  # the reason why things are taken back matters more
                remain.append(key)
        return remain

    def _headers(self, keys: list[str]) -> list[bytes]:
        """The first bytes of stored objects."""
        if not self._engine.has_ranges:
            return [bytes(self._whole(key, self._engine.size(key))[:_HEADER]) for key in keys]
        return self._starts(keys, [_HEADER] * len(keys))

    def _starts(self, keys: list[str], sizes: list[int]) -> list[bytes]:
        """The first bytes of objects, as many as is said of each."""
        if not keys:
            return []
        places, total = _side_by_side(sizes)
        lease = self._pool.take(total, self._wait)
        with lease.kept_if_read():
            self._engine.get_ranges(
                [Piece(key, 0, size, lease.address + at) for key, size, at in zip(keys, sizes, places, strict=True)]
            )
        return [bytes(lease.part(at, size)) for at, size in zip(places, sizes, strict=True)]

    def _whole(self, key: str, size: int) -> bytes:
        lease = self._pool.take(size, self._wait)
        with lease.kept_if_read():
            self._engine.get([Piece(key, 0, size, lease.address)])
        return bytes(lease.part(0, size))

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
        asked = [wanted(import_ref(ref), options) for ref in refs]
        plans = [self._plan(one.ref, one.columns, options.get("meta_info_keys"), one.rows) for one in asked]
        every = [plan for group in plans for plan in group]
        with _nothing_kept(every):
            self._fetch(every)
            return [
                one.result(group, options.get("destinations") or {}, form or one.ref.form, options.get("data_cls"))
                for one, group in zip(asked, plans, strict=True)
            ]

    def views(self, ref: Ref | Mapping[str, Any]) -> list[View]:
        """The packed buffers of a batch as they lie in the pool: nothing is copied, and read in place.

        Their memory is the pool's until the views, and whatever was read in place from them, are gone.
        """
        plans = self._plan(import_ref(ref), None, None, None)
        with _nothing_kept(plans):
            self._fetch(plans, stay=True)
            return [plan.opened for plan in plans]

    def _plan(
        self, ref: Ref, names: Mapping[str, Any] | None, meta: Sequence[str] | None, rows: Rows | None
    ) -> list[Plan]:
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
            plans.append(Plan(part, ref.token, columns, keys, rows, whole))
        return plans

    def _fetch(self, plans: list[Plan], stay: bool = False) -> None:
        """Whole objects in one call, heads of others in one, their ranges in one."""
        self._fetch_whole([plan for plan in plans if plan.whole], stay)
        rest = [plan for plan in plans if not plan.whole]
        self._fetch_heads(rest)
        self._fetch_ranges([plan for plan in rest if plan.ranges])

    def _bounds(self, length: int) -> dict[str, int]:
        return {"decoded_bytes": (1 << 30) + 64 * length, **self._limits}

    def _fetch_whole(self, plans: list[Plan], stay: bool) -> None:
        for plan, memory in self._read(plans, [[(0, plan.part.length)] for plan in plans]):
            limits = self._bounds(plan.part.length)
            plan.view = self._checked(packbuf.open(memory, exact=True, limits=limits), plan)
            if not stay and may_alias(plan):
                plan.view = packbuf.open(bytes(memory), exact=True, limits=limits)

    def _fetch_heads(self, plans: list[Plan]) -> None:
        for plan, memory in self._read(plans, [[(0, plan.part.head_length)] for plan in plans]):
            head = packbuf.open_head(bytes(memory), limits=self._bounds(plan.part.length))
            plan.view = self._checked(head, plan)
            plan.ranges = ranges_of(plan, self._gap, self._verify == "all")

    def _fetch_ranges(self, plans: list[Plan]) -> None:
        for plan, memory in self._read(plans, [plan.ranges for plan in plans]):
            plan.view = plan.opened.fetched(plan.ranges, bytearray(memory) if may_alias(plan) else memory)
            if self._verify == "all":
                plan.view.verify_fetched()

    def _read(self, plans: list[Plan], ranges: list[list[tuple[int, int]]]) -> list[tuple[Plan, memoryview]]:
        """Ranges of objects into one slice, those of one object end to end; all of them if they are whole."""
        if not plans:
            return []
        sizes = [sum(length for _, length in some) for some in ranges]
        places, total = _side_by_side(sizes)
        lease = self._pool.take(total, self._wait)
        pieces = []
        for plan, some, place in zip(plans, ranges, places, strict=True):
            at = lease.address + place
            for offset, length in some:
                pieces.append(Piece(plan.part.key, offset, length, at))
                at += length
        with lease.kept_if_read():
            (self._engine.get if plans[0].whole else self._engine.get_ranges)(pieces)
        return [(plan, lease.part(place, size)) for plan, place, size in zip(plans, places, sizes, strict=True)]

    def _checked(self, view: View, plan: Plan) -> View:
        """That what came is what the ref names, and sound as far as that is asked for."""
        part, found = plan.part, packbuf.Fragment.of(view, plan.part.key)
        named = part.length, part.head_length, part.head_checksum, part.rows
        if (found.length, found.head_length, found.head_checksum, found.rows) != named:
            raise Error(Status.FRAGMENT_MISMATCH, "the object is not the one that the ref names", path=part.key)
        if view.row_order_token.hex() != plan.token:
            raise Error(Status.ROW_ORDER, "the object has other rows, or another order of them", path=part.key)
        view.verify("all" if plan.whole and self._verify == "all" else "index")
        lacks = [name for name in plan.columns if name not in view]
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
        ref, batch = import_ref(ref), take_apart(data, schema)
        refuse_unknown(schema, [batch])
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
        batch.meta = {**self._meta_that_stays(ref, old), **batch.meta}
        stays = [part for part in ref.parts if part not in old]
        count = rows if rows is not None else ref.rows
        name, token = f"{stem(ref.key)}#{secrets.token_hex(8)}", bytes.fromhex(ref.token)
        (part,) = self._write([_Item(batch, f"{name}.f", token)], stage, schema, count)
        behind = dict.fromkeys([*ref.lineage, *(one.key for one in old), ref.key])
        lineage = tuple(key for key in behind if key not in {one.key for one in stays})
        made = Ref(f"{name}.m", count, ref.token, ref.form, (*stays, part), lineage)
        try:
            self._put_manifest(made)
        except BaseException:
            self._take_back({part.key: None})
            raise
        return made

    append_dataproto_fields = append_fields

    def _meta_that_stays(self, ref: Ref, parts: list[Part]) -> dict[str, Any]:
        """meta_info of parts that go: it stays, where no other value takes its place."""
        if not any(part.meta for part in parts):
            return {}
        plans = [plan for plan in self._plan(ref, {}, None, None) if plan.part in parts]
        self._fetch(plans)
        return meta_of(plans)

    def _put_manifest(self, ref: Ref) -> None:
        packed = manifest_of(ref)
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
        view = packbuf.open(self._whole(check_key(key), self._engine.size(key)), exact=True, verify="index")
        listed = packbuf.fragments(view)
        if listed is None:
            return ref_of(key, view.metadata, [key], [view])
        heads = self._open_heads(listed)
        packbuf.join(listed, heads, first_value=True)
        return ref_of(key, view.metadata, [fragment.key for fragment in listed], heads)

    def _open_heads(self, listed: list[Fragment]) -> list[View]:
        keys, lengths = [fragment.key for fragment in listed], [fragment.length for fragment in listed]
        if not self._engine.has_ranges:
            return [packbuf.open(self._whole(*one), exact=True) for one in zip(keys, lengths, strict=True)]
        return [packbuf.open_head(head) for head in self._starts(keys, [fragment.head_length for fragment in listed])]

    def describe(self, ref: Ref | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """Each column's section, stage, codec, dtype and cell shape; from heads and indexes alone."""
        ref = import_ref(ref)
        plans = [Plan(part, ref.token, [], [], None, False) for part in ref.parts]
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
        """Remove what is parked, unregister the pool, close the client if it is the store's own.

        LEASED while a view still lies in the pool. A client of the caller's is closed after its stores.
        """
        self.collect(force=force)
        self._pool.close()
        self._engine.close(self._owns_client)

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


@contextlib.contextmanager
def _nothing_kept(plans: list[Plan]) -> Iterator[None]:
    """A get that fails leaves nothing in the pool, even if its exception is kept, and so every frame it passed."""
    try:
        yield
    except BaseException as error:
        for plan in plans:
            plan.view = None
        traceback.clear_frames(error.__traceback__)
        raise


def _side_by_side(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each goes in one slice, aligned, and the size of that."""
    places, at = [], 0
    for size in sizes:
        places.append(at)
        at += -(-size // _ALIGN) * _ALIGN
    return places, at


def _rows_of(batch: Parts) -> int | None:
    return next((len(column) for column in batch.columns.values()), None)
