"""A feature store with SpecForge's contract (its `FeatureStore`: put, get, release, abort, gc) on a packbuf store.

A rollout process puts the features of a sample, a training process gets them, once or for many epochs, and the store
frees them when they were consumed. What SpecForge's own stores do with an object for each tensor, a generation counted
in each process and a lock held over each removal, is here one packed buffer for a sample, a generation of the store's,
and a `packbuf.Ledger`. Records are SpecForge's when it is installed, else the same fields from here.

    store = PackbufFeatureStore("shm:features?size=8g", store_id="run0")
    ref = store.put({"hidden_state": tensor}, sample_id="s0", metadata={"num_tokens": 512})  # to the trainer, as JSON
    tensors, handle = store.get(ref, device="cuda")
    store.release(handle)

Deviations, each on purpose: `max_resident_bytes` counts stored bytes, heads included, since that is what memory takes;
what `get` hands out was checked against its checksums (`verify`); a sample is there whole or not at all.
"""

from __future__ import annotations

import contextlib
import hmac
import math
import re
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

import torch

import packbuf

try:
    from specforge.runtime.contracts import SCHEMA_VERSION, FeatureHandle, FeatureSpec, SampleRef
except ImportError:
    SCHEMA_VERSION = 1

    @dataclass(frozen=True)
    class FeatureSpec:  # type: ignore[no-redef]
        """One named tensor of a sample."""

        name: str
        shape: tuple[int, ...]
        dtype: str
        device_hint: str | None = None
        required: bool = True
        target_repr: str | None = None
        target_meta: dict[str, Any] = field(default_factory=dict)

    @dataclass(frozen=True)
    class SampleRef:  # type: ignore[no-redef]
        """Where the features of one sample are. No tensors: it travels through any control plane."""

        sample_id: str
        run_id: str
        source_task_id: str | None
        feature_store_uri: str
        feature_keys: dict[str, str]
        feature_specs: dict[str, FeatureSpec]
        strategy: str
        schema_version: int = SCHEMA_VERSION
        target_model_version: str = "unknown"
        draft_weight_version: str | None = None
        tokenizer_version: str = "unknown"
        num_tokens: int = 0
        estimated_bytes: int = 0
        metadata: dict[str, Any] = field(default_factory=dict)

    @dataclass(frozen=True)
    class FeatureHandle:  # type: ignore[no-redef]
        """What `get` hands out to be released."""

        sample_id: str
        generation: int
        lease_token: str


# by name: torch itself imports packages when it is asked for their names
_DTYPES = {name: found for name, found in vars(torch).items() if isinstance(found, torch.dtype)}
_SCHEME = "packbuf:"  # before the text of a packbuf.Ref


class AuthPolicy:
    """A secret that whoever attaches must know; None: nobody is asked. (That of a server is `packbuf.connect`'s.)"""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def check(self, presented: str | None) -> None:
        """PermissionError unless it is the one."""
        if self.token is not None and not hmac.compare_digest((presented or "").encode(), self.token.encode()):
            raise PermissionError("the feature store wants a credential, and this is not it")


class PackbufFeatureStore:
    """Features of samples in a packbuf store, from any number of processes; each keeps the books of what it put or got.

    Args:
        store: an open store, or the URI of one that this opens.
        store_id: what keys begin with; all processes of a run have the same.
        auth: asked when this is made, and at every put and get.
        credential: what it is asked with.
        max_resident_bytes: a put beyond is a MemoryError: the consumer is behind.
        max_hold_age_s: what `gc` frees unless it is being read; None: nothing.
        retain_on_release: keep samples after their last release, for more epochs.
        max_release_attempts: how often `gc` tries a removal that a lease delays.
        verify: what is checked before tensors are handed out, as in `packbuf.open`.
        packing: of numbers, as in `packbuf.pack`, where the link is slower than memory.
    """

    def __init__(
        self,
        store: packbuf.Store | str,
        *,
        store_id: str | None = None,
        auth: AuthPolicy | None = None,
        credential: str | None = None,
        max_resident_bytes: int | None = None,
        max_hold_age_s: float | None = None,
        retain_on_release: bool = False,
        max_release_attempts: int = 3,
        verify: Literal["open", "head", "index", "all"] = "all",
        packing: Literal["none", "balanced", "fastest", "smallest", "auto"] | None = None,
    ) -> None:
        self.auth, self._credential = auth or AuthPolicy(), credential
        self.auth.check(credential)
        self.store_id = store_id or uuid.uuid4().hex[:8]
        self.store = packbuf.connect(store) if isinstance(store, str) else store
        self.max_hold_age_s = max_hold_age_s
        self._ledger = packbuf.Ledger(
            self.store,
            retain=retain_on_release,
            most_bytes=max_resident_bytes or 0,
            attempts=max_release_attempts,
        )
        self._verify, self._packing, self._retain = verify, packing, retain_on_release
        self._lock = threading.Lock()  # never held over a call of the store
        self._readings: dict[str, packbuf.Reading] = {}
        self._pending: dict[str, packbuf.Ref] = {}  # samples that were released, and that a lease may still delay
        self._attempts: dict[str, int] = {}
        self._force_freed = 0

    def _key(self, sample_id: str) -> str:
        return f"{self.store_id}/{quote(sample_id, safe='')}"

    # ---- samples ----

    def put(self, tensors: Mapping[str, torch.Tensor], *, sample_id: str, metadata: Mapping[str, Any]) -> SampleRef:
        """Store a sample; a sample of that id that is there already is superseded, and its refs are KeyErrors."""
        self.auth.check(self._credential)
        if not tensors:
            raise ValueError("put requires at least one tensor")
        batch = {name: tensor.detach().unsqueeze(0) for name, tensor in tensors.items()}  # one row
        try:
            ref = self._ledger.put(self._key(sample_id), batch, packing=self._packing)
        except packbuf.Error as error:
            if error.code == packbuf.Status.LIMIT:
                raise MemoryError(f"feature store {self.store_id} over budget: the consumer is behind") from error
            raise
        known = {"run_id": "unknown", "target_model_version": "unknown", "tokenizer_version": "unknown"}
        return SampleRef(
            sample_id=sample_id,
            source_task_id=metadata.get("source_task_id"),
            feature_store_uri=_SCHEME + str(ref),
            feature_keys={name: f"{sample_id}/{name}" for name in tensors},
            feature_specs={name: spec_of(name, tensor) for name, tensor in tensors.items()},
            strategy=metadata.get("strategy", "eagle3"),
            schema_version=int(metadata.get("schema_version", SCHEMA_VERSION)),
            draft_weight_version=metadata.get("draft_weight_version"),
            num_tokens=int(metadata.get("num_tokens", 0)),
            estimated_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
            metadata={
                **{key: value for key, value in metadata.items() if key != "num_tokens"},
                "generation": ref.generation,
            },
            **{key: str(metadata.get(key, default)) for key, default in known.items()},
        )

    def get(
        self, sample_ref: SampleRef, *, device: torch.device | str = "cpu", names: Iterable[str] | None = None
    ) -> tuple[dict[str, torch.Tensor], FeatureHandle]:
        """Tensors of the caller's own, and the handle to release. KeyError for whatever is not that sample, whole.

        Of `names` only their bytes are transferred; with verify="all" the chunks of 64 KiB that they lie in.
        """
        self.auth.check(self._credential)
        wanted = list(sample_ref.feature_keys if names is None else names)
        try:
            reading = self._reading(sample_ref, wanted)
            try:
                tensors = _tensors(reading.view, sample_ref, wanted, device)
            except BaseException as error:
                traceback.clear_frames(error.__traceback__)  # of an exception that is kept they would keep the view
                reading.put_back()
                raise
        except packbuf.Error as error:
            if isinstance(error, KeyError) or error.code in _WRONG_BYTES or isinstance(error, packbuf.Malformed):
                raise KeyError(f"sample {sample_ref.sample_id}: {error}") from error
            raise
        handle = FeatureHandle(sample_ref.sample_id, reading.ref.generation, uuid.uuid4().hex)
        with self._lock:
            self._readings[handle.lease_token] = reading
        return tensors, handle

    def _ref(self, sample_ref: SampleRef) -> packbuf.Ref:
        """The object that a sample is; a release removes it, so it has to be one of this store's."""
        ref = ref_of(sample_ref)
        if not ref.key.startswith(f"{self.store_id}/"):
            raise KeyError(f"sample {sample_ref.sample_id} is not of store {self.store_id}: {ref.key}")
        return ref

    def _reading(self, sample_ref: SampleRef, wanted: list[str]) -> packbuf.Reading:
        ref = self._ref(sample_ref)
        limits = {"decoded_bytes": (1 << 30) + 64 * ref.nbytes}  # few bytes can stand for many
        if not wanted or set(wanted) >= set(sample_ref.feature_keys):
            return self._ledger.get(ref, verify=self._verify, limits=limits)
        return self._ledger.select(ref, [_pattern(name) for name in wanted], verify=self._verify, limits=limits)

    def release(self, handle: FeatureHandle, *, reason: str = "consumed") -> None:
        """The sample was consumed. Once; a handle of an older generation frees nothing."""
        with self._lock:
            reading = self._readings.pop(handle.lease_token, None)
            last = reading and not any(other.ref == reading.ref for other in self._readings.values())
        if reading and not reading.release() and last and not self._retain:
            with self._lock:
                self._pending[handle.sample_id] = reading.ref

    def abort(self, sample_id: str, *, reason: str = "aborted") -> None:
        """End a sample now, whoever reads it."""
        with contextlib.suppress(packbuf.NotFound):  # it was never here; it stays aborted
            self._ledger.abort(self._key(sample_id))

    def adopt(self, sample_ref: SampleRef) -> None:
        """Become the one who frees a sample that another process wrote."""
        self._ledger.adopt(self._ref(sample_ref))
        with self._lock:
            self._attempts.pop(sample_ref.sample_id, None)

    def track_external_attempt(self, sample_id: str, *, generation: int = 0, feature_names: Iterable[str] = ()) -> None:
        """A server may be writing this sample: nobody knows until `adopt`."""
        with self._lock:
            self._attempts[sample_id] = generation

    def discard_external_attempts(self, *, reason: str = "unadopted-external-capture") -> int:
        """Remove what servers wrote and nobody adopted."""
        with self._lock:
            attempts = list(self._attempts)
        for sample_id in attempts:
            self.store.remove(self._key(sample_id))
            with self._lock:
                self._attempts.pop(sample_id, None)
        return len(attempts)

    # ---- what is left ----

    def gc(self, *, now: float | None = None) -> dict[str, int]:
        """Try pending removals again, then free what is older than `max_hold_age_s` and not being read.

        `now`: of ``time.monotonic``, for those who look ahead.
        """
        ahead = 0.0 if now is None else now - time.monotonic()
        age = 0.0 if self.max_hold_age_s is None else max(self.max_hold_age_s - ahead, 0.001)
        before = self._ledger.state()
        freed = self._ledger.gc(age)
        after = self._ledger.state()
        gone = sum(before[name] - after[name] for name in ("bytes", "pending_bytes"))
        with self._lock:
            self._force_freed += freed
            if not after["pending"]:
                self._pending.clear()
        return {"force_freed": freed, "force_freed_bytes": max(gone, 0), "release_pending": after["pending"]}

    def drain_pending_removals(
        self, *, max_attempts: int = 8, retry_interval_s: float = 0.25, sleep: Callable[[float], None] = time.sleep
    ) -> dict[str, int]:
        """Try pending removals until none is left; RuntimeError when that does not come to an end.

        Between two tries nobody looks whether they are gone: with an engine that would renew what delays them.
        """
        if max_attempts < 1 or retry_interval_s < 0:
            raise ValueError("max_attempts is 1 or more, retry_interval_s 0 or more")
        before = self._ledger.state()
        for attempt in range(1, max_attempts + 1):
            try:
                self._ledger.drain(0)
            except packbuf.Timeout as error:
                if attempt == max_attempts:
                    raise RuntimeError(f"could not drain {error.row} pending removals") from error
                sleep(retry_interval_s)
            else:
                break
        removed = {"removed": before["pending"], "removed_bytes": before["pending_bytes"]}
        return {**removed, "release_pending": 0, "attempts": attempt}

    def drain_sample_removals(
        self, sample_ids: Iterable[str], *, max_attempts: int = 8, retry_interval_s: float = 0.25
    ) -> dict[str, int]:
        """Remove these samples, which were released, and no others; RuntimeError when leases outlast it."""
        with self._lock:
            refs = {sample_id: self._pending[sample_id] for sample_id in sample_ids if sample_id in self._pending}
        wait = max_attempts * retry_interval_s
        left = [sample_id for sample_id, ref in refs.items() if not self.store.remove(ref, wait=wait)]
        with self._lock:
            for sample_id in refs.keys() - set(left):
                self._pending.pop(sample_id, None)
        if left:
            raise RuntimeError(f"could not drain {len(left)} pending removals: {left}")
        return {"removed": len(refs), "release_pending": 0}

    def estimate_bytes(self, specs: Mapping[str, FeatureSpec]) -> int:
        """Bytes of tensors that are so described."""
        return sum(math.prod(spec.shape) * _DTYPES[spec.dtype].itemsize for spec in specs.values())

    def health(self) -> dict[str, Any]:
        """What is on the books of this process, for the controller to pause on."""
        state, facts = self._ledger.state(), self.store.describe()
        return {
            "store_id": self.store_id,
            "backend": facts["transport"],
            "resident_samples": state["batches"],
            "resident_bytes": state["bytes"],
            "active_leases": state["reading"],
            "release_pending": state["pending"],
            "release_pending_bytes": state["pending_bytes"],
            "oldest_age_s": state["oldest_age"],
            "force_freed_total": self._force_freed,
            "auth_required": self.auth.token is not None,
            "store_bytes": facts["size"],
            "store_used": facts["used"],
        }


_WRONG_BYTES = {
    packbuf.Status.SHORT_READ,
    packbuf.Status.FRAGMENT_MISMATCH,
    packbuf.Status.SCHEMA_MISMATCH,
}


def spec_of(name: str, tensor: torch.Tensor) -> FeatureSpec:
    """What a ref says of a tensor."""
    return FeatureSpec(name=name, shape=tuple(tensor.shape), dtype=str(tensor.dtype).removeprefix("torch."))


def ref_of(sample_ref: SampleRef) -> packbuf.Ref:
    """The object that a sample is."""
    if not sample_ref.feature_store_uri.startswith(_SCHEME):
        raise KeyError(f"sample {sample_ref.sample_id} is in another kind of store: {sample_ref.feature_store_uri}")
    try:
        return packbuf.Ref.parse(sample_ref.feature_store_uri[len(_SCHEME) :])
    except packbuf.Error as error:
        raise KeyError(f"sample {sample_ref.sample_id}: {error}") from error


def _pattern(name: str) -> str:
    """The pattern that this name alone fits."""
    escaped = re.sub(r"[\\.\[*]", r"\\\g<0>", name)
    return "\\" + escaped if escaped.startswith("!") else escaped


def _tensors(
    view: packbuf.View, sample_ref: SampleRef, names: Iterable[str], device: torch.device | str
) -> dict[str, torch.Tensor]:
    """Copies of the wanted tensors; a KeyError where one is not what the ref says."""
    tensors = {}
    for name in names:
        column, spec = view[name], sample_ref.feature_specs.get(name)
        found = (column.shape, column.dtype) if column.codec == "ndarray" and view.num_rows == 1 else None
        if spec is None or (tuple(spec.shape), spec.dtype) != found:
            raise KeyError(f"sample {sample_ref.sample_id}: {name} is {found}, not as the ref says")
        tensors[name] = column.torch(device=device)[0]
    return tensors
