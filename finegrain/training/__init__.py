"""Training: one loop for every method."""

from finegrain.training.loop import Run, train

__all__ = ["Run", "train"]
