"""Building an engine from an ONNX graph.

A bucket is a set of fixed input shapes with its own optimisation profile, so that TensorRT selects
kernels for exactly the shapes that a captured CUDA graph replays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finegrain.errors import PlanError
from finegrain.runtime.tensorrt.backend import Backend

Bucket = Mapping[str, tuple[int, ...]]
"""Input shapes by input name."""

BATCHES = (1, 8, 64)
LENGTHS = (16, 32)
"""Caption lengths below the context length; most captions of persons have under 32 tokens."""
WORKSPACE = 1 << 30
"""Most bytes of GPU memory that a kernel may use as workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """An engine, and kernel timings that the next build can reuse.

    Attributes:
        engine: The serialised engine.
        timings: TensorRT's timing cache; empty for TensorRT-RTX, which does not time kernels.
    """

    engine: bytes
    timings: bytes = b""


def text_buckets(context_length: int) -> tuple[Bucket, ...]:
    """Batches of 1, 8 and 64 by lengths of 16, 32 and the whole context."""
    lengths = (*(length for length in LENGTHS if length < context_length), context_length)
    return tuple({"ids": (n, length), "eot": (n,)} for n in BATCHES for length in lengths)


def image_buckets(height: int, width: int) -> tuple[Bucket, ...]:
    """Batches of 1, 8 and 64."""
    return tuple({"pixels": (n, 3, height, width)} for n in BATCHES)


def build_engine(
    backend: Backend, graph: bytes, buckets: Sequence[Bucket], *, where: str, timings: bytes = b""
) -> Built:
    """Build an engine. TensorRT needs the GPU to build, TensorRT-RTX does not.

    Args:
        backend: The TensorRT that builds.
        graph: ONNX graph; the types of its tensors are those of the computation.
        buckets: Input shapes that the engine will run with.
        where: Name of the graph in errors.
        timings: Timings from an earlier build.

    Raises:
        PlanError: TensorRT cannot parse or build the graph; the message names the node.
    """
    backend.messages.clear()
    builder = backend.trt.Builder(backend.logger)
    network = builder.create_network(backend.network_flags())
    # Keep the parser, which owns the weights, until the network is built.
    parser = _parse(backend, network, graph, where)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(backend.trt.MemoryPoolType.WORKSPACE, WORKSPACE)
    backend.configure(config)
    for bucket in buckets:
        _add_profile(backend, builder, network, config, bucket, where)
    cache = _start_timings(backend, config, timings)
    serialized = builder.build_serialized_network(network, config)
    del parser
    if serialized is None:
        raise PlanError(f"{where}: {backend.title} cannot build an engine: {backend.errors()}")
    return Built(
        engine=bytes(serialized), timings=b"" if cache is None else bytes(cache.serialize())
    )


def _parse(backend: Backend, network: Any, graph: bytes, where: str) -> Any:
    parser = backend.trt.OnnxParser(network, backend.logger)
    if parser.parse(graph):
        return parser
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    raise PlanError(
        f"{where}: {backend.title} does not take it: "
        + "; ".join(map(_describe, errors))
        + ". Export the model with another opset or profile."
    )


def _describe(error: Any) -> str:
    if not error.node_operator():  # the file is not a graph
        return str(error.desc())
    return f"node {error.node_name()!r} ({error.node_operator()}): {error.desc()}"


def _add_profile(
    backend: Backend, builder: Any, network: Any, config: Any, bucket: Bucket, where: str
) -> None:
    inputs = {network.get_input(i).name for i in range(network.num_inputs)}
    if inputs != set(bucket):
        raise PlanError(
            f"{where}: expected inputs {sorted(bucket)}, got {sorted(inputs)}. "
            "Export the plan again."
        )
    profile = builder.create_optimization_profile()
    for name, shape in bucket.items():
        profile.set_shape(name, shape, shape, shape)
    if config.add_optimization_profile(profile) < 0:
        raise PlanError(f"{where}: it cannot run with shapes {dict(bucket)}: {backend.errors()}")


def _start_timings(backend: Backend, config: Any, timings: bytes) -> Any:
    if backend.rtx:
        return None
    cache = config.create_timing_cache(timings)
    # TensorRT rejects timings of another GPU; the build then times its kernels again.
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache
