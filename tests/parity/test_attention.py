"""The optimised towers compared with slow, literal implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from finegrain.models import TextConfig
from finegrain.models.image_tower import CLIP_MEAN, CLIP_STD, PixelNorm
from finegrain.models.transformer import Attention, QuickGELU, ResidualBlock

WIDTH, HEADS, LENGTH = 24, 3, 7


@pytest.fixture
def attention():
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS)
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.eval()


def literal(attention, x, *, causal):
    """Vaswani et al. 2017, equation 1, for one head and one token at a time."""
    width = WIDTH // HEADS
    projected = x @ attention.in_proj_weight.T + attention.in_proj_bias
    out = torch.zeros_like(x)
    for n in range(len(x)):
        for head in range(HEADS):
            q, k, v = (
                projected[n, :, part * WIDTH + head * width :][:, :width] for part in range(3)
            )
            for i in range(LENGTH):
                seen = i + 1 if causal else LENGTH
                scores = torch.tensor([float(q[i] @ k[j]) / math.sqrt(width) for j in range(seen)])
                weights = scores.exp() / scores.exp().sum()
                out[n, i, head * width :][:width] = weights @ v[:seen]
    return out @ attention.out_proj.weight.T + attention.out_proj.bias


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_attention_equals_the_softmax_formula(attention, causal):
    x = torch.randn(2, LENGTH, WIDTH)
    got = attention(x, causal=causal)
    torch.testing.assert_close(got, literal(attention, x, causal=causal), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_attention_equals_torchs(attention, causal):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).eval()
    theirs.load_state_dict(attention.state_dict())
    x = torch.randn(4, LENGTH, WIDTH)
    mask = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1) if causal else None
    expected, _ = theirs(x, x, x, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(attention(x, causal=causal), expected, atol=1e-5, rtol=1e-5)


def test_width_must_divide_into_heads():
    with pytest.raises(ValueError, match="width 24 is not a multiple of the 5 heads"):
        Attention(24, 5)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@torch.no_grad()
def test_block_is_pre_norm_with_two_residuals(activation):
    torch.manual_seed(0)
    block = ResidualBlock(WIDTH, HEADS, activation).eval()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, LENGTH, WIDTH)
    middle = x + literal(block.attn, block.ln_1(x), causal=True)
    hidden = block.mlp.c_fc(block.ln_2(middle))
    gate = torch.sigmoid(1.702 * hidden)
    if activation == "gelu":
        gate = 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
    expected = middle + block.mlp.c_proj(hidden * gate)
    torch.testing.assert_close(block(x, causal=True), expected, atol=1e-5, rtol=1e-5)


def test_quick_gelu_equals_its_formula():
    assert QuickGELU()(torch.tensor(1.0)).item() == pytest.approx(1 / (1 + math.exp(-1.702)))


@pytest.fixture
def text_tower():
    torch.manual_seed(0)
    tower = TextConfig(vocabulary=100, channels=32, depth=3, heads=2).build(embed_dim=16).eval()
    for parameter in tower.parameters():
        nn.init.normal_(parameter, std=0.3)
    return tower


@pytest.fixture
def captions():
    rng = np.random.default_rng(0)
    ids = torch.from_numpy(rng.integers(1, 100, (6, 77), np.int32))
    eot = torch.tensor([1, 2, 5, 9, 14, 14], dtype=torch.int32)
    return ids, eot


@pytest.mark.parametrize("length", [15, 16, 40])
@torch.no_grad()
def test_any_length_that_covers_the_end_gives_the_embedding_of_77(text_tower, captions, length):
    ids, eot = captions
    trimmed = text_tower(ids[:, :length], eot)
    torch.testing.assert_close(trimmed, text_tower(ids, eot), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_ids_after_the_end_are_ignored(text_tower, captions):
    ids, eot = captions
    other = ids.clone()
    for row, end in enumerate(eot):
        other[row, end + 1 :] = 0
    assert torch.equal(text_tower(ids, eot), text_tower(other, eot))
    other[:, 1] = (other[:, 1] + 1) % 100
    changed = (text_tower(ids, eot) - text_tower(other, eot)).abs().amax(dim=1)
    assert (changed > 1e-3).all()


@torch.no_grad()
def test_embedding_is_the_projected_token_at_the_end(text_tower, captions):
    ids, eot = captions
    tokens = text_tower.tokens(ids)
    expected = torch.stack([tokens[row, end] for row, end in enumerate(eot)])
    torch.testing.assert_close(text_tower(ids, eot), expected, atol=1e-6, rtol=1e-5)


def test_pixel_norm_equals_its_formula():
    every_value = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    got = PixelNorm(CLIP_MEAN, CLIP_STD)(every_value)
    for channel in range(3):
        x = every_value[0, channel].double()
        expected = (x / 255 - CLIP_MEAN[channel]) / CLIP_STD[channel]
        torch.testing.assert_close(got[0, channel].double(), expected, atol=1e-6, rtol=1e-6)
