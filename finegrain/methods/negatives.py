"""Pairs that belong together, and pairs that nearly do."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from finegrain.methods.rivals import draw_rivals


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
    rival, exists = draw_rivals(logits, ~wrong)
    wrong_caption = torch.rand(rows.shape, device=pids.device) < 0.5
    caption = rival * captions + torch.randint_like(rows, captions)
    return Candidates(
        pictures=torch.cat([own, torch.where(wrong_caption, own, rival)[exists]]),
        captions=torch.cat([rows, torch.where(wrong_caption, caption, rows)[exists]]),
        matches=torch.cat([torch.ones_like(rows), torch.zeros_like(rows)[exists]]),
    )
