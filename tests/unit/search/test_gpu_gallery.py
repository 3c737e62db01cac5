"""A gallery on a GPU compared with one in memory, with scans on the CPU in place of the GPU."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import faiss
import numpy as np
import pytest
import torch

from finegrain.cli.parser import main
from finegrain.errors import GalleryError, MissingExtraError, PlanError, QueryError
from finegrain.gallery import Gallery
from finegrain.index.exact import VectorIndex
from finegrain.index.gpu import faiss_scan, scans
from finegrain.index.gpu import index as gpu_index
from finegrain.index.gpu.faiss_scan import FaissScan
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.mirror import Mirror
from finegrain.index.gpu.scans import scan_maker
from finegrain.index.gpu.torch_scan import TorchScan
from finegrain.plan import Plan
from finegrain.search.searcher import Searcher

DIM, COUNT = 12, 400
START = datetime(2026, 5, 1, tzinfo=UTC)


def none(dim):
    return np.empty((0, dim), np.float16)


def torch_scan(rows, spare, dim):
    return TorchScan(none(dim), "cpu", capacity=rows + spare)


def small_faiss_scan(rows, spare, dim):
    kind = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)
    return FaissScan(index, none(dim), max_depth=150, capacity=rows + spare)


class Watched:
    """Makes scans and records their calls."""

    def __init__(self, make):
        self.make, self.scans, self.depths, self.closed = make, [], [], 0
        self.fails = False

    def __call__(self, rows, spare, dim):
        scan = self.make(rows, spare, dim)
        best, close, append = scan.best, scan.close, scan.append

        def watched_best(queries, depth):
            self.depths.append(depth)
            return best(queries, depth)

        def watched_close():
            self.closed += 1
            close()

        def watched_append(halves):
            append(halves)
            if self.fails:
                raise PlanError("CUDA failed in cudaMemcpyAsync")

        scan.best, scan.close, scan.append = watched_best, watched_close, watched_append
        self.scans.append(scan)
        return scan


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(gpu_index, "FEW_ROWS", 20)
    monkeypatch.setattr(gpu_index, "LEAST_SPARE", 16)


@pytest.fixture(params=[torch_scan, small_faiss_scan])
def maker(request):
    return Watched(request.param)


@pytest.fixture
def gallery(tmp_path, maker):
    with Gallery(tmp_path / "g", dim=DIM, index=Gpu(maker)) as gallery:
        yield gallery


def vectors_of(rows, seed=0, kinds=None):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((kinds or rows, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors[random.integers(0, len(vectors), rows)].astype(np.float32)


def fill(gallery, rows=COUNT, seed=0, **options):
    """Add pictures, many of which have equal vectors."""
    return gallery.add(
        vectors_of(rows, seed, kinds=rows * 3 // 4),
        [None] * rows,
        pids=[number % 40 if number % 7 else None for number in range(rows)],
        cameras=[f"gate-{number % 3}" for number in range(rows)],
        **options,
    )


def check(gallery, queries=None, **options):
    """Check that the answers equal those of the gallery in memory, and return them."""
    queries = vectors_of(3, seed=99) if queries is None else queries
    result = gallery.search(queries, 10, **options)
    with Gallery(gallery.path, dim=DIM) as plain:
        assert result == plain.search(queries, 10, **options)
    return result


def test_any_number_of_queries_and_any_depth_are_answered(gallery):
    fill(gallery)
    queries = np.concatenate([vectors_of(18, seed=5), vectors_of(2), np.zeros((1, DIM), "f4")])
    with Gallery(gallery.path, dim=DIM) as plain:
        for k in (1, 64, COUNT, 2 * COUNT):
            assert gallery.search(queries, k) == plain.search(queries, k)


def test_vectors_that_are_equal_in_fp16_are_ordered_exactly(gallery):
    near = vectors_of(1) + 1e-6 * vectors_of(COUNT)
    gallery.add(near.astype(np.float32), [None] * COUNT)
    check(gallery, near[:2])


def test_the_scan_answers_without_the_index(gallery, maker, monkeypatch):
    fill(gallery)
    wanted = gallery.search(vectors_of(3, seed=99), 10)
    maker.depths.clear()
    searched = []
    monkeypatch.setattr(
        VectorIndex, "search", lambda self, queries, *_: searched.append(len(queries)) or []
    )
    assert gallery.search(vectors_of(3, seed=99), 10) == wanted
    assert (maker.depths, searched) == ([74], [0])


def test_few_allowed_pictures_are_searched_without_the_gpu(gallery, maker):
    fill(gallery)
    check(gallery, where="pid = 3")
    assert not maker.scans


def test_a_filter_makes_the_scan_deeper(gallery, maker):
    fill(gallery)
    check(gallery, where="camera = 'gate-1'")
    assert 74 * 2 < max(maker.depths) <= COUNT


def test_added_pictures_are_appended_to_the_scan(gallery, maker):
    fill(gallery)
    check(gallery)
    for seed in range(3):
        fill(gallery, 10, seed)
        check(gallery)
    assert len(maker.scans) == 1
    fill(gallery, 60)  # an eighth of 400, with space for 50
    check(gallery)
    assert (len(maker.scans), maker.closed) == (2, 1)
    assert maker.scans[1].capacity == 490 + 490 // 8


def test_deleted_pictures_disappear_at_once(gallery, maker):
    fill(gallery)
    for _ in range(4):
        best = check(gallery)[0][0].id
        gallery.delete([best])
        assert best not in {hit.id for hit in check(gallery)[0]}
    assert len(maker.scans) == 1
    gallery.delete(range(100, 150))
    check(gallery)
    assert (len(maker.scans), maker.closed) == (2, 1)
    gallery.delete(list(gallery))
    assert check(gallery) == [[], [], []]
    assert maker.closed == 2
    fill(gallery, 5)
    check(gallery)


def test_expired_pictures_disappear_at_once(gallery, maker, monkeypatch):
    now = START
    monkeypatch.setattr("finegrain.times.now", lambda: now)
    fill(gallery, 300)
    going = set(fill(gallery, 30, seed=1, expire_after=timedelta(hours=1)))
    query = vectors_of(30, seed=1, kinds=22)[:3]
    assert going & {hit.id for hits in check(gallery, query) for hit in hits}
    now = START + timedelta(hours=1)
    assert not going & {hit.id for hits in check(gallery, query) for hit in hits}
    assert len(maker.scans) == 1


def test_it_follows_changes_of_other_processes(gallery):
    fill(gallery)
    check(gallery)
    with Gallery(gallery.path, dim=DIM) as other:
        fill(other, 20, seed=3)
        other.delete([1, 2, 3])
    check(gallery)


def test_another_index_gets_another_mirror():
    """As after reindexing: the ids are the same, and the vectors differ."""
    first, second = VectorIndex(DIM), VectorIndex(DIM)
    first.add(np.arange(1, 9), vectors_of(8))
    second.add(np.arange(1, 9), vectors_of(8, seed=1))
    mirror = Mirror(first, torch_scan(8, 0, DIM))
    assert mirror.follow(first)
    assert not mirror.follow(second)


def test_a_failed_copy_is_repeated(gallery, maker):
    fill(gallery)
    check(gallery)
    fill(gallery, 10)
    maker.fails = True
    with pytest.raises(PlanError, match="CUDA failed"):
        gallery.search(vectors_of(1), 10)
    assert maker.closed == 1
    maker.fails = False
    check(gallery)
    assert len(maker.scans) == 2


def test_closing_frees_the_gpu(tmp_path, maker):
    with Gallery(tmp_path / "g", dim=DIM, index=Gpu(maker)) as gallery:
        fill(gallery)
        check(gallery)
    assert maker.closed == 1


def test_scans_of_vectors_cannot_search_by_caption(gallery):
    fill(gallery)
    assert gallery.search_caption(np.ones((1, 3), np.int32), np.array([2], np.int32), 5) is None


# --- the choice of a scan ---------------------------------------------------------------


@pytest.fixture
def opened(plan):
    return Plan(plan)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)


def test_pytorch_without_a_gpu_is_an_error(opened, no_gpu):
    with pytest.raises(PlanError, match=r"no GPU: PyTorch .* sees none; use the gallery's index"):
        scan_maker(opened, "onnxruntime")


def test_a_gpu_needs_pytorch_or_faiss_for_gpus(opened, no_gpu, monkeypatch):
    monkeypatch.setattr(scans, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"FAISS for GPUs.*finegrain\[gpu\]"):
        scan_maker(opened, "onnxruntime")


def test_faiss_for_gpus_without_a_gpu_is_an_error(opened, monkeypatch):
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with pytest.raises(PlanError, match="no GPU: 0 found, 0 asked for"):
        scan_maker(opened, "onnxruntime")


def test_too_little_memory_for_pytorch_is_an_error(opened, no_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 2**20, 2**40))
    make = scan_maker(opened, "onnxruntime")
    with pytest.raises(GalleryError, match=r"expected 5.0 MiB of free GPU memory.*got 3.0 MiB"):
        make(2**16, 2**14, 32)


def test_too_little_memory_for_faiss_is_an_error(opened, monkeypatch):
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    cuda = SimpleNamespace(free_memory=lambda: 2**20)
    monkeypatch.setattr(faiss_scan, "Cuda", lambda device: cuda)
    make = scan_maker(opened, "onnxruntime")
    with pytest.raises(GalleryError, match=r"expected 5.0 MiB of free GPU memory.*got 1.0 MiB"):
        make(2**16, 2**14, 32)


# --- the searcher -----------------------------------------------------------------------


@pytest.fixture
def on_gpu(plan, maker, monkeypatch):
    monkeypatch.setattr("finegrain.search.retriever.scan_maker", lambda *_, **__: maker)
    with Searcher(plan, threads=1, vectors="gpu") as searcher:
        yield searcher


def test_a_searcher_answers_the_same(on_gpu, plan, crops, maker):
    on_gpu.add(crops, {"camera": "gate-3"}, progress=False)
    asked = [("woman in red coat", None), (crops / "03.jpg", None), ("hat", "camera = 'gate-3'")]
    with Searcher(plan, threads=1) as plain:
        for query, where in asked:
            result, wanted = (s.query(query, 5, where=where).to_dicts() for s in (on_gpu, plain))
            assert result == wanted
    assert len(maker.scans) == 1


def test_a_searcher_opens_an_existing_gallery(on_gpu, plan, crops, maker):
    on_gpu.add(crops, progress=False)
    with Searcher(plan, threads=1, vectors="gpu") as again:
        assert len(again.query("coat")) == 10
    assert len(maker.scans) == maker.closed == 1


def test_galleries_that_a_gpu_cannot_follow_are_refused(plan, tmp_path):
    with pytest.raises(GalleryError, match=r"in a file.*got the address http://milvus:19530/p"):
        Searcher(plan, vectors="gpu", gallery="http://milvus:19530/p")
    with (
        Gallery(tmp_path / "g", dim=4) as gallery,
        pytest.raises(GalleryError, match="got an open one, which has an index of its own"),
    ):
        Searcher(plan, vectors="gpu", gallery=gallery)


def test_unknown_places_for_vectors_are_refused(plan):
    with pytest.raises(QueryError, match="expected vectors='memory' or 'gpu', got 'disk'"):
        Searcher(plan, vectors="disk")


def test_the_command_line_passes_the_options(plan, no_gpu, capsys, monkeypatch):
    assert main(["query", str(plan), "coat", "--vectors", "gpu"]) == 1
    assert "no GPU" in capsys.readouterr().err
    asked = {}
    monkeypatch.setattr(
        "finegrain.search.retriever.Encoder.from_plan",
        lambda plan, **options: asked.update(options) or pytest.fail("not reached"),
    )
    with pytest.raises(pytest.fail.Exception):
        main(["query", str(plan), "coat", "--trust-engines", "--runtime", "tensorrt"])
    assert asked["trust_engines"] is True
