"""The search graph in ONNX Runtime compared with a sort of all products."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.errors import ExportError
from finegrain.exporters.search_graph import search_graph

DIM = 16


def run(graph, **inputs):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(["rows", "estimates"], inputs)


@given(
    seed=st.integers(0, 999),
    queries=st.integers(1, 3),
    rows=st.integers(1, 80),
    padding=st.integers(0, 40),
    depth=st.sampled_from([1, 10, 40]),
    opset=st.sampled_from([18, 21, 23]),
)
@settings(max_examples=30, deadline=None)
def test_the_graph_selects_the_highest_products(seed, queries, rows, padding, depth, opset):
    draw = np.random.default_rng(seed)
    gallery = np.zeros((rows + padding, DIM), np.float16)
    gallery[:rows] = draw.standard_normal((rows, DIM)) / 4
    offsets = np.where(np.arange(rows + padding) < rows, 0, -np.inf).astype(np.float16)
    embeddings = draw.standard_normal((queries, DIM)).astype(np.float32) / 4
    depth = min(depth, rows + padding)
    graph = search_graph(embed_dim=DIM, depth=depth, opset=opset)
    result, estimates = run(graph, embeddings=embeddings, gallery=gallery, offsets=offsets)

    exact = embeddings.astype(np.float64) @ gallery.astype(np.float64).T
    known = result < rows
    assert known.sum(axis=1).tolist() == [min(rows, depth)] * queries
    lost = 2.0**-9 * np.abs(exact).max() + 2.0**-10  # rounding of a query and of a product to fp16
    for q in range(queries):
        kept = result[q][known[q]]
        assert len(set(kept.tolist())) == len(kept)
        np.testing.assert_allclose(estimates[q][known[q]], exact[q, kept], atol=lost)
        left = np.delete(exact[q, :rows], kept)
        if len(left):
            assert left.max() <= exact[q, kept].min() + 2 * lost
        assert (estimates[q][~known[q]] == -np.inf).all()
        assert (np.diff(estimates[q][known[q]]) <= 0).all()


@pytest.mark.parametrize("depth", [0, -1, 3841])
def test_a_depth_that_tensorrt_does_not_support_is_refused(depth):
    with pytest.raises(ExportError, match=rf"search_depth from 1 to 3840, got {depth}"):
        search_graph(embed_dim=DIM, depth=depth, opset=18)
