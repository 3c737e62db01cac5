"""Hard negatives: wrong pictures and captions that are similar to the correct ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.data.lexicon import COLORS
from finegrain.errors import RecipeError
from finegrain.preprocess import Tokenizer

WORDS = (*COLORS, "grey", "navy", "tan", "cream", "khaki", "maroon", "teal")
"""Colour words that are a single token of CLIP's vocabulary.

"dark" and "light" are not included: exchanged with their colour, the meaning stays the same."""

APART = 3
"""Minimum distance, in tokens, between two exchanged words."""


def draw_hard_negatives(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one wrong answer for each query; similar answers have a higher probability.

    The probability is the softmax of the logits over the wrong answers, as in ALBEF (Li et al.
    2021, section 3.2, https://arxiv.org/abs/2107.07651). The sample is the largest logit after
    adding Gumbel noise, which works even if all probabilities round to 0.

    Args:
        logits: Scaled similarities, ``[Q, A]``.
        same: True where an answer has the identity of the query, bool ``[Q, A]``.

    Returns:
        Indices of the drawn answers, ``[Q]``, and a mask of the queries that have a wrong answer,
        bool ``[Q]``. Where the mask is False, the index has no meaning.
    """
    gumbel = -torch.empty_like(logits).exponential_().log()
    drawn = (logits + gumbel).masked_fill(same, -torch.inf).argmax(dim=1)
    return drawn, ~same.all(dim=1)


class Candidates(NamedTuple):
    """Pairs of a picture and a caption from one batch.

    Attributes:
        pictures: Indices of pictures, ``[R]``.
        captions: Indices of captions, ``[R]``.
        matches: 1 if the pair matches, else 0, int64 ``[R]``.
    """

    pictures: Tensor
    captions: Tensor
    matches: Tensor


def given_candidates(rows: int, wrong: int, *, captions: int) -> Candidates:
    """Make all matching pairs of a batch, and pair each picture with its wrong caption.

    Args:
        rows: Number of correct captions: ``captions`` of picture 0, then of picture 1, and so on.
        wrong: Number of wrong captions after them, one for each picture.
        captions: Number of correct captions per picture.
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
    """Make all matching pairs of a batch, and one non-matching pair for each of them.

    A non-matching pair replaces the picture or the caption by one of another product: of the
    same group if the batch has one, otherwise of any group. A batch with a single product has no
    non-matching pairs.

    Args:
        pids: Product of each picture, ``[N]``.
        groups: Sub-category of each picture, ``[N]``, 0 if unknown; None if all are unknown.
        captions: Number of captions per picture; those of picture ``i`` start at row
            ``i * captions``.
        logits: Scaled similarities of captions to pictures, ``[captions * N, N]``. More similar
            pictures are drawn with a higher probability. None draws uniformly.
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
        ids: The input with two words exchanged, ``[N, L]``.
        exists: True where a caption had two different words to exchange, bool ``[N]``.
    """

    ids: Tensor
    exists: Tensor


def color_tokens(tokenizer: Tokenizer) -> Tensor:
    """Ids of :data:`WORDS`, int64 ``[W]``.

    Raises:
        RecipeError: A word is not a single token of this vocabulary.
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
    """Exchange two different words of each caption, drawn at random.

    Words with a distance below :data:`APART` are not exchanged. They usually describe one thing:
    "black and white" means the same as "white and black".

    Args:
        ids: Token ids, ``[N, L]``.
        among: Ids of the words that may be exchanged, ``[W]``.
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
    first_word, second_word = ids.gather(1, first), ids.gather(1, second)
    changed = ids.scatter(1, first, second_word).scatter(1, second, first_word)
    return Exchanged(changed, exists[:, 0])
