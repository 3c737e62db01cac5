"""The real TensorRT-RTX: its parser and builder need no GPU.

Engines of ViT-B/16 are ``slow``; ``-rP`` prints their seconds and sizes. Nothing is executed,
because that needs a GPU.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from finegrain.errors import PlanError
from finegrain.plan import IMAGE, SEARCH, TEXT, TOKENIZER, Plan, write_plan
from finegrain.runtime.tensorrt import TensorRtRuntime
from finegrain.runtime.tensorrt.backend import load_backend
from finegrain.runtime.tensorrt.build import build_engine, image_buckets, text_buckets
from finegrain.runtime.tensorrt.cache import engine_of_plan
from finegrain.runtime.tensorrt.cuda import Cuda
from finegrain.runtime.tensorrt.engines import build_members, engine_key

pytest.importorskip("tensorrt_rtx", reason='TensorRT-RTX is absent: "finegrain[tensorrt-rtx]"')

MAGIC = b"vtrt"


@pytest.fixture
def rtx():
    load_backend.cache_clear()
    return load_backend("tensorrt-rtx")


@pytest.fixture(scope="session")
def graphs(tiny_graph):
    """The tiny towers in fp32, with attention as one node."""
    return {TEXT: tiny_graph("text", 23), IMAGE: tiny_graph("image", 23)}


@pytest.fixture(scope="session")
def half_plan(tiny_plan, graphs, tmp_path_factory):
    """The tiny plan in fp16."""
    from finegrain.exporters.half import Fp16

    plan = Plan(tiny_plan)
    members = {name: Fp16().lower(graph) for name, graph in graphs.items()}
    members[TOKENIZER] = plan.take(TOKENIZER)
    path = tmp_path_factory.mktemp("half") / "half.plan"
    manifest = replace(plan.manifest, precision={TEXT: "fp16", IMAGE: "fp16"})
    write_plan(path, manifest, members)
    return path


def no_gpu() -> bool:
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-python is absent")
    return runtime.cudaGetDeviceCount()[0] != 0


@pytest.mark.parametrize("member", [TEXT, IMAGE])
def test_fp32_graphs_become_engines(rtx, tiny_plan, member):
    buckets = text_buckets(77) if member == TEXT else image_buckets(128, 64)
    built = build_engine(rtx, Plan(tiny_plan).take(member), buckets, where=member)
    assert built.engine.startswith(MAGIC)
    assert built.timings == b""


@pytest.mark.slow
def test_fp16_engines_are_stored_in_a_plan(rtx, half_plan, tmp_path):
    members = build_members(Plan(half_plan), rtx)
    plan = Plan(half_plan)
    members |= {name: plan.take(name) for name in (TEXT, IMAGE, TOKENIZER)}
    path = tmp_path / "model.plan"
    write_plan(path, plan.manifest, members)
    for member, buckets in ((TEXT, text_buckets(77)), (IMAGE, image_buckets(128, 64))):
        opened = Plan(path)
        key = engine_key(opened, member, rtx, None, buckets)
        engine = engine_of_plan(opened, key, member.partition(".")[0])
        assert engine is not None
        assert engine.startswith(MAGIC)


@pytest.mark.slow
def test_fp8_graphs_become_engines(rtx, graphs):
    from finegrain.exporters.fp8 import Fp8

    batches = [{"ids": np.ones((2, 9), np.int32), "eot": np.full(2, 8, np.int32)}]
    lowered = Fp8().lower(graphs[TEXT], batches)
    assert build_engine(rtx, lowered, text_buckets(77), where=TEXT).engine.startswith(MAGIC)


@pytest.mark.parametrize("rows", [65_536, 1 << 20])
def test_the_search_graph_becomes_an_engine(rtx, rows):
    from finegrain.exporters.search_graph import search_graph

    graph = search_graph(embed_dim=512, depth=128, opset=18)
    shapes = {"embeddings": (1, 512), "gallery": (rows, 512), "offsets": (rows,)}
    assert build_engine(rtx, graph, [shapes], where=SEARCH).engine.startswith(MAGIC)


@pytest.mark.slow
def test_a_profile_writes_engines_into_the_plan(rtx, half_plan):
    from finegrain.exporters import ExportProfile
    from finegrain.exporters.gpu_members import gpu_members

    plan = Plan(half_plan)
    members = {name: plan.take(name) for name in (TEXT, IMAGE, TOKENIZER)}
    profile = ExportProfile(name="x", engine="tensorrt-rtx")
    added = gpu_members(profile, plan.manifest, members)
    stems = [f"engines/tensorrt-rtx/{tower}" for tower in ("text", "image")]
    assert added.keys() == {f"{stem}.{suffix}" for stem in stems for suffix in ("engine", "json")}
    assert all(added[f"{stem}.engine"].startswith(MAGIC) for stem in stems)


def test_an_invalid_graph_is_refused(rtx):
    with pytest.raises(
        PlanError, match=r"a.plan: TensorRT-RTX \d.* does not take it: .*Failed to parse"
    ):
        build_engine(rtx, b"no graph", text_buckets(77), where="a.plan")


def test_an_unknown_node_is_named(rtx):
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy"]
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="block/odd")
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(PlanError, match=r"node 'block/odd' \(Frobnicate\): "):
        build_engine(rtx, model.SerializeToString(), [{"x": (1, 2)}], where="a.plan")


def test_shapes_that_the_graph_does_not_have_are_refused(rtx, tiny_plan):
    graph = Plan(tiny_plan).take(IMAGE)
    with pytest.raises(PlanError, match=r"image.onnx: "):
        build_engine(rtx, graph, image_buckets(96, 64), where="image.onnx")


def test_a_missing_gpu_is_an_error_with_advice(rtx, half_plan, tmp_path):
    if not no_gpu():
        pytest.skip("this machine has a GPU")
    with pytest.raises(PlanError, match=r"no GPU: .*; use runtime='onnxruntime'"):
        TensorRtRuntime(Plan(half_plan), backend="tensorrt-rtx", cache=tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("cudaSetDevice", (0,)),
        ("cudaGetDeviceProperties", (0,)),
        ("cudaStreamCreateWithFlags", (1,)),
        ("cudaStreamSynchronize", (7,)),
        ("cudaMalloc", (64,)),
        ("cudaHostAlloc", (64, 0)),
        ("cudaMemcpyAsync", (256, np.zeros(4).ctypes.data, 32, "to", 7)),
        ("cudaStreamBeginCapture", (7, "mode")),
        ("cudaStreamEndCapture", (7,)),
        ("cudaGraphLaunch", (7, 7)),
    ],
)
def test_cuda_python_accepts_the_arguments(name, arguments):
    """Without a driver, each call raises an error of CUDA and not of Python."""
    if not no_gpu():
        pytest.skip("this machine has a GPU, and the addresses are made up")
    from cuda.bindings import runtime

    enums = {
        "to": runtime.cudaMemcpyKind.cudaMemcpyHostToDevice,
        "mode": runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal,
    }
    cuda = Cuda.__new__(Cuda)
    cuda._rt = runtime
    with pytest.raises(PlanError, match=rf"CUDA failed in {name}: CUDA driver version is insuff"):
        cuda._call(name, *(enums.get(argument, argument) for argument in arguments))


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "opset"), [("fp16", 18), ("fp16", 23), ("fp8", 21)])
def test_engines_of_vit_b16_are_built(rtx, precision, opset):
    from finegrain.exporters import Fp16
    from finegrain.exporters.fp8 import Fp8
    from finegrain.exporters.to_onnx import image_graph, text_graph
    from finegrain.methods import ClipConfig
    from finegrain.models import TextConfig, VitConfig

    config = ClipConfig(image=VitConfig(), text=TextConfig(), embed_dim=512)
    method = config.build().eval()
    ids, pixels = np.ones((2, 16), np.int32), np.zeros((2, 3, 384, 128), np.uint8)
    towers = {
        TEXT: (
            text_graph(method, context_length=77, opset=opset),
            text_buckets(77),
            {"ids": ids, "eot": ids[:, 0]},
        ),
        IMAGE: (
            image_graph(method, height=384, width=128, opset=opset),
            image_buckets(384, 128),
            {"pixels": pixels},
        ),
    }
    for member, (graph, buckets, batch) in towers.items():
        lowered = (Fp8() if precision == "fp8" else Fp16()).lower(graph, [batch])
        start = time.perf_counter()
        built = build_engine(rtx, lowered, buckets, where=member)
        seconds = time.perf_counter() - start
        size, stored = (len(content) / 2**20 for content in (built.engine, lowered))
        print(
            f"{member}, {precision}, opset {opset}: {stored:.1f} MiB, "
            f"built in {seconds:.1f} s, {size:.1f} MiB"
        )
        # Engines hold the weights once, or twice in fp8, for any number of buckets.
        assert len(built.engine) < (2 if precision == "fp8" else 1.5) * len(lowered)
