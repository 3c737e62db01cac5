"""Parts of a gallery on Milvus that need no server."""

from __future__ import annotations

import socket
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError, MissingExtraError
from finegrain.gallery import Gallery, RaBitQ
from finegrain.gallery.milvus import documents, search, store
from finegrain.gallery.milvus.address import TOKEN_VARIABLE, MilvusAddress
from finegrain.gallery.milvus.identifiers import IdSource
from finegrain.gallery.row import Entry

JPEG = b"\xff\xd8\xff"


# --- addresses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["crops.gallery", "./a:b", "C:\\crops", "/http://x", Path("milvus:x.db"), "httpx"]
)
def test_a_path_is_not_an_address(path: str | Path):
    assert MilvusAddress.of(path) is None


def test_an_address_states_server_database_name_and_login(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    address = MilvusAddress.of("https://me:s%40cret@milvus:443/shop/people?consistency=Bounded")
    assert address is not None
    assert (address.uri, address.database, address.name) == ("https://milvus:443", "shop", "people")
    assert (address.token, address.consistency) == ("me:s@cret", "Bounded")
    assert address.shown == "https://milvus:443/shop/people"
    assert "cret" not in repr(address)
    plain = MilvusAddress.of("http://milvus/people")
    assert plain is not None
    assert (plain.uri, plain.token) == ("http://milvus:19530", "from-environment")
    assert (plain.database, plain.consistency) == ("", "Strong")


def test_a_file_of_milvus_lite_has_an_address():
    address = MilvusAddress.of("milvus:folder/people.db")
    assert address is not None
    assert (address.uri, address.shown) == ("folder/people.db", "milvus:folder/people.db")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("http://milvus:19530", "is http://HOST:PORT/NAME"),
        ("http://milvus:19530/", "HOST:PORT/NAME"),
        ("http://milvus:19530/a/b/c", "HOST:PORT/NAME"),
        ("http://milvus:19530/peo ple", "HOST:PORT/NAME"),
        ("http://milvus:19530/people'; drop", "HOST:PORT/NAME"),
        ("http://milvus:19530/../people", "HOST:PORT/NAME"),
        ("http://milvus:19530/people#x", "HOST:PORT/NAME"),
        ("http://milvus:port/people", "no valid host and port"),
        ("http:///people", "HOST:PORT/NAME"),
        (
            "http://milvus/people?consistency=Eventually",
            "consistency=Strong or consistency=Bounded",
        ),
        ("http://milvus/people?token=x", "after the question mark"),
        ("milvus:people", r"milvus:FILE\.db"),
        ("milvus://host/people.db", r"milvus:FILE\.db"),
    ],
)
def test_other_addresses_are_refused(address: str, message: str):
    with pytest.raises(GalleryError, match=message):
        Gallery(address, dim=4)


def test_a_login_is_never_shown():
    for address in ("http://me:hunter2@h:x/people", "http://me:hunter2@h/a/b/c"):
        with pytest.raises(GalleryError) as caught:
            Gallery(address, dim=4)
        assert "hunter2" not in str(caught.value)


# --- connecting -------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["pymilvus", "milvus_lite"])
def test_a_missing_client_is_named_with_its_extra(module: str, monkeypatch, tmp_path: Path):
    if module != "pymilvus":
        pytest.importorskip("pymilvus")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"{module} .*finegrain\[milvus\]"):
        Gallery(f"milvus:{tmp_path}/people.db", dim=4)


def test_a_missing_server_is_an_error():
    pytest.importorskip("pymilvus")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://me:hunter2@127.0.0.1:{unused.getsockname()[1]}/people"
        with pytest.raises(GalleryError, match="See that a Milvus server listens") as caught:
            Gallery(address, dim=4)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_an_approximate_index_is_for_files_only(tmp_path: Path):
    with pytest.raises(GalleryError, match="give no index="):
        Gallery(f"milvus:{tmp_path}/people.db", dim=4, index=RaBitQ())


# --- ids --------------------------------------------------------------------------------


def test_ids_ascend_and_are_unique():
    clock = [1_800_000_000.0]
    sources = [IdSource(lambda: clock[0]) for _ in range(3)]
    with ThreadPoolExecutor(6) as threads:
        given = list(threads.map(lambda n: sources[n % 3].take(3000), range(12)))
    assert len({id_ for ids in given for id_ in ids}) == 36_000
    for ids in given:
        assert ids == sorted(ids)
        assert 0 < ids[0] <= ids[-1] < 2**63
    last = max(ids[-1] for ids in given)
    clock[0] += 60
    assert IdSource(lambda: clock[0]).take(1)[0] > last


def test_ids_ascend_also_when_the_clock_goes_back():
    clock = [1_800_000_000.0]
    source = IdSource(lambda: clock[0])
    before = source.take(10)
    clock[0] -= 3600
    assert source.take(1)[0] > before[-1]
    clock[0] = 0
    assert IdSource(lambda: clock[0]).take(1)[0] > 0


# --- documents --------------------------------------------------------------------------


def entry(**changes) -> Entry:
    nothing = dict.fromkeys(("image", "pid", "camera", "time", "track", "expires_at", "thumbnail"))
    return Entry(**{**nothing, "metadata": {}, **changes})


def document(**changes) -> documents.Document:
    vectors = np.eye(1, 4, dtype=np.float32)
    (made,) = documents.documents([1], vectors, [entry(**changes)], "2026-05-01T08:00:00.000Z")
    return made


@pytest.mark.parametrize(
    ("fits", "too_long", "what"),
    [
        ({"image": "é" * 32_767}, {"image": "é" * 32_768}, "image"),
        ({"metadata": {"a": "x" * 65_000}}, {"metadata": {"a": "x" * 65_536}}, "metadata"),
        (
            {"thumbnail": JPEG.ljust(documents.MAX_THUMBNAIL_BYTES, b"x")},
            {"thumbnail": JPEG.ljust(documents.MAX_THUMBNAIL_BYTES + 1, b"x")},
            "thumbnail",
        ),
    ],
)
def test_values_that_milvus_cannot_store_are_refused(fits, too_long, what: str):
    made = document(**fits)
    assert all(len(str(made[name]).encode()) <= 65_535 for name in documents.THUMBNAIL_FIELDS)
    assert documents.thumbnail_of(made) == fits.get("thumbnail")
    with pytest.raises(GalleryError, match=f"of a picture's {what}; got"):
        document(**too_long)


def test_messages_are_bounded(monkeypatch: pytest.MonkeyPatch):
    made = [{**document(thumbnail=JPEG * 100), "id": id_} for id_ in range(10)]
    monkeypatch.setattr(store, "_MESSAGE_BYTES", 3 * documents.size_of(made[0]))
    messages = list(store._messages(made))
    assert [len(message) for message in messages] == [3, 3, 3, 1]
    assert [d["id"] for message in messages for d in message] == list(range(10))
    assert list(store._messages([])) == []


# --- search -----------------------------------------------------------------------------


class FakeConnection:
    """A server with the largest rounding errors and the worst order that Milvus may have."""

    def __init__(self, vectors: np.ndarray, error: float | np.ndarray) -> None:
        self.vectors = vectors
        self.noise = error * np.random.default_rng(0).uniform(-1, 1, len(vectors))
        self.limits: list[int] = []
        self.num_pages = 0

    def nearest(self, _name, queries, limit, _condition, _consistency):
        self.limits.append(limit)
        answers = []
        for query in queries:
            scores = self.vectors @ query + self.noise
            best = np.argsort(-scores)[:limit]
            answers.append([(int(i) + 1, float(scores[i]), self.vectors[i].tolist()) for i in best])
        return answers

    def pages(self, _name, _condition, _fields, *, after, rows):
        for start in range(after, len(self.vectors), rows):
            self.num_pages += 1
            some = range(start, min(start + rows, len(self.vectors)))
            yield [{"id": i + 1, "vector": self.vectors[i].tolist()} for i in some]


@pytest.mark.parametrize("length", [1e-30, 1, 1e20])
@pytest.mark.parametrize("spread", [1, 1e-6])
@pytest.mark.parametrize("largest", [0, 0.1, 1e6])
def test_search_with_biases_is_exact_for_any_rounding(largest, spread, length, monkeypatch):
    monkeypatch.setattr(search, "MAX_ROWS", 500)
    random = np.random.default_rng(1)
    vectors = np.float32([1, 0, 0, 0]) + spread * random.standard_normal((800, 4))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    biases = (largest * random.uniform(-1, 1, 800)).astype(np.float32)
    stored = documents.with_biases(vectors, biases)
    query = np.float32([[3, 1, 0, 1]]) * np.float32(length)
    products = np.abs(stored.astype(np.float64)) @ np.append(np.abs(query[0]), 1)
    error = 7 * 2.0**-24 * products / np.linalg.norm(np.append(query[0].astype(np.float64), 1))
    connection = FakeConnection(stored, error)
    searched = search.MilvusSearch(
        connection, "c", "id > 0", dim=4, consistency="Strong", has_biases=True
    )
    scores = vectors.astype(np.float64) @ query[0].astype(np.float64) + biases
    order = np.lexsort((np.arange(800), -scores.astype(np.float32)))[:5]
    (hits,) = searched(query, 5)
    assert [hit.id for hit in hits] == (order + 1).tolist()
    if spread == length == 1:
        assert connection.num_pages == 0


@pytest.mark.parametrize("spread", [1, 1e-4, 1e-7, 0])
@pytest.mark.parametrize("k", [1, 40, 900])
def test_search_is_exact_for_any_rounding_of_the_server(monkeypatch, spread: float, k: int):
    monkeypatch.setattr(search, "MAX_ROWS", 500)
    random = np.random.default_rng(1)
    vectors = np.float32([1, 0, 0, 0]) + spread * random.standard_normal((800, 4))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    connection = FakeConnection(vectors, error=6 * 2.0**-24)
    searched = search.MilvusSearch(connection, "c", "id > 0", dim=4, consistency="Strong")
    queries = np.float32([[1, 0, 0, 0], [3, 1, 0, 1]])
    for query, hits in zip(queries, searched(queries, k), strict=True):
        scores = (vectors.astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
        order = np.lexsort((np.arange(800), -scores))[:k]
        assert [hit.id for hit in hits] == (order + 1).tolist()
        assert [hit.score for hit in hits] == pytest.approx(scores[order].tolist(), abs=1e-6)
    assert max(connection.limits, default=0) <= 500
    if spread == 1 and k == 1:
        assert connection.limits == [65]
    if spread == 0 or k == 900:
        assert connection.num_pages > 0
