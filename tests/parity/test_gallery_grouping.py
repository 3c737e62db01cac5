"""Grouped and thinned searches compared with a literal loop over all pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import QueryError
from finegrain.gallery import Gallery, Hit, Row
from finegrain.gallery.row import value_of
from finegrain.records import Scalar

DIM = 6
COUNT = 400


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory):
    """Frames of a few people, with consecutive frames nearly equal; some have no pid or track."""
    random = np.random.default_rng(7)
    people = random.integers(0, 25, COUNT)
    tracks = random.integers(0, 60, COUNT)
    looks = random.standard_normal((25, DIM))[people]
    noise = random.choice([0.02, 0.2, 0.6], (COUNT, 1)) * random.standard_normal((COUNT, DIM))
    with Gallery(tmp_path_factory.mktemp("grouping") / "g", dim=DIM) as opened:
        opened.add(
            unit(looks + noise),
            [None] * COUNT,
            pids=[
                None if random.random() < 0.1 else spelled(int(pid))
                for pid, spelled in zip(people, random.choice([int, str], COUNT), strict=True)
            ],
            tracks=[None if random.random() < 0.3 else str(track) for track in tracks],
            cameras=[f"gate-{number % 3}" for number in range(COUNT)],
            metadata=[{"colour": "ab"[n % 2]} if n % 5 else {} for n in range(COUNT)],
        )
        yield opened


@pytest.fixture(scope="module")
def pictures(gallery: Gallery) -> dict[int, tuple[Row, np.ndarray]]:
    vectors = gallery._store.vectors(gallery)
    return {row.id: (row, vectors[row.id].astype(float)) for row in gallery.rows(gallery)}


def same_group(one: Scalar, other: Scalar) -> bool:
    """Texts, numbers and booleans are never equal, except the two spellings of a pid."""
    return one is not None and repr(one).strip("'") == repr(other).strip("'")


def literal(hits: list[Hit], pictures, k: int, group_by, distinct) -> list[Hit]:
    """Go through all hits, and keep those that share no group with a kept hit and are not near
    one."""
    kept: list[Hit] = []
    for hit in hits:
        row, vector = pictures[hit.id]
        for other in kept:
            kept_row, kept_vector = pictures[other.id]
            if group_by and same_group(value_of(row, group_by), value_of(kept_row, group_by)):
                break
            cosine = vector @ kept_vector / np.linalg.norm(vector) / np.linalg.norm(kept_vector)
            if distinct is not None and cosine > distinct:
                break
        else:
            kept.append(hit)
    return kept[:k]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.sampled_from([1, 2, 5, 24, 25, 26, 80, 1000]),
    where=st.sampled_from([None, "camera = 'gate-1'", "pid = 3", "id = 0"]),
    group_by=st.sampled_from([None, "pid", "track", "camera", "colour"]),
    distinct=st.sampled_from([None, 0.0, 0.5, 0.9, 0.98, 0.999]),
)
def test_thinning_is_exact(gallery: Gallery, pictures, seed, k, where, group_by, distinct):
    queries = unit(np.random.default_rng(seed).standard_normal((2, DIM)))
    result = gallery.search(queries, k, where, group_by=group_by, distinct=distinct)
    every = gallery.search(queries, COUNT, where)
    assert result == [literal(hits, pictures, k, group_by, distinct) for hits in every]


def test_the_search_is_deep_enough(tmp_path: Path):
    """A thousand pictures of one person come before the first picture of another."""
    near = unit(np.eye(1, DIM) + 0.01 * np.random.default_rng(0).standard_normal((1000, DIM)))
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(near, [None] * 1000, pids=[1] * 1000)
        gallery.add(np.eye(3, DIM)[1:], [None] * 2, pids=[2, 3])
        (hits,) = gallery.search(np.eye(1, DIM), 3, group_by="pid")
        assert [row.pid for row in gallery.rows([hit.id for hit in hits])] == [1, 2, 3]
        (hits,) = gallery.search(np.eye(1, DIM), 9, group_by="pid")
        assert len(hits) == 3
        (hits,) = gallery.search(np.eye(1, DIM), 3, distinct=0.9)
        assert {hit.id for hit in hits[1:]} == {1001, 1002}


def test_equal_pictures_are_thinned_below_a_cosine_of_one(tmp_path: Path):
    with Gallery(tmp_path / "g", dim=DIM) as gallery:
        gallery.add(unit(np.ones((200, DIM))), [None] * 200)
        assert [h.id for h in gallery.search(unit(np.ones((1, DIM))), 200, distinct=0.999)[0]] == [
            1
        ]
        assert len(gallery.search(unit(np.ones((1, DIM))), 200, distinct=1)[0]) == 200
        assert gallery.search(np.empty((0, DIM)), 3, group_by="pid") == []


@pytest.mark.parametrize("group_by", ["kamera", "", 3, "pid; --"])
def test_only_columns_can_group(gallery: Gallery, group_by):
    with pytest.raises(QueryError, match="group_by"):
        gallery.search(np.eye(1, DIM), 1, group_by=group_by)


@pytest.mark.parametrize("distinct", [-0.1, 1.1, float("nan"), True, "0.98"])
def test_distinct_must_be_a_cosine(gallery: Gallery, distinct):
    with pytest.raises(QueryError, match="distinct is a cosine from 0 to 1"):
        gallery.search(np.eye(1, DIM), 1, distinct=distinct)
