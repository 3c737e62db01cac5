"""Embeddings equal those of open_clip's models with the same weights."""

from __future__ import annotations

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from finegrain.errors import WeightsError
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD
from finegrain.zoo.loading import load_clip_weights

DIM, SIDE, WORDS, LENGTH = 16, 32, 60, 10
SIZES = {
    "embed_dim": DIM,
    "vision_cfg": {
        "image_size": SIDE,
        "layers": 2,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {
        "context_length": LENGTH,
        "vocab_size": WORDS,
        "width": 24,
        "heads": 2,
        "layers": 2,
    },
}


def theirs(kind=open_clip.model.CLIP, *, quick_gelu=False, **options):
    torch.manual_seed(0)
    model = kind(**SIZES, quick_gelu=quick_gelu, **options).eval()
    with (
        torch.no_grad()
    ):  # no parameter may be 0 or 1, otherwise exchanged tensors would go unnoticed
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def ours(path, activation="gelu"):
    config = ClipConfig(
        image=VitConfig(
            height=SIDE, width=SIDE, patch=8, channels=32, depth=2, heads=2, activation=activation
        ),
        text=TextConfig(
            vocabulary=WORDS,
            context_length=LENGTH,
            channels=24,
            depth=2,
            heads=2,
            activation=activation,
        ),
        embed_dim=DIM,
    )
    method = config.build().eval()
    load_clip_weights(method, path)
    return method


@torch.no_grad()
def assert_equal_embeddings(method, model):
    generator = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (4, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    ids = torch.randint(1, WORDS - 1, (4, LENGTH), generator=generator)
    eot = torch.tensor([3, 5, 9, 7])
    ids[torch.arange(4), eot] = WORDS - 1
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (CLIP_MEAN, CLIP_STD))
    images = F.normalize(model.encode_image((pixels / 255 - mean) / std), dim=-1)
    texts = F.normalize(model.encode_text(ids), dim=-1)
    torch.testing.assert_close(method.encode_images(pixels), images, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.encode_texts(ids.int(), eot.int()), texts, atol=1e-5, rtol=0)
    assert torch.equal(method.logit_scale, model.logit_scale)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.model.CustomTextCLIP])
def test_embeddings_equal_those_of_open_clip(kind, activation, tmp_path):
    model = theirs(kind, quick_gelu=activation == "quick_gelu")
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    assert_equal_embeddings(ours(tmp_path, activation), model)


def test_safetensors_has_priority_over_a_torch_file(tmp_path):
    model = theirs()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_pytorch_model.bin").write_bytes(b"not read")
    assert_equal_embeddings(ours(tmp_path), model)


@pytest.mark.parametrize("kind", [open_clip.model.CLIP, open_clip.model.CustomTextCLIP])
def test_a_logit_bias_and_a_stored_mask_are_ignored(kind, tmp_path):
    model = theirs(kind, init_logit_bias=-10.0)
    prefix = "text." if kind is open_clip.model.CustomTextCLIP else ""
    state = dict(model.state_dict()) | {f"{prefix}attn_mask": torch.zeros(LENGTH, LENGTH)}
    assert "logit_bias" in state
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "epoch_3.pt")
    assert_equal_embeddings(ours(tmp_path / "epoch_3.pt"), model)


def test_a_tower_of_another_kind_is_refused(tmp_path):
    state = {
        "visual.trunk.cls_token": torch.ones(1),
        "text.transformer.shared.weight": torch.ones(1),
    }
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"the weights do not fit the model: .* missing"):
        ours(tmp_path / "model.pt")
