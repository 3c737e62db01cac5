"""The background of people, and the shadow under them."""

from __future__ import annotations

import random

import cv2
import numpy as np

from finegrain.synthetic.canvas import Field, Pixels
from finegrain.synthetic.places import PLACES
from finegrain.synthetic.stage import Stage
from finegrain.synthetic.view import View


def background(view: View, width: int, height: int, feet: float) -> Pixels:
    """The place of a view's camera, RGB uint8 [height, width, 3].

    Args:
        feet: Row of the person's feet, as a share of the height.
    """
    rng = random.Random(view.scene_seed)
    # Painted at a small size and enlarged, because surveillance backgrounds are soft.
    small: Pixels = np.zeros((max(height // 2, 16), max(width // 2, 8), 3), np.uint8)
    stage = Stage(small, rng)
    horizon = feet - rng.uniform(0.16, 0.26) - view.camera.pitch * 0.009
    PLACES[view.camera.place](stage, horizon)
    soft = cv2.GaussianBlur(small, (0, 0), 0.6 + 0.006 * small.shape[0])
    return np.asarray(cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def cast_shadow(cover: Pixels, feet_row: float, light: float) -> Field:
    """Darkness of the person's shadow on the ground, float32 ``[H, W]`` from 0 to 1.

    The silhouette is projected onto the ground, away from the light.
    """
    height, width = cover.shape
    scale = 4
    small = cv2.resize(cover, (width // scale, height // scale), interpolation=cv2.INTER_AREA)
    y = feet_row / scale
    flat, lean = 0.20, 0.75 * light
    # The row of the feet is fixed. Rows above it are compressed and moved sideways.
    warp = np.asarray([[1.0, lean, -lean * y], [0.0, flat, y * (1.0 - flat)]], np.float32)
    laid = cv2.warpAffine(small, warp, (width // scale, height // scale), flags=cv2.INTER_LINEAR)
    soft = cv2.blur(laid, (5, 3))
    return np.asarray(
        cv2.resize(soft, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(0.5 / 255.0),
        np.float32,
    )
