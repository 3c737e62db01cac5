"""Getting a tower's engine from a trusted plan, the cache, or a build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from finegrain.errors import PlanError
from finegrain.plan import IMAGE, TEXT, Plan
from finegrain.runtime.tensorrt.backend import Backend
from finegrain.runtime.tensorrt.build import (
    Bucket,
    build_engine,
    image_buckets,
    text_buckets,
)
from finegrain.runtime.tensorrt.cache import (
    EngineCache,
    EngineKey,
    engine_members,
    engine_of_plan,
)
from finegrain.runtime.tensorrt.cuda import Device

ANY = "any"


def build_members(plan: Plan, backend: Backend, device: Device | None = None) -> dict[str, bytes]:
    """Build engines for both towers, as additional members of the plan.

    Args:
        plan: A freshly opened plan; its graphs are removed from it.
        backend: The TensorRT that builds. TensorRT-RTX needs no GPU.
        device: The GPU that TensorRT builds on and for.

    Raises:
        PlanError: TensorRT cannot parse or build a graph.
    """
    manifest = plan.manifest
    towers = {
        TEXT: text_buckets(manifest.context_length),
        IMAGE: image_buckets(manifest.height, manifest.width),
    }
    members: dict[str, bytes] = {}
    for member, buckets in towers.items():
        built = build_engine(backend, plan.take(member), buckets, where=f"{plan.path}: {member}")
        key = engine_key(plan, member, backend, device, buckets)
        members |= engine_members(key, PurePosixPath(member).stem, built.engine)
    return members


def engine_key(
    plan: Plan, member: str, backend: Backend, device: Device | None, buckets: Sequence[Bucket]
) -> EngineKey:
    """The key of a tower's engine; without ``device`` for TensorRT-RTX, which runs on any GPU."""
    bound = None if backend.rtx else device
    return EngineKey(
        graph=plan.manifest.sha256[member],
        backend=backend.name,
        version=backend.version,
        gpu=bound.name if bound else ANY,
        driver=bound.driver if bound else ANY,
        precision=plan.manifest.precision.get(member, "unknown"),
        buckets=json.dumps([dict(bucket) for bucket in buckets]),
    )


class EngineSource:
    """The engines of one plan on one GPU.

    Args:
        plan: The plan; opening an engine removes its graph from it.
        backend: The TensorRT to use.
        device: The GPU.
        cache: Cache of engines.
        trust_engines: Load engines inside the plan. Engines run code.
    """

    def __init__(
        self,
        plan: Plan,
        backend: Backend,
        device: Device,
        cache: EngineCache,
        *,
        trust_engines: bool,
    ) -> None:
        self.plan = plan
        self.backend = backend
        self.device = device
        self.cache = cache
        self.trust_engines = trust_engines
        self._runtime = backend.trt.Runtime(backend.logger)
        machine = f"{backend.name}:{backend.version}:{device.name}:{device.driver}"
        self._machine = hashlib.sha256(machine.encode()).hexdigest()[:16]

    def open(self, member: str, buckets: Sequence[Bucket]) -> Any:
        """The deserialised engine of a graph of the plan.

        Raises:
            PlanError: The engine cannot be built or loaded, or the plan's engine is for another
                machine.
        """
        key = engine_key(self.plan, member, self.backend, self.device, buckets)
        graph = self.plan.take(member)
        serialized = None
        if self.trust_engines:
            serialized = engine_of_plan(self.plan, key, PurePosixPath(member).stem)
        if serialized is None:
            serialized = self.cache.get_or_build(key, lambda: self._build(member, graph, buckets))
        self.backend.messages.clear()
        engine = self._runtime.deserialize_cuda_engine(serialized)
        if engine is None:
            raise PlanError(
                f"{self.plan.path}: {self.backend.title} cannot load its engine of {member} on "
                f"{self.device.name}: {self.backend.errors()}. If this GPU is supported, delete "
                f"{self.cache.folder} and try again; else use runtime='onnxruntime'"
            )
        return engine

    def compiled(self, member: str, engine: Any) -> Any:
        """RTX's saved kernels for this GPU; ``None`` for TensorRT."""
        return self.backend.open_compiled(engine, self.cache.read_beside(self._kernels(member)))

    def save_compiled(self, member: str, compiled: Any) -> None:
        """Save RTX's compiled kernels in the cache."""
        if compiled is not None:
            self.cache.write_beside(self._kernels(member), bytes(compiled.serialize()))

    def _build(self, member: str, graph: bytes, buckets: Sequence[Bucket]) -> bytes:
        timings = f"{self._machine}.timings"
        built = build_engine(
            self.backend,
            graph,
            buckets,
            where=f"{self.plan.path}: {member}",
            timings=self.cache.read_beside(timings),
        )
        self.cache.write_beside(timings, built.timings)
        return built.engine

    def _kernels(self, member: str) -> str:
        return f"{self.plan.manifest.sha256[member][:16]}-{self._machine}.kernels"
