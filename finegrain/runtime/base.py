"""What every runtime does: numpy in, numpy out."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.records import Matched, PictureTokens

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
"""What can run the graphs of a plan on this machine."""

RuntimeChoice = RuntimeName | str
"""A runtime by its name, or by the address of a Triton server: ``triton://host:8001/people``."""

TRITON = "triton://"


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


@runtime_checkable
class MatchRuntime(Protocol):
    """A runtime that can also run a match head, where its model has one."""

    @property
    def has_match_head(self) -> bool: ...

    def encode_with_tokens(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], PictureTokens]:
        """Embeddings of pictures, uint8 ``[N, 3, H, W]``, and what the head looks at."""

    def match(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], tokens: PictureTokens
    ) -> Matched:
        """One caption, ids ``[1, L]``, with each of ``N`` pictures."""


@runtime_checkable
class Reopening(Protocol):
    """A runtime that can be used in a process that was forked after it was started."""

    def reopen(self) -> None:
        """Start again in this process."""
