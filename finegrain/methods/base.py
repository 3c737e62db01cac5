"""The interface of a method, as the training loop and the exporters use it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures, each with the same number ``K`` of captions.

    Attributes:
        pixels: uint8 ``[N, 3, H, W]``.
        ids: Token ids, int32 ``[K * N, L]``, padded with 0 after the end-of-text token. Rows
            ``i * K`` to ``i * K + K - 1`` are the captions of picture ``i``.
        eot: Position of each end-of-text token, int32 ``[K * N]``.
        pids: Identities, int64 ``[N]``, numbered from 0 in the order of the dataset's ids.
        items: Index of each item in the training split, int64 ``[N]``.
        where: Source of each picture, for error messages; ``N`` strings.
        groups: Sub-category of each picture, int64 ``[N]``, numbered from 1; 0 if unknown. None
            if the dataset has no sub-categories.
        replaced: True if the second caption of a picture differs from its first, bool ``[N]``.
            None without weak positives; see :attr:`~finegrain.recipe.Recipe.weak_positives`.
        wrong_ids, wrong_eot: A caption of another identity for each picture, int32 ``[N, L]`` and
            ``[N]``; None if the method does not use them.
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


class BaseConfig:
    """Base class of the configuration of every method.

    Attributes:
        method_name: Name of the method in plans. It is stored in files, so it must not change.
        head_losses: Losses whose heads search does not use.
    """

    method_name: ClassVar[str]
    head_losses: ClassVar[frozenset[str]] = frozenset()


class Method(Protocol):
    """An ``nn.Module`` of towers and heads that computes named losses."""

    wants_wrong_captions: bool
    """Whether batches hold a caption of another identity for each picture. It is drawn from the
    whole training split, from the same sub-category if the dataset has sub-categories."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        """int32 ``[N, L]`` and ``[N]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def check_identities(self, count: int) -> None:
        """Check the number of identities of the training split.

        Raises:
            RecipeError: A head was built for another number.
        """

    def check_items(self, count: int) -> None:
        """Check the number of items of the training split.

        Raises:
            RecipeError: The method was built for another number.
        """

    def expect_noise(self, share: float) -> None:
        """Receive the share of wrong captions, 0 to 1; called once before training.

        See :attr:`~finegrain.recipe.Recipe.caption_noise`.
        """

    def start_epoch(self, epoch: int, batches: Iterable[Batch]) -> None:
        """Prepare an epoch; called before its first step, but not when an epoch is resumed.

        Args:
            epoch: Number of the epoch, from 0.
            batches: All batches of the epoch, loaded lazily.
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of the recipe: unweighted scalars by name."""

    def after_step(self) -> None:
        """Update momentum copies or clamp parameters; called after each optimiser step."""
