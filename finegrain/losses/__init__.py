"""Losses: functions of plain tensors, each checked against its paper's formula."""

from finegrain.losses.adaptive import adaptive_weights, gradient_norms
from finegrain.losses.cmpm import cmpm
from finegrain.losses.cyclic import cyclic
from finegrain.losses.identity import identity
from finegrain.losses.itc import itc
from finegrain.losses.masked_patches import masked_patches
from finegrain.losses.sdm import sdm
from finegrain.losses.soft_itc import soft_itc
from finegrain.losses.tal import tal

__all__ = [
    "adaptive_weights",
    "cmpm",
    "cyclic",
    "gradient_norms",
    "identity",
    "itc",
    "masked_patches",
    "sdm",
    "soft_itc",
    "tal",
]
