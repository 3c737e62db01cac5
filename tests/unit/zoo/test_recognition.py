"""Checkpoints whose names begin alike are told apart, and named where they cannot be read."""

from __future__ import annotations

import pytest
import torch

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.zoo.loading import load_clip_weights
from finegrain.zoo.recognition import UNREADABLE, recognise

TRUNK = {"base_model.visual.proj": torch.ones(1), "base_model.ln_final.weight": torch.ones(1)}


def selection(width):
    return {
        "visul_emb_layer.fc.weight": torch.ones(width, 2),
        "texual_emb_layer.linear.weight": torch.ones(width, 2),
    }


def names(*heads):
    return {name: torch.ones(1) for name in heads}


ITSELF = names("classifier_grab.weight", "mlp_global.0.weight", "classifier_id_global.bias")
LPNC = names("prompt_learner.token_prefix", "W", "text_encoder.ln_final.weight", "mlp_tse.0.bias")
IRRA_HEADS = names("classifier.weight", "cross_attn.in_proj_weight", "mlm_head.fc.weight")


@pytest.mark.parametrize(
    ("state", "layout"),
    [
        (TRUNK, "irra"),
        (TRUNK | IRRA_HEADS, "irra"),
        (TRUNK | selection(1024), "rde"),
        (TRUNK | selection(512), "rde"),
        (names("image_tower.proj", "text_tower.text_projection"), "ours"),
        (names("text_model.final_layer_norm.weight"), "hf_clip"),
        (names("visual.proj", "transformer.resblocks.0.ln_1.bias"), "openai_clip"),
        (names("visual_encoder.norm.bias", "temp"), "albef"),
        (names("text_encoder.bert.embeddings.LayerNorm.weight"), "albef"),
    ],
)
def test_layouts_are_told_by_their_names(state, layout):
    assert recognise(state) == layout


@pytest.mark.parametrize(
    ("state", "method"),
    [
        (TRUNK | selection(4096) | ITSELF, r"ITSELF \(WACV 2026\)"),
        # Trained with its global half alone, as its script does.
        (TRUNK | names("classifier_global.weight", "mlp_global.1.bias"), r"ITSELF \(WACV 2026\)"),
        (TRUNK | selection(4096) | LPNC | IRRA_HEADS, r"LPNC \(TIFS 2025\)"),
        # Without the heads of training either is as wide.
        (TRUNK | selection(4096), r"ITSELF \(WACV 2026\) or LPNC \(TIFS 2025\)"),
    ],
)
def test_what_cannot_be_read_is_named(state, method, tmp_path):
    wanted = f"this is a checkpoint of {method}, which finegrain cannot read yet"
    with pytest.raises(WeightsError, match=wanted):
        recognise(state)
    torch.save({"model": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "best.pth")
    clip = ClipConfig(image=VitConfig(), text=TextConfig()).tiny().build()
    with pytest.raises(WeightsError, match=wanted):
        load_clip_weights(clip, tmp_path / "best.pth")


@pytest.mark.parametrize("method", UNREADABLE)
def test_every_prefix_gives_its_method_away(method):
    for prefix in UNREADABLE[method]:
        with pytest.raises(WeightsError, match=method.split()[0]):
            recognise(TRUNK | names(f"{prefix}weight"))
