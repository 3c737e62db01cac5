"""Apple's MobileCLIP2 files (.pt) have no configuration beside them; open_clip knows it."""

from __future__ import annotations

import json

import open_clip
import pytest
import torch

from finegrain.errors import WeightsError
from finegrain.models import TextConfig, TimmConfig
from finegrain.zoo.open_clip_towers import MOBILECLIP2, describe
from finegrain.zoo.recognition import recognise


@pytest.mark.parametrize(("stem", "name"), MOBILECLIP2.items())
def test_a_file_is_described_as_with_its_published_configuration(tmp_path, stem, name):
    own = describe(tmp_path / f"{stem}.pt", {})
    pictures = open_clip.get_pretrained_cfg(name, "dfndr2b")
    names = ("mean", "std", "interpolation", "resize_mode")
    published = {
        "model_cfg": open_clip.get_model_config(name),
        "preprocess_cfg": {key: pictures[key] for key in names},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(published))
    assert describe(tmp_path / "open_clip_model.safetensors", {}) == own
    assert isinstance(own.image, TimmConfig)
    assert isinstance(own.text, TextConfig)
    # Stated by Apple: only the text tower of B is causal.
    assert own.text.causal is (stem == "mobileclip2_b")
    assert (own.fit, own.interpolation) == ("crop", "bilinear")


def test_the_smallest_is_what_apple_states(tmp_path):
    described = describe(tmp_path / "mobileclip2_s0.pt", {})
    assert (described.image.model, described.image.height) == ("fastvit_mci0", 256)
    assert (described.image.mean, described.image.std) == ((0, 0, 0), (1, 1, 1))
    assert described.embed_dim == 512


def test_a_file_of_another_name_needs_its_configuration(tmp_path):
    with pytest.raises(WeightsError, match=r"next to it\. .* mobileclip2_s0, .* \(\.pt\)"):
        describe(tmp_path / "model.pt", {})


def test_a_mobileclip_of_2024_is_named_with_the_repository_to_pull():
    with pytest.raises(WeightsError, match="finegrain pull apple/MobileCLIP-S2-OpenCLIP"):
        recognise({"image_encoder.model.patch_embed.0.rbr_conv.0.conv.weight": torch.ones(1)})
