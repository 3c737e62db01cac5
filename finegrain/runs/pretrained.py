"""Published models, by name or by folder, as starting weights of a training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from finegrain.errors import LicenceError, WeightsError
from finegrain.methods import ClipConfig
from finegrain.recipe import Recipe
from finegrain.runs.checkpoint import last_checkpoint
from finegrain.runs.released_recipe import recipe_of
from finegrain.zoo.catalog import KNOWN
from finegrain.zoo.examination import examine_weights
from finegrain.zoo.fetching import fetch
from finegrain.zoo.files import weight_file


def is_published(weights: str) -> bool:
    """Whether the weights of a recipe are the name of a published model.

    A file or folder with that name counts more.
    """
    return any(model.name == weights for model in KNOWN) and not Path(weights).exists()


def published_file(name: str) -> Path:
    """The weight file of a published model, downloaded on first use.

    Raises:
        WeightsError: The model cannot be downloaded, or is published for inference only.
        LicenceError: Its licence is other than MIT, Apache and BSD.
        MissingExtraError: ``huggingface_hub`` is not installed.
    """
    try:
        fetched = fetch(name)
    except LicenceError as error:
        raise LicenceError(
            f"{name} has a licence other than MIT, Apache and BSD. Read its terms; if you may use "
            "it, download its files yourself and give the folder: --set weights=FOLDER"
        ) from error
    if fetched.choice.kind != "torch":
        raise WeightsError(f"{name} is published as ONNX, which cannot be trained")
    return fetched.folder / fetched.choice.weights[0]


def with_published_towers(recipe: Recipe) -> tuple[Recipe, Path | None]:
    """The recipe with the towers of the published model that it starts from.

    The model is given by its name, or by a folder with its files. Only recipes of plain CLIP
    towers change: other methods state the sizes that they were published with. How pictures are
    resized stays as the recipe says. A weight file and the folder of a run do not change the
    recipe.

    Returns:
        The recipe, and the weight file of the published model; None if it starts from none.

    Raises:
        WeightsError, LicenceError, MissingExtraError: See :func:`published_file`.
        DataError: A file of the folder cannot be read.
    """
    if recipe.weights is None:
        return recipe, None
    path = Path(recipe.weights)
    if is_published(recipe.weights):
        file = published_file(recipe.weights)
    elif path.is_dir() and last_checkpoint(path) is None:
        file = weight_file(path)
    else:
        return recipe, None
    if not isinstance(recipe.method, ClipConfig):
        return recipe, file
    published = recipe_of(examine_weights(file), None, ())
    return replace(recipe, method=published.method), file
