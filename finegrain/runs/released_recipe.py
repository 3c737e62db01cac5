"""The recipe of a released checkpoint: that of its method, or one for evaluation only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from finegrain.data.datasets import CuhkPedes
from finegrain.errors import WeightsError
from finegrain.methods import (
    BertClipConfig,
    ClipConfig,
    IrraConfig,
    ItselfConfig,
    RasaConfig,
    RdeConfig,
)
from finegrain.methods import itself as itself_method
from finegrain.models import BertTextConfig, TextConfig, VitConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.models.transformer import Activation
from finegrain.preprocess.cleaning import ALBEF_CLEANING
from finegrain.recipe import Recipe, load_recipe
from finegrain.recipe.named_file import shipped_folder
from finegrain.zoo import lpnc
from finegrain.zoo.clip_config import ACTIVATION_ADVICE, ACTIVATION_UNKNOWN, HEAD_WIDTH
from finegrain.zoo.clip_sizes import ClipSizes
from finegrain.zoo.description import Description
from finegrain.zoo.examination import Examined
from finegrain.zoo.recognition import SELECTING, TITLES, Layout

RECIPES = shipped_folder("recipes")
"""Folder of the recipes that come with finegrain."""

OWN = {
    ("irra", "CuhkPedes"): "irra_cuhk_pedes",
    ("irra", "IcfgPedes"): "irra_icfg_pedes",
    ("irra", "RstpReid"): "irra_rstpreid",
    ("rde", "CuhkPedes"): "rde_cuhk_pedes",
    ("rde", "IcfgPedes"): "rde_icfg_pedes",
    ("rde", "RstpReid"): "rde_rstpreid",
    ("itself", "CuhkPedes"): "itself_cuhk_pedes",
    ("itself", "IcfgPedes"): "itself_icfg_pedes",
    ("itself", "RstpReid"): "itself_rstpreid",
    ("albef", "CuhkPedes"): "rasa_cuhk_pedes",
    ("albef", "IcfgPedes"): "rasa_icfg_pedes",
    ("albef", "RstpReid"): "rasa_rstpreid",
}
"""Name of the recipe that reproduces the released training, by layout and dataset."""

_SELECTION: Mapping[Layout, tuple[float, float]] = {
    "rde": (0.3, 0.5),
    "lpnc": (lpnc.RATIO, lpnc.GLOBAL_SHARE),
}
"""Share of the tokens that the released code selects, and share of the global embedding in a
score."""

_ACTIVATIONS = ("method.image.activation", "method.text.activation")
_PRETRAINED = "the file is of a pretrained CLIP, which was trained on other data"
_UNKNOWN_DATASET = (
    "no configuration of the released code says on which dataset and how it was trained (give it "
    "by --config)"
)


def recipe_of(examined: Examined, dataset: str | None, overrides: Sequence[str]) -> Recipe:
    """The base recipe of a converted checkpoint.

    Args:
        examined: The weight file.
        dataset: Class name of the dataset that it was trained on; None if unknown.
        overrides: Fields that the user sets, as ``name=value``; needed for values that are not
            stored in any file.

    Returns:
        The recipe that trained the method, if the dataset is known and the recipe is available.
        Otherwise a recipe with the method only, which states why it is for evaluation only.

    Raises:
        WeightsError: The activation or the number of heads of a CLIP is unknown, or its
            vocabulary is not CLIP's, or the file has finegrain's layout, which does not tell the
            method.
    """
    if examined.layout == "ours":
        raise WeightsError(
            f"{examined.file} has finegrain's own names, which do not tell the method: give the "
            "recipe.json of its run by --recipe, or use the run folder itself"
        )
    if examined.layout in ("openai_clip", "hf_clip"):
        return _clip(examined, overrides)
    if examined.described is not None:
        return _described(examined.described)
    if examined.layout in ("itself_global", "lpnc"):
        why = f"no recipe of finegrain trains {TITLES[examined.layout]}"
        return replace(_person(examined), evaluation_only=why)
    name = OWN.get((examined.layout, dataset or ""))
    if name is not None and (RECIPES / f"{name}.py").is_file():
        return _with_width(load_recipe(RECIPES / f"{name}.py"), examined)
    why = (
        _UNKNOWN_DATASET
        if name is None
        else f"recipes/{name}.py, which trains it, is not part of this installation"
    )
    base = _rasa() if examined.layout == "albef" else _person(examined)
    return replace(base, evaluation_only=why)


def _with_width(recipe: Recipe, examined: Examined) -> Recipe:
    """The recipe with the width of the token selection in the file."""
    if not isinstance(recipe.method, RdeConfig | ItselfConfig) or examined.selected_dim is None:
        return recipe
    return replace(recipe, method=replace(recipe.method, selected_dim=examined.selected_dim))


def _clip(examined: Examined, overrides: Sequence[str]) -> Recipe:
    sizes, known = examined.clip, examined.known
    assert sizes is not None
    stated = {text.partition("=")[0].strip() for text in overrides}
    if known.activation is None and not stated.issuperset(_ACTIVATIONS):
        raise WeightsError(
            f"{ACTIVATION_UNKNOWN} {examined.file} was trained with, and the wrong one "
            f"searches a little worse without an error. {ACTIVATION_ADVICE}"
        )
    if sizes.vocabulary != TextConfig().vocabulary:
        raise WeightsError(
            f"{examined.file} reads {sizes.vocabulary} kinds of tokens, and CLIP's tokenizer "
            f"makes {TextConfig().vocabulary}; finegrain has no tokenizer for this model"
        )
    size = known.size or (
        None if sizes.image.side is None else (sizes.image.side, sizes.image.side)
    )
    if size is None:
        raise WeightsError(
            f"the positions of {examined.file} are not those of a square picture, and no file "
            "states its height and width: give a recipe by --recipe"
        )
    image, text = _towers(
        sizes,
        size,
        image_heads=known.image_heads or _heads(sizes.image.channels, "image", examined, stated),
        text_heads=known.text_heads or _heads(sizes.text.channels, "text", examined, stated),
        activation=known.activation or "quick_gelu",
    )
    if known.mean is not None and known.std is not None:
        image = replace(image, mean=known.mean, std=known.std)
    return Recipe(
        name="clip",
        about="a CLIP",
        data=CuhkPedes(),
        method=ClipConfig(image=image, text=text, embed_dim=sizes.image.embed_dim),
        losses={"itc": 1.0},
        fit=known.fit or "crop",
        interpolation=known.interpolation or "bicubic",
        evaluation_only=_PRETRAINED,
    )


def _described(model: Description) -> Recipe:
    image, text, embed_dim = model.image, model.text, model.embed_dim
    method: ClipConfig | BertClipConfig
    if isinstance(text, BertTextConfig):
        method = BertClipConfig(image=image, text=text, embed_dim=embed_dim)
    else:
        method = ClipConfig(image=image, text=text, embed_dim=embed_dim, sigmoid=model.sigmoid)
    return Recipe(
        name="clip",
        about="a pair of towers like CLIP's",
        data=CuhkPedes(),
        method=method,
        losses={"itc": 1.0},
        fit=model.fit,
        interpolation=model.interpolation,
        evaluation_only=_PRETRAINED,
    )


def _heads(channels: int, side: str, examined: Examined, stated: set[str]) -> int:
    """Number of attention heads of 64 channels, the default if no configuration states it."""
    if channels % HEAD_WIDTH and f"method.{side}.heads" not in stated:
        raise WeightsError(
            f"no file states how many attention heads the {side} tower of {examined.file} has, and "
            f"its width {channels} is not a multiple of {HEAD_WIDTH}: --set method.{side}.heads=N"
        )
    return max(1, channels // HEAD_WIDTH)


def _person(examined: Examined) -> Recipe:
    """The towers of IRRA or one of its forks, with the sizes of the file."""
    layout, sizes = examined.layout, examined.clip
    assert sizes is not None
    size = sizes.image.person_size or (VitConfig().height, VitConfig().width)
    image, text = _towers(
        sizes,
        size,
        image_heads=max(1, sizes.image.channels // HEAD_WIDTH),
        text_heads=max(1, sizes.text.channels // HEAD_WIDTH),
        activation="quick_gelu",
    )
    embed_dim = sizes.image.embed_dim
    method: IrraConfig | RdeConfig | ItselfConfig = IrraConfig(
        image=image, text=text, embed_dim=embed_dim
    )
    losses = {"sdm": 1.0, "id": 1.0, "mlm": 1.0}
    if layout == "itself":
        # Only training uses the rollout, and its layers may not exist in these towers.
        method = ItselfConfig(image=image, text=text, global_dim=embed_dim, rollout=None)
        losses = dict.fromkeys(itself_method.LOSSES, 1.0)
    elif layout in SELECTING:
        ratio, share = _SELECTION[layout]
        method = RdeConfig(
            image=image, text=text, global_dim=embed_dim, ratio=ratio, global_share=share
        )
        losses = {"bge": 1.0, "tse": 1.0}
    base = Recipe(name=layout, about=TITLES[layout], data=CuhkPedes(), method=method, losses=losses)
    return _with_width(base, examined)


def _towers(
    sizes: ClipSizes,
    size: tuple[int, int],
    *,
    image_heads: int,
    text_heads: int,
    activation: Activation,
) -> tuple[VitConfig, TextConfig]:
    """The towers with the sizes of a file, for pictures of ``size`` (height, width)."""
    image = VitConfig(
        height=size[0],
        width=size[1],
        patch=sizes.image.patch,
        channels=sizes.image.channels,
        depth=sizes.image.depth,
        heads=image_heads,
        activation=activation,
    )
    text = TextConfig(
        vocabulary=sizes.vocabulary,
        context_length=sizes.context_length,
        channels=sizes.text.channels,
        depth=sizes.text.depth,
        heads=text_heads,
        activation=activation,
    )
    return image, text


def _rasa() -> Recipe:
    return Recipe(
        name="rasa",
        about="RaSa on ALBEF",
        data=CuhkPedes(),
        method=RasaConfig(
            text=AlbefTextConfig(
                vocabulary_file="weights/bert-base-uncased/vocab.txt", cleaning=ALBEF_CLEANING
            )
        ),
        interpolation="bicubic",
        losses={"cl": 0.5, "pitm": 1.0, "mlm": 1.0, "prd": 0.5, "mrtd": 0.5},
        weak_positives=0.1,
    )
