"""Execution contexts with fixed shapes and addresses, and launches of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import PlanError
from finegrain.runtime.tensorrt.backend import Backend
from finegrain.runtime.tensorrt.build import Bucket
from finegrain.runtime.tensorrt.cuda import Cuda

Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Buffer:
    """A tensor in pinned host memory and on the GPU."""

    host: NDArray[Any]
    address: int


class Lane:
    """An execution context for one bucket, with fixed addresses of all tensors.

    Args:
        backend: The TensorRT in use.
        cuda: The GPU.
        context: A context with scratch memory, whose shapes are not set yet.
        stream: CUDA stream to run on.
        profile: Number of the optimisation profile of the bucket.
        bucket: Shapes of the inputs.
        outputs: Names of the tensors to copy to the host.
        held: Receives the callbacks that free the buffers.
        resident: Addresses of inputs that are on the GPU already and are not copied.
    """

    def __init__(
        self,
        backend: Backend,
        cuda: Cuda,
        context: Any,
        stream: int,
        profile: int,
        bucket: Bucket,
        outputs: Sequence[str],
        held: ExitStack,
        *,
        resident: Mapping[str, int],
    ) -> None:
        self._backend, self._cuda, self._context, self._stream = backend, cuda, context, stream
        self.bucket = bucket
        self._check(context.set_optimization_profile_async(profile, stream))
        cuda.synchronize(stream)
        for name, shape in bucket.items():
            self._check(context.set_input_shape(name, shape))
        for name, address in resident.items():
            self._check(context.set_tensor_address(name, address))
        self._inputs = {name: self._bind(name, held) for name in bucket if name not in resident}
        self._outputs = {name: self._bind(name, held) for name in outputs}
        for name in backend.output_names(context.engine) - set(outputs):
            self._allocate(name, held)

    def output(self, name: str) -> Buffer:
        """Buffer of an output."""
        return self._outputs[name]

    def fits(self, inputs: Inputs) -> bool:
        """Whether inputs are at most as large as the bucket."""
        return all(
            got <= most
            for name, array in inputs.items()
            for got, most in zip(array.shape, self.bucket[name], strict=True)
        )

    def fill(self, inputs: Inputs) -> None:
        """Write inputs to the host buffers; smaller inputs are padded with zeros."""
        for name, array in inputs.items():
            host = self._inputs[name].host
            if array.shape != host.shape:
                host[...] = 0
            host[tuple(slice(size) for size in array.shape)] = array

    def enqueue(self) -> None:
        """Enqueue copying the inputs, running, and copying the outputs."""
        for buffer in self._inputs.values():
            self._cuda.copy_to_device(buffer.address, buffer.host, self._stream)
        self._check(self._context.execute_async_v3(self._stream))
        for buffer in self._outputs.values():
            self._cuda.copy_to_host(buffer.host, buffer.address, self._stream)

    def can_capture(self) -> bool:
        """Whether the context can be captured in a CUDA graph."""
        return self._backend.can_capture(self._context, self._stream)

    def _bind(self, name: str, held: ExitStack) -> Buffer:
        host = self._cuda.allocate_pinned(*self._layout(name))
        held.callback(self._cuda.free_pinned, host)
        return Buffer(host, self._allocate(name, held))

    def _allocate(self, name: str, held: ExitStack) -> int:
        """Allocate GPU memory for a tensor. TensorRT also needs it for unused outputs."""
        shape, dtype = self._layout(name)
        address = self._cuda.allocate(int(np.prod(shape)) * dtype.itemsize)
        held.callback(self._cuda.free, address)
        self._check(self._context.set_tensor_address(name, address))
        return address

    def _layout(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        engine = self._context.engine
        dtype = np.dtype(self._backend.trt.nptype(engine.get_tensor_dtype(name)))
        return tuple(self._context.get_tensor_shape(name)), dtype

    def _check(self, done: bool) -> None:
        if not done:
            raise PlanError(
                f"{self._backend.title} failed with shapes {dict(self.bucket)}: "
                f"{self._backend.errors()}"
            )


class Launch:
    """Lanes that run one after the other, as one CUDA graph if they can be captured."""

    def __init__(self, cuda: Cuda, stream: int, lanes: Sequence[Lane], held: ExitStack) -> None:
        self._cuda, self._stream, self._lanes = cuda, stream, tuple(lanes)
        # The first run prepares kernels, which is not allowed during a capture.
        self._enqueue()
        cuda.synchronize(stream)
        self._graph = None
        if all(lane.can_capture() for lane in self._lanes):
            self._graph = cuda.capture(stream, self._enqueue)
            held.callback(cuda.destroy_graph, self._graph)

    def run(self) -> None:
        """Run all lanes, and wait until the outputs are on the host."""
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph, self._stream)
        self._cuda.synchronize(self._stream)

    def _enqueue(self) -> None:
        for lane in self._lanes:
            lane.enqueue()
