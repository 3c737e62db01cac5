"""Scores of a caption and pictures from all their tokens, without parameters.

Each function takes the words of one caption, ``[L, D]``, and the places of ``N`` pictures,
``[N, P, D]``, all of length 1 in the joint embedding space, and returns scores ``[N]``.

- :func:`max_sim`: the mean over words of their best place (ColBERT, https://arxiv.org/abs/2004.12832;
  FILIP, https://arxiv.org/abs/2111.07783).
- :func:`scan`: each word attends to the places and is compared with what it attends to (SCAN,
  https://arxiv.org/abs/1803.08024, equations 1 to 5, text to image).
- :func:`in_rounds`: SCAN several times; between two rounds, each word moves towards what it attends
  to (IMRAM, https://arxiv.org/abs/2003.03772). IMRAM learns that step; here it is a mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SMOOTHNESS = 9.0
"""SCAN's ``lambda_1``: how strongly a word attends to its best places."""
ROUNDS = 3
_SLOPE = 0.1


def max_sim(words: Tensor, places: Tensor) -> Tensor:
    """``mean_j max_r (e_j . v_r)``."""
    return _products(words, places).amax(dim=2).mean(dim=1)


def scan(words: Tensor, places: Tensor) -> Tensor:
    """``mean_j cos(e_j, a_j)``, where ``a_j`` is the mean of places that word ``j`` attends to."""
    return _relevance(words, _attended(words, places)).mean(dim=1)


def in_rounds(words: Tensor, places: Tensor, *, rounds: int = ROUNDS) -> Tensor:
    """The sum of :func:`scan` over rounds, with ``e_j <- unit(e_j + unit(a_j))`` between them."""
    current = words.expand(len(places), -1, -1)
    total = torch.zeros(len(places), dtype=places.dtype, device=places.device)
    for _ in range(rounds):
        attended = _attended(current, places)
        total = total + _relevance(current, attended).mean(dim=1)
        current = F.normalize(current + F.normalize(attended, dim=-1), dim=-1)
    return total


def _products(words: Tensor, places: Tensor) -> Tensor:
    """Inner products ``[N, L, P]`` of words ``[L, D]`` or ``[N, L, D]`` and places."""
    return words @ places.transpose(1, 2)


def _attended(words: Tensor, places: Tensor) -> Tensor:
    """What each word attends to, ``[N, L, D]``.

    Products are rectified, and normalised over words for each place, before the softmax over
    places.
    """
    rectified = F.leaky_relu(_products(words, places), _SLOPE)
    weights = torch.softmax(SMOOTHNESS * F.normalize(rectified, dim=1), dim=2)
    return weights @ places


def _relevance(words: Tensor, attended: Tensor) -> Tensor:
    """Cosines ``[N, L]`` of words and what they attend to."""
    return F.cosine_similarity(words.expand_as(attended), attended, dim=-1)
