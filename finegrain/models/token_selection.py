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

    The maximum is over the tokens that may be chosen. Where they are fewer than ``count``, the
    others of the ``count`` enter the batch statistics of training, and nothing else. They are the
    first chosen token again, or padding (``fill``), which is what the released code does.
    """

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, embed_dim)
        self.hidden = nn.Linear(width, embed_dim // 2)
        self.norm = nn.BatchNorm1d(embed_dim // 2)
        self.out = nn.Linear(embed_dim // 2, embed_dim)

    def forward(
        self, attended: Attended, allowed: Tensor, count: int, *, fill: Tensor | None = None
    ) -> Tensor:
        """Embed the chosen tokens.

        Args:
            attended: Tokens ``[N, L, W]`` and their attention ``[N, L]``.
            allowed: True for tokens that may be chosen, at least one a row, ``[N, L]``.
            count: How many to choose; 1 or more, and ``L`` may be less.
            fill: True for padding to fill up with, ``[N, L]``. Of equal attention, none, the
                tokens are chosen as ``torch.topk`` breaks ties.
        """
        if fill is None:
            chosen = most_attended(attended.attention, allowed, count)
        else:
            # As in the released code: padding has no attention, and start and end come last.
            ranked = attended.attention.masked_fill(fill, 0.0).masked_fill(~(allowed | fill), -1.0)
            chosen = ranked.topk(count, dim=1).indices
        width = attended.tokens.shape[-1]
        x = attended.tokens.gather(1, chosen[..., None].expand(-1, -1, width))
        x = F.normalize(x, dim=-1).flatten(0, 1)
        x = self.fc(x) + self.out(self.norm(self.hidden(x)).relu())
        x = x.view(-1, count, x.shape[-1])
        if fill is not None:
            x = x.masked_fill(~allowed.gather(1, chosen)[..., None], -torch.inf)
        return x.amax(dim=1)


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
