"""Whether products of bytes are exact in ONNX Runtime on this processor.

x86 processors before VNNI add two products of an unsigned and a signed byte in 16 bits, where
255 * 127 + 255 * 127 = 64,770 becomes 32,767. It is measured here and not looked up: what counts is
which kernel ONNX Runtime takes.
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
"""An ONNX graph: ``a`` uint8 ``[1, 2]`` to ``y`` int32 ``[1, 1]``, its product with two weights of
127. A test makes it anew."""

SLOWER_AND_EXACT = "session.x64quantprecision"
"""Entry of a session that takes kernels for unsigned weights, which are exact everywhere. With VNNI
and AMX it takes them too, for nothing, and several times slower."""


@cache
def products_saturate() -> bool:
    """Whether two products of bytes are cut off at 32,767."""
    session = onnxruntime.InferenceSession(PRODUCT, providers=["CPUExecutionProvider"])
    (product,) = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return bool(product[0, 0] != 2 * 255 * 127)
