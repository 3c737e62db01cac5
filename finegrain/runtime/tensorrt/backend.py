"""The installed TensorRT, and the differences between its versions.

The same code supports TensorRT 10.12 to 11 and TensorRT-RTX 1.2 and later: networks are strongly
typed, and the graph states the precision. This file contains everything that differs.
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
    # From 10.12 on, which deprecated weak typing, strong typing supports all our operators.
    "tensorrt": ("tensorrt", "10.12"),
    # 1.2 added REQUIRE_USER_ALLOCATION and is_stream_capturable, needed for CUDA graphs.
    "tensorrt-rtx": ("tensorrt_rtx", "1.2"),
}
KEPT_MESSAGES = 8


class Backend:
    """One TensorRT module.

    Args:
        name: Name of the backend.
        trt: The module; both backends have the same classes.

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
        """Errors that TensorRT has reported since the last call."""
        reported = "; ".join(self.messages)
        self.messages.clear()
        return reported or "it gave no reason"

    def network_flags(self) -> int:
        """Flags of a strongly typed network."""
        flag = self.trt.NetworkDefinitionCreationFlag
        # TensorRT 10 needs the flag. In 11 every network is strongly typed; the flag is ignored and
        # may be removed.
        return 1 << int(flag.STRONGLY_TYPED) if hasattr(flag, "STRONGLY_TYPED") else 0

    def configure(self, config: Any) -> None:
        """Set the build options that only one backend has."""
        if self.rtx:
            # Without it, an engine may allocate while it runs, which a graph capture forbids.
            config.set_flag(self.trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def create_context(self, engine: Any, compiled: Any) -> Any:
        """An execution context whose scratch memory the caller provides.

        Args:
            engine: Engine to run.
            compiled: Result of :meth:`open_compiled`.
        """
        trt = self.trt
        user_managed = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.rtx:
            return engine.create_execution_context(user_managed)
        # RTX compiles kernels at run time. IRuntimeConfig sets when (eagerly, because compiling
        # during a capture invalidates it) and where they are cached.
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(user_managed)
        config.dynamic_shapes_kernel_specialization_strategy = (
            trt.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        config.set_runtime_cache(compiled)
        return engine.create_execution_context(config)

    def open_compiled(self, engine: Any, saved: bytes) -> Any:
        """RTX's cache of compiled kernels, with saved content; ``None`` for TensorRT.

        RTX ignores content that another version, GPU or driver saved.
        """
        if not self.rtx:
            return None
        compiled = engine.create_runtime_config().create_runtime_cache()
        if saved:
            compiled.deserialize(saved)
        return compiled

    def output_names(self, engine: Any) -> set[str]:
        """Names of the output tensors."""
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        output = self.trt.TensorIOMode.OUTPUT
        return {name for name in names if engine.get_tensor_mode(name) == output}

    def can_capture(self, context: Any, stream: int) -> bool:
        """Whether the work of a context can be captured in a CUDA graph."""
        # Only RTX has this check. TensorRT can capture engines without data-dependent shapes,
        # such as ours.
        return bool(context.is_stream_capturable(stream)) if self.rtx else True


@cache
def load_backend(name: BackendName) -> Backend:
    """The installed TensorRT; one object per process, since TensorRT keeps its first logger.

    Raises:
        MissingExtraError: TensorRT is not installed or too old.
    """
    module_name, minimum = _MODULES[name]
    module = require(module_name, name)
    if Version(module.__version__) < Version(minimum):
        raise MissingExtraError(
            f"expected {module_name} {minimum} or newer, got {module.__version__}. "
            f'Upgrade it with: pip install -U "finegrain[{name}]"'
        )
    return Backend(name, module)


def _logger(trt: ModuleType, messages: deque[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Stores errors for our messages, and drops all other log messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message.strip())

    return Logger()
