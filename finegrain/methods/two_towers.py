"""What every method that searches by one inner product is built on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.methods.base import Batch
from finegrain.models import ImageTower, TextTower


class TwoTowers(nn.Module):
    """Image tower and text tower that meet in one space.

    Embeddings are normalised in fp32 whatever the towers compute in: a norm taken in half
    precision reorders near neighbours.
    """

    wants_wrong_captions = False

    def __init__(self, image_tower: ImageTower, text_tower: TextTower) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower

    def encode_images(self, pixels: Tensor) -> Tensor:
        return unit(self.image_tower(pixels))

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        return unit(self.text_tower(ids, eot))

    def check_identities(self, count: int) -> None:
        """Refuse a training split with so many identities, where the number matters."""

    def check_items(self, count: int) -> None:
        """Refuse a training split with so many items, where the number matters."""

    def expect_noise(self, share: float) -> None:
        """Called before training with the share of captions that are known to be wrong."""

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Called before the first step of each epoch."""

    def after_step(self) -> None:
        """Called after each optimiser step."""


def unit(features: Tensor) -> Tensor:
    """Features ``[N, D]`` at length 1, in fp32."""
    return F.normalize(features.float(), dim=-1)


def check_losses(method: str, wanted: Collection[str], known: Sequence[str]) -> None:
    """Refuse loss names that a method does not compute.

    Raises:
        RecipeError: A name is unknown, or there is none.
    """
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        raise RecipeError(
            f"{method} computes the losses {', '.join(known)}; the recipe asks for "
            f"{', '.join(unknown) or 'none'}"
        )
