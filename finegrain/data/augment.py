"""Image augmentation for training, as a deterministic function of a picture and a seed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finegrain.errors import DataError, require

if TYPE_CHECKING:
    from torch import Tensor

CLIP_MEAN = (123, 117, 104)
"""Mean colour of CLIP's training pictures in 0..255."""

ERASED_AREA = (0.02, 0.4)
"""Smallest and largest share of a picture that is erased (Zhong et al. 2020, section 4,
https://arxiv.org/abs/1708.04896)."""


class Augmentation:
    """Flips, shifts, recolours and erases pictures, as is usual in person re-identification.

    With ``picks`` it draws operations from the pool of TBPS-CLIP, which gained most in the
    paper's ablation (Cao et al. 2024, section 4, https://arxiv.org/abs/2308.10045). All operations
    are torchvision's, as in the papers' code, so areas, ratios, angles and factors have the same
    distribution.

    Mirroring is on by default although captions may say *left* and *right*. This is the convention
    since IRRA, and its gain outweighs the few wrong words.

    The same picture and seed give the same pixels in every process and order, so a resumed run
    sees the same pictures as an uninterrupted one.
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
            size: Height and width of the pictures in pixels.
            flip: Probability of mirroring.
            pad: Largest shift, as a share of the height. The picture is padded with black on
                every side, and a window of ``size`` is cut out at random. IRRA pads 10 pixels of
                384.
            erase: Probability of erasing a rectangle of 2 to 40 % of the picture. The ratio of its
                sides is from 0.3 to 3.3, uniform in its logarithm (Zhong et al. 2020). A
                rectangle that does not fit the picture is drawn again, up to ten times.
            fill: Colour of an erased rectangle, RGB in 0..255.
            color_jitter: Largest relative change of brightness and contrast, from 0 to 1. The hue
                stays, because captions name colours.
            picks: How many operations are drawn with replacement from TBPS-CLIP's pool, and
                applied before erasing: jitter of brightness, contrast and saturation by a
                tenth; rotation by up to 15 degrees; a crop of at least nine tenths; grey
                (probability 0.1); mirroring (0.5); a black rectangle of 10 to 20 % (0.5).

        Raises:
            DataError: A value is out of range.
            MissingExtraError: torchvision is not installed.
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
        v2 = require("torchvision.transforms.v2", "train")
        self._size = size
        self._moves: list[Any] = [partial(_flipped, share=flip)] if flip else []
        if border := round(pad * height):
            self._moves += [v2.Pad(border), v2.RandomCrop(size)]
        self._recolors: list[Any] = [v2.RandomChoice(_pool(v2, size))] * picks
        if color_jitter:
            self._recolors.insert(0, v2.ColorJitter(brightness=color_jitter, contrast=color_jitter))
        self._erasing: Any = None
        if erase:
            self._erasing = v2.RandomErasing(p=erase, scale=ERASED_AREA, value=[*fill])

    def __call__(self, image: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        """Augment one picture.

        Args:
            image: RGB picture, uint8 ``[H, W, 3]`` of the size of the constructor. It is not
                modified.
            seed: Seed of the augmentation, 0 or more. Derive it from the run's seed, the epoch
                and the sample's number.

        Returns:
            The augmented picture, uint8 ``[3, H, W]``.

        Raises:
            DataError: ``image`` is not uint8 ``[H, W, 3]``.
        """
        import torch

        if image.dtype != np.uint8 or image.shape != (*self._size, 3):
            raise DataError(
                f"expected a uint8 picture {[*self._size, 3]}, got {image.dtype} "
                f"{list(image.shape)}. Resize it with an ImageTransform first."
            )
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        # torchvision draws from the global generator, whose state is restored afterwards. Only the
        # CPU generator is forked: torch.manual_seed would also reset the GPU's dropout generator.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            pixels = self._augmented(pixels)
        augmented: npt.NDArray[np.uint8] = pixels.contiguous().numpy()
        return augmented

    def _augmented(self, pixels: Tensor) -> Tensor:
        for step in self._moves:
            pixels = step(pixels)
        if self._recolors:
            # Floats, as in TBPS-CLIP's code. On bytes each operation would round down.
            fractions = pixels.float() / 255
            for step in self._recolors:
                fractions = step(fractions)
            pixels = (fractions * 255).round().clamp(0, 255).byte()
        return pixels if self._erasing is None else self._erasing(pixels)


def _flipped(pixels: Tensor, share: float) -> Tensor:
    """Mirror as ``RandomHorizontalFlip`` does, with the same draw and a tenth of its overhead."""
    import torch

    return pixels.flip(-1) if torch.rand(1) < share else pixels


def _pool(v2: Any, size: tuple[int, int]) -> list[Any]:
    """The pool of operations of TBPS-CLIP (Cao et al. 2024, table 1)."""
    return [
        v2.ColorJitter(0.1, 0.1, 0.1, 0),
        v2.RandomRotation(15),
        v2.RandomResizedCrop(size, scale=(0.9, 1.0)),
        v2.RandomGrayscale(0.1),
        v2.RandomHorizontalFlip(0.5),
        v2.RandomErasing(p=0.5, scale=(0.1, 0.2), value=0),
    ]
