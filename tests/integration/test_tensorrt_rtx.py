"""The real TensorRT-RTX: its parser and builder need no GPU.

Engines of ViT-B/16 are ``slow``; ``-rP`` prints their seconds and sizes. Nothing is run: that
takes a GPU.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from finegrain.errors import PlanError
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan
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
def half_plan(tiny_plan, tiny_method, tmp_path_factory):
    """The tiny plan in fp16, with attention as one node."""
    from finegrain.exporters.half import Fp16
    from finegrain.exporters.to_onnx import image_graph, text_graph

    plan = Plan(tiny_plan)
    members = {
        TEXT: Fp16().lower(text_graph(tiny_method, context_length=77, opset=23)),
        IMAGE: Fp16().lower(image_graph(tiny_method, height=128, width=64, opset=23)),
        TOKENIZER: plan.take(TOKENIZER),
    }
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


def test_fp16_engines_travel_in_a_plan(rtx, half_plan, tmp_path):
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


def test_what_is_no_graph_is_refused(rtx):
    with pytest.raises(
        PlanError, match=r"a.plan: TensorRT-RTX \d.* does not take it: .*Failed to parse"
    ):
        build_engine(rtx, b"no graph", text_buckets(77), where="a.plan")


def test_a_node_that_it_does_not_know_is_named(rtx):
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy"]
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="block/odd")
    graph = helper.make_graph([node], "graph", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    with pytest.raises(PlanError, match=r"node 'block/odd' \(Frobnicate\): "):
        build_engine(rtx, model.SerializeToString(), [{"x": (1, 2)}], where="a.plan")


def test_shapes_that_the_graph_does_not_have(rtx, tiny_plan):
    graph = Plan(tiny_plan).take(IMAGE)
    with pytest.raises(PlanError, match=r"image.onnx: "):
        build_engine(rtx, graph, image_buckets(96, 64), where="image.onnx")


def test_without_a_gpu_it_says_so(rtx, half_plan, tmp_path):
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
def test_cuda_python_takes_our_arguments(name, arguments):
    """Without a driver each call answers with an error of CUDA's, not of Python's."""
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
@pytest.mark.parametrize("opset", [18, 23])
def test_engines_of_vit_b16(rtx, opset):
    from finegrain.exporters.half import Fp16
    from finegrain.exporters.to_onnx import image_graph, text_graph
    from finegrain.methods import ClipConfig
    from finegrain.models import TextConfig, VitConfig

    config = ClipConfig(image=VitConfig(), text=TextConfig(), embed_dim=512)
    method = config.build().eval()
    towers = {
        TEXT: (text_graph(method, context_length=77, opset=opset), text_buckets(77)),
        IMAGE: (
            image_graph(method, height=384, width=128, opset=opset),
            image_buckets(384, 128),
        ),
    }
    for member, (graph, buckets) in towers.items():
        lowered = Fp16().lower(graph)
        start = time.perf_counter()
        built = build_engine(rtx, lowered, buckets, where=member)
        seconds = time.perf_counter() - start
        size = len(built.engine) / 2**20
        print(f"{member}, opset {opset}: built in {seconds:.1f} s, {size:.1f} MiB")
        # Weights are held once, however many buckets there are.
        assert len(built.engine) < 1.5 * len(lowered)
