"""Recipes: complete descriptions of how a model is trained.

A recipe is a Python file with ``def recipe() -> Recipe``, or the ``recipe.json`` of a run folder.
A variant of a recipe is made by :func:`dataclasses.replace`. ``--set a.b=c`` overrides one field
for one run, and the run's JSON records it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cattrs

from finegrain.data.datasets import Dataset, SyntheticPeople
from finegrain.errors import RecipeError, did_you_mean
from finegrain.methods import MethodConfig
from finegrain.preprocess import Fit, Interpolation
from finegrain.recipe.as_json import CONVERTER, explain
from finegrain.recipe.named_file import find_file, named_files
from finegrain.recipe.python_file import call_in_file
from finegrain.recipe.ranges import check_ranges
from finegrain.rerank import RerankBy

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes to training pictures and their captions.

    Attributes:
        interpolation: The filter that resizes training pictures. None uses
            :attr:`Recipe.interpolation`.
        flip: Probability of mirroring.
        pad: Widest shift, as a share of the picture's height.
        erase: Probability of erasing a rectangle.
        fill: Colour of the rectangle, RGB in 0..255.
        jitter: Largest relative change of brightness and contrast.
        picks: How many operations are drawn from a pool of six, with repetition; see
            :class:`~finegrain.data.augment.Augmentation`.
        drop_words: Probability that a word is dropped from its caption, after text cleaning.
    """

    interpolation: Interpolation | None = None

    flip: float = 0.5
    pad: float = 0.025
    erase: float = 0.5
    fill: tuple[int, int, int] = (123, 117, 104)
    jitter: float = 0.0
    picks: int = 0
    drop_words: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ParameterRule:
    """Learning rate and weight decay of some parameters.

    Attributes:
        names: A shell pattern for names of parameters, such as ``*bias``.
        lr: Factor of the learning rate. None leaves the rate to other rules.
        weight_decay: Replaces the optimiser's weight decay. None leaves it to other rules.
    """

    names: str
    lr: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimiser and its settings.

    Attributes:
        kind: ``adamw`` (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101); ``adam``,
            whose weight decay is an L2 penalty; or ``muon`` (Jordan et al. 2024), which makes the
            step of a matrix or filter orthogonal and trains embeddings, gains and biases with
            AdamW. ``muon`` is for towers that start from random weights. Its learning rate is on
            the scale of AdamW's.
        lr: Peak learning rate.
        betas: Decay rates of the first and the second moment.
        eps: Constant in the denominator of the step.
        eps_uncorrected: Whether ``eps`` is added to the second moment before its bias
            correction, as in TensorFlow 1. ``eps`` then has more effect in the first steps.
        weight_decay: Weight decay of matrices.
        decay_vectors: Whether gains, biases and scalars are decayed like matrices.
        rules: Rules for some parameters. The last rule that names a parameter and states a value
            applies.
        clip_norm: Largest norm of the gradient. None does not clip it.
    """

    kind: Literal["adamw", "adam", "muon"] = "adamw"
    lr: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    eps_uncorrected: bool = False
    weight_decay: float = 0.1
    decay_vectors: bool = False
    rules: tuple[ParameterRule, ...] = ()
    clip_norm: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class Lora:
    """Low-rank updates of the towers' matrices; all else of the towers is frozen.

    Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685. Export adds the updates to the
    matrices, so that a plan costs what it costs without them.

    Attributes:
        rank: Rank of the updates.
        alpha: The updates are multiplied by ``alpha / rank``.
        names: Shell patterns for names of matrices.
    """

    rank: int = 8
    alpha: float = 16.0
    names: tuple[str, ...] = ("*_tower.transformer.*_weight", "*_tower.transformer.*.weight")


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A learning-rate schedule: linear warm-up, then decay to ``final`` of the peak rate.

    Attributes:
        decay: ``cosine`` decays from the end of the warm-up. ``linear`` decays over the whole run
            and is multiplied by the warm-up, which starts from ``initial`` at the first step, as
            in BERT's released code.
        epochs: Number of passes over all items (see :attr:`Recipe.captions`).
        steps: Largest number of optimiser steps. None trains all epochs.
        warmup: Length of the warm-up as a share of the run.
        initial: Rate at the start of the warm-up, as a share of the peak rate.
        from_initial: Whether the first step has the rate ``initial`` and the last step of the
            warm-up has the peak rate. Otherwise the first step is already one step above
            ``initial``. Applies to schedules by step.
        final: Rate at the end of the cosine, as a share of the peak rate.
        same_ends: Whether ``initial`` and ``final`` are shares of the optimiser's rate for every
            parameter, as in timm's schedulers. Otherwise they are shares of each parameter's own
            peak rate.
        hold: Steps at the start of the run that stay at ``initial``.
        by_epoch: Whether the rate changes between epochs only.
        evaluate_every: Epochs between evaluations on the validation split.
        evaluate_first: Whether the starting weights are evaluated as well, to compare with. If
            training improves nothing, they remain the best checkpoint.
        patience: Stop after this number of evaluations without a better rank1 on the validation
            split. None trains to the end.
    """

    decay: Literal["cosine", "linear"] = "cosine"
    epochs: int = 10
    steps: int | None = None
    warmup: float = 0.05
    initial: float = 0.0
    from_initial: bool = False
    final: float = 0.0
    same_ends: bool = False
    hold: int = 0
    by_epoch: bool = False
    evaluate_every: int = 1
    evaluate_first: bool = False
    patience: int | None = None


@dataclass(frozen=True, kw_only=True)
class Expected:
    """Expected metrics of a recipe on the test split, in percent, with their source.

    Attributes:
        rank1, mAP: Metrics as published, or of a run of finegrain.
        rank1_band: Lowest and highest rank1 of published reproductions. None where there are none.
        rerank_k: How many of the first pictures were re-ranked by a match head. None is for
            embeddings alone.
        rerank_by: The order of the re-ranked pictures; see :mod:`finegrain.rerank`.
        source: Where the metrics were published.
    """

    rank1: float
    mAP: float | None = None  # noqa: N815  the field's name for it
    rank1_band: tuple[float, float] | None = None
    rerank_k: int | None = None
    rerank_by: RerankBy | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a training run.

    Attributes:
        name: Name of the recipe and of its run folder.
        about: A description of one line.
        data: The dataset.
        method: Towers and heads.
        weights: Pretrained weights of the towers: a local file, the folder of another run, the
            folder of a published model, or a name that ``finegrain pull`` lists. If ``method`` is
            a plain CLIP, the towers of a published model replace its own. None starts from random
            weights.
        frozen: Shell patterns for names of parameters that keep their values, such as
            ``image_tower.transformer.resblocks.[0-5].*``.
        lora: Low-rank updates instead of training whole matrices. None trains these.
        losses: Name to weight of each loss of the method. Every method also has ``colorize`` and
            ``color_words``; see :mod:`finegrain.methods.color_tasks`.
        fit, interpolation, antialias: How pictures are resized for the image tower; see
            :class:`~finegrain.preprocess.ImageTransform`.
        augment: Random changes to training pictures and captions.
        optimizer, schedule: The optimiser and its learning rate.
        captions: Captions per picture in a step. With 1, every (picture, caption) pair is an
            item, as is usual in the field. With more, an item is a picture with several captions,
            and the picture is encoded once for all of them.
        weak_positives: Above 0, every pair gets a second caption, for methods that treat weak
            positives separately. It is any caption of the same identity with this probability,
            and the pair's own caption otherwise.
        caption_noise: Share of the training captions that are exchanged with one another, to test
            a method with wrong pairs.
        batch_size: Items per optimiser step and process.
        items_per_identity: Above 1, a batch has this number of items of each of its identities;
            see :class:`~finegrain.training.identity_order.IdentityOrder`. With 1, all items are
            shuffled.
        drop_last: Whether the last batch of an epoch is dropped when it is not full.
        accumulate: Number of parts that a batch is split into, to save memory. A contrastive loss
            is computed on one part at a time.
        precision: ``auto`` uses bf16 autocast where the processor supports it.
        workers: Processes that load pictures. 0 loads them in the training process.
        seed: Seed of initial weights, order, captions and augmentation.
        watch_test: Whether the test split is evaluated whenever validation is, so that
            ``finegrain report`` can also show the epoch that was best on test, as papers publish
            it. The test split never selects a checkpoint.
        export_plan: Whether ``finegrain train`` exports the best checkpoint to ``model.plan`` in
            the run folder when it ends.
        evaluation_only: The reason why the recipe cannot be trained, for recipes that describe
            weights for evaluation and export. None allows training.
        expected: Expected metrics on the test split.
    """

    name: str
    about: str
    data: Dataset
    method: MethodConfig
    weights: str | None = None
    frozen: tuple[str, ...] = ()
    lora: Lora | None = None
    losses: Mapping[str, float] = field(default_factory=lambda: {"itc": 1.0})
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    augment: Augment = Augment()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    captions: int = 1
    weak_positives: float = 0.0
    caption_noise: float = 0.0
    batch_size: int = 64
    items_per_identity: int = 1
    drop_last: bool = True
    accumulate: int = 1
    precision: Precision = "auto"
    workers: int = 0
    seed: int = 0
    watch_test: bool = False
    export_plan: bool = False
    evaluation_only: str | None = None
    expected: Expected | None = None

    def __post_init__(self) -> None:
        check_ranges(self)
        if not any(self.losses.values()):
            raise RecipeError(
                f"expected losses with a weight above 0, such as itc=1.0, got {dict(self.losses)}"
            )
        if self.accumulate > 1 and not self.drop_last:
            raise RecipeError(
                f"accumulate {self.accumulate} divides full batches; set drop_last=true, or "
                "accumulate=1"
            )
        if self.weak_positives and self.captions > 1:
            raise RecipeError(
                "weak_positives gives every caption a second one, and does not go with captions "
                f"{self.captions}; set one of them, captions=1 or weak_positives=0"
            )
        if self.batch_size % self.items_per_identity:
            raise RecipeError(
                "expected batch_size to be a multiple of items_per_identity, got "
                f"{self.batch_size} and {self.items_per_identity}"
            )
        if self.batch_size % self.accumulate:
            raise RecipeError(
                f"expected batch_size to be a multiple of accumulate, got {self.batch_size} and "
                f"{self.accumulate}"
            )

    def tiny(self, overrides: Sequence[str] = ()) -> Recipe:
        """The recipe shrunk to synthetic people and seconds on a CPU, with overrides applied."""
        # An override of the epochs removes the limit of steps, which would end them earlier.
        steps = None if any("schedule.epochs" in text for text in overrides) else 10
        shrunk = replace(
            self,
            name=f"{self.name}_tiny",
            data=SyntheticPeople(
                root="data/tiny", train=48, val=8, test=16, pictures_per_identity=3
            ),
            method=self.method.tiny(),
            weights=None,
            batch_size=8 * self.accumulate,
            precision="fp32",
            workers=0,
            schedule=replace(self.schedule, epochs=1, steps=steps, evaluate_every=1),
            expected=None,
        )
        return override(shrunk, overrides)

    def to_dict(self) -> dict[str, Any]:
        unstructured: dict[str, Any] = CONVERTER.unstructure(self, Recipe)
        return unstructured

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1) + "\n"


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe from a Python file, its JSON, or a run folder.

    Args:
        path: A Python file, a ``recipe.json``, or a folder with one; or the name of a recipe in
            the folder ``recipes``, or of one that comes with finegrain, such as
            ``irra_cuhk_pedes``. A Python file is executed, so it must be trusted.
        overrides: Fields to set, such as ``"optimizer.lr=3e-4"``. A value is parsed as JSON, and
            is a string where it is not JSON.

    Raises:
        RecipeError: The file is missing or invalid, or an override names no field.
    """
    file = find_file(Path(path), "recipes")
    if file is not None and file.is_dir():
        file = file / "recipe.json"
    if file is None or not file.is_file():
        raise RecipeError(
            f"there is no recipe at {file or path}; `finegrain recipe list` shows those that have "
            f"a name.{did_you_mean(str(path), _recipes_like(Path(path)))}"
        )
    path = file
    if path.suffix == ".py":
        recipe = call_in_file(path, "recipe", Recipe, RecipeError)
    else:
        recipe = _from_json(path)
    return override(recipe, overrides) if overrides else recipe


def _recipes_like(path: Path) -> list[str]:
    """Names of recipes, and recipes in the folder of a wrong path, to suggest one."""
    return [*named_files("recipes"), *map(str, sorted(path.parent.glob("*.py")))]


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A copy of a recipe with some fields set by ``dotted.name=value``.

    Raises:
        RecipeError: An override names no field, or its value is of another type.
    """
    resolved = recipe.to_dict()
    for text in overrides:
        name, equals, value = text.partition("=")
        if not equals:
            raise RecipeError(f"expected an override such as optimizer.lr=3e-4, got {text!r}")
        _set(resolved, name.strip().split("."), _value(value.strip()), text)
    return recipe_from_dict(resolved, "the recipe with its overrides")


def recipe_from_dict(resolved: Mapping[str, Any], where: str) -> Recipe:
    """The inverse of :meth:`Recipe.to_dict`.

    Raises:
        RecipeError: A field is missing, unknown, or of another type.
    """
    if not isinstance(resolved, Mapping):
        raise RecipeError(f"{where} is wrong: expected an object, got {resolved!r:.60}")
    try:
        return CONVERTER.structure(resolved, Recipe)
    except cattrs.BaseValidationError as error:
        problems = cattrs.transform_error(error, path="recipe", format_exception=explain)
        raise RecipeError(f"{where} is wrong: {'; '.join(problems)}") from error


def difference(a: Recipe, b: Recipe) -> dict[str, tuple[Any, Any]]:
    """Fields that differ between two recipes: dotted name to both values."""
    left, right = _flat(a.to_dict()), _flat(b.to_dict())
    return {
        name: (left.get(name), right.get(name))
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    }


def _from_json(path: Path) -> Recipe:
    try:
        resolved = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path} is not JSON: {error}") from error
    return recipe_from_dict(resolved, str(path))


def _set(resolved: dict[str, Any], names: list[str], value: Any, text: str) -> None:
    inner: Any = resolved
    for place, name in enumerate(names):
        if not isinstance(inner, dict) or name not in inner:
            if isinstance(inner, str) and inner.isidentifier() and inner[0].isupper():
                # The name of a type, as in --set data=Catalog --set data.table=...
                whole = ".".join(names[:place])
                for field in reversed(names[place:]):
                    value = {field: value}
                fields = json.dumps({"type": inner, **value})
                raise RecipeError(
                    f"--set {text}: {whole} is {inner!r} here. Give its type and its fields in one "
                    f"value: --set {whole}='{fields}'"
                )
            known = sorted(inner) if isinstance(inner, dict) else []
            raise RecipeError(
                f"--set {text}: no such field; there are {', '.join(known) or 'none'}."
                f"{did_you_mean(name, known)}"
            )
        if place < len(names) - 1:
            inner = inner[name]
    inner[names[-1]] = value


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        name: inner
        for key, child in value.items()
        for name, inner in _flat(child, f"{prefix}.{key}" if prefix else key).items()
    }
