"""Retrieval metrics compared with literal loops over sorted lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from finegrain.metrics import precision_at_k, ranks_of, retrieval_metrics


def literal(queries, gallery, query_pids, gallery_pids, query_cameras=None, gallery_cameras=None):
    hits_at, precisions, penalties, without_match = {1: 0, 5: 0, 10: 0}, [], [], 0
    for q in range(len(queries)):
        ranking = []
        for g in range(len(gallery)):
            same = query_pids[q] == gallery_pids[g]
            if query_cameras is not None and same and query_cameras[q] == gallery_cameras[g]:
                continue
            score = sum(float(a) * float(b) for a, b in zip(queries[q], gallery[g], strict=True))
            ranking.append((score, same))
        ranking.sort(key=lambda pair: -pair[0])  # stable: ties keep the order of the gallery
        relevant = [same for _, same in ranking]
        if not any(relevant):
            without_match += 1
            continue
        for k in hits_at:
            hits_at[k] += any(relevant[:k])
        result, precision, last = 0, 0.0, 0
        for rank, same in enumerate(relevant, start=1):
            if same:
                result, last = result + 1, rank
                precision += result / rank
        precisions.append(precision / result)
        penalties.append(result / last)
    n = len(precisions)
    return {
        **{f"rank{k}": 100 * hits / n if n else 0 for k, hits in hits_at.items()},
        "mAP": 100 * sum(precisions) / n if n else 0,
        "mINP": 100 * sum(penalties) / n if n else 0,
        "num_queries": n,
        "num_gallery": len(gallery),
        "num_without_match": without_match,
    }


def small_integers(*shape):
    # Few different values, so that scores are exact, and ties and duplicates are common.
    return npst.arrays(np.float32, shape, elements=st.integers(-1, 1).map(float))


@st.composite
def cases(draw, *, with_cameras):
    q, g, d = draw(st.integers(1, 6)), draw(st.integers(1, 20)), draw(st.integers(1, 3))
    case = [draw(small_integers(q, d)), draw(small_integers(g, d))]
    for n in (q, g) * (2 if with_cameras else 1):
        case.append(draw(npst.arrays(np.int64, n, elements=st.integers(0, 2))))
    return case


@given(case=cases(with_cameras=False), chunk=st.integers(1, 7) | st.none())
@settings(max_examples=200, deadline=None)
def test_metrics_equal_literal_loops(case, chunk):
    expected = literal(*case)
    assume(expected["num_queries"])
    assert retrieval_metrics(*case, chunk=chunk).to_dict() == pytest.approx(expected)


@given(case=cases(with_cameras=True), chunk=st.integers(1, 7) | st.none())
@settings(max_examples=200, deadline=None)
def test_metrics_without_cameras_equal_literal_loops(case, chunk):
    expected = literal(*case)
    assume(expected["num_queries"])
    *plain, query_cameras, gallery_cameras = case
    got = retrieval_metrics(
        *plain,
        query_cameras=[f"camera {camera}" for camera in query_cameras],
        gallery_cameras=[f"camera {camera}" for camera in gallery_cameras],
        chunk=chunk,
    )
    assert got.to_dict() == pytest.approx(expected)


def test_metrics_equal_literal_loops_on_real_valued_embeddings():
    rng = np.random.default_rng(0)
    queries, gallery = rng.normal(size=(40, 8)), rng.normal(size=(120, 8))
    pids = rng.integers(0, 30, 40), rng.integers(0, 30, 120)
    expected = literal(queries, gallery, *pids)
    assert retrieval_metrics(queries, gallery, *pids, chunk=7).to_dict() == pytest.approx(expected)


@given(
    scores=npst.arrays(np.float32, st.integers(1, 30), elements=st.integers(0, 4).map(float)),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_ranks_equal_a_stable_sort(scores, data):
    matches = data.draw(st.sets(st.integers(0, len(scores) - 1)))
    order = sorted(range(len(scores)), key=lambda g: -scores[g])
    expected = [rank for rank, g in enumerate(order, start=1) if g in matches]
    got = ranks_of(np.array(sorted(matches), dtype=np.intp), scores)
    assert got.tolist() == expected


@given(relevant=st.lists(st.booleans(), max_size=12), k=st.integers(1, 15))
def test_precision_equals_counting(relevant, k):
    hits = 0
    for i in range(k):
        if i < len(relevant) and relevant[i]:
            hits += 1
    assert precision_at_k(relevant, k) == hits / k
