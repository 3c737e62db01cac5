"""What methods expect of a tower. Every tower is a ``torch.nn.Module``."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from finegrain.errors import RecipeError
from finegrain.models.image_tower import PixelNorm
from finegrain.models.rollout import Rollout
from finegrain.models.transformer import Attended


class ImageTower(Protocol):
    """A tower that embeds pictures, without normalising the embeddings."""

    pixel_norm: PixelNorm

    def __call__(self, pixels: Tensor) -> Tensor:
        """Embed pictures: uint8 ``[N, 3, H, W]`` to ``[N, D]``."""


class TextTower(Protocol):
    """A tower that embeds captions, without normalising the embeddings."""

    def __call__(self, ids: Tensor, eot: Tensor) -> Tensor:
        """Embed captions.

        Args:
            ids: Token ids, int32 ``[N, L]``.
            eot: Position of each end-of-text token, int32 ``[N]``.

        Returns:
            ``[N, D]``.
        """


@runtime_checkable
class TokenTower(ImageTower, Protocol):
    """An image tower that also gives tokens in the joint space."""

    def tokens(self, pixels: Tensor) -> Tensor:
        """Compute all tokens ``[N, 1 + P, D]``: the embedding, then the cells in raster order."""

    def attended(self, pixels: Tensor, rollout: Rollout | None = None) -> Attended:
        """Compute all tokens, and how much the embedding attends to each of them.

        Args:
            pixels: uint8 ``[N, 3, H, W]``.
            rollout: Layers to roll the attention out over; None takes that of the last layer.
        """


class FusionTower(ImageTower, Protocol):
    """An image tower whose tokens are the input of cross-attention."""

    @property
    def token_width(self) -> int:
        """Number of channels of a token, ``V``."""

    def tokens(self, pixels: Tensor) -> Tensor:
        """Compute tokens: uint8 ``[N, 3, H, W]`` to ``[N, T, V]``."""

    def embedding_of(self, tokens: Tensor) -> Tensor:
        """Compute embeddings from tokens: ``[N, T, V]`` to ``[N, D]``."""


def with_tokens(tower: ImageTower, *, reason: str, advice: str) -> TokenTower:
    """Return the tower if it gives tokens.

    Args:
        tower: An image tower.
        reason: Why tokens are needed; the start of the error message.
        advice: What to do if the tower gives none; the end of the error message.

    Raises:
        RecipeError: The tower gives no tokens.
    """
    if not isinstance(tower, TokenTower):
        raise RecipeError(f"{reason}, which a {type(tower).__name__} does not give; {advice}")
    return tower
