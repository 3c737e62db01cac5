"""Token selection of RDE and ITSELF: one vector from the tokens with the most attention.

Source: Qin et al. 2024, section 3.2, https://arxiv.org/abs/2308.09911.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.models.transformer import Attended


class TokenSelection(nn.Module):
    """Project the tokens with the most attention and take their maximum.

    ``[N, L, W] -> [N, E]``. The ``count`` selected tokens are L2-normalised. A linear path and a
    two-layer path are added, and each channel is maximised over the tokens.

    The maximum is over allowed tokens. If fewer than ``count`` are allowed, the remaining rows
    only enter the batch statistics in training. They repeat the first selected token, or are
    padding (``fill``), as in the released code.
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
        """Embed the selected tokens.

        Args:
            attended: Tokens ``[N, L, W]`` and their attention ``[N, L]``.
            allowed: True for tokens that may be selected, at least one per row, ``[N, L]``.
            count: Number of tokens to select, 1 or more; may exceed ``L``.
            fill: True for padding that fills missing tokens, ``[N, L]``. All padding has the same
                attention, 0, so ``torch.topk`` decides which of it is taken.

        Returns:
            ``[N, E]``.
        """
        chosen = choose(attended.attention, allowed, count, fill=fill)
        width = attended.tokens.shape[-1]
        x = attended.tokens.gather(1, chosen[..., None].expand(-1, -1, width))
        x = F.normalize(x, dim=-1).flatten(0, 1)
        x = self.fc(x) + self.out(self.norm(self.hidden(x)).relu())
        x = x.view(-1, count, x.shape[-1])
        if fill is not None:
            x = x.masked_fill(~allowed.gather(1, chosen)[..., None], -torch.inf)
        return x.amax(dim=1)


def choose(attention: Tensor, allowed: Tensor, count: int, *, fill: Tensor | None) -> Tensor:
    """Positions of the selected tokens, ``[N, count]``; see :meth:`TokenSelection.forward`."""
    if fill is None:
        return most_attended(attention, allowed, count)
    # As in the released code: padding has the attention 0, and start and end come last.
    ranked = attention.masked_fill(fill, 0.0).masked_fill(~(allowed | fill), -1.0)
    return ranked.topk(count, dim=1).indices


def most_attended(attention: Tensor, allowed: Tensor, count: int) -> Tensor:
    """Positions of the allowed tokens with the most attention, descending, ``[N, count]``.

    If fewer are allowed, the first position is repeated.
    """
    # Attention is never negative, so -1 comes after all allowed tokens.
    ranked = F.pad(attention.masked_fill(~allowed, -1.0), (0, count), value=-1.0)
    best = ranked.topk(count, dim=1)
    return torch.where(best.values >= 0, best.indices, best.indices[:, :1])


def allowed_patches(attended: Attended) -> Tensor:
    """True for all tokens except the class token, ``[N, L]``."""
    positions = torch.arange(attended.attention.shape[1], device=attended.attention.device)
    return (positions > 0).expand_as(attended.attention)


def allowed_words(attended: Attended, eot: Tensor) -> Tensor:
    """True for tokens between start and end, ``[N, L]``; for the end of an empty caption."""
    positions = torch.arange(attended.attention.shape[1], device=attended.attention.device)
    last = (eot - 1).clamp(min=1)
    return (positions > 0) & (positions <= last[:, None])
