"""Plans and modules that use the stand-in for TensorRT and CUDA."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.tensorrt_stand_in import (
    CONTEXT,
    DIM,
    HEIGHT,
    WIDTH,
    FakeCuda,
    FakeTrt,
    embed_images,
    embed_texts,
)

from finegrain.plan import IMAGE, TEXT, TOKENIZER, Manifest, write_plan
from finegrain.runtime.tensorrt.backend import load_backend


@pytest.fixture
def cuda(monkeypatch):
    """CUDA with one GPU, in place of cuda-python."""
    fake = FakeCuda()
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
