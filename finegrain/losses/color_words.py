"""The colour words of a caption, found again."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def color_words(scores: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the blanked words; 0 where none was blanked.

    Args:
        scores: ``[W, C]`` of ``C`` colour words for each of ``W`` blanks.
        targets: Which word stood there, int64 ``[W]``.
    """
    total = F.cross_entropy(scores.float(), targets, reduction="sum")
    return total / max(1, len(targets))
