"""The interface of all runtimes, with NumPy arrays as input and output."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.records import Matched, PictureTokens

RuntimeName = Literal["onnxruntime", "openvino", "tensorrt", "tensorrt-rtx"]
"""A runtime that runs the graphs of a plan on this machine."""

RuntimeChoice = RuntimeName | str
"""Name of a runtime, or address of a Triton server: ``triton://host:8001/people``."""

TRITON = "triton://"


class Runtime(Protocol):
    """Runs the two towers of one model.

    Both methods return L2-normalised float32 embeddings ``[N, D]``, ``D = embed_dim``.
    """

    embed_dim: int

    def close(self) -> None:
        """Free scarce resources, such as memory of a GPU."""

    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embeddings ``[N, D]`` of pictures.

        Args:
            pixels: Pictures, uint8 ``[N, 3, H, W]``.
        """

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        """Embeddings ``[N, D]`` of captions.

        Args:
            ids: Token ids, int32 ``[N, L]``.
            eot: End-of-text positions, int32 ``[N]``.
        """


@runtime_checkable
class MatchRuntime(Protocol):
    """A runtime that can also run the match head (re-ranker) of a model that has one."""

    @property
    def has_match_head(self) -> bool: ...

    def encode_with_tokens(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], PictureTokens]:
        """Embeddings of pictures, uint8 ``[N, 3, H, W]``, and their tokens for the match head."""

    def match(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], tokens: PictureTokens
    ) -> Matched:
        """Match one caption, ids ``[1, L]``, with each of ``N`` pictures."""


@runtime_checkable
class Reopening(Protocol):
    """A runtime that can be reopened in a forked process."""

    def reopen(self) -> None:
        """Load the model again in this process."""
