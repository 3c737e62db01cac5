"""Triplet alignment loss against the hardest negatives of a queue."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Keys(NamedTuple):
    """Features that queries are compared with.

    Attributes:
        features: L2-normalised features without gradients, ``[A, D]``.
        ids: Identities, ``[A]``. A key with a negative identity is ignored.
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
    """Rank the positive keys of a batch above the hardest negatives of batch and queue.

    This is the triplet alignment loss of one direction (see :func:`~finegrain.losses.tal`; Qin
    et al. 2024, https://arxiv.org/abs/2308.09911) with two changes. The log-sum-exp is over the
    ``hardest`` negatives instead of all. Most negatives come from a queue of earlier batches (He
    et al. 2020, MoCo, https://arxiv.org/abs/1911.05722). A key is a negative if its identity
    differs from the query's. Keys of the queue with the query's own identity are ignored:
    another picture of the person need not show what the caption describes.

    Args:
        queries: L2-normalised embeddings, ``[Q, D]``; only they have gradients.
        pids: Identities of the queries, ``[Q]``; each must occur in ``batch``.
        batch: Keys of the current batch, of all processes.
        queue: Keys of earlier batches.
        temperature: Temperature of the softmax, in cosines.
        margin: Margin between positives and negatives, in cosines.
        hardest: Number of negatives per query, at least 1.

    Returns:
        Losses of the queries, ``[Q]``; 0 for a query without negatives.

    Example:
        >>> import torch
        >>> from finegrain.losses import mined_tal
        >>> from finegrain.losses.mined_tal import Keys
        >>> x, pids = torch.eye(2), torch.tensor([0, 1])
        >>> queue = Keys(x, torch.tensor([2, 3]))
        >>> mined_tal(x, pids, Keys(x, pids), queue, temperature=0.015, margin=0.1, hardest=1)
        tensor([0.1000, 0.1000])
    """
    features, ids = (torch.cat(parts) for parts in zip(batch, queue, strict=True))
    # As in pair_up, autocast is off: half precision would round near neighbours to one value.
    with torch.autocast(queries.device.type, enabled=False):
        logits = queries @ features.T / temperature
    # With minus infinity, the gradient of a query without negatives would be NaN.
    least = torch.finfo(logits.dtype).min
    own = logits[:, : len(batch.ids)]
    attraction = own.detach().masked_fill(pids[:, None] != batch.ids, least).softmax(dim=1)
    pulled = (attraction * own).sum(dim=1)
    is_wrong = (pids[:, None] != ids) & (ids >= 0)
    mined = logits.masked_fill(~is_wrong, least).topk(min(hardest, len(ids)), dim=1).values
    return (margin + temperature * (mined.logsumexp(dim=1) - pulled)).relu()
