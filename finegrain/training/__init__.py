"""Training: one loop for all methods."""

from finegrain.training.loop import Run, train

__all__ = ["Run", "train"]
