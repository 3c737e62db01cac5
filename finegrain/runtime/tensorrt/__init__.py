"""TensorRT and TensorRT-RTX behind one runtime: numpy in, numpy out, and no torch.

The runner, the CUDA calls and everything about TensorRT proper are tested against stand-ins
that check shapes, addresses, order and lifetimes; parser and builder are tested with the real
TensorRT-RTX, which works without a GPU. Nothing here has run on a GPU yet.
"""

from finegrain.runtime.tensorrt.runner import TensorRtRuntime

__all__ = ["TensorRtRuntime"]
