"""What the training loop and the exporters know of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Pictures with one caption each.

    Attributes:
        pixels: uint8 ``[N, 3, H, W]``.
        ids: Token ids, int32 ``[N, L]``, padded with 0 after the end-of-text token.
        eot: Position of each end-of-text token, int32 ``[N]``.
        pids: Identities, int64 ``[N]``, numbered from 0 in the order of the dataset's ids.
        where: What each row came from, for error messages.
    """

    pixels: Tensor
    ids: Tensor
    eot: Tensor
    pids: Tensor
    where: tuple[str, ...]


class Method(Protocol):
    """Towers with their heads: an ``nn.Module`` that names its losses."""

    def encode_images(self, pixels: Tensor) -> Tensor:
        """uint8 ``[N, 3, H, W]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def encode_texts(self, ids: Tensor, eot: Tensor) -> Tensor:
        """int32 ``[N, L]`` and ``[N]`` to L2-normalised fp32 embeddings ``[N, D]``."""

    def check_identities(self, count: int) -> None:
        """Refuse a training split of so many identities where the number matters.

        Raises:
            RecipeError: A head was made for another number.
        """

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Named, unweighted scalar losses; the recipe names them and holds the weights."""

    def after_step(self) -> None:
        """Called after each optimiser step: momentum copies, clamps."""
