"""A test of whether int8 products are exact in ONNX Runtime on this processor.

x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits, which
saturates: 255 * 127 + 255 * 127 = 64,770 becomes 32,767. This module runs a product instead of
looking up the processor, because the result depends on the kernel that ONNX Runtime selects.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime

PRODUCT = bytes.fromhex(
    "08083a5a0a180a01610a0162120179220d4d61744d756c496e7465676572120570726f62652a0d0802080110034201"
    "624a027f7f5a130a0161120e0a0c080212080a0208010a02080262130a0179120e0a0c080612080a0208010a020801"
    "42040a00100a"
)
"""An ONNX graph that multiplies ``a``, uint8 ``[1, 2]``, by two weights of 127. The output ``y`` is
int32 ``[1, 1]``. A test builds the same graph and compares."""

SLOWER_AND_EXACT = "session.x64quantprecision"
"""Session option that selects kernels for unsigned weights, which are exact on every processor. On
processors with VNNI or AMX it is not needed, and several times slower."""


@cache
def products_saturate() -> bool:
    """Whether the sum of two int8 products saturates at 32,767."""
    session = onnxruntime.InferenceSession(PRODUCT, providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return bool(product[0, 0] != 2 * 255 * 127)
