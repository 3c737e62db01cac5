"""Image augmentation for training, as a function of the picture and a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finegrain.errors import DataError, require

if TYPE_CHECKING:
    from torch import Tensor

CLIP_MEAN = (123, 117, 104)
"""Mean colour of CLIP's training pictures in 0..255."""

ERASED_AREA = (0.02, 0.4)
"""Share of a picture that is erased (Zhong et al. 2020, section 4)."""


class Augmentation:
    """Flip, shift, recolour and erase, as person re-identification does.

    Or what TBPS-CLIP does: a few operations drawn from a pool, which gained most of all that was
    tried (Cao et al. 2024, section 4). All operations are torchvision's, by which the papers'
    code augments, so areas, ratios, angles and factors are distributed as there.

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
            size: Height and width of the pictures in pixels.
            flip: Probability of mirroring.
            pad: Largest shift, as a share of the height: black is added on every side and
                a window of ``size`` is cut out at random. IRRA: 10 pixels of 384.
            erase: Probability of erasing a rectangle of 2 to 40 % of the picture, with sides in a
                ratio of 0.3 to 3.3, uniform in its logarithm (Zhong et al. 2020). A rectangle
                that is longer than the picture is drawn again, up to ten times.
            fill: Colour of an erased rectangle, RGB in 0..255.
            color_jitter: Largest relative change of brightness and contrast, 0 to 1. Hue stays,
                as captions name colours.
            picks: How many operations are drawn, with replacement, from TBPS-CLIP's pool and
                done before erasing: jitter of brightness, contrast and saturation by a
                tenth; rotation by up to 15 degrees; a crop of at least nine tenths; grey (in
                one case of ten); mirroring (of two); blackening a rectangle of 10 to 20 %
                (of two).

        Raises:
            DataError: a value is out of its range.
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
        self._moves: list[Any] = [v2.RandomHorizontalFlip(flip)] if flip else []
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
            image: RGB picture ``[H, W, 3]`` of the size given before; it is left as it is.
            seed: Says which augmentation, 0 or more; make it from the run's seed, the
                epoch and the sample's number.

        Returns:
            Picture ``[3, H, W]``.

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
        # torchvision draws from the global generator, which is given its state back. Only that
        # of the CPU: torch.manual_seed would also reset what a GPU draws dropout from.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            pixels = self._augmented(pixels)
        augmented: npt.NDArray[np.uint8] = pixels.contiguous().numpy()
        return augmented

    def _augmented(self, pixels: Tensor) -> Tensor:
        for step in self._moves:
            pixels = step(pixels)
        if self._recolors:
            # On fractions, as in TBPS-CLIP's code: on bytes each step would round down.
            fractions = pixels.float() / 255
            for step in self._recolors:
                fractions = step(fractions)
            pixels = (fractions * 255).round().clamp(0, 255).byte()
        return pixels if self._erasing is None else self._erasing(pixels)


def _pool(v2: Any, size: tuple[int, int]) -> list[Any]:
    """The operations that TBPS-CLIP draws from (Cao et al. 2024, table 1)."""
    return [
        v2.ColorJitter(0.1, 0.1, 0.1, 0),
        v2.RandomRotation(15),
        v2.RandomResizedCrop(size, scale=(0.9, 1.0)),
        v2.RandomGrayscale(0.1),
        v2.RandomHorizontalFlip(0.5),
        v2.RandomErasing(p=0.5, scale=(0.1, 0.2), value=0),
    ]
