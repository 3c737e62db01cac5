"""A gallery searches with the index that it is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finegrain.errors import GalleryError
from finegrain.gallery import Gallery, Hit
from finegrain.index.backend import SearchIndex, Truth
from finegrain.index.exact import Ids, Vectors

DIM = 6


class Literal:
    """A full scan by a loop over all rows."""

    def __init__(self) -> None:
        self.rows: dict[int, Vectors] = {}
        self.is_closed = False

    @property
    def ids(self) -> Ids:
        return np.array(sorted(self.rows), np.int64)

    @property
    def last_id(self) -> int:
        return max(self.rows, default=0)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        self.rows |= zip(ids.tolist(), vectors, strict=True)

    def remove(self, ids: Ids) -> None:
        for id_ in ids.tolist():
            self.rows.pop(id_, None)

    def search(self, queries: Vectors, k: int, allowed: Ids | None = None) -> list[list[Hit]]:
        chosen = sorted(self.rows if allowed is None else self.rows.keys() & set(allowed.tolist()))
        answers = []
        for query in queries.astype(np.float64):
            scored = [(-float(np.float32(self.rows[id_] @ query)), id_) for id_ in chosen]
            answers.append([Hit(id_, -score) for score, id_ in sorted(scored)[:k]])
        return answers

    def close(self) -> None:
        self.is_closed = True


class LiteralBackend:
    def __init__(self) -> None:
        self.made: list[Literal] = []

    def over(self, truth: Truth) -> SearchIndex:
        assert truth.dim == DIM
        self.made.append(Literal())
        return self.made[-1]


def unit(count: int, seed: int = 0) -> Vectors:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_given_index_has_the_results_of_the_exact_one(tmp_path: Path):
    backend = LiteralBackend()
    queries = unit(3, seed=9)
    with (
        Gallery(tmp_path / "g", dim=DIM, index=backend) as given,
        Gallery(tmp_path / "g") as exact,
    ):
        ids = given.add(unit(40), [None] * 40, pids=[number % 7 for number in range(40)])
        for change in (
            lambda: None,
            lambda: given.delete(ids[:9]),
            lambda: exact.delete(ids[9:12]),
        ):
            change()
            for options in ({}, {"where": "pid < 4"}, {"group_by": "pid"}, {"distinct": 0.9}):
                assert given.search(queries, 5, **options) == exact.search(queries, 5, **options)
        assert given.search_caption(np.ones((1, 3), np.int32), np.array([2], np.int32), 5) is None
    assert [index.is_closed for index in backend.made] == [True]


def test_an_index_needs_a_gallery_in_a_file():
    with pytest.raises(GalleryError, match="is on Milvus and searched exactly; give no index="):
        Gallery("http://milvus:19530/p", dim=DIM, index=LiteralBackend())
