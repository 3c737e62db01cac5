"""The base class of all methods: two towers and a search by inner products."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from finegrain.errors import RecipeError
from finegrain.methods.base import Batch
from finegrain.models import ImageTower, TextTower
from finegrain.zoo.irra import export_irra
from finegrain.zoo.renaming import parts_of


class Logits(NamedTuple):
    """``scale * cosine + bias`` is the logit of a pair; None if a method has no such number."""

    scale: float | None
    bias: float | None


class TwoTowers(nn.Module):
    """An image tower and a text tower with a joint embedding space.

    Embeddings are normalised in fp32 for any precision of the towers. In half precision, the
    rounding of the norm would change the order of near neighbours.

    Attributes:
        training_only: Parts that search does not use: heads of losses, queues, counters. A part
            is a submodule, parameter or buffer of the method.
        starts_fresh: Parts that search uses and that pretrained towers do not bring. They start
            from their initial values.
    """

    wants_wrong_captions = False
    training_only: tuple[str, ...] = ()
    starts_fresh: ClassVar[tuple[str, ...]] = ()

    image_tower: ImageTower
    text_tower: TextTower

    def __init__(self, image_tower: ImageTower, text_tower: TextTower) -> None:
        super().__init__()
        self.image_tower = image_tower
        self.text_tower = text_tower

    @property
    def search_parts(self) -> tuple[str, ...]:
        """Parts that a checkpoint must have before the method can search."""
        return tuple(p for p in parts_of(self.state_dict()) if p not in self.training_only)

    @property
    def pretrained_parts(self) -> tuple[str, ...]:
        """Parts to load from the weights that a recipe names."""
        return tuple(part for part in self.search_parts if part not in self.starts_fresh)

    def load_other_weights(self) -> None:
        """Load pretrained weights of other parts than the towers, from files of the config.

        Most methods have no such parts.

        Raises:
            RecipeError: A file is needed, and the config names none.
            WeightsError: A file cannot be read, or does not fit.
        """

    def to_released(self) -> dict[str, Tensor]:
        """The tensors under the names of the released code: IRRA's, unless a method has its own.

        Raises:
            WeightsError: The released layout cannot hold the towers or a part of the method.
        """
        return export_irra(self, without=self.training_only)

    @property
    def logits(self) -> Logits:
        """The scale and bias of the logits, if the method has them."""
        return Logits(None, None)

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
