"""The few CUDA calls that a runner makes, through NVIDIA's cuda-python."""

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
    """What an engine depends on.

    Attributes:
        name: With the compute capability, such as ``NVIDIA L4 sm_89``.
        driver: The CUDA version of the driver, such as ``13.2``.
    """

    name: str
    driver: str


class Cuda:
    """CUDA on one GPU.

    Args:
        index: Which GPU.

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
        """Make this GPU the one of the calling thread; a new thread begins with the first."""
        self._call("cudaSetDevice", self.index)

    def device(self) -> Device:
        of = self._call("cudaGetDeviceProperties", self.index)
        driver = self._call("cudaDriverGetVersion")
        name = of.name.decode() if isinstance(of.name, bytes) else str(of.name)
        return Device(
            name=f"{name} sm_{of.major}{of.minor}",
            driver=f"{driver // 1000}.{driver % 1000 // 10}",
        )

    def create_stream(self) -> int:
        # One that does not wait for the default stream, which other libraries use.
        return int(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def destroy_stream(self, stream: int) -> None:
        self._release("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def free_memory(self) -> int:
        """Bytes of device memory that nobody has allocated."""
        return int(self._call("cudaMemGetInfo"))

    def allocate(self, size: int) -> int:
        """Device memory; its address."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._release("cudaFree", address)

    def allocate_pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Zeros in host memory that the GPU copies from by itself."""
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
        """Record what ``enqueue`` puts on the stream, as a graph that can be launched."""
        # Of this thread only: another tower may allocate meanwhile.
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            enqueue()
        except BaseException:
            # Unchecked: an error of its own would hide the cause.
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
        """A call's result; each returns its status first."""
        status, *results = getattr(self._rt, name)(*args)
        if status != self._rt.cudaError_t.cudaSuccess:
            raise PlanError(
                f"CUDA failed in {name}: {self._explain(status)}. If the GPU is full, free some of "
                "its memory; else start the process anew, or use runtime='onnxruntime'"
            )
        return results[0] if results else None

    def _release(self, name: str, what: Any) -> None:
        # Unchecked: once a kernel failed, every call returns that failure again, and raising it
        # here would hide the cause that is being told.
        getattr(self._rt, name)(what)

    def _explain(self, status: Any) -> str:
        _, text = self._rt.cudaGetErrorString(status)
        return f"{text.decode()} (CUDA error {int(status)})"
