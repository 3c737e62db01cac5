"""Losses: functions of plain tensors, each checked against its paper's formula."""

from finegrain.losses.itc import itc

__all__ = ["itc"]
