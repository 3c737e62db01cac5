"""The interface of a re-ranker, which scores a caption with the tokens of pictures.

The tokens of a picture do not depend on the query and are expensive to compute. They are computed
once and stored. A query then costs one pass over its words and the layers that combine words with
picture tokens.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

CODE_LIMIT = 127


class MatchOutput(NamedTuple):
    """Output of a match head for ``N`` pairs, in fp32.

    Attributes:
        logits: Log-odds of a match, ``[N]``; the sigmoid is the probability.
        scores: Scores by which the released code orders pictures, ``[N]``; None if it uses the
            logits.
    """

    logits: Tensor
    scores: Tensor | None = None


@runtime_checkable
class Matcher(Protocol):
    """A method with a match head that can re-rank."""

    def match_tokens(self, pixels: Tensor) -> Tensor:
        """Compute the tokens of pictures: uint8 ``[N, 3, H, W]`` to ``[N, T, W]``."""

    def encode_with_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute embeddings ``[N, D]`` and tokens, in a single pass if one tower gives both."""

    def match_of(self, ids: Tensor, eot: Tensor, tokens: Tensor) -> MatchOutput:
        """Score one caption with each of ``N`` pictures.

        Args:
            ids: Token ids of the caption, ``[1, L]``.
            eot: Position of its end-of-text token, ``[1]``.
            tokens: Tokens of the pictures, ``[N, T, W]``.
        """


def to_codes(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Quantise tokens ``[N, T, W]`` to int8 codes and one fp32 scale per token, ``[N, T]``.

    The codes take a quarter of the bytes of fp32. The error of a value is at most 1/254 of the
    largest absolute value of its token.
    """
    tokens = tokens.float()
    scales = tokens.abs().amax(dim=-1).clamp(min=torch.finfo(torch.float32).tiny) / CODE_LIMIT
    codes = torch.round(tokens / scales[..., None]).clamp(-CODE_LIMIT, CODE_LIMIT)
    return codes.to(torch.int8), scales


def from_codes(codes: Tensor, scales: Tensor) -> Tensor:
    """Reverse :func:`to_codes`: tokens ``[N, T, W]`` in fp32."""
    return codes.float() * scales[..., None]
