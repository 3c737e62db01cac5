"""Preprocessing, once: training's evaluation, export checks and serving all call this."""

from finegrain.preprocess.crop import Crop
from finegrain.preprocess.image import ImageSource, ImageTransform, load_image
from finegrain.preprocess.text import TokenBatch, Tokenizer

__all__ = ["Crop", "ImageSource", "ImageTransform", "TokenBatch", "Tokenizer", "load_image"]
