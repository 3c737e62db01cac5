"""The base class of all methods: two towers and a search by inner products."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.methods.base import Batch
from finegrain.models import ImageTower, TextTower


class TwoTowers(nn.Module):
    """An image tower and a text tower with a joint embedding space.

    Embeddings are normalised in fp32, whatever precision the towers use. In half precision, the
    rounding of the norm would change the order of near neighbours.
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
        """Accept any number of identities; see :class:`~finegrain.methods.Method`."""

    def check_items(self, count: int) -> None:
        """Accept any number of items."""

    def expect_noise(self, share: float) -> None:
        """Ignore the share of wrong captions."""

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Do nothing before an epoch."""

    def after_step(self) -> None:
        """Do nothing after an optimiser step."""


def unit(features: Tensor) -> Tensor:
    """L2-normalise features ``[N, D]`` in fp32."""
    return F.normalize(features.float(), dim=-1)


def check_losses(method: str, wanted: Collection[str], known: Sequence[str]) -> None:
    """Check that a method computes all losses of a recipe.

    Raises:
        RecipeError: A name is unknown, or the recipe names no loss.
    """
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        raise RecipeError(
            f"{method} computes the losses {', '.join(known)}; the recipe asks for "
            f"{', '.join(unknown) or 'none'}; change the losses of the recipe"
        )
