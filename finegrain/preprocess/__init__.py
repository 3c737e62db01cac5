"""Preprocessing of captions and pictures, shared by training, evaluation, export and serving."""

from finegrain.preprocess.cleaning import Cleaning
from finegrain.preprocess.crop import Crop
from finegrain.preprocess.image import ImageSource, load_image
from finegrain.preprocess.text import TokenBatch, Tokenizer
from finegrain.preprocess.transform import Fit, ImageTransform, Interpolation

__all__ = [
    "Cleaning",
    "Crop",
    "Fit",
    "ImageSource",
    "ImageTransform",
    "Interpolation",
    "TokenBatch",
    "Tokenizer",
    "load_image",
]
