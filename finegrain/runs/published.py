"""Published models: from a folder or file as it was published to a method to export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finegrain.methods import TwoTowers
from finegrain.recipe import Recipe
from finegrain.runs.released_recipe import recipe_of
from finegrain.runs.run import assemble
from finegrain.zoo.examination import examine_weights
from finegrain.zoo.files import weight_files
from finegrain.zoo.hub import digest, joint_digest
from finegrain.zoo.loading import load_clip_weights
from finegrain.zoo.recognition import Layout


@dataclass(frozen=True, kw_only=True)
class PublishedModel:
    """A published model with its preprocessing, ready for export.

    Attributes:
        recipe: Towers, tokenizer and preprocessing of the model. It is for evaluation and export
            only: ``recipe.method.text.tokenizer()`` makes the tokenizer, and
            :func:`~finegrain.runs.run.image_transform` the transform of pictures.
        method: The model in evaluation mode.
        layout: The recognised layout of the file.
        file: The weight file, or the index of several.
    """

    recipe: Recipe
    method: TwoTowers
    layout: Layout
    file: Path

    @property
    def sha256(self) -> str:
        """Digest of the weight file, in hexadecimal; of all files, if there are several."""
        return joint_digest(map(digest, weight_files(self.file)))


def read_published(folder: Path, file: str | None = None) -> PublishedModel:
    """Read a published model from its folder, without downloading anything.

    Supported are CLIP of OpenAI, open_clip and Hugging Face; SigLIP and SigLIP 2; MobileCLIP and
    models with XLM-R of open_clip; Chinese-CLIP; and released checkpoints of IRRA and its forks,
    RDE and RaSa. The layout is recognised by the names of the tensors, and the configuration and
    the tokenizer next to them are read.

    Args:
        folder: A folder as it was published, or a weight file.
        file: Name of the weight file in the folder. By default it is recognised by its name.

    Raises:
        WeightsError: The folder has no weight file, or several; a file is damaged; or finegrain
            does not support the model.
        DataError: The tokenizer cannot be read, or is of another model.
        RecipeError: The sizes in the configuration are invalid or too large.
    """
    examined = examine_weights(folder if file is None else folder / file)
    recipe = recipe_of(examined, None, ())
    if examined.described is not None:
        recipe.method.text.tokenizer()  # an error in its file comes before the weights are loaded
    method = assemble(recipe)
    load_clip_weights(method, examined.file, parts=method.search_parts)
    return PublishedModel(
        recipe=recipe, method=method.eval(), layout=examined.layout, file=examined.file
    )
