"""The eager runtime: a method in PyTorch, as used in training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from finegrain.errors import PlanError
from finegrain.methods import Method
from finegrain.methods.match_head import Matcher, from_codes
from finegrain.records import Matched, PictureTokens


class EagerRuntime:
    """Runs a method in fp32, without gradients, on the device of its weights.

    Args:
        method: The method.
        embed_dim: Width of its embeddings.
        device: Device of its weights.
    """

    def __init__(
        self, method: Method, *, embed_dim: int, device: str | torch.device = "cpu"
    ) -> None:
        self.method = method
        self._match_head = method if isinstance(method, Matcher) else None
        self.embed_dim = embed_dim
        self.device = torch.device(device)

    def close(self) -> None:
        """Do nothing; the caller owns the method."""

    @torch.inference_mode()
    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        embeddings = self.method.encode_images(torch.from_numpy(pixels).to(self.device))
        return embeddings.cpu().numpy()

    @torch.inference_mode()
    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> NDArray[np.float32]:
        embeddings = self.method.encode_texts(
            torch.from_numpy(ids).to(self.device), torch.from_numpy(eot).to(self.device)
        )
        return embeddings.cpu().numpy()

    @torch.inference_mode()
    def encode_with_tokens(
        self, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], PictureTokens]:
        """See :class:`~finegrain.runtime.base.MatchRuntime`; the tokens stay in fp32."""
        match_head = self._require_match_head()
        tensors = match_head.encode_with_tokens(torch.from_numpy(pixels).to(self.device))
        embeddings, codes = (tensor.float().cpu().numpy() for tensor in tensors)
        scales = np.ones(codes.shape[:2], np.float32)
        return embeddings, PictureTokens(codes=codes, scales=scales)

    @torch.inference_mode()
    def match(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], tokens: PictureTokens
    ) -> Matched:
        """See :class:`~finegrain.runtime.base.MatchRuntime`."""
        codes, scales, ids_, eot_ = (
            torch.from_numpy(array).to(self.device)
            for array in (tokens.codes, tokens.scales, ids, eot)
        )
        output = self._require_match_head().match_of(ids_, eot_, from_codes(codes, scales))
        logits = output.logits.cpu().numpy()
        scores = logits if output.scores is None else output.scores.cpu().numpy()
        return Matched(logits, scores)

    @property
    def has_match_head(self) -> bool:
        return self._match_head is not None

    def _require_match_head(self) -> Matcher:
        if self._match_head is None:
            raise PlanError(f"{type(self.method).__name__} has no match head, so it cannot re-rank")
        return self._match_head
