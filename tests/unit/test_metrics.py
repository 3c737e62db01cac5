from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from finegrain.errors import EvaluationError
from finegrain.metrics import (
    RetrievalMetrics,
    pair_accuracy,
    precision_at_k,
    retrieval_metrics,
)

# One query with the given scores of the gallery.
QUERY = [[1.0]]


def test_metrics_of_a_ranking_computed_by_hand():
    # ranking of pids: 7, 1, 7, 2, 7 -> matches at ranks 1, 3, 5
    metrics = retrieval_metrics(QUERY, [[5], [4], [3], [2], [1]], [7], [7, 1, 7, 2, 7])
    assert metrics.mAP == pytest.approx(100 * (1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert metrics.mINP == pytest.approx(100 * 3 / 5)
    assert (metrics.rank1, metrics.rank5, metrics.rank10) == (100, 100, 100)
    assert (metrics.num_queries, metrics.num_gallery, metrics.num_without_match) == (1, 5, 0)


def test_rank_k_counts_the_first_match_only():
    gallery = [[-float(i)] for i in range(20)]
    pids = np.arange(20)
    metrics = retrieval_metrics([[1.0]] * 4, gallery, [0, 4, 9, 10], pids)
    assert (metrics.rank1, metrics.rank5, metrics.rank10) == (25, 50, 75)


def test_equal_scores_keep_the_order_of_the_gallery():
    tied = [[1.0], [1.0], [1.0]]
    assert retrieval_metrics(QUERY, tied, [7], [7, 0, 0]).mAP == 100
    assert retrieval_metrics(QUERY, tied, [7], [0, 0, 7]).mAP == pytest.approx(100 / 3)


def test_pictures_of_the_same_person_and_camera_are_ignored():
    gallery, pids = [[3.0], [2.0], [1.0]], [7, 0, 7]
    metrics = retrieval_metrics(
        QUERY, gallery, [7], pids, query_cameras=["a"], gallery_cameras=["a", "a", "b"]
    )
    assert metrics.mAP == pytest.approx(
        50
    )  # behind the wrong picture; the ignored one does not count


def test_queries_without_a_match_are_counted_and_left_out():
    metrics = retrieval_metrics([[1.0], [1.0]], [[1.0]], [7, 8], [7])
    assert (metrics.num_queries, metrics.num_without_match, metrics.rank1) == (1, 1, 100)


def test_a_gallery_without_any_match_is_an_error():
    with pytest.raises(EvaluationError, match=r"got 1 queries without one in 2 gallery items"):
        retrieval_metrics(QUERY, [[1.0], [2.0]], [7], [0, 1])


def test_metrics_print_as_a_table():
    metrics = RetrievalMetrics(
        rank1=73.384, rank5=89.93, rank10=100, mAP=66.1, mINP=5, num_queries=6156, num_gallery=3074
    )
    assert str(metrics).splitlines() == [
        " rank1   rank5  rank10     mAP    mINP",
        " 73.38   89.93  100.00   66.10    5.00  (6156 queries, 3074 gallery)",
    ]
    assert metrics.to_dict()["rank1"] == 73.384


def test_the_table_shows_the_number_of_queries_left_out():
    metrics = retrieval_metrics([[1.0], [1.0]], [[1.0]], [7, 8], [7])
    assert str(metrics).endswith("(1 queries, 1 gallery, 1 without match)")


def test_the_score_matrix_is_computed_in_parts():
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(3000, 4)), rng.normal(size=(2000, 4))
    pids = np.arange(3000) % 2000, np.arange(2000)
    tracemalloc.start()
    retrieval_metrics(queries, gallery, *pids, chunk=16)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 2000 * 4 / 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": [[np.nan, 0]]}, r"1 rows of queries, first in row 0"),
        ({"gallery": [[0, 0], [np.inf, 0]]}, r"1 rows of gallery, first in row 1"),
        ({"queries": [[1, 0, 0]]}, "of the same width, got 3 and 2"),
        ({"queries": [1, 0]}, r"queries as a filled \[N, D\] array, got shape \[2\]"),
        ({"gallery": np.zeros((0, 2))}, r"gallery as a filled \[N, D\] array"),
        ({"query_pids": [7, 8]}, r"query_pids of shape \[1\].*got \[2\]"),
        ({"gallery_pids": [[7, 8]]}, r"gallery_pids of shape \[2\]"),
        ({"query_cameras": [0]}, "got only one of the two"),
        ({"query_cameras": [0], "gallery_cameras": [0]}, r"gallery_cameras of shape \[2\]"),
        ({"chunk": 0}, "chunk of 1 or more, got 0"),
        ({"queries": [[3e38, 3e38]], "gallery": [[3e38, 0], [0, 0]]}, "an overflow"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_inputs_with_wrong_shapes_are_refused(change, message):
    inputs = {
        "queries": [[1, 0]],
        "gallery": [[1, 0], [0, 1]],
        "query_pids": [7],
        "gallery_pids": [7, 8],
    }
    with pytest.raises(EvaluationError, match=message):
        retrieval_metrics(**(inputs | change))


def test_precision_at_k_is_a_mean():
    assert precision_at_k([True, False, True], 2) == 0.5
    assert precision_at_k([True], 4) == 0.25
    assert precision_at_k([], 1) == 0
    with pytest.raises(EvaluationError, match="k of 1 or more, got 0"):
        precision_at_k([True], 0)


def test_pair_accuracy_counts_ties_half():
    assert pair_accuracy([3, 2, 1, 0], [0, 2, 2, -1]) == (1 + 0.5 + 0 + 1) / 4


@pytest.mark.parametrize(
    ("own", "other", "message"),
    [
        ([1], [1, 2], "equally long"),
        ([], [], "equally long"),
        ([[1]], [[1]], "equally long"),
        ([np.nan], [1], "finite"),
        ([1], [np.inf], "finite"),
    ],
)
def test_pair_accuracy_refuses_inputs_that_are_not_pairs(own, other, message):
    with pytest.raises(EvaluationError, match=message):
        pair_accuracy(own, other)
