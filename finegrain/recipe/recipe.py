"""Recipes: how a model is trained, as one typed and complete value.

A recipe is a Python file with ``def recipe() -> Recipe``, or the JSON of one as every run
folder holds it. A variant is a :func:`dataclasses.replace` of its parent. ``--set a.b=c``
overrides one field for one run, and the run's JSON records it.
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
from finegrain.recipe.python_file import call_in_file
from finegrain.rerank import RerankBy

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Random changes to training pictures and their captions.

    Attributes:
        interpolation: The filter that training pictures are resized with, where it is another
            than :attr:`Recipe.interpolation`.
        flip: Probability of mirroring.
        pad: Widest shift, as a share of the picture's height, before cropping back.
        erase: Probability of erasing a rectangle.
        fill: Its colour, RGB in 0..255.
        jitter: Largest relative change of brightness and contrast.
        picks: Operations drawn from a pool of six, one after another and each anew; see
            :class:`~finegrain.data.augment.Augmentation`.
        drop_words: Probability of a word to be left out of its caption, once that is cleaned.
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
    """What some parameters are trained with.

    Attributes:
        names: A shell pattern for names of parameters, such as ``*bias``.
        lr: Multiple of the learning rate, where given.
        weight_decay: Instead of the optimiser's, where given.
    """

    names: str
    lr: float | None = None
    weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """An optimiser, and what it trains each parameter with.

    Attributes:
        kind: ``adamw`` (Loshchilov and Hutter 2019); ``adam``, whose decay is an L2 penalty;
            or ``muon`` (Jordan et al. 2024), which makes the step of a matrix or filter
            orthogonal and leaves embeddings, gains and biases to AdamW. Its rate is on the
            scale of AdamW's. For towers that start from random weights.
        eps_uncorrected: Whether ``eps`` is added to the second moment as it is, before the
            correction for its start at 0, as TensorFlow 1 does; it then counts for more in the
            first steps.
        decay_vectors: Whether gains, biases and scalars are decayed like matrices.
        rules: Of those that name a parameter and state a value, the last decides.
        clip_norm: Longest gradient; None leaves it as it is.
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
class Schedule:
    """Linear warm-up, then down to ``final`` of the peak rate.

    Attributes:
        decay: ``cosine`` falls from the end of the warm-up. ``linear`` falls over the whole run
            and the warm-up multiplies it, from ``initial`` itself at the first step, as in
            BERT's released code.
        epochs: Passes over all items (see :attr:`Recipe.captions`).
        steps: Ends earlier when given.
        warmup: Share of the whole that warms up.
        initial: Share of the peak rate that the warm-up starts from.
        from_initial: By steps, whether the first step has ``initial`` itself and the last one of
            the warm-up the peak rate; otherwise the first step is one step up already.
        final: Share of the peak rate that the cosine ends at.
        same_ends: Whether every parameter starts from ``initial`` and ends at ``final`` of the
            optimiser's own rate, whatever its rule multiplies the peak by, as in timm's
            schedulers. Otherwise the shares are of each parameter's own peak.
        hold: Steps at the start of the run that stay at ``initial``.
        by_epoch: Change the rate between epochs only, as the field's older code does.
        evaluate_every: Epochs between evaluations on the validation split.
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


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the recipe reaches on the test split, in percent, and where that is written.

    Attributes:
        rank1, mAP: As published, or of our own run.
        rank1_band: Lowest and highest rank1 of those who ran it again, where they told.
        rerank_k: How many of the first pictures a match head put in order; None for embeddings
            alone.
        rerank_by: What that order is; see :mod:`finegrain.rerank`.
    """

    rank1: float
    mAP: float | None = None  # noqa: N815  the field's name for it
    rank1_band: tuple[float, float] | None = None
    rerank_k: int | None = None
    rerank_by: RerankBy | None = None
    source: str


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides a run.

    Attributes:
        name: Also the name of the run folder.
        about: One line for lists of recipes.
        data: The dataset.
        method: Towers and heads.
        weights: Local file or folder of pretrained weights that the towers start from, or the
            folder of another run.
        losses: Weight of each named loss of the method; ``colorize`` and ``color_words`` go
            with any, see :mod:`finegrain.methods.color_tasks`.
        fit, interpolation, antialias: How a picture is brought to the tower's size, everywhere;
            see :class:`~finegrain.preprocess.ImageTransform`.
        captions: How many captions of a picture go into a step with it. With 1, every
            (picture, caption) pair is an item of its own, as everywhere in the field. With
            more, an item is a picture with so many of its captions: the picture, which costs
            most, is encoded once for all of them.
        weak_positives: Above 0, a pair has a second caption, for methods that tell the two
            apart: with this probability any caption of the same person's pictures, and otherwise
            the pair's own again.
        caption_noise: Share of the training captions that change places with one another, to
            see how a method takes wrong pairs.
        batch_size: Items an optimiser step and process.
        drop_last: Leave out the last batch of an epoch when it is not full.
        accumulate: Parts that a batch is split into, to fit memory. A contrastive loss sees
            one part at a time.
        precision: ``auto`` is bf16 autocast where the processor computes in it.
        workers: Processes that load pictures; 0 loads them in the training process.
        seed: Of initial weights, order, captions and augmentation.
        watch_test: Evaluate the test split too whenever validation is evaluated, so that
            `finegrain report` can also print the epoch that was best on test, which is what
            papers of this line publish. It never selects a checkpoint.
        evaluation_only: Why it cannot be trained, where it only describes weights for evaluation
            and export, as a converted checkpoint's recipe may; training refuses it.
    """

    name: str
    about: str
    data: Dataset
    method: MethodConfig
    weights: str | None = None
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
    drop_last: bool = True
    accumulate: int = 1
    precision: Precision = "auto"
    workers: int = 0
    seed: int = 0
    watch_test: bool = False
    evaluation_only: str | None = None
    expected: Expected | None = None

    def __post_init__(self) -> None:
        if self.accumulate > 1 and not self.drop_last:
            raise RecipeError(
                f"accumulate {self.accumulate} divides full batches; set drop_last=true, or "
                "accumulate=1"
            )
        if self.captions < 1:
            raise RecipeError(f"expected captions of 1 or more, got {self.captions}")
        if not 0 <= self.weak_positives <= 1:
            raise RecipeError(f"expected weak_positives from 0 to 1, got {self.weak_positives}")
        if self.weak_positives and self.captions > 1:
            raise RecipeError(
                "weak_positives gives every caption a second one, and does not go with captions "
                f"{self.captions}; set one of them, captions=1 or weak_positives=0"
            )
        if self.batch_size < 1 or self.accumulate < 1 or self.batch_size % self.accumulate:
            raise RecipeError(
                f"batch_size {self.batch_size} must be a positive multiple of accumulate "
                f"{self.accumulate}"
            )

    def tiny(self, overrides: Sequence[str] = ()) -> Recipe:
        """The same recipe, shrunk to seconds on a CPU and synthetic people, then overridden."""
        # Who sets the epochs means them, so that no limit of steps ends them earlier.
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
        path: ``recipes/x.py``, ``recipe.json``, or a folder that holds one. A Python file
            is executed: load only recipes that you would run.
        overrides: Such as ``"optimizer.lr=3e-4"``; the value is JSON, or else a string.

    Raises:
        RecipeError: The file is missing or wrong, or an override does not fit.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "recipe.json"
    if not path.is_file():
        question = did_you_mean(str(path), _recipes_beside(path))
        raise RecipeError(
            f"there is no recipe at {path}; `finegrain recipe list` shows those here.{question}"
        )
    if path.suffix == ".py":
        recipe = call_in_file(path, "recipe", Recipe, RecipeError)
    else:
        recipe = _from_json(path)
    return override(recipe, overrides) if overrides else recipe


def _recipes_beside(path: Path) -> list[str]:
    """The recipes that somebody may have meant by a path that is wrong."""
    folders = dict.fromkeys((path.parent, Path("recipes")))
    return [str(recipe) for folder in folders for recipe in sorted(folder.glob("*.py"))]


def override(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """A copy with some fields set, each given as ``dotted.name=value``.

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
    """The recipe that :meth:`Recipe.to_dict` was called on.

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
    """The fields that differ, by dotted name, with both values."""
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
