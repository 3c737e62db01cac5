"""One runtime for TensorRT and TensorRT-RTX, with NumPy arrays and without PyTorch.

The runner and the calls of CUDA and TensorRT are tested with mock objects that check shapes,
addresses, order and lifetimes. The parser and the builder are tested with the real TensorRT-RTX,
which builds without a GPU. This code has not run on a GPU yet.
"""

from finegrain.runtime.tensorrt.runner import TensorRtRuntime

__all__ = ["TensorRtRuntime"]
