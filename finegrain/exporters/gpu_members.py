"""Members that a profile adds to a plan for GPUs: the search graph and built engines."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from finegrain.exporters.profile import ExportProfile
from finegrain.exporters.search_graph import search_graph
from finegrain.plan import SEARCH, Manifest, Plan, write_plan
from finegrain.runtime.tensorrt.backend import BackendName, load_backend
from finegrain.runtime.tensorrt.cuda import Cuda
from finegrain.runtime.tensorrt.engines import build_members


def require_backends(profile: ExportProfile) -> None:
    """Fail before minutes of work if a TensorRT or a GPU is missing.

    Raises:
        MissingExtraError: A TensorRT that the profile names is not installed.
        PlanError: The profile needs a GPU, and there is none.
    """
    for name in (profile.runtime, profile.engine):
        # Two comparisons instead of `in`, so that mypy narrows the type of the name.
        if name == "tensorrt" or name == "tensorrt-rtx":
            load_backend(name)
    # TensorRT-RTX builds without a GPU; TensorRT times its kernels on the target GPU.
    if profile.engine == "tensorrt" or profile.runtime in ("tensorrt", "tensorrt-rtx"):
        Cuda()


def gpu_members(
    profile: ExportProfile, manifest: Manifest, members: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Members to add to an otherwise complete plan, by name.

    Raises:
        ExportError: The profile's ``search_depth`` is out of range.
        PlanError: TensorRT cannot build a graph.
    """
    added: dict[str, bytes] = {}
    if profile.search_depth:
        added[SEARCH] = search_graph(
            embed_dim=manifest.embed_dim, depth=profile.search_depth, opset=profile.opset
        )
    if profile.engine is not None:
        added |= _engines(profile.engine, manifest, members)
    return added


def _engines(
    name: BackendName, manifest: Manifest, members: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Engines built from a draft of the plan, because an engine records its graph's digest."""
    backend = load_backend(name)
    device = None if backend.rtx else Cuda().device()
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / "draft.plan"
        write_plan(draft, manifest, members)
        return build_members(Plan(draft), backend, device)
