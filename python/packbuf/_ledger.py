"""Who still wants a batch: consume-once, retain, abort, age."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from packbuf import _core
from packbuf._arguments import flag, number, only
from packbuf._core import Ref
from packbuf._errors import Error, Status, error_of
from packbuf._pack import _begin
from packbuf._select import Rows, patterns_of, row_argument
from packbuf._store import GetOptions, PutOptions, Store, form_of, read_options, threads_of, view_of
from packbuf._view import View

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Unpack

_MOST = (1 << 32) - 1


class Reading:
    """A batch that is being read, until `release` or `put_back`.

    ``with ledger.get(ref) as view:`` releases at the end, and puts back where there was an exception. One that is
    dropped is put back. It ends when views and arrays that look into it are gone.
    """

    def __init__(self, core: _core.Reading, options: GetOptions) -> None:
        self._core, self._options = core, options
        self.ref = core.ref

    ref: Ref
    """Of the batch."""

    @property
    def view(self) -> View:
        """The batch: a new view each time."""
        if self._core.ended:
            raise error_of(Status.INVALID_ARGUMENT, "the reading has ended", path=self.ref.key)
        return view_of(self._core, self._options, form_of(self._options))

    def release(self) -> bool:
        """The batch was consumed: whether it was freed with that. A second release does nothing.

        It is freed when this was the last reading out of the newest generation, it was read as often as it is to be
        (`Ledger`, `readings`), and the ledger does not retain.
        """
        return self._core.end(True)

    def put_back(self) -> None:
        """The batch was not consumed, and stays to be read."""
        self._core.end(False)

    def __repr__(self) -> str:
        return f"<packbuf.Reading {self.ref}{', ended' if self._core.ended else ''}>"

    def __enter__(self) -> View:
        """A view of the batch."""
        return self.view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release; after an exception put back."""
        self._core.end(kind is None)


class Ledger:
    """Keeps account, in this process, of batches that are to be read a number of times and then freed.

    The store keeps the bytes; the ledger alone decides when they go: with the release by which a batch was read
    `readings` times, once no reading of it is out.

    Args:
        store: which must stay open.
        readings: how many releases a batch is for: 2 where an actor and a critic read each batch once.
        retain: the last release keeps the batch, for more epochs; only `abort`, `gc` and ``store.remove`` free.
        most_bytes: a put beyond is LIMIT; 0: no bound.
        attempts: how often `gc` tries a removal that leases delay.

    >>> import packbuf
    >>> store = packbuf.connect("local:")
    >>> ledger = packbuf.Ledger(store)
    >>> ref = ledger.put("sample/1", {"x": [1, 2]})
    >>> with ledger.get(ref) as view:
    ...     view["x"].tolist()
    [1, 2]
    >>> del view
    >>> store.exists(ref), ledger.state()["batches"]
    (False, 0)
    """

    def __init__(
        self, store: Store, *, readings: int = 1, retain: bool = False, most_bytes: int = 0, attempts: int = 3
    ) -> None:
        self.store = store
        most, tries = number(most_bytes, "most_bytes"), number(attempts, "attempts", _MOST)
        times = number(readings, "readings", _MOST)
        self._core = _core.Ledger(store._core, most, tries, times, flag(retain, "retain"))

    store: Store
    """Over which it keeps its books."""

    def put(self, key: str, batch: Any, **options: Unpack[PutOptions]) -> Ref:
        """`Store.put`, and on the books. LIMIT, and nothing is put, beyond ``most_bytes``."""
        begun = _begin(batch, only(options, PutOptions))
        return self._core.put(key, begun, threads_of(options), *self.store._put_options(options))

    def adopt(self, ref: Ref | str, *, timeout: float | None = None) -> None:
        """Put on the books what another process wrote: after a restart, or on a server."""
        self._core.adopt(ref, self.store._seconds(timeout))

    def get(self, ref: Ref | str, **options: Unpack[GetOptions]) -> Reading:
        """`Store.get`, counted: `NotFound` after release or abort, `Stale` after another put, even if bytes linger."""
        return self._reading(ref, None, options)

    def select(
        self,
        ref: Ref | str,
        fields: Sequence[str] | str | None = None,
        rows: Rows = None,
        *,
        gap: int = 0,
        **options: Unpack[GetOptions],
    ) -> Reading:
        """`Store.select`, counted as `get` is: the view has these fields and rows, and nothing else was transferred.

        >>> import packbuf
        >>> ledger = packbuf.Ledger(packbuf.connect("local:"))
        >>> ref = ledger.put("sample/1", {"x": [1, 2], "y": [3, 4]})
        >>> with ledger.select(ref, "y") as view:
        ...     view["y"].tolist()
        [3, 4]
        """
        return self._reading(ref, (patterns_of(fields), row_argument(rows), gap, False), options)

    def _reading(self, ref: Ref | str, wanted: Any, options: GetOptions) -> Reading:
        form_of(options)
        seconds = self.store._seconds(options.get("timeout"))
        try:
            return Reading(self._core.get(ref, wanted, *read_options(options), seconds), options)
        except Error as error:
            raise self.store._told(ref, error, options) from None

    def abort(self, ref: Ref | str) -> None:
        """End a batch now: nobody gets it here any more, and its memory comes back when the leases end.

        `NotFound` when it was not on the books; it is aborted all the same.
        """
        self._core.abort(ref)

    def gc(self, max_age: float = 0.0, timeout: float | None = None) -> int:
        """Try pending removals again, then free what is older than so many seconds (0: nothing is) and not being read.

        Returns how many batches went. What it has not come to in time stays for the next one.
        """
        return self._core.gc(float(max_age), self.store._seconds(timeout))

    def drain(self, timeout: float | None = None) -> None:
        """Try pending removals until none is left; `Timeout`, with how many in ``row``."""
        self._core.drain(self.store._seconds(timeout))

    def state(self) -> dict[str, Any]:
        """``batches`` and ``bytes`` to be read, ``reading``, ``pending`` removals and their bytes, ``oldest_age``."""
        return self._core.describe()

    def __repr__(self) -> str:
        return f"<packbuf.Ledger of {self.store!r}>"
