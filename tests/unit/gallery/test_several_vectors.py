"""Galleries with several vectors of one picture."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import GalleryError, QueryError
from finegrain.gallery import Gallery, RaBitQ
from finegrain.gallery.scoring import Linear
from finegrain.gallery.several_vectors import SeveralVectors
from finegrain.index.approximate import index as approximate

pytestmark = pytest.mark.usefixtures("small_blocks")

DIM, K = 6, 3

Rows = dict[int, tuple[np.ndarray, float]]
"""Vectors ``[n, D]`` and bias by id."""


def unit(count: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def several(count: int, seed: int = 0, most: int = K) -> list[np.ndarray]:
    """For each picture 1 to ``most`` vectors."""
    sizes = np.random.default_rng(seed).integers(1, most + 1, count)
    return np.split(unit(int(sizes.sum()), seed), np.cumsum(sizes)[:-1])


def literal_best(rows: Rows, query: np.ndarray, k: int) -> list[tuple[int, float]]:
    wide = query.astype(np.float64)
    scored = [
        (
            -max(float(np.float32(vector.astype(np.float64) @ wide + bias)) for vector in vectors),
            id_,
        )
        for id_, (vectors, bias) in rows.items()
    ]
    return [(id_, -score) for score, id_ in sorted(scored)[:k]]


def check_search(gallery: Gallery, rows: Rows, k: int = 9, where: str | None = None) -> None:
    queries = unit(3, seed=7)
    for query, hits in zip(queries, gallery.search(queries, k, where=where), strict=True):
        best = literal_best(rows, query, k)
        assert [hit.id for hit in hits] == [id_ for id_, _ in best]
        assert [hit.score for hit in hits] == pytest.approx([score for _, score in best], abs=1e-7)


@pytest.fixture
def rows() -> Rows:
    return {id_: (vectors, 0.0) for id_, vectors in enumerate(several(150), start=1)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Gallery(tmp_path / "g", dim=DIM, vectors_per_row=K) as gallery:
        gallery.add(several(150), [None] * 150, pids=[n // 4 for n in range(150)])
    return tmp_path / "g"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 30)),
        st.tuples(st.just("set"), st.lists(st.integers(1, 60), max_size=9, unique=True)),
        st.tuples(st.just("delete"), st.lists(st.integers(1, 60), max_size=9)),
        st.tuples(st.just("compact"), st.none()),
    ),
    max_size=6,
)


@settings(max_examples=7, deadline=None)
@given(steps=steps, most=st.sampled_from([2, 4, 5]), memory=st.sampled_from(["codes", "vectors"]))
def test_a_picture_has_the_highest_score_of_its_vectors(steps, most: int, memory) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g"
        with Gallery(path, dim=DIM, vectors_per_row=most, memory=memory) as gallery:
            rows: Rows = {}
            for number, (kind, value) in enumerate([*steps, ("compact", None)]):
                if kind == "add":
                    vectors = several(value, number, most)
                    ids = gallery.add(vectors, [None] * value)
                    rows |= {id_: (own, 0.0) for id_, own in zip(ids, vectors, strict=True)}
                elif kind == "set":
                    gallery.set_bias(value, 0.25)
                    rows |= {i: (rows[i][0], 0.25) for i in value if i in rows}
                elif kind == "delete":
                    assert gallery.delete(value) == len(rows.keys() & set(value))
                    rows = {id_: row for id_, row in rows.items() if id_ not in value}
                else:
                    gallery.compact()
                check_search(gallery, rows)
                even = {id_: row for id_, row in rows.items() if id_ in (2, 3, 4, 8, 9)}
                check_search(gallery, even, where="id in (2, 3, 4, 8, 9)")
        with Gallery(path, dim=DIM) as opened:
            assert (opened.dim, opened.vectors_per_row) == (DIM, most)
            check_search(opened, rows)
            assert opened.check().is_valid
            for id_, vectors in opened.vectors(rows).items():
                own = rows[id_][0]
                np.testing.assert_array_equal(vectors[: len(own)], own)
                assert (vectors[len(own) :] == own[0]).all()


def test_one_vector_a_picture_may_be_given(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM, vectors_per_row=2) as gallery:
        gallery.add(unit(20), [None] * 20)
        gallery.add(unit(40, seed=1).reshape(20, 2, DIM), [None] * 20)
        rows: Rows = {n + 1: (vector[None], 0.0) for n, vector in enumerate(unit(20))}
        rows |= {n + 21: (two, 0.0) for n, two in enumerate(unit(40, seed=1).reshape(20, 2, DIM))}
        check_search(gallery, rows)


def test_groups_count_pictures_once(path: Path, rows: Rows):
    with Gallery(path) as gallery:
        (hits,) = gallery.search(unit(1, seed=7), 5, group_by="pid")
    best: list[int] = []
    for id_, _ in literal_best(rows, unit(1, seed=7)[0], 150):
        if (id_ - 1) // 4 not in [(other - 1) // 4 for other in best]:
            best.append(id_)
    assert [hit.id for hit in hits] == best[:5]


def test_copies_and_exports_keep_all_vectors(path: Path, rows: Rows, tmp_path: Path):
    with Gallery(path) as gallery:
        gallery.backup(tmp_path / "copy")
        gallery.export(tmp_path / "folder")
        gallery.export(tmp_path / "file.parquet")
        assert (gallery.stats().dim, gallery.stats().vectors_per_row) == (DIM, K)
    with Gallery(tmp_path / "copy") as copy:
        check_search(copy, rows)
    for number, source in enumerate(("folder", "file.parquet")):
        with Gallery(tmp_path / f"loaded{number}", dim=DIM, vectors_per_row=K) as loaded:
            loaded.load(tmp_path / source)
            check_search(loaded, rows)
    with (
        Gallery(tmp_path / "one", dim=DIM * K) as one,
        pytest.raises(GalleryError, match=r"holds 3 vectors a picture, and .* 1"),
    ):
        one.load(tmp_path / "folder")


def test_an_approximate_index_finds_pictures_by_any_vector(path: Path, rows: Rows, monkeypatch):
    monkeypatch.setattr(approximate, "TAIL_ROWS", 64)
    with Gallery(path, index=RaBitQ(candidates=128)) as gallery:
        check_search(gallery, rows)  # every picture is a candidate
        assert gallery.tune(unit(3, seed=7)).chosen.recall == 1


@pytest.mark.parametrize(
    "vectors", [unit(8)[None], unit(2)[:, :4], [unit(0)], 2 * unit(1), 3.0, [["a"] * DIM]]
)
def test_wrong_vectors_are_refused(path: Path, vectors):
    with Gallery(path) as gallery, pytest.raises(GalleryError, match=r"[Vv]ectors"):
        gallery.add(vectors, [None])


def test_what_needs_one_vector_a_picture_is_refused(path: Path):
    with Gallery(path) as gallery:
        for refused in (
            lambda: gallery.search(unit(1), 1, distinct=0.9),
            lambda: gallery.search_by(Linear(unit(1)[0]), 1),
            lambda: gallery.reindex(None, "other"),  # type: ignore[arg-type]
        ):
            with pytest.raises(GalleryError, match=r"holds 3 vectors a picture; .* needs one"):
                refused()
        with pytest.raises(QueryError, match="near the limit of float32"):
            gallery.search(np.full((1, DIM), 3e38), 1)


def test_another_number_of_vectors_is_refused(path: Path):
    with pytest.raises(GalleryError, match="holds 3 vectors a picture, not 2"):
        Gallery(path, vectors_per_row=2)
    with pytest.raises(GalleryError, match="width 6, not 18"):
        Gallery(path, dim=DIM * K)
    for count in (0, 65, "two"):
        with pytest.raises(GalleryError, match="vectors_per_row is a whole number from 1 to 64"):
            Gallery(path, vectors_per_row=count)  # type: ignore[arg-type]


def test_stored_vectors_are_scaled_without_rounding():
    for count in range(1, 65):
        stored = SeveralVectors(count, DIM).checked(unit(3))
        assert np.linalg.norm(stored, axis=1) == pytest.approx(np.full(3, 1), abs=0.5)
        restored = SeveralVectors(count, DIM).restored(stored[1]).reshape(count, DIM)
        np.testing.assert_array_equal(restored, np.tile(unit(3)[1], (count, 1)))
