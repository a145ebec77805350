"""Moving: `connect` to a store, put and get whole batches, or parts of them, by refs; `serve` a store to others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict

from packbuf import _core
from packbuf._arguments import flag, number, only, text, word
from packbuf._arguments import limits as limits_of
from packbuf._arguments import secret as secret_of
from packbuf._core import Ref
from packbuf._errors import Error, NotFound, SomeFailed, Stale, Status, error_of
from packbuf._pack import PackOptions, _begin
from packbuf._select import Rows, Selection, patterns_of, row_argument
from packbuf._view import LEVELS, Schema, Verify, View, manner

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

_KINDS = {"rows": False, "fields": True}
_MOST_THREADS, _MOST_CONNECTIONS = 1 << 16, (1 << 32) - 1


class PutOptions(PackOptions, total=False):
    """Keyword arguments of what puts: those of `packbuf.pack`, and these."""

    timeout: float | None
    """Seconds for room and transfer; None: the store's."""
    ttl: float | None
    """Seconds until the object is dropped; None: never."""
    evictable: bool
    """It may be dropped, the least recently read first, when room is wanted. Else it stays until it is removed."""
    fingerprint: bool
    """False: the ref has no fingerprint of the schema, which saves a SHA-256."""
    threads: int
    """That write; 1 unless it is said: where batches are put, other workers have the other cores."""


class GetOptions(TypedDict, total=False):
    """Keyword arguments of what gets."""

    timeout: float | None
    """Seconds; None: the store's."""
    verify: Verify
    """What is checked before the view is there, as in `packbuf.open`."""
    schema: Schema | str | None
    """That the batch must have, or its fingerprint; else SCHEMA_MISMATCH."""
    limits: Mapping[str, int] | None
    widen: bool
    """Of what was appended to: columns whose types differ become one that holds all their values, as in `concat`."""
    first_value: bool
    """And of batch values and metadata that differ, the first."""
    tensors: Literal["torch", "numpy", "shared"] | None
    images: Literal["pil", "media"] | None
    allow_pickle: bool


@dataclass(frozen=True)
class Stat:
    """What a store knows of one object."""

    ref: Ref
    age: float
    """Seconds since it was put."""
    expires_in: float | None
    """Seconds until it is dropped; None: it stays."""
    leases: int
    """How many hold it just now."""
    evictable: bool


def connect(
    uri: str,
    *,
    timeout: float = 30.0,
    size: int = 0,
    objects: int = 0,
    sessions: int = 0,
    quota: int = 0,
    pool_size: int = 0,
    connections: int = 0,
    connect_timeout: float = 5.0,
    must_exist: bool = False,
    read_only: bool = False,
    step_down: bool = False,
    huge_pages: bool = False,
    secret: bytes | str | None = None,
    name: str | None = None,
) -> Store:
    """Open a store: ``local:``, ``shm:NAME``, ``tcp://HOST:PORT``, ``verbs://HOST:PORT``, ``mooncake://HOST:PORT``.

    Options may also stand in the URI: ``"shm:rollouts?size=8g"``. What was asked for is what runs, or the error says
    why not.

    Args:
        uri: which store; a `shm` store that is not there is made where its size is given, else `NotFound`.
        timeout: seconds that a call may take unless it is given its own: ``math.inf`` waits for ever, 0 not at all.
            While a call waits it is not interrupted, by Ctrl-C either.
        size: of `local` (0: 256 MiB), and of `shm` that is made: bytes for objects.
        objects: and the most objects; 0: one for each 16 KiB.
        sessions: of `shm` that is made: the most handles at a time; 0: 256.
        quota: the most bytes that objects put through this handle take at a time; 0: no bound.
        pool_size: of `tcp`, `verbs`, `mooncake`: bytes to receive and pack in; 0: 256 MiB.
        connections: of `tcp`, `verbs`; 0: 2.
        connect_timeout: seconds to connect.
        must_exist: of `shm`: do not make it, whatever the size.
        read_only: puts and removals are refused.
        step_down: `verbs` may become `tcp` when it is not to be had.
        huge_pages: or UNAVAILABLE.
        secret: of a server; None: the file PACKBUF_SECRET_FILE names, else PACKBUF_SECRET, else none.
        name: who this is, in lists of leases; None: the program.

    >>> import packbuf
    >>> with packbuf.connect("local:?size=16m") as store:
    ...     ref = store.put("step/7", {"ids": [[1, 2], [3]], "reward": [0.5, 1.0]})
    ...     view = store.get(ref)
    ...     view["ids"][0], store.select(ref, "reward", [1]).numpy()
    ([1, 2], {'reward': array([1.])})
    """
    if not isinstance(uri, str):
        raise error_of(Status.WRONG_TYPE, f"a store's URI is text, such as 'shm:rollouts', not {type(uri).__name__}")
    options = {
        "size": size,
        "objects": objects,
        "sessions": sessions,
        "quota": quota,
        "pool_size": pool_size,
        "connections": connections,
        "connect_ms": max(1, math.ceil(min(_time(connect_timeout, "connect_timeout"), 1e6) * 1000)),
        "must_exist": flag(must_exist, "must_exist"),
        "read_only": flag(read_only, "read_only"),
        "step_down": flag(step_down, "step_down"),
        "huge_pages": flag(huge_pages, "huge_pages"),
        "secret": secret_of(secret),
        "name": name,
    }
    return Store(_core.Store(uri, {key: value for key, value in options.items() if value is not None}), timeout)


class Store:
    """An open store. Any number of threads may use it; the GIL is released while it works.

    In asyncio: ``await asyncio.to_thread(store.get, ref)``. A child of ``fork`` must open its own: every call in it is
    `Disconnected`, and what it inherited stays the parent's.

    Errors of one key have a class: `NotFound` and `Stale` are KeyErrors, `Timeout` a TimeoutError, `Disconnected` a
    ConnectionError, `Denied` a PermissionError, `Full` is both FULL and QUOTA. Calls of many keys do what they can and
    then raise `SomeFailed`, with what each key came to.
    """

    timeout: float
    """Seconds that a call may take which is not given its own."""

    def __init__(self, core: _core.Store, timeout: float) -> None:
        self._core, self.timeout = core, timeout
        self._seconds(timeout)

    def _seconds(self, timeout: float | None) -> float:
        return _time(self.timeout if timeout is None else timeout, "a timeout")

    # ---- whole batches ----

    def put(self, key: str, batch: Any, **options: Unpack[PutOptions]) -> Ref:
        """Pack a batch straight into the store's memory, and name it.

        Whoever reads sees all of it or nothing. An older batch of the key is superseded: its refs are `Stale`, and
        views of it stay good.

        Args:
            key: 1 to 200 bytes of text without blanks and ``#``; other keys, and those that appends make, up to 255.
            batch: as `packbuf.pack` takes it.
            **options: `PutOptions`.

        >>> import packbuf
        >>> store = packbuf.connect("local:")
        >>> old = store.put("k", {"x": [1]}, ttl=60)
        >>> new = store.put("k", {"x": [2]})
        >>> store.get(new)["x"].tolist(), store.get("k").ref == new, packbuf.Ref.parse(str(new)) == new
        ([2], True, True)
        >>> try:
        ...     store.get(old)
        ... except packbuf.Stale as error:
        ...     error.path
        'k'
        """
        begun = _begin(batch, only(options, PutOptions))
        return self._core.put(key, begun, threads_of(options), *self._put_options(options))

    def put_many(
        self, batches: Mapping[str, Any] | Iterable[tuple[str, Any]], **options: Unpack[PutOptions]
    ) -> list[Ref]:
        """Put batches under their keys, many at a time; `SomeFailed` says which failed, and ``failed`` can be retried.

        >>> import packbuf
        >>> with packbuf.connect("local:") as store:
        ...     [ref.key for ref in store.put_many({f"step/{i}": {"x": [i]} for i in range(3)})]
        ['step/0', 'step/1', 'step/2']
        """
        only(options, PutOptions)
        pairs = list(batches.items() if isinstance(batches, Mapping) else batches)
        results: list[Any] = [None] * len(pairs)
        begun = {}
        for i, (_, batch) in enumerate(pairs):
            try:
                begun[i] = _begin(batch, options)
                begun[i].measure()
            except Error as error:
                begun.pop(i, None)
                results[i] = error
        keys = [pairs[i][0] for i in begun]
        if begun:
            put = self._core.put_many(keys, list(begun.values()), threads_of(options), *self._put_options(options))
            for i, result in zip(begun, put, strict=True):
                results[i] = result
        return _all_of([key for key, _ in pairs], results)

    def _put_options(self, options: PutOptions) -> tuple[int, bool, bool, float]:
        ttl = options.get("ttl")
        if ttl is not None and not 0 < _time(ttl, "a time to live") < math.inf:
            raise error_of(Status.INVALID_ARGUMENT, "a time to live is more than 0 seconds")
        return (
            0 if ttl is None else math.ceil(ttl * 1000),
            flag(options.get("evictable", False), "evictable"),
            flag(options.get("fingerprint", True), "fingerprint"),
            self._seconds(options.get("timeout")),
        )

    def get(self, ref: Ref | str, **options: Unpack[GetOptions]) -> View:
        """The batch of a ref, or the newest of a key.

        The view holds a lease: what it shows stays as it is, whatever happens to the key, until the view and the last
        array that looks into it are gone. Of `local` and `shm` it lies in the store's own memory, and nothing was
        copied; of others, in memory that came with the store. A batch that was appended to is copied into one.

        Args:
            ref: of a `put`; a key is for people, as the newest is not always the one that was meant.
            **options: `GetOptions`.
        """
        form = form_of(options)
        return view_of(_one_of(self._leased([ref], None, options)), options, form)

    def get_many(self, refs: Sequence[Ref | str], **options: Unpack[GetOptions]) -> list[View]:
        """The batches of many refs, in one call.

        >>> import packbuf
        >>> store = packbuf.connect("local:")
        >>> refs = store.put_many([("a", {"x": [1]}), ("b", {"x": [2]})])
        >>> [view["x"][0] for view in store.get_many(refs)]
        [1, 2]
        >>> try:
        ...     store.get_many([refs[0], "c"])
        ... except packbuf.SomeFailed as error:
        ...     list(error.failed), error.results[0].ref.key
        (['c'], 'a')
        """
        form, refs = form_of(options), _list_of(refs)
        results = self._leased(refs, None, options)
        for i, one in enumerate(results):
            if not isinstance(one, Error):
                try:
                    results[i] = view_of(one, options, form)
                except Error as error:
                    results[i] = error
        return _all_of([_key(ref) for ref in refs], results)

    def _leased(self, refs: list[Ref | str], wanted: Any, options: GetOptions) -> list[Any]:
        limits, level, fingerprint = read_options(options)
        if wanted is None and isinstance(options.get("schema"), Schema):
            fingerprint = None  # view_of can say which column differs
        flags = _join_flags(options.get("widen", False), options.get("first_value", False))
        seconds = self._seconds(options.get("timeout"))
        found = self._core.get_many(refs, wanted, limits, level, fingerprint, flags, seconds)
        return [self._told(refs[i], one, options) if isinstance(one, Error) else one for i, one in enumerate(found)]

    def _told(self, ref: Ref | str, error: Error, options: GetOptions) -> Error:
        """The error, with the column where a fingerprint differs of which the whole schema is here: heads say which."""
        schema = options.get("schema")
        if error.code != Status.SCHEMA_MISMATCH or not isinstance(schema, Schema):
            return error
        limits, seconds = limits_of(options.get("limits")), self._seconds(options.get("timeout"))
        no_rows: Any = ([], row_argument(slice(0, 0)), 0, False)
        (leased,) = self._core.get_many([ref], no_rows, limits, 0, None, 0, seconds)
        try:
            for i in range(0 if isinstance(leased, Error) else leased.parts):
                View._of(leased.view(i, *manner(None, None, False))).expect(schema)
        except Error as told:
            return told if told.code == error.code else error
        return error

    # ---- parts of batches ----

    def select(
        self,
        ref: Ref | str,
        fields: Sequence[str] | str | None = None,
        rows: Rows = None,
        *,
        values: bool = False,
        gap: int = 0,
        **options: Unpack[GetOptions],
    ) -> Selection:
        """Some fields and rows of a batch, as `View.select` chooses them; nothing else is transferred.

        Args:
            ref: of a batch that was put whole; `select_parts` takes those that were appended to.
            fields: paths or patterns; None: all.
            rows: a slice, indexes or a mask; None: all.
            values: fetch the batch values too: ``selection.view.batch_values``.
            gap: fetch ranges with at most so many bytes between them as one.
            **options: `GetOptions`; ``verify="all"`` fetches whole chunks of 64 KiB and checks them.

        >>> import numpy as np, packbuf
        >>> with packbuf.connect("local:") as store:
        ...     ref = store.put("k", {"a": np.arange(8), "b": ["text"] * 8})
        ...     store.select(ref, ["a"], slice(None, None, 3)).numpy()
        {'a': array([0, 3, 6])}
        """
        parts = self.select_parts(ref, fields, rows, values=values, gap=gap, **options)
        if len(parts) != 1:
            raise error_of(Status.WRONG_TYPE, f"an appended batch has {len(parts)} parts: select_parts", path=_key(ref))
        return parts[0]

    def select_parts(
        self,
        ref: Ref | str,
        fields: Sequence[str] | str | None = None,
        rows: Rows = None,
        *,
        values: bool = False,
        gap: int = 0,
        **options: Unpack[GetOptions],
    ) -> list[Selection]:
        """As `select`, a selection for each part that a batch was appended in; rows are those of the whole.

        >>> import packbuf
        >>> with packbuf.connect("local:") as store:
        ...     ref = store.append(store.put("k", {"a": [1, 2, 3]}), {"a": [4, 5]})
        ...     [part.numpy()["a"].tolist() for part in store.select_parts(ref, "a", slice(1, 4))]
        [[2, 3], [4]]
        """
        form = form_of(options)
        wanted = (patterns_of(fields), row_argument(rows), gap, values)
        leased = _one_of(self._leased([ref], wanted, options))
        views = [View._of(leased.view(i, *form)) for i in range(leased.parts)]
        return [Selection._of(view, leased.selection(i, view._core)) for i, view in enumerate(views)]

    def append(
        self,
        ref: Ref | str,
        batch: Any,
        *,
        by: Literal["rows", "fields"] = "rows",
        widen: bool = False,
        first_value: bool = False,
        **options: Unpack[PutOptions],
    ) -> Ref:
        """Add rows, or fields, to a stored batch: the ref of the whole. Nothing that is stored is written again.

        The old ref stays good; two who append to one ref make two wholes. For fields both batches must have been packed
        with one ``row_order_token`` (16 bytes, to `put` as well as here).

        What `get` could not join is refused before anything is put (SCHEMA_MISMATCH, with the column and both types):
        rows of other columns or types, batch values or metadata that differ. Where types are inferred from values that
        vary, such as optional keys of dicts, say them with `schema`, to `put` as well as here. Or let them differ:
        with `widen` and `first_value`, which `get` then needs too.

        >>> import packbuf
        >>> with packbuf.connect("local:") as store:
        ...     ref = store.put("k", {"a": [1, 2]}, row_order_token=b"step 7, worker 3")
        ...     more = store.append(ref, {"b": [3, 4]}, by="fields", row_order_token=b"step 7, worker 3")
        ...     store.get(more).rows()
        [{'a': 1, 'b': 3}, {'a': 2, 'b': 4}]
        """
        if by not in _KINDS:
            raise error_of(Status.INVALID_ARGUMENT, f"what is appended is 'rows' or 'fields', not {by!r}")
        begun = _begin(batch, only(options, PutOptions))
        ttl, evictable, fingerprint, seconds = self._put_options(options)
        if evictable:
            raise error_of(Status.INVALID_ARGUMENT, "a part of a batch is not evictable: the whole would be lost")
        flags = _join_flags(widen, first_value)
        return self._core.append(ref, begun, _KINDS[by], threads_of(options), ttl, fingerprint, flags, seconds)

    # ---- keys ----

    def remove(self, ref: Ref | str, *, wait: float = 0.0, timeout: float | None = None) -> bool:
        """Remove a batch, with all that was appended to it. What is gone already is no error.

        Nobody finds it from then on. Its memory comes back when the leases on it end: returns whether that is done
        (servers say so without looking), after waiting for up to `wait` seconds.
        """
        return self._core.remove(ref, float(wait), self._seconds(timeout))

    def exists(self, ref: Ref | str, *, timeout: float | None = None) -> bool:
        """Whether that object is there; of a key, whether any is."""
        try:
            self.stat(ref, timeout=timeout)
        except (NotFound, Stale):
            return False
        return True

    def stat(self, ref: Ref | str, *, timeout: float | None = None) -> Stat:
        """What the store knows of an object; ``store.stat(key).ref`` is the ref of the newest."""
        return Stat(*_one_of(self._core.stat_many([ref], self._seconds(timeout))))

    def stat_many(self, refs: Sequence[Ref | str], *, timeout: float | None = None) -> list[Stat]:
        """The same of many, in one call."""
        refs = _list_of(refs)
        found = self._core.stat_many(refs, self._seconds(timeout))
        results = [one if isinstance(one, Error) else Stat(*one) for one in found]
        return _all_of([_key(ref) for ref in refs], results)

    def list(self, prefix: str = "", *, timeout: float | None = None) -> list[Stat]:
        """All objects whose keys begin so, in no order; objects come and go meanwhile."""
        return [Stat(*found) for found in self._core.list(text(prefix, "a prefix"), self._seconds(timeout))]

    # ---- bytes ----

    def put_bytes(
        self,
        key: str,
        data: Any,
        *,
        ttl: float | None = None,
        evictable: bool = False,
        timeout: float | None = None,
    ) -> Ref:
        """Put the bytes of anything with the buffer protocol: a packed buffer that is there already, a file."""
        seconds, _, _, deadline = self._put_options({"ttl": ttl, "timeout": timeout})
        return self._core.put_bytes(key, data, seconds, evictable, deadline)

    def get_bytes(self, ref: Ref | str, *, timeout: float | None = None) -> memoryview:
        """The bytes of an object, read-only; the memory stays as long as the memoryview, or a part of it.

        >>> import packbuf
        >>> with packbuf.connect("local:") as store:
        ...     ref = store.put_bytes("k", b"any bytes")
        ...     bytes(store.get_bytes(ref)[4:])
        b'bytes'
        """
        return memoryview(self._core.get_bytes(ref, self._seconds(timeout)))

    # ---- the store itself ----

    @property
    def uri(self) -> str:
        """Where it is, without options."""
        return self._core.uri

    def describe(self, *, timeout: float | None = None) -> dict[str, Any]:
        """What runs (``transport``), what it can (``can``), and how full it is (``size``, ``used``, ``objects``)."""
        return self._core.describe(self._seconds(timeout))

    def counters(self) -> dict[str, int]:
        """What this handle did: ``puts``, ``bytes_moved``, ``registrations``, ``leases`` held now, ...

        ``store_used`` and ``store_objects`` are 0 where a server has the store: `describe` asks it.
        """
        return self._core.counters()

    def collect(self, *, timeout: float | None = None) -> int:
        """Take back now what is taken back anyway when room is wanted: from the dead, and what is out of date."""
        return self._core.collect(self._seconds(timeout))

    def free(self, *, force: bool = False) -> None:
        """Take a `shm` store away, with all that is in it; LEASED while others have it open, unless `force`.

        Views stay good; every other call is `Disconnected`. Until then a `shm` store outlives its processes.
        """
        self._core.free(force)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._core.closed

    def close(self, timeout: float = 5.0) -> None:
        """Close it. Views that are still there stay good: the handle goes with the last of them."""
        self._core.close(float(timeout))

    def __enter__(self) -> Self:
        """The store itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a store is not pickled: send its uri, and connect to that in the other process")

    def __repr__(self) -> str:
        return "<packbuf.Store, closed>" if self.closed else f"<packbuf.Store {self.uri}>"


class Server:
    """A store on the network, until it is closed."""

    def __init__(self, core: _core.Server, store: Store, own: bool) -> None:
        self._core, self.store, self._own = core, store, own
        self.uri = core.uri
        self.host, port = self.uri.partition("//")[2].rsplit(":", 1)
        self.port = int(port)

    store: Store
    """What is served."""
    uri: str
    """What clients `connect` to."""

    def close(self, timeout: float = 1.0) -> None:
        """Let clients end what they do, and go, for so many seconds; then cut connections."""
        self._core.close(float(timeout))
        if self._own:
            self.store.close()

    def __enter__(self) -> Self:
        """The server itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        return f"<packbuf.Server {self.uri}>"


def serve(
    store: Store | str = "local:",
    uri: str = "tcp://127.0.0.1:0",
    *,
    secret: bytes | str | None = None,
    metrics: str | None = None,
    threads: int = 0,
    connections: int = 0,
    quota: int = 0,
) -> Server:
    """Serve a `local` or `shm` store to other machines, from threads of its own; ``packbuf serve`` is the same.

    Args:
        store: what is served: an open store, or the URI of one that the server opens and closes.
        uri: ``tcp://HOST:PORT`` or ``verbs://HOST:PORT``; port 0: any that is free. Not encrypted.
        secret: that clients must have; needed where the host is not loopback. None: as for `connect`.
        metrics: ``HOST:PORT`` for Prometheus.
        threads: event loops; 0: 2.
        connections: the most at a time; 0: 4096.
        quota: the most bytes that the objects of one client take; 0: no bound.

    >>> import packbuf
    >>> with packbuf.serve("local:?size=16m") as server, packbuf.connect(server.uri) as store:
    ...     store.get(store.put("k", {"x": [1, 2]}))["x"].tolist()
    [1, 2]
    """
    own = not isinstance(store, Store)
    served = store if isinstance(store, Store) else connect(store)
    try:
        core = _core.serve(
            served._core,
            text(uri, "the URI of a server"),
            secret_of(secret),
            None if metrics is None else text(metrics, "metrics"),
            number(threads, "threads", _MOST_THREADS),
            number(connections, "connections", _MOST_CONNECTIONS),
            number(quota, "quota"),
        )
    except Error:
        if own:
            served.close()
        raise
    return Server(core, served, own)


def _time(seconds: Any, what: str) -> float:
    """Seconds, which are a number of at least 0."""
    try:
        found = float(seconds) if not isinstance(seconds, str) else math.nan
    except TypeError:
        found = math.nan
    if not found >= 0:
        raise error_of(Status.INVALID_ARGUMENT, f"{what} is a number of seconds, 0 or more, not {seconds!r}")
    return found


def _join_flags(widen: bool, first_value: bool) -> int:
    """As the C core has them: PACKBUF_WIDEN, PACKBUF_FIRST_VALUE."""
    return flag(widen, "widen") | flag(first_value, "first_value") << 1


# ---- what ledgers use too ----


def threads_of(options: PutOptions) -> int:
    """How many threads write."""
    return max(1, number(options.get("threads", 1), "threads", _MOST_THREADS))


def form_of(options: GetOptions) -> tuple[int, int, bool]:
    """How values of what is got are made."""
    only(options, GetOptions)
    return manner(options.get("tensors"), options.get("images"), options.get("allow_pickle", False))


def read_options(options: GetOptions) -> tuple[dict[str, int], int, bytes | None]:
    """Limits, level and fingerprint."""
    level = word(LEVELS, options.get("verify", "open"), "verify")
    schema = options.get("schema")
    fingerprint = schema.fingerprint if isinstance(schema, Schema) else text(schema or "", "a fingerprint")
    try:
        expected = bytes.fromhex(fingerprint) if fingerprint else None
    except ValueError:
        raise error_of(Status.INVALID_ARGUMENT, "a fingerprint is text of hexadecimal digits") from None
    return limits_of(options.get("limits")), level, expected


def view_of(leased: _core.Leased, options: GetOptions, form: tuple[int, int, bool]) -> View:
    """A view of what was leased; of an appended batch over a copy of all its parts."""
    limits, schema = limits_of(options.get("limits")), options.get("schema")
    core = _core.View(leased.joined(), False, limits, *form) if leased.appended else leased.view(0, *form)
    view = View._of(core)
    view.ref = leased.ref
    if isinstance(schema, Schema):
        view.expect(schema)
    return view


def _list_of(refs: Sequence[Ref | str]) -> list[Ref | str]:
    if isinstance(refs, (str, Ref)):
        raise error_of(Status.WRONG_TYPE, "refs are a list; one alone is for get, or stat")
    return list(refs)


def _key(ref: Ref | str) -> str:
    return ref.key if isinstance(ref, Ref) else ref


def _one_of(results: Sequence[Any]) -> Any:
    if isinstance(results[0], Error):
        raise results[0]
    return results[0]


def _all_of(keys: Sequence[str], results: list[Any]) -> list[Any]:
    if any(isinstance(result, Error) for result in results):
        raise SomeFailed(keys, results)
    return results
