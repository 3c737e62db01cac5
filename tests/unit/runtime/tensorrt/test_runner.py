"""The runner on stand-ins that check shapes, addresses, order and lifetimes."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.errors import ImageError, PlanError, QueryError
from finegrain.plan import Plan
from finegrain.runtime.tensorrt import TensorRtRuntime

CONTEXT, DIM = 40, 8
PICTURE = (3, 4, 2)
# 3 batches x 3 lengths of texts, 3 batches of pictures
BUCKETS = 12


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch):
    """fsync takes most of the time of these tests, and no power failure is tested."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def open_runtime(make_plan, backend, tmp_path):
    def open_it(path=None, **settings):
        plan = Plan(path or make_plan())
        return TensorRtRuntime(plan, backend=backend.name, cache=tmp_path / "cache", **settings)

    return open_it


@pytest.fixture
def runtime(open_runtime):
    with open_runtime() as runtime:
        yield runtime


def captions(rng, rows, length):
    ids = rng.integers(1, 49408, (rows, length)).astype(np.int32)
    return ids, rng.integers(0, length, rows).astype(np.int32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.integers(0, 150), length=st.integers(1, CONTEXT), seed=st.integers(0, 99))
def test_texts_of_any_number_and_length_are_embedded(runtime, references, rows, length, seed):
    ids, eot = captions(np.random.default_rng(seed), rows, length)
    embeddings = runtime.encode_texts(ids, eot)
    assert embeddings.dtype == np.float32
    np.testing.assert_array_equal(embeddings, references.texts(ids, eot))


@pytest.mark.parametrize("rows", [0, 1, 2, 8, 9, 64, 65, 200])
def test_any_number_of_pictures_is_embedded(runtime, references, rows):
    pixels = np.random.default_rng(rows).integers(0, 256, (rows, *PICTURE), np.uint8)
    np.testing.assert_array_equal(runtime.encode_images(pixels), references.images(pixels))


@pytest.mark.parametrize(
    ("rows", "length", "bucket"),
    [(1, 5, (1, 16)), (1, 17, (1, 32)), (1, 33, (1, 40)), (2, 16, (8, 16)), (9, 20, (64, 32))],
)
def test_a_batch_runs_in_the_smallest_bucket_that_fits(runtime, trt, rows, length, bucket):
    trt.seen.clear()
    runtime.encode_texts(*captions(np.random.default_rng(0), rows, length))
    assert [seen["ids"].shape for seen in trt.seen] == [bucket]


def test_batches_are_replays_of_captured_graphs(runtime, trt, cuda):
    # Each bucket ran once as warm-up and once in its capture.
    assert trt.executions == 2 * BUCKETS
    cuda.calls.clear()
    runtime.encode_texts(*captions(np.random.default_rng(0), 130, 7))
    assert trt.executions == 2 * BUCKETS
    assert cuda.calls == {
        "cudaSetDevice": 1,
        "cudaGraphLaunch": 3,
        "cudaStreamSynchronize": 3,
    }


def test_padding_has_no_values_of_the_previous_batch(runtime, trt):
    rng = np.random.default_rng(0)
    runtime.encode_texts(*captions(rng, 8, 16))
    trt.seen.clear()
    ids, eot = captions(rng, 3, 9)
    runtime.encode_texts(ids, eot)
    (seen,) = trt.seen
    np.testing.assert_array_equal(seen["ids"][:3, :9], ids)
    assert not seen["ids"][3:].any()
    assert not seen["ids"][:, 9:].any()
    assert not seen["eot"][3:].any()


def test_embeddings_are_not_overwritten_by_the_next_batch(runtime):
    rng = np.random.default_rng(0)
    first = runtime.encode_texts(*captions(rng, 1, 9))
    kept = first.copy()
    runtime.encode_texts(*captions(rng, 1, 9))
    np.testing.assert_array_equal(first, kept)


def test_work_that_cannot_be_captured_is_executed(open_runtime, references, trt, cuda):
    if not trt.rtx:
        pytest.skip("TensorRT captures all that we run")
    trt.capturable = False
    with open_runtime() as runtime:
        ids, eot = captions(np.random.default_rng(0), 3, 9)
        np.testing.assert_array_equal(runtime.encode_texts(ids, eot), references.texts(ids, eot))
    assert cuda.calls["cudaGraphLaunch"] == 0
    assert trt.executions == BUCKETS + 1


def test_threads_take_turns(runtime, references):
    def ask(seed):
        ids, eot = captions(np.random.default_rng(seed), 1 + seed % 70, 1 + seed % CONTEXT)
        pixels = np.random.default_rng(seed).integers(0, 256, (1 + seed % 9, *PICTURE), np.uint8)
        np.testing.assert_array_equal(runtime.encode_texts(ids, eot), references.texts(ids, eot))
        np.testing.assert_array_equal(runtime.encode_images(pixels), references.images(pixels))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(60)))


def test_close_frees_everything_once(open_runtime, cuda):
    runtime = open_runtime()
    assert cuda.leaks
    runtime.close()
    assert not cuda.leaks
    runtime.close()
    with pytest.raises(PlanError, match=r"text.onnx: its runtime is closed; open the plan again"):
        runtime.encode_texts(np.ones((1, 3), np.int32), np.zeros(1, np.int32))


@pytest.mark.parametrize(
    "call",
    ["cudaHostAlloc", "cudaMemcpyAsync", "cudaStreamSynchronize", "cudaStreamBeginCapture"],
)
def test_a_failed_opening_frees_everything(open_runtime, cuda, call):
    from cuda.bindings.runtime import cudaError_t

    cuda.fails[call] = cudaError_t.cudaErrorMemoryAllocation
    with pytest.raises(PlanError, match=rf"CUDA failed in {call}: cudaErrorMemoryAllocation"):
        open_runtime()
    gc.collect()
    assert not cuda.leaks


def test_a_failed_capture_is_ended_and_its_cause_reported(open_runtime, cuda, monkeypatch):
    begin = cuda.cudaStreamBeginCapture

    def begin_then_fail(stream, mode):
        cuda.fails["cudaMemcpyAsync"] = 1
        return begin(stream, mode)

    monkeypatch.setattr(cuda, "cudaStreamBeginCapture", begin_then_fail)
    with pytest.raises(PlanError, match="CUDA failed in cudaMemcpyAsync: cudaErrorInvalidValue"):
        open_runtime()
    assert not cuda.recording
    assert not cuda.leaks


def test_the_error_of_a_broken_gpu_has_its_cause(open_runtime, cuda):
    cuda.fails |= dict.fromkeys(["cudaGraphInstantiate", "cudaFree", "cudaGraphExecDestroy"], 2)
    with pytest.raises(PlanError, match="CUDA failed in cudaGraphInstantiate"):
        open_runtime()


def test_the_error_of_a_failed_launch_has_cudas_message(runtime, cuda):
    cuda.fails["cudaGraphLaunch"] = 2
    with pytest.raises(PlanError, match=r"CUDA failed in cudaGraphLaunch.*runtime='onnxruntime'"):
        runtime.encode_texts(np.ones((1, 3), np.int32), np.zeros(1, np.int32))


def test_a_missing_gpu_is_an_error(open_runtime, cuda):
    cuda.gpus = 0
    with pytest.raises(PlanError, match=r"no GPU: cudaErrorInsufficientDriver .*; use runtime="):
        open_runtime()


def test_an_unknown_device_number_is_an_error(open_runtime):
    with pytest.raises(PlanError, match="no GPU: 1 found, 3 asked for"):
        open_runtime(device=3)


@pytest.mark.parametrize(
    ("attribute", "value", "message"),
    [
        ("loads", False, r"cannot load its engine of text.onnx on NVIDIA Paper sm_89: incompat"),
        ("no_context", True, r"text.onnx: no context: it gave no reason"),
        ("refused_shape", True, r"failed with shapes \{'ids': \(1, 16\), 'eot': \(1,\)\}"),
    ],
)
def test_refusals_of_tensorrt_are_errors(open_runtime, trt, cuda, attribute, value, message):
    setattr(trt, attribute, value)
    with pytest.raises(PlanError, match=message):
        open_runtime()
    assert not cuda.leaks


def test_a_width_that_differs_from_the_manifest_is_refused(open_runtime, make_plan, cuda):
    with pytest.raises(PlanError, match="gives embeddings of width 5, and the manifest says 8"):
        open_runtime(make_plan(dim=5))
    assert not cuda.leaks


def test_captions_beyond_the_context_are_refused(runtime):
    with pytest.raises(QueryError, match="at most 40 tokens, got 41"):
        runtime.encode_texts(np.ones((1, 41), np.int32), np.zeros(1, np.int32))


def test_ends_that_do_not_match_are_refused(runtime):
    with pytest.raises(QueryError, match=r"got \(2, 9\) and \(3,\)"):
        runtime.encode_texts(np.ones((2, 9), np.int32), np.zeros(3, np.int32))


def test_pictures_of_another_size_are_refused(runtime):
    with pytest.raises(ImageError, match=r"expected pictures of shape \(3, 4, 2\), got \(3, 2, 2"):
        runtime.encode_images(np.zeros((1, 3, 2, 2), np.uint8))


def test_the_second_opening_builds_no_engine(open_runtime, trt):
    for _ in range(2):
        open_runtime().close()
        assert trt.builds == 2


def test_engines_of_tensorrt_are_for_one_gpu(open_runtime, trt, cuda):
    open_runtime().close()
    cuda.name = b"NVIDIA Card"
    open_runtime().close()
    assert trt.builds == (2 if trt.rtx else 4)


def test_compiled_kernels_of_rtx_are_kept(open_runtime, trt, tmp_path):
    open_runtime().close()
    kept = sorted((tmp_path / "cache").glob("*.kernels"))
    assert len(kept) == (2 if trt.rtx else 0)
    open_runtime().close()
    assert all(path.read_bytes() == b"+kernels+kernels" for path in kept)


def test_unused_outputs_have_memory(open_runtime, make_plan, references, cuda):
    """TensorRT executes nothing if a tensor has no address."""
    with open_runtime(make_plan(outputs=["embeddings", "codes"])) as runtime:
        ids, eot = captions(np.random.default_rng(0), 3, 9)
        np.testing.assert_array_equal(runtime.encode_texts(ids, eot), references.texts(ids, eot))
    assert not cuda.leaks
