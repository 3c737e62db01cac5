"""Writing of checkpoints for the released code of IRRA and its forks, which fine-tune CLIP."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import Tensor, nn

from finegrain.errors import WeightsError
from finegrain.models.image_tower import VisionTransformer
from finegrain.zoo.renaming import rename, without_parts


def to_fork(
    title: str, model: nn.Module, theirs_to_ours: Mapping[str, str], without: Collection[str]
) -> dict[str, Tensor]:
    """Rename the tensors of a model to the names of a fork.

    Args:
        title: Name of the fork, for the error message.
        model: A method.
        theirs_to_ours: The fork's table; see :func:`~finegrain.zoo.renaming.rename`.
        without: Parts to leave out.

    Raises:
        WeightsError: The image tower is not a CLIP transformer, or the fork has no such part.
    """
    tower = model.get_submodule("image_tower")
    if not isinstance(tower, VisionTransformer):
        raise WeightsError(
            f"{title}'s layout holds a CLIP vision transformer (VitConfig), and the image tower is "
            f"a {type(tower).__name__}"
        )
    ours_to_theirs = {ours: theirs for theirs, ours in theirs_to_ours.items()}
    return rename(without_parts(without, model.state_dict()), ours_to_theirs)
