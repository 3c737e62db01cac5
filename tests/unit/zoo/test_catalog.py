"""The models that have a name."""

from __future__ import annotations

import open_clip
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from finegrain.cli.parser import main
from finegrain.errors import WeightsError
from finegrain.zoo.catalog import KNOWN, best_models, is_free, known_model


def test_names_are_unique_and_cannot_be_taken_for_repositories():
    names = [model.name for model in KNOWN]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or "@" in name]


def test_repositories_have_an_owner_and_a_name():
    for model in KNOWN:
        for repository in (model.repository, model.onnx):
            assert repository is None or repository.count("/") == 1


def test_a_digest_is_stated_together_with_its_file_and_revision():
    for model in KNOWN:
        if model.sha256 is not None:
            assert model.file is not None
            assert model.revision is not None


def test_the_best_model_of_each_speed_has_a_free_licence():
    best = [known_model(name) for name in best_models()]
    assert sorted(model.speed for model in best) == ["fast", "medium", "slow"]
    for model in best:
        assert is_free(model.licence)
        for other in KNOWN:
            if other.speed == model.speed and other.coco is not None and is_free(other.licence):
                assert model.flickr30k + model.coco >= other.flickr30k + other.coco


@torch.no_grad()
def giga_operations(tower, side):
    """Operations of a picture, as PyTorch counts them; a product and a sum are two.

    The counter leaves out attention that is one fused kernel, so attention is two products here.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        tower.eval()(torch.zeros(1, 3, side, side))
    return counter.get_total_flops() / 1e9


@pytest.mark.slow
@pytest.mark.parametrize("size", ["S0", "B"])
def test_the_operations_of_mobileclip2_are_those_of_open_clip(size):
    tower = open_clip.create_model(f"MobileCLIP2-{size}", pretrained=None).visual
    stated = known_model(f"mobileclip2-{size.lower()}").image_gflops
    assert giga_operations(tower, tower.image_size[0]) == pytest.approx(stated, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "heads"), [("tinyclip-39m", 512, 8), ("chinese-clip-b16", 768, 12)]
)
def test_the_operations_of_vision_transformers_are_those_of_transformers(name, width, heads):
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_hidden_layers=12,
        patch_size=16,
        image_size=224,
        projection_dim=512,
    )
    operations = giga_operations(CLIPVisionModelWithProjection(config), 224)
    assert operations == pytest.approx(known_model(name).image_gflops, rel=1e-3)


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("bsd-3-clause", True),
        ("apple-amlr", False),
        ("cc-by-nc-4.0", False),
        ("MIT AND CC-BY-NC-4.0", False),
        ("other", False),
        ("", False),
    ],
)
def test_free_licences_are_recognised(licence, free):
    assert is_free(licence) is free


def test_a_close_name_is_suggested():
    with pytest.raises(WeightsError, match=r"no model 'clip-vit-b61'. Did you mean 'clip-vit-b16'"):
        known_model("clip-vit-b61")


def test_the_list_has_every_model_and_marks_the_best(capsys):
    assert main(["pull"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for model in KNOWN:
        (line,) = [line for line in lines if f" {model.name} " in line]
        assert line.startswith("*") is (model.name in best_models())
        assert model.licence in line
        assert f"{model.parameters * 4 / 1000:.2f} GB" in line
