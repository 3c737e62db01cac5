"""Image augmentation for training, as a function of the picture and a seed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt

from finegrain.errors import DataError, require

CLIP_MEAN = (123, 117, 104)
"""Mean colour of CLIP's training pictures in 0..255."""


class Augmentation:
    """Resize, flip, shift, recolour and erase: the recipe of person re-identification.

    Or that of TBPS-CLIP: a few operations picked from a pool, which gained most where all were
    tried (Cao et al. 2024, section 4).

    Mirroring is on although captions may say *left* and *right*: the field's convention
    since IRRA, and its gain outweighs the few words it makes wrong.

    The same picture and seed give the same pixels, in whichever process and order, so a
    resumed run sees what the run it continues would have seen.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        flip: float = 0.5,
        pad: float = 10 / 384,
        erase: float = 0.5,
        fill: tuple[int, int, int] = CLIP_MEAN,
        color_jitter: float = 0.0,
        picks: int = 0,
    ) -> None:
        """Build the chain of operations.

        Args:
            size: Height and width of the result in pixels.
            flip: Probability of mirroring.
            pad: Largest shift, as a share of the height: black is added on every side and
                a window of ``size`` is cut out at random. IRRA: 10 pixels of 384.
            erase: Probability of erasing a rectangle of 2 to 40 % of the picture (Zhong
                et al., 2020).
            fill: Colour of an erased rectangle, RGB in 0..255.
            color_jitter: Largest change of brightness and contrast, 0 to 1. Hue stays, as
                captions name colours.
            picks: How many operations are drawn, with replacement, from TBPS-CLIP's pool and
                done after the others: jitter of brightness, contrast and saturation by a
                tenth; rotation by up to 15 degrees; a crop of at least nine tenths; grey (in
                one case of ten); mirroring (of two); blackening a rectangle of 10 to 20 %
                (of two).

        Raises:
            DataError: a value is out of its range.
            MissingExtraError: albumentations is not installed.
        """
        height, width = size
        if height < 1 or width < 1:
            raise DataError(f"expected size as height and width in pixels, got {size}.")
        shares = {"flip": flip, "pad": pad, "erase": erase, "color_jitter": color_jitter}
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise DataError(f"expected {name} between 0 and 1, got {share}.")
        if picks < 0:
            raise DataError(f"expected picks of 0 or more, got {picks}.")
        A = require("albumentations", "train")
        # Area averaging when shrinking, since plain bilinear sampling there skips pixels.
        steps = [A.Resize(height, width, area_for_downscale="image")]
        if flip:
            steps.append(A.HorizontalFlip(p=flip))
        if border := round(pad * height):
            steps += [A.Pad(border, fill=0), A.RandomCrop(height, width)]
        if color_jitter:
            limits = (-color_jitter, color_jitter)
            steps.append(A.RandomBrightnessContrast(limits, limits, p=1))
        if erase:
            steps.append(A.Erasing(scale=(0.02, 0.4), fill=fill, p=erase))
        if picks:
            pool = [
                A.ColorJitter((0.9, 1.1), (0.9, 1.1), (0.9, 1.1), (0.0, 0.0), p=1),
                A.Rotate(limit=(-15, 15), interpolation=0, p=1),
                A.RandomResizedCrop((height, width), scale=(0.9, 1.0), p=1),
                A.ToGray(p=0.1),
                A.HorizontalFlip(p=0.5),
                A.Erasing(scale=(0.1, 0.2), fill=0, p=0.5),
            ]
            steps.append(A.RandomOrder(pool, n=picks, replace=True))
        self._steps: Any = A.Compose(steps)

    def __call__(self, image: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        """Augment one picture.

        Args:
            image: RGB picture ``[H, W, 3]`` of any size; it is left as it is.
            seed: Says which augmentation, 0 or more; make it from the run's seed, the
                epoch and the sample's number.

        Returns:
            Picture ``[3, height, width]``.

        Raises:
            DataError: ``image`` is not uint8 ``[H, W, 3]``.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DataError(
                f"expected a uint8 picture [H, W, 3], got {image.dtype} {list(image.shape)}."
            )
        # Not set_random_seed: it gives every step the same seed, so that flipping and
        # erasing, both drawn first from equal generators, would always come together.
        self._steps.set_random_state(np.random.default_rng(seed), random.Random(seed))
        augmented = self._steps(image=image)["image"]
        return np.ascontiguousarray(augmented.transpose(2, 0, 1))
