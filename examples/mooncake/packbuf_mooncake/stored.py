"""What stored objects say about themselves, so that a ref can be made again from a key alone.

A batch's metadata note its form, its stage, and what each column was; a manifest's list the objects that earlier refs
need. What an object says is held to all that a ref from elsewhere is.

May use: packbuf, refs, sections. Must not know: the engine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import packbuf
from packbuf import Error, Status, View
from packbuf_mooncake.refs import TYPE, VERSION, Part, Ref, import_ref
from packbuf_mooncake.sections import BATCH, VALUES, Parts

_NOTE, _LINEAGE = "packbuf.dataproto", "packbuf.lineage"  # metadata of batches, of manifests


def note_of(batch: Parts, stage: str) -> dict[str, str]:
    """Metadata of the packed buffer of a batch."""
    places: dict[str, dict[str, str]] = {BATCH: {}, VALUES: {}}
    for name, (section, kind) in batch.places.items():
        places[section][name] = kind
    return {_NOTE: json.dumps({"form": batch.form, "stage": stage, **places})}


def manifest_of(ref: Ref) -> packbuf.Packed:
    """The manifest of a batch in several parts."""
    return packbuf.manifest(ref.listed(), metadata={_LINEAGE: " ".join(ref.lineage)} if ref.lineage else None)


def part_of(view: View, key: str, batch: Parts, stage: str) -> Part:
    """The part that a packed buffer is, which was made of a batch."""
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


def ref_of(key: str, metadata: Mapping[str, str], keys: list[str], views: list[View]) -> Ref:
    """What objects say about themselves is held to all that a ref from elsewhere is."""
    try:
        note = json.loads(views[0].metadata.get(_NOTE, "{}"))
        parts = [_described(view, one) for view, one in zip(views, keys, strict=True)]
        form = note.get("form", "dict")
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise Error(Status.BAD_METADATA, f"what the object says of its columns: {error}", path=key) from None
    whole = {"rows": max(part["rows"] for part in parts), "token": views[0].row_order_token.hex(), "form": form}
    lineage = metadata.get(_LINEAGE, "").split()
    return import_ref({"type": TYPE, "version": VERSION, "key": key, **whole, "parts": parts, "lineage": lineage})
