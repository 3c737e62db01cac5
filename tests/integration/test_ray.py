"""Bulk embedding on a cluster of two nodes, both on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from finegrain.gallery import Gallery
from finegrain.plan import Plan
from finegrain.search.bulk import embed_dataset
from finegrain.search.searcher import Searcher

ray = pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    nodes.add_node(num_cpus=1)
    try:
        ray.init(address=nodes.address, log_to_driver=False)
        yield nodes.address
    finally:
        ray.shutdown()
        nodes.shutdown()


def test_two_nodes_give_the_same_gallery_as_add(
    cluster: str, searcher: Searcher, plan: Path, crops: Path, tmp_path: Path
):
    out = tmp_path / "out"
    options = {"rows_per_shard": 2, "concurrency": 2, "progress": False}
    done = embed_dataset(plan, crops, out, **options)
    assert (done.num_encoded, done.num_problems, done.num_known_shards) == (12, 0, 0)

    lost = sorted((out / "img_emb").glob("*.npy"))[2]
    whole = lost.read_bytes()
    lost.unlink()
    again = embed_dataset(plan, crops, out, **options)
    assert (again.num_encoded, again.num_known_shards) == (2, 5)
    assert lost.read_bytes() == whole

    manifest = Plan(plan).manifest
    with Gallery(
        tmp_path / "bulk.gallery", fingerprint=manifest.fingerprint, dim=manifest.embed_dim
    ) as gallery:
        gallery.load(out)
        searcher.add(crops, progress=False)
        ours, added = gallery.rows(gallery), searcher.gallery.rows(searcher.gallery)
        assert [row.image for row in ours] == [row.image for row in added]
        for row, other in zip(ours, added, strict=True):
            vector = gallery._store.vectors([row.id])[row.id]
            assert np.allclose(
                vector, searcher.gallery._store.vectors([other.id])[other.id], atol=1e-6
            )
