"""An engine on the GPU, and lanes that share its scratch memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from finegrain.errors import PlanError
from finegrain.runtime.tensorrt.build import Bucket
from finegrain.runtime.tensorrt.cuda import Cuda
from finegrain.runtime.tensorrt.engines import EngineSource
from finegrain.runtime.tensorrt.lane import Lane


class LoadedEngine:
    """The engine of one graph of a plan.

    Args:
        source: Source of the engine.
        cuda: The GPU.
        member: Name of the graph in the plan.
        buckets: Input shapes of its profiles.
        held: Receives the callback that frees the scratch memory.

    Raises:
        PlanError: The engine cannot be built or loaded.
    """

    def __init__(
        self,
        source: EngineSource,
        cuda: Cuda,
        member: str,
        buckets: Sequence[Bucket],
        held: ExitStack,
    ) -> None:
        self._source = source
        self._cuda = cuda
        self._member = member
        self._engine = source.open(member, buckets)
        self._compiled = source.compiled(member, self._engine)
        # Lanes run one after the other, so they share one scratch memory.
        self._size = max(self._engine.device_memory_size_v2, 1)
        self._scratch = cuda.allocate(self._size)
        held.callback(cuda.free, self._scratch)

    def lane(
        self,
        stream: int,
        profile: int,
        bucket: Bucket,
        outputs: Sequence[str],
        held: ExitStack,
        resident: Mapping[str, int] | None = None,
    ) -> Lane:
        """Create a lane for one bucket; see :class:`~finegrain.runtime.tensorrt.lane.Lane`.

        Raises:
            PlanError: TensorRT cannot create a context.
        """
        backend = self._source.backend
        context = backend.create_context(self._engine, self._compiled)
        if context is None:
            raise PlanError(
                f"{self._source.plan.path}: {self._member}: no context: {backend.errors()}"
            )
        context.set_device_memory(self._scratch, self._size)
        return Lane(
            backend,
            self._cuda,
            context,
            stream,
            profile,
            bucket,
            outputs,
            held,
            resident=resident or {},
        )

    def save_compiled(self) -> None:
        """Save the kernels that contexts compiled; only for TensorRT-RTX."""
        self._source.save_compiled(self._member, self._compiled)
