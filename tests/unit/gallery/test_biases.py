"""Numbers that are added to the inner products of pictures."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, GalleryWarning
from finegrain.gallery import Gallery, RaBitQ
from finegrain.gallery.milvus.documents import NO_BIASES, documents
from finegrain.gallery.row import Entry
from finegrain.gallery.scoring import Linear, ScoredSearch
from finegrain.index.approximate import index as approximate
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.torch_scan import TorchScan
from tests.unit.gallery.test_backends import DIM, LiteralBackend

pytestmark = pytest.mark.usefixtures("small_blocks")

COUNT = 200


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def biases_of(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, count).astype(np.float32)


def literal_best(
    rows: dict[int, tuple[np.ndarray, float]], query: np.ndarray, k: int
) -> list[tuple[int, float]]:
    scored = [
        (-float(np.float32(float(np.dot(query.astype(np.float64), vector)) + bias)), id_)
        for id_, (vector, bias) in rows.items()
    ]
    return [(id_, -score) for score, id_ in sorted(scored)[:k]]


def check_search(gallery: Gallery, rows: dict[int, tuple[np.ndarray, float]], k: int = 9) -> None:
    for query in unit(5, seed=7):
        (hits,) = gallery.search(query[None], k)
        assert [hit.id for hit in hits] == [id_ for id_, _ in literal_best(rows, query, k)]


@pytest.fixture
def rows() -> dict[int, tuple[np.ndarray, float]]:
    both = zip(unit(COUNT), biases_of(COUNT).tolist(), strict=True)
    return dict(enumerate(both, start=1))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(COUNT), [None] * COUNT, biases=biases_of(COUNT))
    return tmp_path / "g"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 20)),
        st.tuples(st.just("add biased"), st.integers(1, 20)),
        st.tuples(st.just("set"), st.lists(st.integers(1, 60), max_size=20)),
        st.tuples(st.just("set by another"), st.lists(st.integers(1, 60), max_size=20)),
        st.tuples(st.just("delete"), st.lists(st.integers(1, 60), max_size=9)),
        st.tuples(st.just("compact"), st.none()),
    ),
    max_size=9,
)


@settings(max_examples=8, deadline=None)
@given(steps=steps, seed=st.integers(0, 99), memory=st.sampled_from(["codes", "vectors"]))
def test_scores_are_inner_products_plus_biases(steps, seed: int, memory) -> None:
    random = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g"
        with Gallery(path, dim=DIM, memory=memory) as gallery, Gallery(path) as other:
            rows: dict[int, tuple[np.ndarray, float]] = {}
            for kind, value in [*steps, ("set", [])]:
                if kind.startswith("add"):
                    vectors = unit(value, seed=int(random.integers(1000)))
                    biases = random.normal(0, 0.3, value).astype(np.float32)
                    biases *= kind == "add biased"
                    ids = gallery.add(vectors, [None] * value, biases=biases)
                    rows |= zip(ids, zip(vectors, biases.tolist(), strict=True), strict=True)
                elif kind.startswith("set"):
                    biases = random.choice([0, 0.5, -0.2, 3], len(value)).astype(np.float32)
                    changed = dict(zip(value, biases.tolist(), strict=True))
                    by = gallery if kind == "set" else other
                    ids = list(changed)
                    assert by.set_bias(ids, [changed[id_] for id_ in ids]) == len(
                        changed.keys() & rows.keys()
                    )
                    rows |= {i: (rows[i][0], changed[i]) for i in changed.keys() & rows.keys()}
                elif kind == "delete":
                    gallery.delete(value)
                    rows = {id_: row for id_, row in rows.items() if id_ not in value}
                else:
                    gallery.compact()
                for one in (gallery, other):
                    check_search(one, rows)
            assert {i: b for i, b in gallery.biases(rows).items() if b} == {
                i: b for i, (_, b) in rows.items() if b
            }
        with Gallery(path) as opened:
            check_search(opened, rows)
            assert opened.check().is_valid


def test_an_approximate_index_scores_and_orders_with_biases(path: Path, rows, monkeypatch):
    monkeypatch.setattr(approximate, "TAIL_ROWS", 64)
    with Gallery(path, index=RaBitQ(candidates=128)) as gallery:
        check_search(gallery, rows)  # every picture is a candidate
        assert gallery.tune(unit(3, seed=7)).chosen.recall == 1
        gallery.set_bias(rows, 0.0)
        check_search(gallery, {id_: (vector, 0.0) for id_, (vector, _) in rows.items()})
        assert gallery.biases([1, 2]) == {1: 0.0, 2: 0.0}


def test_a_gpu_leaves_rows_with_biases_to_the_host(path: Path, rows, monkeypatch):
    def make_scan(num_rows: int, spare: int, dim: int) -> TorchScan:
        return TorchScan(np.empty((0, dim), np.float16), "cpu", capacity=num_rows + spare)

    with Gallery(path, index=Gpu(make_scan)) as gallery:
        check_search(gallery, rows)
        tokens = np.ones((1, 3), np.int32), np.array([2], np.int32)
        assert gallery.search_caption(*tokens, k=1) is None


def test_an_index_that_adds_no_biases_is_refused(path: Path):
    with (
        Gallery(path, index=LiteralBackend()) as gallery,
        pytest.raises(GalleryError, match=r"has biases, which .*LiteralBackend.* does not add"),
    ):
        gallery.search(unit(1), 1)


def test_a_gallery_on_milvus_of_an_earlier_version_refuses_biases():
    entry = Entry(
        image=None, pid=None, camera=None, time=None, track=None, metadata={}, bias=0.5
    )  # fmt: skip
    with pytest.raises(GalleryError, match=NO_BIASES):
        documents([1], unit(1), [entry], "", has_biases=False)


def test_filters_and_groups_follow_biases(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        vectors = np.tile(unit(1), (4, 1))
        gallery.add(vectors, [None] * 4, pids=[1, 1, 2, 2], biases=[0, 0.1, 0.3, 0.2])
        (hits,) = gallery.search(vectors[:1], 4, group_by="pid")
        assert [hit.id for hit in hits] == [3, 2]
        (hits,) = gallery.search(vectors[:1], 4, where="pid = 1")
        assert [hit.id for hit in hits] == [2, 1]


def test_other_scores_include_biases(path: Path, rows):
    (query,) = unit(1, seed=7)
    with Gallery(path) as gallery:
        search = ScoredSearch(gallery._store, gallery._store.searching(None), Linear(query))
        (hits,) = search(query[None], 5)
    assert [hit.id for hit in hits] == [id_ for id_, _ in literal_best(rows, query, 5)]


def test_a_search_can_leave_biases_out(path: Path, tmp_path: Path):
    """Scores equal those of a gallery without biases, to the last bit."""
    with Gallery(path) as gallery, Gallery(tmp_path / "plain", dim=DIM) as plain:
        plain.add(unit(COUNT), [None] * COUNT)
        queries = unit(6, seed=5)
        assert gallery.search(queries, 11, biased=False) == plain.search(queries, 11)
        assert gallery.search(queries, 11) != plain.search(queries, 11)
        scoring = Linear(queries[0] * np.float32(3), 0.25)
        left_out = gallery.search_by(scoring, 11, biased=False, without=[4])
        assert left_out == plain.search_by(scoring, 11, without=[4])


def test_added_pictures_get_the_biases_of_their_vectors(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        vectors = unit(4)
        gallery.fill_biases(lambda rows: rows[:, 0])
        own = gallery.add(vectors[:1], [None], biases=[0.5])
        new = gallery.add(vectors[1:2], [None])
        new += gallery.add_entries(
            vectors[2:3],
            [Entry(image=None, pid=None, camera=None, time=None, track=None, metadata={})],
        ).ids
        gallery.fill_biases(lambda rows: None)
        none = gallery.add(vectors[3:], [None])
        assert gallery.biases(own) == {own[0]: 0.5}
        assert list(gallery.biases(new).values()) == vectors[1:3, 0].tolist()
        assert gallery.biases(none) == {}


def test_copies_and_exports_keep_biases(path: Path, rows, tmp_path: Path):
    with Gallery(path) as gallery:
        gallery.backup(tmp_path / "copy")
        gallery.export(tmp_path / "folder")
        gallery.export(tmp_path / "file.parquet")
    with Gallery(tmp_path / "copy") as copy:
        check_search(copy, rows)
    for number, source in enumerate(("folder", "file.parquet")):
        with Gallery(tmp_path / f"loaded{number}", dim=DIM) as loaded:
            loaded.load(tmp_path / source)
            check_search(loaded, rows)


def test_deleted_pictures_leave_no_bias(path: Path):
    with Gallery(path) as gallery:
        gallery.delete([3])
        assert gallery.biases([3, 4]).keys() == {4}
        with gallery._store.reading() as run:
            assert run("SELECT count(*) FROM bias WHERE picture = 3").fetchone() == (0,)


def test_a_damaged_bias_is_named_and_its_picture_left_out(path: Path, rows):
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE bias SET value = value + 1 WHERE picture = 5")
        connection.execute("UPDATE bias SET value = 'x' WHERE picture = 6")
    connection.close()
    with Gallery(path) as gallery:
        with pytest.warns(GalleryWarning, match="the bias of pictures 5, 6 is damaged"):
            gallery.search(unit(1), 1)
        check_search(gallery, {id_: row for id_, row in rows.items() if id_ not in (5, 6)})
        (fault,) = gallery.check().faults
        assert "bias does not agree with its checksum" in fault


@pytest.mark.parametrize("values", [[0.1, 0.2], [np.nan] * 3, 2e6, "high", [[0.1] * 3], None])
def test_invalid_biases_are_refused(path: Path, values):
    with Gallery(path) as gallery, pytest.raises(GalleryError, match="bias"):
        gallery.set_bias([1, 2, 3], values)
