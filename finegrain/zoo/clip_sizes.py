"""The sizes of a CLIP, derived from the shapes of its tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from finegrain.errors import WeightsError

_BLOCK = "transformer.resblocks."


@dataclass(frozen=True, kw_only=True)
class TowerSizes:
    """Width and number of blocks of a tower."""

    channels: int
    depth: int


@dataclass(frozen=True, kw_only=True)
class ImageSizes(TowerSizes):
    """Sizes of an image tower.

    Attributes:
        patch: Side of a patch, in pixels.
        patches: Number of patches of a picture.
        side: Side of the pictures, in pixels; None if the positions do not form a square.
        embed_dim: Width of an embedding.
    """

    patch: int
    patches: int
    side: int | None
    embed_dim: int

    @property
    def person_size(self) -> tuple[int, int] | None:
        """Height and width of pictures that are three times as high as wide, as of persons.

        None if the number of positions is that of another shape.
        """
        columns = math.isqrt(self.patches // 3)
        is_person = columns > 0 and 3 * columns * columns == self.patches
        return (3 * columns * self.patch, columns * self.patch) if is_person else None


@dataclass(frozen=True, kw_only=True)
class ClipSizes:
    """Sizes of both towers. The tensors do not tell the number of heads and the activation.

    Attributes:
        image, text: Sizes of the towers.
        vocabulary, context_length: Sizes of the text tower, in tokens.
    """

    image: ImageSizes
    text: TowerSizes
    vocabulary: int
    context_length: int


def read_clip_sizes(state: Mapping[str, Tensor]) -> ClipSizes:
    """Read the sizes of a CLIP from a state dict with finegrain's names.

    Raises:
        WeightsError: A tensor is missing or has the wrong number of dimensions.
    """
    image = image_sizes(state)
    vocabulary, text_channels = _shape(state, "text_tower.token_embedding.weight", 2)
    context_length, _ = _shape(state, "text_tower.positional_embedding", 2)
    return ClipSizes(
        image=image,
        text=TowerSizes(channels=text_channels, depth=_depth(state, "text_tower")),
        vocabulary=vocabulary,
        context_length=context_length,
    )


def image_sizes(state: Mapping[str, Tensor]) -> ImageSizes:
    """Read the sizes of CLIP's image tower from a state dict with finegrain's names.

    Raises:
        WeightsError: A tensor is missing or has the wrong number of dimensions.
    """
    channels, _, patch, _ = _shape(state, "image_tower.conv1.weight", 4)
    positions, _ = _shape(state, "image_tower.positional_embedding", 2)
    _, embed_dim = _shape(state, "image_tower.proj", 2)
    side = math.isqrt(max(0, positions - 1))
    is_square = side > 0 and 1 + side * side == positions
    return ImageSizes(
        channels=channels,
        depth=_depth(state, "image_tower"),
        patch=patch,
        patches=positions - 1,
        side=side * patch if is_square else None,
        embed_dim=embed_dim,
    )


def _shape(state: Mapping[str, Tensor], name: str, dims: int) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None or tensor.ndim != dims:
        raise WeightsError(
            f"expected a CLIP of two transformers, with {name} of {dims} dimensions; the file "
            f"has {'no such tensor' if tensor is None else f'shape {tuple(tensor.shape)}'}"
        )
    return tuple(tensor.shape)


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    start = f"{tower}.{_BLOCK}"
    return len({name[len(start) :].split(".")[0] for name in state if name.startswith(start)})
