"""A context at fixed shapes and addresses, and a launch of one or more of them."""

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
    """A tensor on both sides."""

    host: NDArray[Any]
    address: int


class Lane:
    """One bucket: an execution context whose every tensor has its address.

    Args:
        context: With scratch memory, and of no shape yet.
        stream: What it runs on.
        profile: Number of the bucket among the engine's profiles.
        bucket: Shapes of the inputs.
        outputs: Names of the tensors to copy out.
        held: Frees the buffers.
        resident: Addresses of inputs that are on the GPU already; they are not copied in.
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
        return self._outputs[name]

    def fits(self, inputs: Inputs) -> bool:
        return all(
            got <= most
            for name, array in inputs.items()
            for got, most in zip(array.shape, self.bucket[name], strict=True)
        )

    def fill(self, inputs: Inputs) -> None:
        """Put inputs, which may be smaller than the bucket, where they are copied from."""
        for name, array in inputs.items():
            host = self._inputs[name].host
            if array.shape != host.shape:
                host[...] = 0
            host[tuple(slice(size) for size in array.shape)] = array

    def enqueue(self) -> None:
        """Copy in, run and copy out, on the stream."""
        for buffer in self._inputs.values():
            self._cuda.copy_to_device(buffer.address, buffer.host, self._stream)
        self._check(self._context.execute_async_v3(self._stream))
        for buffer in self._outputs.values():
            self._cuda.copy_to_host(buffer.host, buffer.address, self._stream)

    def can_capture(self) -> bool:
        return self._backend.can_capture(self._context, self._stream)

    def _bind(self, name: str, held: ExitStack) -> Buffer:
        host = self._cuda.allocate_pinned(*self._layout(name))
        held.callback(self._cuda.free_pinned, host)
        return Buffer(host, self._allocate(name, held))

    def _allocate(self, name: str, held: ExitStack) -> int:
        """Memory of the GPU for a tensor; TensorRT wants it for what nobody reads as well."""
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
    """Lanes that run one after the other, as one CUDA graph where they can be captured."""

    def __init__(self, cuda: Cuda, stream: int, lanes: Sequence[Lane], held: ExitStack) -> None:
        self._cuda, self._stream, self._lanes = cuda, stream, tuple(lanes)
        # The first run prepares kernels, which a capture must not.
        self._enqueue()
        cuda.synchronize(stream)
        self._graph = None
        if all(lane.can_capture() for lane in self._lanes):
            self._graph = cuda.capture(stream, self._enqueue)
            held.callback(cuda.destroy_graph, self._graph)

    def run(self) -> None:
        """Run, and wait until the outputs are on the host."""
        if self._graph is None:
            self._enqueue()
        else:
            self._cuda.launch(self._graph, self._stream)
        self._cuda.synchronize(self._stream)

    def _enqueue(self) -> None:
        for lane in self._lanes:
            lane.enqueue()
