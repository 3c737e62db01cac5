"""Hard negatives: wrong pictures and captions that are easily taken for right ones."""

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


def draw_hard_negatives(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Draw of each query one wrong answer, the likelier the nearer it is.

    The probability is the softmax of the logits over the wrong answers, as in ALBEF (Li et
    al. 2021, section 3.2). It is drawn by the largest logit after Gumbel noise, which needs no
    probability to be above 0.

    Args:
        logits: Scaled similarities, ``[Q, A]``.
        same: Which answers are of the query's person, bool ``[Q, A]``.

    Returns:
        Rows of the answers, ``[Q]``, and which queries have a wrong answer at all, bool
        ``[Q]``; elsewhere the row means nothing.
    """
    gumbel = -torch.empty_like(logits).exponential_().log()
    drawn = (logits + gumbel).masked_fill(same, -torch.inf).argmax(dim=1)
    return drawn, ~same.all(dim=1)


class Candidates(NamedTuple):
    """Pairs of a picture and a caption of one batch.

    Attributes:
        pictures: Rows of pictures, ``[R]``.
        captions: Rows of captions, ``[R]``.
        matches: 1 where they belong together, else 0, int64 ``[R]``.
    """

    pictures: Tensor
    captions: Tensor
    matches: Tensor


def given_candidates(rows: int, wrong: int, *, captions: int) -> Candidates:
    """Every pair of a batch, and each picture with a wrong caption that came with it.

    Args:
        rows: How many captions are right: ``captions`` of picture 0, then of picture 1, ...
        wrong: How many wrong captions follow them, one for each picture.
        captions: How many right captions a picture has.
    """
    right, pictures = torch.arange(rows), torch.arange(wrong)
    return Candidates(
        pictures=torch.cat([right // captions, pictures]),
        captions=torch.arange(rows + wrong),
        matches=torch.cat([torch.ones_like(right), torch.zeros_like(pictures)]),
    )


def draw_candidates(
    pids: Tensor, groups: Tensor | None, *, captions: int, logits: Tensor | None = None
) -> Candidates:
    """Every pair of a batch, and for each one with a wrong picture or a wrong caption.

    What is wrong is of another product: one of the same group where the batch has one, and
    any other where not. In a batch of one product nothing is wrong, and its pairs stand alone.

    Args:
        pids: Products of the pictures, ``[N]``.
        groups: Sub-categories of the pictures, ``[N]``, 0 where unknown; None where all are.
        captions: How many captions a picture has: rows ``i * captions`` and so on.
        logits: Scaled similarities of the captions to the pictures, ``[captions * N, N]``: the
            nearer a wrong picture, the likelier it is drawn. Without them all are as likely.
    """
    rows = torch.arange(len(pids) * captions, device=pids.device)
    own = rows // captions
    wrong = pids[own, None] != pids
    if groups is not None:
        alike = wrong & (groups[own, None] == groups) & (groups > 0)
        wrong = torch.where(alike.any(dim=1, keepdim=True), alike, wrong)
    if logits is None:
        logits = torch.zeros(wrong.shape, device=pids.device)
    negative, exists = draw_hard_negatives(logits, ~wrong)
    wrong_caption = torch.rand(rows.shape, device=pids.device) < 0.5
    caption = negative * captions + torch.randint_like(rows, captions)
    return Candidates(
        pictures=torch.cat([own, torch.where(wrong_caption, own, negative)[exists]]),
        captions=torch.cat([rows, torch.where(wrong_caption, caption, rows)[exists]]),
        matches=torch.cat([torch.ones_like(rows), torch.zeros_like(rows)[exists]]),
    )


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
