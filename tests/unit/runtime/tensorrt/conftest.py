"""A stand-in for TensorRT with stricter checks, which uses the stand-in for CUDA in this folder."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, write_plan
from finegrain.runtime.tensorrt.backend import load_backend

DIM, HEIGHT, WIDTH, CONTEXT = 8, 4, 2, 40


def embed_texts(ids, eot):
    """The computation of the stand-in's text engine: it uses ids up to the end of text only."""
    before_end = np.arange(ids.shape[1]) <= eot[:, None]
    weights = np.arange(1, ids.shape[1] + 1)[:, None] % np.arange(3, 3 + DIM)
    return ((ids * before_end) @ weights).astype(np.float32)


def embed_images(pixels):
    flat = pixels.reshape(len(pixels), int(np.prod(pixels.shape[1:]))).astype(np.float32)
    return flat @ (np.arange(flat.shape[1])[:, None] % np.arange(2, 2 + DIM)).astype(np.float32)


def select(embeddings, gallery, offsets, depth):
    """The computation of ``search.onnx``, with products in fp16."""
    products = embeddings.astype(np.float16).astype(np.float32) @ gallery.astype(np.float32).T
    products = products.astype(np.float16) + offsets
    rows = np.argsort(-products, axis=1, kind="stable")[:, :depth]
    return rows, np.take_along_axis(products, rows, axis=1)


class FakeTrt:
    """The part of ``tensorrt`` or ``tensorrt_rtx`` that finegrain uses."""

    def __init__(self, cuda, *, version="10.12.0", rtx=False):
        self.__version__ = version
        self.cuda, self.rtx = cuda, rtx
        self.builds, self.executions = 0, 0
        self.capturable, self.loads, self.scratch = True, True, 1024
        self.refused_profile = self.refused_shape = self.no_engine = self.no_context = False
        self.timings_fit = True
        self.seen = []  # inputs of each execution, as they were in device memory
        self.strategy = SimpleNamespace(USER_MANAGED="user managed")
        self.ExecutionContextAllocationStrategy = self.strategy
        flags = {} if version.startswith("11") else {"STRONGLY_TYPED": 1}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.BuilderFlag = SimpleNamespace(REQUIRE_USER_ALLOCATION="user allocation")
        self.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
        self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")
        self.TensorIOMode = SimpleNamespace(OUTPUT="output")
        self.ILogger = type(
            "ILogger", (), {"ERROR": 1, "INTERNAL_ERROR": 0, "INFO": 3, "__init__": lambda s: None}
        )

    nptype = staticmethod(np.dtype)

    def Builder(self, logger):  # noqa: N802
        return FakeBuilder(self, logger)

    def OnnxParser(self, network, logger):  # noqa: N802
        return FakeParser(network, logger)

    def Runtime(self, logger):  # noqa: N802
        def load(serialized):
            if not self.loads:
                logger.log(logger.ERROR, "incompatible serialization version")
                return None
            assert serialized.startswith(b"ftrt")
            return FakeEngine(self, **json.loads(serialized[4:]))

        return SimpleNamespace(deserialize_cuda_engine=load)


class FakeParser:
    def __init__(self, network, logger):
        self.network, self.num_errors = network, 0

    def parse(self, graph):
        stated = json.loads(graph)
        self.network.names, self.network.about = stated["inputs"], stated
        self.num_errors = len(stated.get("odd", []))
        self.odd = stated.get("odd")
        return not self.num_errors

    def get_error(self, i):
        return SimpleNamespace(
            node_name=lambda: self.odd[i], node_operator=lambda: "Odd", desc=lambda: "not known"
        )


class FakeNetwork:
    names: tuple[str, ...] = ()

    @property
    def num_inputs(self):
        return len(self.names)

    def get_input(self, i):
        return SimpleNamespace(name=self.names[i])


class FakeBuilder:
    def __init__(self, trt, logger):
        self.trt, self.logger = trt, logger

    def create_network(self, flags):
        strong = hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
        assert flags == (2 if strong else 0)
        return FakeNetwork()

    def create_builder_config(self):
        return FakeConfig(self.trt)

    def create_optimization_profile(self):
        shapes = {}

        def set_shape(name, least, best, most):
            assert least == best == most
            shapes[name] = most

        return SimpleNamespace(set_shape=set_shape, shapes=shapes)

    def build_serialized_network(self, network, config):
        self.trt.builds += 1
        assert config.limits == {"workspace": 1 << 30}
        assert config.flags == (["user allocation"] if self.trt.rtx else [])
        if self.trt.no_engine:
            self.logger.log(self.logger.ERROR, " no kernel for LayerNorm\n")
            self.logger.log(self.logger.INFO, "chatter")
            return None
        about = {"profiles": config.profiles, "about": network.about}
        return b"ftrt" + json.dumps(about).encode()


class FakeConfig:
    def __init__(self, trt):
        self.trt = trt
        self.profiles, self.flags, self.limits, self.timings = [], [], {}, None

    def set_flag(self, flag):
        self.flags.append(flag)

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size

    def add_optimization_profile(self, profile):
        self.profiles.append(profile.shapes)
        return -1 if self.trt.refused_profile else len(self.profiles) - 1

    def create_timing_cache(self, content):
        assert not self.trt.rtx
        return SimpleNamespace(content=content, serialize=lambda: content + b"+timed")

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        return self.trt.timings_fit or not cache.content


class FakeEngine:
    def __init__(self, trt, profiles, about):
        self.trt, self.profiles, self.about = trt, profiles, about
        self.inputs, self.outputs = about["inputs"], about.get("outputs", ["embeddings"])
        self.device_memory_size_v2 = trt.scratch

    @property
    def num_io_tensors(self):
        return len(self.inputs) + len(self.outputs)

    def get_tensor_name(self, i):
        return [*self.inputs, *self.outputs][i]

    def get_tensor_mode(self, name):
        return "output" if name in self.outputs else "input"

    def get_tensor_dtype(self, name):
        types = {"pixels": "uint8", "codes": "int8", "gallery": "float16", "offsets": "float16"}
        types |= dict.fromkeys(["embeddings", "estimates"], "float32")
        return types.get(name, "int32")

    def create_runtime_config(self):
        assert self.trt.rtx

        def cache():
            made = SimpleNamespace(content=b"", serialize=lambda: made.content + b"+kernels")
            made.deserialize = lambda content: setattr(made, "content", content)
            return made

        config = SimpleNamespace(create_runtime_cache=cache)
        config.set_execution_context_allocation_strategy = lambda s: setattr(config, "strategy", s)
        config.set_runtime_cache = lambda c: setattr(config, "cache", c)
        return config

    def create_execution_context(self, how):
        if self.trt.rtx:
            assert (how.strategy, how.cache is None) == ("user managed", False)
            assert how.dynamic_shapes_kernel_specialization_strategy == "eager"
        else:
            assert how == "user managed"
        return None if self.trt.no_context else FakeContext(self)


class FakeContext:
    def __init__(self, engine):
        self.engine, self.trt = engine, engine.trt
        self.shapes, self.addresses = {}, {}

    def set_device_memory(self, address, size):
        assert size >= self.trt.scratch
        self.trt.cuda.live("device", address, size)
        self.scratch = address

    def set_optimization_profile_async(self, profile, stream):
        assert stream in self.trt.cuda.streams
        self.profile = self.engine.profiles[profile]
        return True

    def set_input_shape(self, name, shape):
        assert list(shape) == list(self.profile[name])
        self.shapes[name] = tuple(shape)
        return not self.trt.refused_shape

    def get_tensor_shape(self, name):
        batch = len(self.profile) and next(iter(self.shapes.values()))[0]
        return self.shapes.get(name, (batch, self.engine.about["dim"]))

    def set_tensor_address(self, name, address):
        self.trt.cuda.live("device", address, 1)
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream):
        assert self.trt.rtx
        return self.trt.capturable

    def _tensor(self, name):
        shape, dtype = self.get_tensor_shape(name), np.dtype(self.engine.get_tensor_dtype(name))
        size = int(np.prod(shape)) * dtype.itemsize
        address = self.trt.cuda.live("device", self.addresses[name], size)
        return np.ndarray(shape, dtype, (ctypes.c_uint8 * size).from_address(address))

    def execute_async_v3(self, stream):
        self.trt.executions += 1
        assert set(self.addresses) == {*self.profile, *self.engine.outputs}

        def work():
            self.trt.cuda.live("device", self.scratch, self.trt.scratch)
            inputs = {name: self._tensor(name) for name in self.profile}
            self.trt.seen.append({name: array.copy() for name, array in inputs.items()})
            if "gallery" in inputs:
                results = select(**inputs, depth=self.engine.about["dim"])
            else:
                compute = embed_images if "pixels" in inputs else embed_texts
                results = (compute(*inputs.values())[:, : self.engine.about["dim"]],)
            for name, result in zip(self.engine.outputs, results, strict=False):
                self._tensor(name)[...] = result

        self.trt.cuda.enqueue(stream, work)
        return True


@pytest.fixture
def cuda(monkeypatch):
    """CUDA with one GPU, in place of cuda-python."""
    # Test folders are not packages, so the file in this folder cannot be imported by name.
    spec = importlib.util.spec_from_file_location(
        "stand_in_cuda", Path(__file__).with_name("stand_in_cuda.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    fake = module.FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    return fake


@pytest.fixture(params=["tensorrt 10.12.0", "tensorrt 11.4.0", "tensorrt-rtx 1.7.1"])
def trt(request, monkeypatch, cuda):
    """Each TensorRT in turn, in place of the module."""
    name, _, version = request.param.partition(" ")
    fake = FakeTrt(cuda, version=version, rtx=name == "tensorrt-rtx")
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), fake)
    load_backend.cache_clear()
    yield fake
    load_backend.cache_clear()


@pytest.fixture
def references():
    """The computations of the stand-in's engines."""
    return SimpleNamespace(texts=embed_texts, images=embed_images)


@pytest.fixture
def backend(trt):
    return load_backend("tensorrt-rtx" if trt.rtx else "tensorrt")


@pytest.fixture
def make_plan(tmp_path):
    """``make_plan()`` writes a plan whose graphs the stand-ins can execute."""

    def make(*, extra: dict[str, bytes] | None = None, **text: object) -> Path:
        manifest = Manifest(
            method="clip",
            embed_dim=DIM,
            height=HEIGHT,
            width=WIDTH,
            fit="stretch",
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
            context_length=CONTEXT,
            precision={TEXT: "fp16", IMAGE: "fp16"},
            checkpoint="0" * 64,
            recipe={},
            parity={},
            made_by="0",
            sha256={},
        )
        members = {
            TEXT: json.dumps({"inputs": ["ids", "eot"], "dim": DIM} | text).encode(),
            IMAGE: json.dumps({"inputs": ["pixels"], "dim": DIM}).encode(),
            TOKENIZER: b"{}",
        }
        path = tmp_path / "model.plan"
        write_plan(path, manifest, members | (extra or {}))
        return path

    return make
