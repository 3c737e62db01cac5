"""Colours of a caption exchanged: the same words of another person."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.data.colors import COLORS
from finegrain.errors import RecipeError
from finegrain.preprocess import Tokenizer

WORDS = (*COLORS, "grey", "navy", "tan", "cream", "khaki", "maroon", "teal")
"""Colours, and what colours are called by; each is one token of CLIP's vocabulary.

Not "dark" and "light": exchanged with the colour that they go with, they say the same."""

APART = 3
"""Fewest tokens from one of the exchanged words to the other."""


class Exchanged(NamedTuple):
    """Captions with two words exchanged.

    Attributes:
        ids: ``[N, L]``, as the input but for two places.
        exists: Whether there were two different words to exchange, bool ``[N]``.
    """

    ids: Tensor
    exists: Tensor


def color_tokens(tokenizer: Tokenizer) -> Tensor:
    """Ids of :data:`WORDS`, int64 ``[W]``.

    Raises:
        RecipeError: A word is not one token of this vocabulary.
    """
    tokens = tokenizer.encode(list(WORDS))
    divided = [word for word, end in zip(WORDS, tokens.eot, strict=True) if end != 2]
    if divided:
        raise RecipeError(
            f"exchanging colours needs a vocabulary where each is one token, and here "
            f"{', '.join(divided)} are several; leave swap out of the losses"
        )
    return torch.from_numpy(tokens.ids[:, 1]).long()


def exchange_words(ids: Tensor, among: Tensor) -> Exchanged:
    """Exchange two different words of each caption, drawn among some.

    Words nearer than :data:`APART` stay where they are to each other: they mostly belong to
    one thing, and "black and white" says what "white and black" says.

    Args:
        ids: Token ids, ``[N, L]``.
        among: Ids that may change places, ``[W]``.
    """
    length = ids.shape[1]
    places = torch.arange(length, device=ids.device)
    may = torch.isin(ids, among.to(ids.dtype))
    fits = may[:, :, None] & may[:, None] & (ids[:, :, None] != ids[:, None])
    fits &= (places[:, None] - places).abs() >= APART
    draw = torch.rand(fits.shape, device=ids.device).masked_fill(~fits, -1).flatten(1)
    highest, pair = draw.max(dim=1, keepdim=True)
    exists = highest >= 0
    first = pair // length
    second = torch.where(exists, pair % length, first)
    one, other = ids.gather(1, first), ids.gather(1, second)
    return Exchanged(ids.scatter(1, first, other).scatter(1, second, one), exists[:, 0])
