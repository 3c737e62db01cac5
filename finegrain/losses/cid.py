"""Cross-modal identity loss: identities of pairs, some of which do not match."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from finegrain.losses.gather import gather
from finegrain.losses.pairs import pair_up


class CidPairs(NamedTuple):
    """Pairs of a picture and a caption with a class.

    Attributes:
        images: Image features, ``[R, D]``.
        texts: Text features, ``[R, D]``.
        labels: The identity of a matching pair, or the class of pairs that do not match, ``[R]``.
    """

    images: Tensor
    texts: Tensor
    labels: Tensor

    def both_orders(self) -> tuple[Tensor, Tensor]:
        """Picture and caption concatenated, and caption and picture, each ``[R, 2 * D]``."""
        pair = (self.images, self.texts)
        return torch.cat(pair, dim=1), torch.cat(pair[::-1], dim=1)


def cid_pairs(images: Tensor, texts: Tensor, pids: Tensor, *, wrong: Tensor) -> CidPairs:
    """Make the pairs of the cross-modal identity loss.

    Every caption with its own picture is a matching pair. The picture of another identity with
    the largest cosine to the caption, and the caption of another identity with the largest cosine
    to the picture, make two more pairs. A caption for which the batch has no other identity makes
    the matching pair only.

    Args:
        images: Image features, not normalised, ``[N, D]``.
        texts: Text features, not normalised, ``[K * N, D]``; ``K`` consecutive rows describe each
            picture.
        pids: Identities of the pictures, numbered from 0, ``[N]``.
        wrong: Class of the pairs that do not match, a scalar.

    Returns:
        Up to ``3 * K * N`` pairs. With several processes, the wrong pictures and captions are
        those of all processes.
    """
    captions = len(texts) // len(images)
    one = torch.ones((), device=images.device)
    unit = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    with torch.no_grad():
        to_texts, to_images = pair_up(*unit, pids, one)
        hard_text, has_text = _hardest(to_texts.logits, to_texts.same)
        hard_image, has_image = _hardest(to_images.logits, to_images.same)
    own_images, labels = (x.repeat_interleave(captions, dim=0) for x in (images, pids))
    hard_text, has_text = (x.repeat_interleave(captions) for x in (hard_text, has_text))
    wrong_texts = gather(texts)[hard_text[has_text]]
    wrong_images = gather(images)[hard_image[has_image]]
    count = len(wrong_texts) + len(wrong_images)
    return CidPairs(
        torch.cat([own_images, wrong_images, own_images[has_text]]),
        torch.cat([texts, texts[has_image], wrong_texts]),
        torch.cat([labels, wrong.to(labels).expand(count)]),
    )


def cid(logits: Tensor, swapped_logits: Tensor, labels: Tensor) -> Tensor:
    """Classify pairs of a picture and a caption by identity (ITSELF).

    Source: Nguyen et al. 2026, https://arxiv.org/abs/2601.01024, and ``compute_cid`` of the
    released code. With the logits ``p`` of a pair in the order picture and caption, ``q`` in the
    order caption and picture, and ``y`` its class, the loss is

        ``mean over pairs of (CE(p, y) + CE(q, y)) / 2``

    Pairs that do not match, see :func:`cid_pairs`, have a class of their own. A pair can therefore
    only be classified by comparing its two parts.

    Args:
        logits: Logits of the pairs, picture first, ``[R, C]``.
        swapped_logits: Logits of the same pairs, caption first, ``[R, C]``.
        labels: Classes of the pairs, ``[R]``.

    Returns:
        A scalar in nats.

    Example:
        >>> import torch
        >>> from finegrain.losses.cid import cid, cid_pairs
        >>> x, pids = torch.eye(2), torch.tensor([0, 1])
        >>> pairs = cid_pairs(x, x, pids, wrong=torch.tensor(2))
        >>> pairs.labels
        tensor([0, 1, 2, 2, 2, 2])
        >>> cid(torch.zeros(6, 3), torch.zeros(6, 3), pairs.labels)
        tensor(1.0986)
    """
    first = F.cross_entropy(logits.float(), labels)
    return (first + F.cross_entropy(swapped_logits.float(), labels)) / 2


def _hardest(logits: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """The most similar wrong answer of each query, and whether there is one: ``[Q]``, ``[Q]``."""
    right = same.bool()
    return logits.masked_fill(right, -torch.inf).argmax(dim=1), ~right.all(dim=1)
