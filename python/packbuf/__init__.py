"""packbuf: batches of rows as one contiguous, aligned, verifiable buffer; lossless, without pickle, at memory speed.

>>> import numpy as np, packbuf
>>> packed = packbuf.pack({
...     "input_ids": np.arange(6).reshape(2, 3),
...     "text": ["Hello", None],
...     "meta": [{"step": 1, "tags": ["a"]}, {"step": 2}],
... })
>>> view = packbuf.open(packed, verify="all")
>>> view["input_ids"].numpy()
array([[0, 1, 2],
       [3, 4, 5]])
>>> view["meta.step"][1], view.rows(0, 1)[0]["meta"]
(2, {'step': 1, 'tags': ['a']})

`pack`, `pack_into`, `pack_many` and `measure` write; `open` reads; `infer` tells what a column would be stored as;
`connect` opens a store, which moves batches between processes and machines.
"""

from packbuf._core import Packed, Ref
from packbuf._errors import (
    Denied,
    Disconnected,
    Error,
    Full,
    Malformed,
    NotFound,
    OutOfMemory,
    OutOfRange,
    SomeFailed,
    Stale,
    Status,
    Timeout,
    Unencodable,
    Unsupported,
    WrongType,
)
from packbuf._infer import Inference, Inferred, infer
from packbuf._ledger import Ledger, Reading
from packbuf._pack import Column, PackOptions, measure, pack, pack_into, pack_many
from packbuf._select import Ragged, Selection
from packbuf._store import GetOptions, PutOptions, Server, Stat, Store, connect, serve
from packbuf._table import Table
from packbuf._values import MISSING, Media, Opaque
from packbuf._view import Field, Schema, View, open

__version__ = "0.1.0"

__all__ = [
    "MISSING",
    "Column",
    "Denied",
    "Disconnected",
    "Error",
    "Field",
    "Full",
    "GetOptions",
    "Inference",
    "Inferred",
    "Ledger",
    "Malformed",
    "Media",
    "NotFound",
    "Opaque",
    "OutOfMemory",
    "OutOfRange",
    "PackOptions",
    "Packed",
    "PutOptions",
    "Ragged",
    "Reading",
    "Ref",
    "Schema",
    "Selection",
    "Server",
    "SomeFailed",
    "Stale",
    "Stat",
    "Status",
    "Store",
    "Table",
    "Timeout",
    "Unencodable",
    "Unsupported",
    "View",
    "WrongType",
    "connect",
    "infer",
    "measure",
    "open",
    "pack",
    "pack_into",
    "pack_many",
    "serve",
]
