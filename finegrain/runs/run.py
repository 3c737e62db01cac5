"""From a recipe or a run folder to a model that encodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from finegrain.runs.checkpoint import MODEL, best_checkpoint, last_checkpoint, load_model
from finegrain.data.datasets import Dataset
from finegrain.encoder import Encoder
from finegrain.errors import EvaluationError, WeightsError
from finegrain.methods import TwoTowers
from finegrain.methods.color_tasks import COLOR_TASKS, add_color_tasks
from finegrain.methods.fashionbert import FashionBert
from finegrain.zoo import HEADS, load_clip_weights
from finegrain.plan import Plan
from finegrain.preprocess import ImageTransform
from finegrain.recipe import Recipe, load_recipe, recipe_from_dict
from finegrain.runtime.eager import EagerRuntime


def build_method(recipe: Recipe) -> TwoTowers:
    """The method of a recipe; it is filled with pretrained weights where it names some."""
    method = assemble(recipe)
    if isinstance(method, FashionBert):
        method.load_local_weights()
    if recipe.weights is not None:
        load_clip_weights(method, _weight_file(Path(recipe.weights)), fresh=HEADS)
    return method


def assemble(recipe: Recipe) -> TwoTowers:
    """The method of a recipe with random weights, and the colour tasks that its losses name.

    Raises:
        RecipeError: A loss is unknown, or does not go with the towers.
    """
    tasks = [name for name in recipe.losses if name in COLOR_TASKS]
    method = recipe.method.build([name for name in recipe.losses if name not in tasks])
    if tasks:
        add_color_tasks(method, tasks)
    return method


def _weight_file(path: Path) -> Path:
    """The selected checkpoint, where ``path`` is a run folder.

    Raises:
        WeightsError: There is nothing at ``path``.
    """
    if not path.exists():
        raise WeightsError(
            f"the recipe starts from {path}, which is not there. Put the file there, name another "
            "by --set weights=PATH, or start from random weights by --set weights=null"
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
    """A method in evaluation mode, as an encoder."""
    method.eval()
    runtime = EagerRuntime(method, embed_dim=recipe.method.embed_dim, device=device)
    return Encoder(runtime, recipe.method.text.tokenizer(), image_transform(recipe))


def load_run(folder: Path) -> tuple[Recipe, TwoTowers, Path]:
    """The recipe of a run, its selected weights in evaluation mode, and their checkpoint.

    Raises:
        RecipeError: The folder holds no recipe.
        CheckpointError: It holds no checkpoint, or a damaged one.
    """
    recipe = load_recipe(folder)
    checkpoint = best_checkpoint(folder)
    method = assemble(recipe)
    load_model(checkpoint, method)
    method.eval()
    return recipe, method, checkpoint


def open_model(model: str | Path | Encoder, data: Dataset | None = None) -> tuple[Encoder, Dataset]:
    """The encoder of a run folder or a plan, and what to try it on.

    Args:
        model: A run folder, a plan, or an encoder.
        data: By default the dataset that a run or a plan was trained on.

    Raises:
        PlanError, CheckpointError: The model cannot be read.
        EvaluationError: An encoder came without data.
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
    recipe = recipe_from_dict(plan.manifest.recipe, str(path))
    return Encoder.from_plan(plan), data or recipe.data
