"""Losses: functions of plain tensors, each checked against its paper's formula."""

from finegrain.losses.cmpm import cmpm
from finegrain.losses.identity import identity
from finegrain.losses.itc import itc
from finegrain.losses.sdm import sdm
from finegrain.losses.tal import tal

__all__ = ["cmpm", "identity", "itc", "sdm", "tal"]
