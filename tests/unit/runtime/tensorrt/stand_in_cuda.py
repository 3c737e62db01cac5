# ruff: noqa: N802, N815 - the names are CUDA's
"""A stand-in for ``cuda.bindings.runtime`` with stricter checks than CUDA.

Addresses refer to real host memory. Work waits on its stream until a synchronisation. Copies check
both addresses when they run, and freed memory is overwritten. Reading too early, too late or at a
wrong address therefore gives wrong numbers or an error.
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from enum import IntEnum
from types import SimpleNamespace


class CudaError(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35


OK, INVALID = (CudaError.cudaSuccess,), (CudaError.cudaErrorInvalidValue,)


class FakeCuda:
    """``cuda.bindings.runtime``."""

    cudaError_t = CudaError
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
    cudaStreamNonBlocking, cudaHostAllocDefault = 1, 0

    def __init__(self):
        self.memory = {}  # address -> (kind, buffer)
        self.freed = []  # kept, so that no address is used twice
        self.streams = {}  # handle -> waiting work
        self.recording = {}  # stream -> work of a capture
        self.captured, self.graphs = {}, {}  # graphs before and after they are instantiated
        self.calls = defaultdict(int)
        self.gpus, self.name, self.free = 1, b"NVIDIA Paper", 2**40
        self.fails = {}  # name of a call -> its status
        self._handles = iter(range(7001, 10**6))

    def __getattribute__(self, name):
        result = super().__getattribute__(name)
        if name.startswith("cuda") and callable(result) and name != "cudaError_t":
            self.calls[name] += 1
            if name in self.fails:
                return lambda *args: (self.fails[name], None)
        return result

    def cudaGetDeviceCount(self):
        return (CudaError.cudaSuccess if self.gpus else CudaError(35)), self.gpus

    def cudaGetErrorString(self, status):
        return CudaError.cudaSuccess, CudaError(status).name.encode()

    def cudaSetDevice(self, index):
        return OK if index < self.gpus else INVALID

    def cudaGetDeviceProperties(self, index):
        return CudaError.cudaSuccess, SimpleNamespace(name=self.name, major=8, minor=9)

    def cudaDriverGetVersion(self):
        return CudaError.cudaSuccess, 13020

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        stream = next(self._handles)
        self.streams[stream] = []
        return CudaError.cudaSuccess, stream

    def cudaStreamDestroy(self, stream):
        del self.streams[stream]
        return OK

    def cudaStreamSynchronize(self, stream):
        if stream not in self.streams or stream in self.recording:
            return INVALID
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return OK

    def _allocate(self, kind, size):
        buffer = ctypes.create_string_buffer(b"\xdd" * size, size)
        self.memory[ctypes.addressof(buffer)] = (kind, buffer)
        return CudaError.cudaSuccess, ctypes.addressof(buffer)

    def _free(self, kind, address):
        result, buffer = self.memory.pop(address)
        assert result == kind
        ctypes.memset(buffer, 0xDD, len(buffer))
        self.freed.append(buffer)
        return OK

    def cudaMemGetInfo(self):
        return CudaError.cudaSuccess, self.free, 2**41

    def cudaMalloc(self, size):
        return self._allocate("device", size)

    def cudaFree(self, address):
        return self._free("device", address)

    def cudaHostAlloc(self, size, flags):
        return self._allocate("pinned", size)

    def cudaFreeHost(self, address):
        return self._free("pinned", address)

    def live(self, kind, address, size):
        """Whether an address is in allocated memory of this kind that is large enough."""
        start = max((base for base in self.memory if base <= address), default=None)
        assert start is not None, "no such memory"
        result, buffer = self.memory[start]
        assert result == kind
        assert address - start + size <= len(buffer)
        return address

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        ends = ("device", "pinned") if kind == 1 else ("pinned", "device")

        def copy():
            ctypes.memmove(self.live(ends[0], to, size), self.live(ends[1], source, size), size)

        self.enqueue(stream, copy)
        return OK

    def enqueue(self, stream, work):
        waiting = self.streams[stream]
        self.recording.get(stream, waiting).append(work)

    def cudaStreamBeginCapture(self, stream, mode):
        assert self.streams[stream] == [], "a capture begins on an idle stream"
        self.recording[stream] = []
        return OK

    def cudaStreamEndCapture(self, stream):
        handle = next(self._handles)
        self.captured[handle] = self.recording.pop(stream)
        return CudaError.cudaSuccess, handle

    def cudaGraphInstantiate(self, graph, flags):
        handle = next(self._handles)
        self.graphs[handle] = list(self.captured[graph])
        return CudaError.cudaSuccess, handle

    def cudaGraphDestroy(self, graph):
        del self.captured[graph]
        return OK

    def cudaGraphLaunch(self, graph, stream):
        for work in self.graphs[graph]:
            self.enqueue(stream, work)
        return OK

    def cudaGraphExecDestroy(self, graph):
        del self.graphs[graph]
        return OK

    @property
    def leaks(self):
        return {*self.memory, *self.streams, *self.captured, *self.graphs}
