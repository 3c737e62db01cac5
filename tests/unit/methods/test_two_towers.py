"""The statements of every method about itself."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from finegrain.errors import RecipeError
from finegrain.methods import MethodConfig
from finegrain.methods.color_tasks import PART, add_color_tasks
from finegrain.models import ConvConfig, TimmConfig, TokenTower, with_tokens
from finegrain.recipe import load_recipe
from finegrain.runs.run import assemble
from finegrain.zoo.renaming import parts_of

RECIPES = Path(__file__).parents[3] / "recipes"
NAMES = {
    "BertClipConfig": "bert_clip",
    "ClipConfig": "clip",
    "FashionBertConfig": "fashionbert",
    "IrraConfig": "irra",
    "ItselfConfig": "itself",
    "MinedConfig": "mined",
    "RasaConfig": "rasa",
    "RdeConfig": "rde",
    "TbpsClipConfig": "tbps_clip",
}
"""Names that plans store. If one changed, plans would differ from those of earlier versions."""

TOWERS = {"image_tower", "text_tower"}
SEARCH_PARTS = {
    "tbps_clip_cuhk_pedes": {"logit_scale"},
    "fashionbert_synthetic": {"patches", "joint", "match_head"},
    "finegrain_cuhk_pedes": set(),
    "irra_cuhk_pedes": set(),
    "itself_cuhk_pedes": {"image_selection", "text_selection"},
    "rasa_cuhk_pedes": {"temperature", "itm_head", "image_momentum", "text_momentum"},
    "rde_cuhk_pedes": {"image_selection", "text_selection"},
}
"""Parts besides the towers that search needs, in a checkpoint of each recipe."""


def tiny(name, **changes):
    return replace(load_recipe(RECIPES / f"{name}.py").tiny(), **changes)


def test_persisted_names_do_not_change():
    configs = get_args(MethodConfig)
    assert {config.__name__: config.method_name for config in configs} == NAMES
    assert len(set(NAMES.values())) == len(NAMES)


@pytest.mark.parametrize("name", SEARCH_PARTS)
def test_search_needs_the_towers_and_these_parts(name):
    method = assemble(tiny(name))
    assert set(method.search_parts) == TOWERS | SEARCH_PARTS[name]
    assert set(method.pretrained_parts) == set(method.search_parts) - set(method.starts_fresh)
    assert set(method.pretrained_parts) >= TOWERS


@pytest.mark.parametrize("name", SEARCH_PARTS)
def test_search_does_not_read_other_parts(name, monkeypatch):
    """Embeddings are the same without the parts that search does not need."""
    recipe = tiny(name)
    method = assemble(recipe).eval()
    image = recipe.method.image
    pixels = torch.randint(0, 256, (2, 3, image.height, image.width), dtype=torch.uint8)
    words = recipe.method.text.tokenizer().encode(["red coat", "blue bag"])
    caption = torch.from_numpy(words.ids), torch.from_numpy(words.eot)
    with torch.no_grad():
        before = method.encode_images(pixels), method.encode_texts(*caption)
        for tensor_name, tensor in method.state_dict().items():
            if parts_of([tensor_name])[0] not in method.search_parts:
                tensor.fill_(0 if not tensor.is_floating_point() else torch.nan)
        after = method.encode_images(pixels), method.encode_texts(*caption)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_colour_heads_are_for_training_only():
    plain = assemble(tiny("irra_cuhk_pedes"))
    method = assemble(tiny("irra_cuhk_pedes"))
    add_color_tasks(method, ["colorize"])
    assert PART in parts_of(method.state_dict())
    assert method.search_parts == plain.search_parts
    assert (
        PART not in plain.training_only
    )  # the list belongs to one method instance, not to its class


def test_colour_tasks_and_exchanged_colours_work_together():
    """Both have their own colour words."""
    losses = {"swap": 1.0, "colorize": 1.0, "color_words": 1.0, "sdm": 1.0}
    method = assemble(tiny("finegrain_cuhk_pedes", losses=losses))
    assert PART in parts_of(method.state_dict())
    assert PART not in method.search_parts


def test_a_tower_without_tokens_is_refused():
    tower = TimmConfig(model="resnet18", height=64, width=32).build(16)
    assert not isinstance(tower, TokenTower)
    with pytest.raises(RecipeError, match="tokens, which a TimmTower does not give; x"):
        with_tokens(tower, reason="mlm looks at tokens", advice="x")
    conv = ConvConfig().tiny().build(16)
    assert with_tokens(conv, reason="", advice="") is conv
