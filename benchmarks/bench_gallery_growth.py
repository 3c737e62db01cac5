"""The cost of a gallery as it grows: filling, opening, changing and searching it.

The vectors are drawn to be as hard to search as embeddings of people: tens of thousands of
identities around one common direction, and texts that are far from all pictures. An index that is
trained on the pictures is therefore a poor fit to the texts. The vectors are kept in a file and
read in chunks.

``FINEGRAIN_ROWS=10000000`` continues to ten million rows, where only approximate indexes fit in
memory. The file takes 2 KiB per row.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

import finegrain
from finegrain.index.approximate import Approximate, ApproximateIndex, Hnsw, Ivf, RaBitQ, tune
from finegrain.index.exact import VectorIndex

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]
Ask = Callable[[Vectors], list[int]]
"""Maps a query ``[1, D]`` to the ids of its ten best pictures."""

WIDTH = 512
K = 10
CHUNK = 10_000
NUM_CAMERAS = 100
CAMERA = 3
NUM_ADDED = 1000
NUM_DELETED = 100
ROUNDS = 30
PAUSE = 0.02  # see conftest.py
WARM_UP = 3
NUM_TEXTS = 200

ROWS = int(os.environ.get("FINEGRAIN_ROWS", 1_000_000))
SIZES = tuple(10**power for power in range(3, 9) if 10**power <= ROWS)
IN_MEMORY = 4_000_000  # beyond this, exact indexes take over half of a common server's memory
MILVUS_ROWS = 100_000  # beyond this, filling milvus-lite takes minutes
HNSW_ROWS = 1_000_000
MILVUS_ROUNDS = 5
SHORT_ROWS = 10_000
SHORT_MILVUS_ROWS = 1000
SHORT_APPROXIMATE = 70_000


class Crowd:
    """Draws unit vectors of pictures and texts of the same people, the same in each run.

    Two pictures of different people have a cosine of 0.5. A text has a cosine of 0.14 with any
    picture, and of 0.38 with the ten best of 200,000. Models for text-to-person search have similar
    values.
    """

    def __init__(self, identities: int) -> None:
        random = np.random.default_rng(0)
        # Embeddings of trained models vary mostly in few directions.
        spectrum = np.arange(1, WIDTH + 1, dtype=np.float32) ** -0.5
        axes = np.linalg.qr(random.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
        self._axes = (spectrum / np.linalg.norm(spectrum))[:, None] * axes
        self._of_pictures, other = _unit(random.standard_normal((2, WIDTH), np.float32))
        self._of_texts = 0.2 * self._of_pictures + 0.98 * other
        self._people = random.standard_normal((identities, WIDTH), np.float32) @ self._axes

    def pictures(self, number: int) -> Vectors:
        """Chunk ``number`` of the vectors of pictures, ``[CHUNK, D]``."""
        random = np.random.default_rng([1, number])
        return self._drawn(random, CHUNK, 0.7 * self._of_pictures, 0.55, 0.45)

    def texts(self, count: int) -> Vectors:
        """Vectors of texts, ``[count, D]``."""
        return self._drawn(np.random.default_rng(2), count, 0.85 * self._of_texts, 0.35, 0.4)

    def _drawn(
        self, random: np.random.Generator, count: int, shared: Vectors, person: float, rest: float
    ) -> Vectors:
        who = random.integers(len(self._people), size=count)
        other = random.standard_normal((count, WIDTH), np.float32) @ self._axes
        return _unit(shared + person * self._people[who] + rest * other)


def _unit(vectors: Vectors) -> Vectors:
    result: Vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return result


@dataclass(frozen=True)
class Mapped:
    """Vectors in a file, with the interface of a gallery's storage; row ``r`` has id ``r + 1``."""

    rows: Vectors
    file: int
    dim: int = WIDTH

    def ids(self) -> Ids:
        return np.arange(1, len(self.rows) + 1)

    def vectors(self, ids: Iterable[int]) -> dict[int, Vectors]:
        # Reads as a database does. A memory map would read ahead 100 KB for each vector.
        size = 4 * WIDTH
        read = partial(os.pread, self.file, size)
        return {id_: np.frombuffer(read((id_ - 1) * size), np.float32) for id_ in ids}

    def vectors_after(self, last_id: int) -> Generator[tuple[Ids, Vectors], None, None]:
        for start in range(last_id, len(self.rows), CHUNK):
            chunk = np.array(self.rows[start : start + CHUNK])
            yield np.arange(start + 1, start + 1 + len(chunk)), chunk


@pytest.fixture(scope="module")
def most(short: bool) -> int:
    """Number of rows of the largest gallery."""
    return SHORT_APPROXIMATE if short else ROWS


@pytest.fixture(scope="module")
def crowd(most: int) -> Crowd:
    return Crowd(max(1000, min(60_000, most // 16)))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the file of all vectors."""
    return tmp_path_factory.mktemp("vectors") / "vectors.f32"


@pytest.fixture(scope="module")
def vectors(crowd: Crowd, most: int, path: Path) -> Iterator[Vectors]:
    """Vectors ``[most, D]`` in a file, which is read when needed."""
    drawn = np.memmap(path, np.float32, "w+", shape=(most, WIDTH))
    for start in range(0, most, CHUNK):
        drawn[start : start + CHUNK] = crowd.pictures(start // CHUNK)[: most - start]
    drawn.flush()
    yield drawn
    del drawn
    path.unlink()  # pytest keeps the folders of three runs


@pytest.fixture
def file(vectors: Vectors, path: Path) -> Iterator[int]:
    """File descriptor of the file of all vectors."""
    with path.open("rb") as opened:
        yield opened.fileno()


@pytest.fixture(scope="module")
def texts(crowd: Crowd) -> Vectors:
    return crowd.texts(NUM_TEXTS)


@pytest.fixture(scope="module")
def keep(
    record: Callable[..., None], request: pytest.FixtureRequest
) -> Callable[[str, int, dict[str, Any]], None]:
    """``keep(subject, rows, results)`` adds measurements for a number of rows.

    Results of earlier runs are kept, because the largest sizes are best measured in their own runs.
    """
    folder = request.config.getoption("results")

    def earlier(subject: str) -> dict[str, dict[str, Any]]:
        path = folder / f"{subject}.json" if folder is not None else None
        result: dict[str, dict[str, Any]] = {}
        return json.loads(path.read_text())["by_rows"] if path and path.is_file() else result

    def add(subject: str, rows: int, results: dict[str, Any]) -> None:
        by_rows = earlier(subject)
        by_rows.setdefault(str(rows), {}).update(results)
        record(subject, {"width": WIDTH, "k": K, "by_rows": by_rows})

    return add


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _in_turns(ways: Mapping[str, Ask], queries: Vectors, rounds: int) -> dict[str, float]:
    """Median milliseconds of each implementation, in turns on the same query."""
    milliseconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(WARM_UP + rounds):
        for name, ask in ways.items():
            time.sleep(PAUSE)
            query = queries[number % len(queries)][None]
            milliseconds[name].append(1e3 * _seconds(partial(ask, query)))
    return {name: round(median(times[WARM_UP:]), 3) for name, times in milliseconds.items()}


# --- implementations to compare --------------------------------------------------------------


def _cameras(rows: range) -> list[str]:
    return [f"gate-{row % NUM_CAMERAS}" for row in rows]


def _fill(gallery: finegrain.Gallery, vectors: Vectors) -> None:
    for start in range(0, len(vectors), CHUNK):
        some = vectors[start : start + CHUNK]
        rows = range(start, start + len(some))
        gallery.add(some, [f"crops/{row:08d}.jpg" for row in rows], cameras=_cameras(rows))


def _ask_numpy(vectors: Vectors, places: Ids | None) -> Ask:
    def ask(query: Vectors) -> list[int]:
        scores = (vectors if places is None else vectors[places]) @ query[0]
        some = np.argpartition(-scores, K - 1)[:K]
        best = some[np.argsort(-scores[some])]
        return ((best if places is None else places[best]) + 1).tolist()

    return ask


def _ask_faiss(flat: faiss.IndexFlatIP, places: Ids | None) -> Ask:
    parameters = None
    if places is not None:
        mask = np.zeros(flat.ntotal, np.bool_)
        mask[places] = True
        selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        parameters = faiss.SearchParameters(sel=selector)
    return lambda query: (flat.search(query, K, params=parameters)[1][0] + 1).tolist()


def _ways(
    gallery: finegrain.Gallery,
    flat: faiss.IndexFlatIP,
    vectors: Vectors,
    where: str | None,
    places: Ids | None,
) -> dict[str, Ask]:
    return {
        "finegrain": lambda query: [hit.id for hit in gallery.search(query, K, where)[0]],
        "faiss flat": _ask_faiss(flat, places),
        "numpy": _ask_numpy(vectors, places),
    }


def _milvus(path: Path, vectors: Vectors) -> Any:
    """A client of milvus-lite with a filled collection, which searches exactly."""
    pymilvus = import_module("pymilvus")
    client = pymilvus.MilvusClient(str(path))
    schema = client.create_schema(auto_id=False)
    schema.add_field("id", pymilvus.DataType.INT64, is_primary=True)
    schema.add_field("camera", pymilvus.DataType.VARCHAR, max_length=64)
    schema.add_field("vector", pymilvus.DataType.FLOAT_VECTOR, dim=WIDTH)
    index = client.prepare_index_params()
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection("people", schema=schema, index_params=index)
    for start in range(0, len(vectors), NUM_ADDED):
        some = vectors[start : start + NUM_ADDED]
        cameras = _cameras(range(start, start + len(some)))
        client.insert(
            "people",
            [
                {"id": start + 1 + row, "camera": camera, "vector": vector}
                for row, (camera, vector) in enumerate(zip(cameras, some, strict=True))
            ],
        )
    client.flush("people")
    return client


def _ask_milvus(client: Any, where: str) -> Ask:
    def ask(query: Vectors) -> list[int]:
        (hits,) = client.search("people", [query[0].tolist()], filter=where, limit=K)
        return [hit["id"] for hit in hits]

    return ask


# --- growth ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_growth(
    size: int,
    vectors: Vectors,
    texts: Vectors,
    tmp_path: Path,
    keep: Callable[[str, int, dict[str, Any]], None],
    short: bool,
) -> None:
    if size > (SHORT_ROWS if short else IN_MEMORY):
        pytest.skip("more rows than this form measures")
    rows, path = vectors[:size], tmp_path / "gallery"
    places = np.arange(CAMERA, size, NUM_CAMERAS)
    with finegrain.Gallery(path, dim=WIDTH) as gallery:
        result: dict[str, Any] = {"build_s": _seconds(lambda: _fill(gallery, rows))}
    result["bytes_a_row"] = sum(file.stat().st_size for file in tmp_path.iterdir()) / size
    with finegrain.Gallery(path) as gallery:
        result["open_s"] = _seconds(lambda: gallery.search(texts[:1], K))
        flat = faiss.IndexFlatIP(WIDTH)
        flat.add(np.ascontiguousarray(rows))
        ways = _ways(gallery, flat, rows, None, None)
        filtered = _ways(gallery, flat, rows, f"camera = 'gate-{CAMERA}'", places)
        result["query_ms"] = _compared(ways, texts, short)
        result["filtered_ms"] = _compared(filtered, texts, short)
        if size <= (SHORT_MILVUS_ROWS if short else MILVUS_ROWS):
            # Not in turns: its threads keep working between queries and would slow down the others.
            result["milvus-lite"] = _milvus_lite(
                tmp_path / "milvus.db", rows, texts, ways, filtered
            )
        result |= _changes(gallery, vectors, texts)
    keep("gallery_growth", size, result)


def _milvus_lite(
    path: Path, rows: Vectors, texts: Vectors, ways: Mapping[str, Ask], filtered: Mapping[str, Ask]
) -> dict[str, float]:
    """Times of milvus-lite on the same rows and queries; empty if it is not installed."""
    if find_spec("milvus_lite") is None:
        return {}
    start = time.perf_counter()
    client = _milvus(path, rows)
    build = time.perf_counter() - start
    all_of, some_of = _ask_milvus(client, ""), _ask_milvus(client, f"camera == 'gate-{CAMERA}'")
    for ask, ours in ((all_of, ways["finegrain"]), (some_of, filtered["finegrain"])):
        assert ask(texts[:1]) == ours(texts[:1])
    result = _in_turns({"query_ms": all_of, "filtered_ms": some_of}, texts, MILVUS_ROUNDS)
    client.close()
    return {"build_s": build, **result}


def _compared(ways: Mapping[str, Ask], queries: Vectors, short: bool) -> dict[str, float]:
    answers = {name: [ask(query[None]) for query in queries[:5]] for name, ask in ways.items()}
    for name, answer in answers.items():
        assert answer == answers["finegrain"], name
    return _in_turns(ways, queries, 5 if short else ROUNDS)


def _changes(gallery: finegrain.Gallery, vectors: Vectors, queries: Vectors) -> dict[str, float]:
    """Seconds of adding and of deleting, each with the first search after it."""

    def add() -> None:
        gallery.add(vectors[:NUM_ADDED], [None] * NUM_ADDED)
        gallery.search(queries[:1], K)

    def delete() -> None:
        gallery.delete(range(1, NUM_DELETED + 1))
        gallery.search(queries[:1], K)

    return {f"add_{NUM_ADDED}_s": _seconds(add), f"delete_{NUM_DELETED}_s": _seconds(delete)}


# --- approximate indexes --------------------------------------------------------------------

KINDS = (RaBitQ(), Ivf(), Hnsw())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("size", [*(size for size in SIZES if size >= 100_000), SHORT_APPROXIMATE])
def test_approximate(
    size: int,
    kind: Approximate,
    vectors: Vectors,
    file: int,
    texts: Vectors,
    keep: Callable[[str, int, dict[str, Any]], None],
    short: bool,
) -> None:
    slow = isinstance(kind, Hnsw) and (short or size > HNSW_ROWS)
    if slow or short != (size == SHORT_APPROXIMATE):
        pytest.skip("this size belongs to the other form, or the index takes hours to build")
    mapped = Mapped(vectors[:size], file)
    index = ApproximateIndex(mapped, kind)
    build = _seconds(lambda: _follow(index, mapped))
    tuned = tune(index, texts, k=K, min_recall=0.99)
    result: dict[str, Any] = {
        "build_s": build,
        "bytes_a_row": _bytes_of(index) / size,
        "chosen": str(tuned.chosen.kind),
        "recall": tuned.chosen.recall,
        "efforts": [
            {
                "effort": str(one.kind),
                "recall": one.recall,
                "worst": one.worst,
                "ms": round(one.milliseconds, 3),
            }
            for one in tuned.measured
        ],
    }
    indexes: dict[str, ApproximateIndex | VectorIndex] = {"approximate": index}
    if size <= IN_MEMORY:
        indexes["exact"] = VectorIndex(WIDTH)
        _follow(indexes["exact"], mapped)
    allowed = np.arange(CAMERA, size, NUM_CAMERAS) + 1
    for subject, ids in (("query_ms", None), ("filtered_ms", allowed)):
        ways = {name: _ask_index(each, ids) for name, each in indexes.items()}
        result[subject] = _in_turns(ways, texts, 5 if short else ROUNDS)
    result |= _index_changes(index, mapped, texts)
    keep("gallery_approximate", size, {type(kind).__name__: result})
    print(f"\n{size} rows, built in {build:.1f} s, {result['query_ms']}\n{tuned}")


def _follow(index: ApproximateIndex | VectorIndex, mapped: Mapped) -> None:
    while (news := next(mapped.vectors_after(index.last_id), None)) is not None:
        index.add(*news)


def _bytes_of(index: ApproximateIndex) -> int:
    """Size of the codes in bytes, as FAISS would write them."""
    written = 0

    def count(data: bytes) -> int:
        nonlocal written
        written += len(data)
        return len(data)

    trained, _ = index._parts
    assert trained is not None
    faiss.write_index(trained.index, faiss.PyCallbackIOWriter(count))
    return written + trained.ids.nbytes


def _ask_index(index: ApproximateIndex | VectorIndex, allowed: Ids | None) -> Ask:
    return lambda query: [hit.id for hit in index.search(query, K, allowed)[0]]


def _index_changes(index: ApproximateIndex, mapped: Mapped, queries: Vectors) -> dict[str, float]:
    """As :func:`_changes`, for an index without a file."""
    last = index.last_id

    def add() -> None:
        index.add(np.arange(last + 1, last + 1 + NUM_ADDED), np.array(mapped.rows[:NUM_ADDED]))
        index.search(queries[:1], K)

    def delete() -> None:
        index.remove(np.arange(1, NUM_DELETED + 1))
        index.search(queries[:1], K)

    return {f"add_{NUM_ADDED}_s": _seconds(add), f"delete_{NUM_DELETED}_s": _seconds(delete)}
