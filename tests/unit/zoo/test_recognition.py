"""Checkpoints with similar tensor names are distinguished."""

from __future__ import annotations

import pytest
import torch

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.zoo import itself, lpnc
from finegrain.zoo.loading import load_clip_weights
from finegrain.zoo.recognition import recognise

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
        (TRUNK | selection(4096) | ITSELF, "itself"),
        # Trained with its global half only, as its script does.
        (TRUNK | names("classifier_global.weight", "mlp_global.1.bias"), "itself_global"),
        (TRUNK | selection(4096) | LPNC | IRRA_HEADS, "lpnc"),
        (names("image_tower.proj", "text_tower.text_projection"), "ours"),
        (names("text_model.final_layer_norm.weight"), "hf_clip"),
        (names("visual.proj", "transformer.resblocks.0.ln_1.bias"), "openai_clip"),
        (names("visual_encoder.norm.bias", "temp"), "albef"),
        (names("text_encoder.bert.embeddings.LayerNorm.weight"), "albef"),
    ],
)
def test_layouts_are_recognised_by_their_names(state, layout):
    assert recognise(state) == layout


def test_a_wide_selection_without_heads_is_ambiguous(tmp_path):
    state = TRUNK | selection(4096)
    wanted = "a checkpoint of ITSELF or of LPNC, and the heads of its training.* were removed"
    with pytest.raises(WeightsError, match=wanted):
        recognise(state)
    torch.save({"model": {f"module.{n}": t for n, t in state.items()}}, tmp_path / "best.pth")
    clip = ClipConfig(image=VitConfig(), text=TextConfig()).tiny().build()
    with pytest.raises(WeightsError, match=wanted):
        load_clip_weights(clip, tmp_path / "best.pth")


@pytest.mark.parametrize("prefix", itself.TRAINING)
def test_every_head_of_itself_identifies_it(prefix):
    assert recognise(TRUNK | names(f"{prefix}weight")) == "itself_global"
    assert recognise(TRUNK | selection(1024) | names(f"{prefix}weight")) == "itself"


@pytest.mark.parametrize("prefix", lpnc.MARKS)
def test_every_part_of_lpnc_identifies_it(prefix):
    assert recognise(TRUNK | selection(1024) | names(f"{prefix}weight")) == "lpnc"
