"""Loss functions of plain tensors. The tests compare each with the formula of its paper."""

from finegrain.losses.adaptive import adaptive_weights, gradient_norms
from finegrain.losses.cid import cid
from finegrain.losses.cmpm import cmpm
from finegrain.losses.cyclic import cyclic
from finegrain.losses.distilled_words import distilled_words
from finegrain.losses.exchanged import exchanged
from finegrain.losses.identity import identity
from finegrain.losses.itc import itc
from finegrain.losses.masked_patches import masked_patches
from finegrain.losses.mined_tal import mined_tal
from finegrain.losses.momentum_contrast import momentum_contrast
from finegrain.losses.pair_matching import pair_matching
from finegrain.losses.replaced_words import replaced_words
from finegrain.losses.sdm import sdm
from finegrain.losses.soft_itc import soft_itc
from finegrain.losses.tal import tal

__all__ = [
    "adaptive_weights",
    "cid",
    "cmpm",
    "cyclic",
    "distilled_words",
    "exchanged",
    "gradient_norms",
    "identity",
    "itc",
    "masked_patches",
    "mined_tal",
    "momentum_contrast",
    "pair_matching",
    "replaced_words",
    "sdm",
    "soft_itc",
    "tal",
]
