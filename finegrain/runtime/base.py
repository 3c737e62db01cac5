"""What every runtime does: numpy in, numpy out."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
"""What can run the graphs of a plan."""


class Runtime(Protocol):
    """Runs the two towers of one model.

    Both methods return L2-normalised float32 embeddings ``[N, D]``, ``D = embed_dim``.
    """

    embed_dim: int

    def close(self) -> None:
        """Give back what other programs may be short of, such as memory of a GPU."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``pixels`` are uint8 ``[N, 3, H, W]``."""

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        """``ids`` are int32 ``[N, L]``, ``eot`` their end-of-text positions int32 ``[N]``."""
