"""Chooses how this machine scans the vectors of a plan on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError
from finegrain.index.gpu.faiss_scan import FaissScan
from finegrain.index.gpu.mirror import Scan
from finegrain.index.gpu.tensorrt_scan import TensorRtScan
from finegrain.plan import SEARCH, Plan
from finegrain.runtime.base import RuntimeChoice
from finegrain.runtime.tensorrt.backend import BackendName

MakeScan = Callable[[int, int, int], Scan]
"""Creates an empty scan from the number of vectors, the number of spare rows and the width."""


def scan_maker(plan: Plan, runtime: RuntimeChoice, *, trust_engines: bool = False) -> MakeScan:
    """Choose how this machine scans the vectors of a plan.

    TensorRT is used if it runs the towers and the plan has ``search.onnx``; it also embeds
    captions. Otherwise FAISS for GPUs is used, or PyTorch if FAISS for GPUs is not installed.

    Args:
        plan: The plan; it is opened again for each scan.
        runtime: Runtime of the towers.
        trust_engines: As in :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`.

    Returns:
        A function that creates an empty scan.

    Raises:
        PlanError: There is no GPU.
        MissingExtraError: Neither PyTorch nor FAISS for GPUs is installed.
    """
    match runtime:
        case "tensorrt" | "tensorrt-rtx" if SEARCH in plan.manifest.sha256:
            return _scan_maker_with_captions(plan, runtime, trust_engines=trust_engines)
    if find_spec("torch") is not None and not FaissScan.is_for_gpus():
        from finegrain.index.gpu.torch_scan import TorchScan

        TorchScan.require_gpu()
        return lambda rows, spare, dim: TorchScan(_no_vectors(dim), "cuda", capacity=rows + spare)
    FaissScan.require_gpu()
    return lambda rows, spare, dim: FaissScan.on_gpu(_no_vectors(dim), capacity=rows + spare)


def _scan_maker_with_captions(plan: Plan, backend: BackendName, *, trust_engines: bool) -> MakeScan:
    path, fingerprint = plan.path, plan.manifest.fingerprint

    def make(rows: int, spare: int, dim: int) -> Scan:
        reopened = Plan(path)
        if reopened.manifest.fingerprint != fingerprint:
            raise PlanError(f"{path} was replaced by another plan; open the searcher again")
        return TensorRtScan(
            reopened, rows, spare=spare, backend=backend, trust_engines=trust_engines
        )

    return make


def _no_vectors(dim: int) -> NDArray[np.float16]:
    return np.empty((0, dim), np.float16)
