"""Which TensorRT is installed, and the few places where its versions differ.

One code path serves TensorRT 10.12 to 11 and TensorRT-RTX 1.2 on: networks are strongly typed,
precision is in the graph. What is not the same everywhere is in this file.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from types import ModuleType
from typing import Any, Literal

from packaging.version import Version

from finegrain.errors import MissingExtraError, require

BackendName = Literal["tensorrt", "tensorrt-rtx"]
_MODULES: dict[BackendName, tuple[str, str]] = {
    # 10.12 deprecated weak typing: from it on, strong typing takes every operator we use.
    "tensorrt": ("tensorrt", "10.12"),
    # 1.2 brought REQUIRE_USER_ALLOCATION and is_stream_capturable, which capturing needs.
    "tensorrt-rtx": ("tensorrt_rtx", "1.2"),
}
KEPT_MESSAGES = 8


class Backend:
    """One TensorRT module.

    Args:
        name: Which of the two.
        trt: The module; both have the same classes.

    Attributes:
        messages: The last errors that TensorRT reported, oldest first.
    """

    def __init__(self, name: BackendName, trt: ModuleType) -> None:
        self.name = name
        self.trt = trt
        self.messages: deque[str] = deque(maxlen=KEPT_MESSAGES)
        self.logger = _logger(trt, self.messages)

    @property
    def version(self) -> str:
        return str(self.trt.__version__)

    @property
    def title(self) -> str:
        return f"{'TensorRT-RTX' if self.rtx else 'TensorRT'} {self.version}"

    @property
    def rtx(self) -> bool:
        return self.name == "tensorrt-rtx"

    def errors(self) -> str:
        """What TensorRT has reported since this was last asked."""
        said = "; ".join(self.messages)
        self.messages.clear()
        return said or "it gave no reason"

    def network_flags(self) -> int:
        """Flags of a strongly typed network."""
        flag = self.trt.NetworkDefinitionCreationFlag
        # 10.x: has to be asked for. 11: every network is strongly typed, the flag is accepted and
        # ignored, and may be gone one day.
        return 1 << int(flag.STRONGLY_TYPED) if hasattr(flag, "STRONGLY_TYPED") else 0

    def configure(self, config: Any) -> None:
        """Settings of a build that only one of the two has."""
        if self.rtx:
            # RTX 1.2+: without it an engine may allocate while it runs, which a capture forbids.
            config.set_flag(self.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def create_context(self, engine: Any, compiled: Any) -> Any:
        """An execution context whose scratch memory we provide.

        Args:
            engine: What it runs.
            compiled: From :meth:`open_compiled`.
        """
        trt = self.trt
        user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.rtx:
            return engine.create_execution_context(user_managed)
        # RTX compiles kernels on the machine it runs on, and only IRuntimeConfig says when
        # (eagerly: a kernel compiled amid a capture spoils it) and where they are kept.
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.set_runtime_cache(compiled)
        return engine.create_execution_context(config)

    def open_compiled(self, engine: Any, saved: bytes) -> Any:
        """RTX's cache of compiled kernels, filled with what was saved; else ``None``.

        It refuses by itself what was saved by another version, GPU or driver.
        """
        if not self.rtx:
            return None
        compiled = engine.create_runtime_config().create_runtime_cache()
        if saved:
            compiled.deserialize(saved)
        return compiled

    def output_names(self, engine: Any) -> set[str]:
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        output = self.trt.TensorIOMode.OUTPUT
        return {name for name in names if engine.get_tensor_mode(name) == output}

    def can_capture(self, context: Any, stream: int) -> bool:
        """Whether a CUDA graph can hold what the context does."""
        # RTX only. TensorRT captures whatever has no data-dependent shapes, as ours have not.
        return bool(context.is_stream_capturable(stream)) if self.rtx else True


@cache
def load_backend(name: BackendName) -> Backend:
    """The installed TensorRT; one object a process, since TensorRT keeps its first logger.

    Raises:
        MissingExtraError: It is not installed, or is too old.
    """
    module_name, least = _MODULES[name]
    module = require(module_name, name)
    if Version(module.__version__) < Version(least):
        raise MissingExtraError(
            f"expected {module_name} {least} or newer, got {module.__version__}. "
            f'Upgrade it with: pip install -U "finegrain[{name}]"'
        )
    return Backend(name, module)


def _logger(trt: ModuleType, messages: deque[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Keeps errors for our own messages; the rest is TensorRT's chatter."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message.strip())

    return Logger()
