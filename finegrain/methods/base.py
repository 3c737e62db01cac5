"""What the training loop and the exporters know of a method."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures with as many captions each.

    Attributes:
        pixels: uint8 ``[N, 3, H, W]``.
        ids: Token ids, int32 ``[K * N, L]``, padded with 0 after the end-of-text token; rows
            ``i * K`` to ``i * K + K - 1`` are of captions of picture ``i``.
        eot: Position of each end-of-text token, int32 ``[K * N]``.
        pids: Identities, int64 ``[N]``, numbered from 0 in the order of the dataset's ids.
        items: Numbers of the items in the training split, int64 ``[N]``.
        where: What each picture came from, for error messages, ``N``.
        groups: Numbers of the sub-categories, int64 ``[N]``, from 1, and 0 where an item states
            none; None where the dataset knows no such thing.
        replaced: Whether a picture's second caption is another than its first, bool ``[N]``;
            None where there is no second one that may be. See
            :attr:`~finegrain.recipe.Recipe.weak_positives`.
        wrong_ids, wrong_eot: A caption of another identity for each picture, int32 ``[N, L]`` and
            ``[N]``; None where the method does not ask for them.
    """

    pixels: Tensor
    ids: Tensor
    eot: Tensor
    pids: Tensor
    items: Tensor
    where: tuple[str, ...]
    groups: Tensor | None = None
    replaced: Tensor | None = None
    wrong_ids: Tensor | None = None
    wrong_eot: Tensor | None = None


class Method(Protocol):
    """Towers with their heads: an ``nn.Module`` that names its losses."""

    wants_wrong_captions: bool
    """Whether its batches hold, with each picture, a caption of another identity: of the same
    sub-category where the dataset states one, drawn from the whole training split."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        """int32 ``[N, L]`` and ``[N]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def check_identities(self, count: int) -> None:
        """Refuse a training split of so many identities where the number matters.

        Raises:
            RecipeError: A head was made for another number.
        """

    def check_items(self, count: int) -> None:
        """Refuse a training split of so many items where the number matters.

        Raises:
            RecipeError: The method keeps account of another number.
        """

    def expect_noise(self, share: float) -> None:
        """Called before training with the share of captions, in 0..1, that are known to be wrong.

        See :attr:`~finegrain.recipe.Recipe.caption_noise`.
        """

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Called before the first step of each epoch, and not when one is gone on with.

        Args:
            epoch: Its number, from 0.
            batches: All that the epoch will train on, read only when asked for.
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named, unweighted scalar losses; the recipe names them and holds the weights."""

    def after_step(self) -> None:
        """Called after each optimiser step: momentum copies, clamps."""
