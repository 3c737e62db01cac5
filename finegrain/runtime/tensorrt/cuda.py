"""The CUDA calls of the runtime, through NVIDIA's cuda-python."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError, require


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Name and driver of a GPU, on which an engine depends.

    Attributes:
        name: Name with the compute capability, such as ``NVIDIA L4 sm_89``.
        driver: CUDA version of the driver, such as ``13.2``.
    """

    name: str
    driver: str


class Cuda:
    """CUDA on one GPU.

    Args:
        index: Number of the GPU.

    Raises:
        PlanError: There is no GPU, or no driver for it.
        MissingExtraError: cuda-python is not installed.
    """

    def __init__(self, index: int = 0) -> None:
        self._rt = require("cuda.bindings.runtime", "tensorrt")
        self.index = index
        status, count = self._rt.cudaGetDeviceCount()
        if status != self._rt.cudaError_t.cudaSuccess or index >= count:
            reason = self._explain(status) if not count else f"{count} found, {index} asked for"
            raise PlanError(f"no GPU: {reason}; use runtime='onnxruntime'")
        self.activate()

    def activate(self) -> None:
        """Select this GPU in the calling thread; a new thread starts with the first GPU."""
        self._call("cudaSetDevice", self.index)

    def device(self) -> Device:
        """Name and driver of this GPU."""
        properties = self._call("cudaGetDeviceProperties", self.index)
        driver = self._call("cudaDriverGetVersion")
        name = properties.name
        if isinstance(name, bytes):
            name = name.decode()
        return Device(
            name=f"{name} sm_{properties.major}{properties.minor}",
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
        )

    def create_stream(self) -> int:
        # Non-blocking: it does not wait for the default stream, which other libraries use.
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._release("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def free_memory(self) -> int:
        """Free device memory in bytes."""
        return int(self._call("cudaMemGetInfo"))

    def allocate(self, size: int) -> int:
        """Allocate device memory; return its address."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._release("cudaFree", address)

    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of zeros in pinned host memory, which the GPU copies directly."""
        size = int(np.prod(shape)) * dtype.itemsize
        address = int(self._call("cudaHostAlloc", size, self._rt.cudaHostAllocDefault))
        raw = (ctypes.c_uint8 * size).from_address(address)
        array: NDArray[Any] = np.ndarray(shape, dtype, memoryview(raw))
        array[...] = 0
        return array

    def free_pinned(self, array: NDArray[Any]) -> None:
        self._release("cudaFreeHost", array.ctypes.data)

    def copy_to_device(self, address: int, array: NDArray[Any], stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, stream)

    def copy_to_host(self, array: NDArray[Any], address: int, stream: int) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, stream)

    def capture(self, stream: int, enqueue: Callable[[], None]) -> Any:
        """Capture the work that ``enqueue`` puts on the stream as an executable CUDA graph."""
        # Restrict this thread only; another tower may allocate meanwhile.
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            # Do not check the status: an error here would hide the cause.
            status, half_done = self._rt.cudaStreamEndCapture(stream)
            if status == self._rt.cudaError_t.cudaSuccess:
                self._release("cudaGraphDestroy", half_done)
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._release("cudaGraphDestroy", graph)

    def launch(self, graph: Any, stream: int) -> None:
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._release("cudaGraphExecDestroy", graph)

    def _call(self, name: str, *args: Any) -> Any:
        """Call a function of CUDA, check its status and return its result."""
        status, *results = getattr(self._rt, name)(*args)
        if status != self._rt.cudaError_t.cudaSuccess:
            raise PlanError(
                f"CUDA failed in {name}: {self._explain(status)}. If the GPU is full, free some of "
                "its memory; else restart the process, or use runtime='onnxruntime'"
            )
        return results[0] if results else None

    def _release(self, name: str, what: Any) -> None:
        # Do not check the status: after a kernel has failed, every call returns the same failure,
        # and raising it here would hide the original error.
        getattr(self._rt, name)(what)

    def _explain(self, status: Any) -> str:
        _, text = self._rt.cudaGetErrorString(status)
        return f"{text.decode()} (CUDA error {int(status)})"
