"""Token selection embedding: one vector of the few tokens that the tower itself looks at."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.transformer import Attended


class TokenSelection(nn.Module):
    """The tokens with most attention, each projected, and their maximum (RDE, section 3.2).

    ``[N, L, W] -> [N, E]``: the ``count`` chosen tokens are L2-normalised; a linear and a
    two-layer path are added; of each channel the largest value over the tokens is kept.

    Padding is never chosen, so that it changes nothing. Where fewer tokens than ``count`` may
    be chosen the first is repeated, which a maximum does not see. The released code fills up
    with padding instead, leaves it out of the maximum too, but not out of the batch
    statistics in training.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, embed_dim)
        self.hidden = nn.Linear(width, embed_dim // 2)
        self.norm = nn.BatchNorm1d(embed_dim // 2)
        self.out = nn.Linear(embed_dim // 2, embed_dim)

    def forward(self, attended: Attended, allowed: Tensor, count: int) -> Tensor:
        """Embed the chosen tokens.

        Args:
            attended: Tokens ``[N, L, W]`` and their attention ``[N, L]``.
            allowed: True for tokens that may be chosen, at least one a row, ``[N, L]``.
            count: How many to choose; 1 or more, and ``L`` may be less.
        """
        chosen = most_attended(attended.attention, allowed, count)
        width = attended.tokens.shape[-1]
        x = attended.tokens.gather(1, chosen[..., None].expand(-1, -1, width))
        x = F.normalize(x, dim=-1).flatten(0, 1)
        x = self.fc(x) + self.out(self.norm(self.hidden(x)).relu())
        return x.view(-1, count, x.shape[-1]).amax(dim=1)


def most_attended(attention: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Positions of the allowed tokens with most attention, ``[N, count]``, most first.

    Where fewer are allowed, the first position stands in for the missing ones.
    """
    # Attention is never negative, so that -1 comes after all that is allowed.
    ranked = F.pad(attention.masked_fill(~allowed, -1.0), (0, count), value=-1.0)
    best = ranked.topk(count, dim=1)
    return torch.where(best.values >= 0, best.indices, best.indices[:, :1])


def allowed_patches(attended: Attended) -> Tensor:
    """Everything but the class token, ``[N, L]``."""
    positions = torch.arange(attended.attention.shape[1], device=attended.attention.device)
    return (positions > 0).expand_as(attended.attention)


def allowed_words(attended: Attended, eot: Tensor) -> Tensor:
    """Everything between start and end, ``[N, L]``; of an empty caption its end."""
    positions = torch.arange(attended.attention.shape[1], device=attended.attention.device)
    last = (eot - 1).clamp(min=1)
    return (positions > 0) & (positions <= last[:, None])
