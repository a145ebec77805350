"""Stores for tests: one of each kind that runs everywhere, gone afterwards."""

from __future__ import annotations

import itertools
import os
from contextlib import contextmanager

import packbuf

KINDS = ("local", "shm", "tcp")
_numbers = itertools.count()


@contextmanager
def shm_uri(size: str = "16m"):
    """The URI of a shm store that does not exist yet, and does not afterwards."""
    name = f"python-{os.getpid()}-{next(_numbers)}"
    try:
        yield f"shm:{name}?size={size}"
    finally:
        try:
            os.unlink(f"/dev/shm/packbuf.{name}")
        except FileNotFoundError:
            pass


@contextmanager
def store_uri(kind: str, size: str = "16m"):
    """A URI that any process of this machine can open; of tcp, served by this one."""
    with shm_uri(size) as uri:
        if kind == "shm":
            yield uri
        else:
            with packbuf.serve(uri) as server:
                yield server.uri


@contextmanager
def store_of(kind: str, size: str = "16m", **options):
    """An open store."""
    if kind == "local":
        with packbuf.connect(f"local:?size={size}", **options) as store:
            yield store
    elif kind == "shm":
        with shm_uri(size) as uri, packbuf.connect(uri, **options) as store:
            yield store
    else:
        with packbuf.serve(f"local:?size={size}") as server, packbuf.connect(server.uri, pool_size=1 << 25, **options) as store:
            yield store
