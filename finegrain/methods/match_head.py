"""The second stage of a search: one caption beside the tokens of pictures.

What is expensive and does not depend on the query is done once a picture, and kept: its tokens.
A query then pays for its words, and for the part of the head where words and tokens meet.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

CODE_LIMIT = 127


class MatchOutput(NamedTuple):
    """What a match head gives for ``N`` pairs, in fp32.

    Attributes:
        logits: Log-odds of a match, ``[N]``; the sigmoid is the probability.
        scores: What the released code orders pictures by, ``[N]``, where that is another value.
    """

    logits: Tensor
    scores: Tensor | None = None


@runtime_checkable
class Matcher(Protocol):
    """A method with a match head that can re-rank."""

    def match_tokens(self, pixels: Tensor) -> Tensor:
        """What is kept of pictures: uint8 ``[N, 3, H, W]`` to tokens ``[N, T, W]``."""

    def encode_with_tokens(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings ``[N, D]`` and tokens, in one pass where both come of the same tower."""

    def match_of(self, ids: Tensor, eot: Tensor, tokens: Tensor) -> MatchOutput:
        """One caption with each of ``N`` pictures.

        Args:
            ids: ``[1, L]``.
            eot: ``[1]``.
            tokens: ``[N, T, W]``.
        """


def to_codes(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens ``[N, T, W]`` as int8 codes and one fp32 scale a token, ``[N, T]``.

    A quarter of fp32's bytes; a token's largest value is exact and others are off by at most
    half of a 127th of it.
    """
    tokens = tokens.float()
    scales = tokens.abs().amax(dim=-1).clamp(min=torch.finfo(torch.float32).tiny) / CODE_LIMIT
    codes = torch.round(tokens / scales[..., None]).clamp(-CODE_LIMIT, CODE_LIMIT)
    return codes.to(torch.int8), scales


def from_codes(codes: Tensor, scales: Tensor) -> Tensor:
    """Tokens ``[N, T, W]`` in fp32."""
    return codes.float() * scales[..., None]
