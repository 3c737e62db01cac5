"""Building a model from a recipe, and loading it from a run folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from finegrain.data.datasets import Dataset
from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, WeightsError
from finegrain.methods import TwoTowers
from finegrain.methods.color_tasks import COLOR_TASKS, add_color_tasks
from finegrain.plan import Plan
from finegrain.preprocess import ImageTransform
from finegrain.recipe import Recipe, load_recipe, recipe_from_dict
from finegrain.runs.checkpoint import MODEL, best_checkpoint, last_checkpoint, load_model
from finegrain.runs.model_size import check_model_size
from finegrain.runs.pretrained import is_published, published_file
from finegrain.runtime.eager import EagerRuntime
from finegrain.zoo.loading import load_clip_weights


def build_method(recipe: Recipe, file: Path | None = None) -> TwoTowers:
    """Build the method of a recipe and load the pretrained weights that it names.

    Args:
        recipe: The recipe.
        file: The weight file that its ``weights`` name, where the caller has looked it up.

    Raises:
        RecipeError: A loss is unknown, or does not fit the towers.
        WeightsError: The weights are missing, damaged, or do not fit.
    """
    method = assemble(recipe)
    method.load_other_weights()
    if recipe.weights is not None:
        file = file or _weight_file(recipe.weights)
        load_clip_weights(method, file, parts=method.pretrained_parts)
    return method


def assemble(recipe: Recipe) -> TwoTowers:
    """Build the method of a recipe, with its colour tasks if any, with random weights.

    Raises:
        RecipeError: A loss is unknown, or does not fit the towers; or the sizes of the method are
            invalid.
    """
    tasks = [name for name in recipe.losses if name in COLOR_TASKS]
    others = [name for name in recipe.losses if name not in tasks]
    check_model_size(lambda: recipe.method.build(others))
    method = recipe.method.build(others)
    if tasks:
        add_color_tasks(method, tasks)
    return method


def _weight_file(weights: str) -> Path:
    """The weight file of a published model or of a run's best checkpoint, else the path itself.

    Raises:
        WeightsError: ``weights`` does not exist.
    """
    if is_published(weights):
        return published_file(weights)
    path = Path(weights)
    if not path.exists():
        raise WeightsError(
            f"the recipe starts from {path}, which does not exist. Put the file there, name "
            "another by --set weights=PATH, name a model that `finegrain pull` lists, or start "
            "from random weights by --set weights=null"
        )
    return best_checkpoint(path) / MODEL if last_checkpoint(path) else path


def image_transform(recipe: Recipe) -> ImageTransform:
    """How a picture is resized for evaluation, export and search."""
    image = recipe.method.image
    return ImageTransform(
        height=image.height,
        width=image.width,
        fit=recipe.fit,
        interpolation=recipe.interpolation,
        antialias=recipe.antialias,
    )


def training_transform(recipe: Recipe) -> ImageTransform:
    """How a picture is resized for training."""
    interpolation = recipe.augment.interpolation or recipe.interpolation
    return replace(image_transform(recipe), interpolation=interpolation)


def eager_encoder(recipe: Recipe, method: TwoTowers, device: torch.device) -> Encoder:
    """Wrap a method as an encoder; the method is set to evaluation mode."""
    method.eval()
    runtime = EagerRuntime(method, embed_dim=recipe.method.embed_dim, device=device)
    return Encoder(runtime, recipe.method.text.tokenizer(), image_transform(recipe))


def load_run(folder: Path) -> tuple[Recipe, TwoTowers, Path]:
    """Load the recipe of a run and its best checkpoint.

    Returns:
        The recipe, the method in evaluation mode, and the folder of the checkpoint.

    Raises:
        RecipeError: The folder has no recipe.
        CheckpointError: The folder has no checkpoint, or a damaged one.
    """
    recipe = load_recipe(folder)
    checkpoint = best_checkpoint(folder)
    method = assemble(recipe)
    load_model(checkpoint, method, merge=True)
    method.eval()
    return recipe, method, checkpoint


def recipe_of_model(model: str | Path) -> Recipe:
    """The recipe of a run folder or a plan.

    Raises:
        RecipeError: The folder has no recipe.
        PlanError: The plan cannot be read.
        EvaluationError: The plan was made from published graphs, without a recipe.
    """
    path = Path(model)
    if path.is_dir():
        return load_recipe(path)
    recipe = Plan(path).manifest.recipe
    if not recipe:
        raise EvaluationError(f"expected a plan with a recipe; {path} is of published graphs")
    return recipe_from_dict(recipe, str(path))


def open_model(model: str | Path | Encoder, data: Dataset | None = None) -> tuple[Encoder, Dataset]:
    """Open the encoder of a run folder or a plan, and choose its dataset.

    Args:
        model: A run folder, a plan, or an encoder.
        data: The dataset; by default the one that the run or the plan was trained on.

    Returns:
        The encoder and the dataset.

    Raises:
        PlanError, CheckpointError: The model cannot be read.
        EvaluationError: ``data`` is None, and ``model`` is an encoder or a plan without a recipe.
    """
    if isinstance(model, Encoder):
        if data is None:
            raise EvaluationError("an encoder does not know its dataset; give one by data=")
        return model, data
    path = Path(model)
    if path.is_dir():
        recipe, method, _ = load_run(path)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return eager_encoder(recipe, method.to(device), device), data or recipe.data
    plan = Plan(path)
    if data is None and not plan.manifest.recipe:
        raise EvaluationError(
            f"{path} was made from published graphs, so no dataset belongs to it; give one by "
            "--data NAME or --recipe FILE"
        )
    dataset = data or recipe_from_dict(plan.manifest.recipe, str(path)).data
    return Encoder.from_plan(plan), dataset
