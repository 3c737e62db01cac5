"""Triplet alignment against the hardest answers of a queue."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Keys(NamedTuple):
    """What queries are compared with.

    Attributes:
        features: L2-normalised, without gradients, ``[A, D]``.
        ids: Identities, ``[A]``; below 0 where there is none, and nothing is compared.
    """

    features: Tensor
    ids: Tensor


def mined_tal(
    queries: Tensor,
    pids: Tensor,
    batch: Keys,
    queue: Keys,
    *,
    temperature: float,
    margin: float,
    hardest: int,
) -> Tensor:
    """Rank the right keys of a batch over the hardest wrong ones of batch and queue.

    The triplet alignment loss (see :func:`~finegrain.losses.tal`) of one direction, with two
    changes: its log-sum-exp is over the ``hardest`` wrong keys and not over all, and most of
    these are in a queue of earlier batches (He et al. 2020, MoCo). Who is wrong is decided by
    identity. What the queue holds of the query's own person is neither pushed away nor pulled
    near: another picture of a person need not show what a caption says.

    Args:
        queries: L2-normalised embeddings, ``[Q, D]``; only they have gradients.
        pids: Their identities, ``[Q]``, each of which ``batch`` has.
        batch: Keys of the queries' own batch, of all processes.
        queue: Keys of earlier batches.
        temperature: As cosines are, as is ``margin``.
        hardest: How many wrong keys count, at least 1.

    Returns:
        Losses of the queries, ``[Q]``; 0 where no key is wrong.
    """
    features, ids = (torch.cat(parts) for parts in zip(batch, queue, strict=True))
    # In full precision, as in pair_up: autocast would round near neighbours to one value.
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries @ features.T / temperature
    # Not minus infinity: a query without wrong answers would have no gradient but NaN.
    least = torch.finfo(logits.dtype).min
    own = logits[:, : len(batch.ids)]
    attraction = own.detach().masked_fill(pids[:, None] != batch.ids, least).softmax(dim=1)
    pulled = (attraction * own).sum(dim=1)
    is_wrong = (pids[:, None] != ids) & (ids >= 0)
    mined = logits.masked_fill(~is_wrong, least).topk(min(hardest, len(ids)), dim=1).values
    return (margin + temperature * (mined.logsumexp(dim=1) - pulled)).relu()
