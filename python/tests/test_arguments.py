"""What is refused of text, numbers, flags and words that callers give: one kind of error, which says what and where."""

import io

import numpy as np
import pytest

import packbuf
from packbuf import Status

HALF = "a\ud800b"  # no text: half of a pair


@pytest.fixture(scope="module")
def view():
    return packbuf.open(packbuf.pack({"a": [1, 2], "m": [{"x": 1}, {"x": 2}]}, batch_values={"s": 1}))


@pytest.fixture(scope="module")
def store():
    with packbuf.connect("local:?size=16m") as store:
        store.put("k", {"a": [1]})
        yield store


def pack(**options):
    return packbuf.pack({"a": [1]}, **options)


def column(**asked):
    return pack(schema={"a": asked})


def npz():
    file = io.BytesIO()
    np.savez_compressed(file, a=np.arange(3))
    return file.getvalue()


def refused(call) -> packbuf.Error:
    with pytest.raises(packbuf.Error) as caught:
        call()
    assert isinstance(caught.value, ValueError)
    return caught.value


TEXT = {  # door -> (call, what the words say)
    "field": (lambda text: packbuf.pack({text: [1]}), "a field's name"),
    "array": (lambda text: packbuf.pack({text: np.arange(3)}), "a field's name"),
    "batch value": (lambda text: pack(batch_values={text: 1}), "a batch value's name"),
    "key of metadata": (lambda text: pack(metadata={text: "x"}), "a key of metadata"),
    "metadata": (lambda text: pack(metadata={"k": text}), "in k: metadata"),
    "field's metadata": (lambda text: pack(metadata={"a": {"k": text}}), "in a: metadata"),
    "path of metadata": (lambda text: pack(metadata={text: {"k": "x"}}), "the path of a field's metadata"),
    "path of a schema": (lambda text: pack(schema={text: {}}), "a path of the schema"),
    "codec": (lambda text: column(codec=text), "in a: a codec"),
    "dtype": (lambda text: column(dtype=text), "in a: a dtype"),
    "unit of time": (lambda text: column(timestamp=text), "in a: a unit of time"),
    "name to infer": (lambda text: packbuf.infer([1], text), "a name"),
    "secret": (lambda text: packbuf.connect("local:", secret=text), "a secret"),
    "secret of a server": (lambda text: packbuf.serve(secret=text), "a secret"),
    "server": (lambda text: packbuf.serve("local:", text), "the URI of a server"),
    "metrics": (lambda text: packbuf.serve(metrics=text), "metrics"),
    "limit": (lambda text: packbuf.open(packbuf.pack({"a": [1]}), limits={text: 1}), "a limit's name"),
    "limit of a head": (lambda text: packbuf.open_head(b"", limits={text: 1}), "a limit's name"),
    "key of a fragment": (lambda text: packbuf.manifest([packbuf.Fragment(text, 1, 1, 1, 0, 1)]), "a fragment's key"),
    "metadata of a manifest": (lambda text: packbuf.manifest([], metadata={"k": text}), "metadata"),
}  # fmt: skip
OF_A_VIEW = {
    "pattern": (lambda view, text: view.select(text), "a path or pattern"),
    "patterns": (lambda view, text: view.select(["a", text]), "a path or pattern"),
    "batch values": (lambda view, text: view.select_values(text), "a path or pattern"),
    "schema": (lambda view, text: view.expect(text), "a schema"),
    "safetensors": (lambda view, text: packbuf.to_safetensors(view, "/none", fields="a", metadata={"k": text}), "metadata"),
}  # fmt: skip
OF_A_STORE = {
    "pattern": (lambda store, text: store.select("k", [text]), "a path or pattern"),
    "prefix": (lambda store, text: store.list(text), "a prefix"),
    "fingerprint": (lambda store, text: store.get("k", schema=text), "a fingerprint"),
    "limit": (lambda store, text: store.get("k", limits={text: 1}), "a limit's name"),
}


def check_text(call, what):
    error = refused(lambda: call(HALF))
    assert error.code == Status.BAD_UTF8 and f"{what} has a lone surrogate" in str(error) and "at character 1" in str(error)
    assert what == "a secret" or r"'a\ud800b'" in str(error)
    assert r"a\ud800b" not in str(error) or what != "a secret", "a secret is shown to nobody"


@pytest.mark.parametrize("door", TEXT)
def test_text(door):
    call, what = TEXT[door]
    check_text(call, what)
    if door != "metrics":
        error = refused(lambda: call(3))
        assert error.code == Status.WRONG_TYPE and isinstance(error, TypeError)


@pytest.mark.parametrize("door", OF_A_VIEW)
def test_text_of_a_view(view, door):
    call, what = OF_A_VIEW[door]
    check_text(lambda text: call(view, text), what)


@pytest.mark.parametrize("door", OF_A_STORE)
def test_text_of_a_store(store, door):
    call, what = OF_A_STORE[door]
    check_text(lambda text: call(store, text), what)
    assert refused(lambda: call(store, 3)).code == Status.WRONG_TYPE


def test_refs_keys_and_uris(store):
    """INVALID_ARGUMENT, as all that no key, ref or URI can be."""
    calls = {
        "the text of a ref": lambda: packbuf.Ref.parse(HALF),
        "a key": lambda: store.put(HALF, {"a": [1]}),
        "a store's URI": lambda: packbuf.connect("shm:" + HALF),
        "a name": lambda: packbuf.connect("local:", name=HALF),
    }
    for what, call in calls.items():
        error = refused(call)
        place = 5 if "URI" in what else 1
        assert error.code == Status.INVALID_ARGUMENT and f"{what} has a lone surrogate" in str(error), what
        assert str(error).endswith(f"character {place}"), what
    assert refused(lambda: packbuf.Ref.parse(b"x")).code == Status.WRONG_TYPE
    assert "a NUL character, at byte 1" in str(refused(lambda: store.get("a\0b")))


def test_names_as_an_array(view):
    assert view.select(np.array(["a", "m"])).paths == ["a", "m.x"]


def test_names_that_nothing_can_have(view):
    assert HALF not in view and view.get(HALF) is None
    for call in (lambda: view[HALF], lambda: view["m"][HALF]):
        assert refused(call).code == Status.NOT_FOUND
    assert refused(lambda: packbuf.pack([{"r": {HALF: 1}}])).path == r"r.'a\\ud800b'"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda: pack(rows="x"), Status.WRONG_TYPE),
        (lambda: packbuf.pack({}, rows=-1), Status.INVALID_ARGUMENT),
        (lambda: pack(link_gbits=2.5), Status.WRONG_TYPE),
        (lambda: pack(link_gbits=1 << 32), Status.INVALID_ARGUMENT),
        (lambda: pack(threads="2"), Status.WRONG_TYPE),
        (lambda: pack(alignment="64"), Status.WRONG_TYPE),
        (lambda: pack(checksums="no"), Status.WRONG_TYPE),
        (lambda: pack(row_sharing=None), Status.WRONG_TYPE),
        (lambda: pack(allow_pickle="no"), Status.WRONG_TYPE),
        (lambda: pack(row_order_token="a" * 16), Status.INVALID_ARGUMENT),
        (lambda: pack(default=3), Status.WRONG_TYPE),
        (lambda: pack(metadata=["x"]), Status.WRONG_TYPE),
        (lambda: pack(batch_values=["x"]), Status.WRONG_TYPE),
        (lambda: column(keep_plain="no"), Status.WRONG_TYPE),
        (lambda: pack(schema={"a": "int32"}), Status.WRONG_TYPE),
        (lambda: column(**{"dtyp": "int8"}), Status.INVALID_ARGUMENT),
        (lambda: packbuf.infer([1], mode="lax"), Status.INVALID_ARGUMENT),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits={"rows": -1}), Status.INVALID_ARGUMENT),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits={"rows": "9"}), Status.WRONG_TYPE),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits={"row": 9}), Status.INVALID_ARGUMENT),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits=[9]), Status.WRONG_TYPE),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), allow_pickle="no"), Status.WRONG_TYPE),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), verify="al"), Status.INVALID_ARGUMENT),
        (lambda: packbuf.connect("local:", read_only="no"), Status.WRONG_TYPE),
        (lambda: packbuf.connect("local:", connect_timeout=float("nan")), Status.INVALID_ARGUMENT),
        (lambda: packbuf.connect("local:", secret=5), Status.WRONG_TYPE),
        (lambda: packbuf.connect(5), Status.WRONG_TYPE),
        (lambda: packbuf.serve(5), Status.WRONG_TYPE),
        (lambda: packbuf.serve(threads="2"), Status.WRONG_TYPE),
        (lambda: pack(threads=1 << 40), Status.INVALID_ARGUMENT),
        (lambda: pack(schema=np.array(["a", "b"])), Status.WRONG_TYPE),
        (lambda: packbuf.open(packbuf.pack({"a": [1]}), limits=np.array([1, 2])), Status.WRONG_TYPE),
        (lambda: packbuf.manifest([], metadata=["x"]), Status.WRONG_TYPE),
        (lambda: packbuf.from_npz(npz(), decoded_bytes="1g"), Status.WRONG_TYPE),
    ],
)
def test_numbers_flags_and_words(call, code):
    assert refused(call).code == code


def test_numpy_numbers_and_flags_are_taken():
    packed = pack(checksums=np.True_, alignment=np.int64(128), threads=np.uint8(1), link_gbits=np.int32(0))
    assert bytes(packed) == bytes(pack(alignment=128, threads=1))


def test_what_is_appended_is_not_evictable(store):
    ref = store.put("whole", {"a": [1]})
    assert refused(lambda: store.append(ref, {"a": [2]}, evictable=True)).code == Status.INVALID_ARGUMENT
    assert len(store.list("whole")) == 1 and store.append(ref, {"a": [2]}, evictable=False)


def test_many_refs_are_a_list(store):
    for call in (store.get_many, store.stat_many):
        assert refused(lambda call=call: call("k")).code == Status.WRONG_TYPE
        assert refused(lambda call=call: call(store.stat("k").ref)).code == Status.WRONG_TYPE
        assert len(call(("k", "k"))) == 2


def test_misspelt_options(store):
    """A word that is no option of a function is a TypeError, and nothing was done."""
    batch, ledger = {"a": [1]}, packbuf.Ledger(store)
    for call in (
        lambda: packbuf.pack(batch, pakcing="none"),
        lambda: packbuf.measure(batch, pakcing="none"),
        lambda: packbuf.measure(batch, timeout=1),
        lambda: packbuf.pack_into(batch, bytearray(4096), pakcing="none"),
        lambda: packbuf.pack_many([batch], lambda sizes: [bytearray(size) for size in sizes], pakcing="none"),
        lambda: packbuf.open(packbuf.pack(batch), verfy="all"),
        lambda: packbuf.connect("local:", sise=1),
        lambda: packbuf.serve("local:", treads=1),
        lambda: store.put("new", batch, tll=1),
        lambda: store.put_many({"new": batch}, tll=1),
        lambda: store.append("k", batch, tll=1),
        lambda: store.get("k", verfy="all"),
        lambda: store.get_many(["k"], verfy="all"),
        lambda: store.select("k", "a", verfy="all"),
        lambda: ledger.put("new", batch, tll=1),
        lambda: ledger.get("k", verfy="all"),
        lambda: ledger.select("k", "a", verfy="all"),
    ):
        with pytest.raises(TypeError):
            call()
    assert not store.exists("new")
    for uri in ("local:?sise=1m", "local:?size=1m&size=1m", "local:?size", "local:?size=", "local:?=1", "local:?size=1x", "shm:a?size=1m&&", "local:?SIZE=1m"):
        assert refused(lambda uri=uri: packbuf.connect(uri)).code == Status.INVALID_ARGUMENT, uri
    for uri in ("tcp://127.0.0.1:0?sise=1", "tcp://127.0.0.1:0?size=1m"):
        assert refused(lambda uri=uri: packbuf.serve("local:", uri)).code == Status.INVALID_ARGUMENT, uri
