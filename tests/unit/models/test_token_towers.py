"""Image towers with tokens for cross-attention, and the narrow BERT that attends to them."""

from __future__ import annotations

import pytest
import torch

from finegrain.models import ConvConfig
from finegrain.models.albef_image import AlbefImageConfig, ConvImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.models.joint_bert import BertConfig, BertEncoder, initialise, scale_to_width

NET = ConvConfig(height=64, width=32, channels=(8, 16, 16, 32))
TOWERS = {
    "transformer": AlbefImageConfig(height=64, width=32, channels=20, depth=1, heads=2),
    "net": ConvImageConfig(net=NET),
}


@pytest.mark.parametrize("config", TOWERS.values(), ids=TOWERS)
@torch.no_grad()
def test_the_embedding_is_computed_from_the_tokens(config):
    torch.manual_seed(0)
    tower = config.build(24).eval()
    pixels = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    tokens = tower.tokens(pixels)
    assert tokens.shape == (3, 1 + 4 * 2, tower.token_width)
    torch.testing.assert_close(tower.embedding_of(tokens), tower(pixels), atol=1e-5, rtol=1e-5)


def test_a_convolutional_tower_with_tokens_has_the_same_parameters():
    config = TOWERS["net"]
    assert (config.height, config.width) == (64, 32)
    assert config.tiny() == ConvImageConfig(net=NET.tiny())
    assert config.build(24).state_dict().keys() == NET.build(24).state_dict().keys()


def test_a_narrow_encoder_starts_with_larger_weights():
    torch.manual_seed(0)
    text = AlbefTextConfig(vocabulary=49408, channels=192, depth=1, fusion_depth=1, heads=2)
    bert = text.build(8, looked_at=24).bert
    upper = bert.layers[1]
    for linear in (bert.layers[0].mlp_in, upper.query, upper.cross.key, upper.cross.out):
        assert linear.weight.std().item() == pytest.approx(2 * 0.02, rel=0.05)
    assert bert.words.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_at_the_width_of_bert_base_weights_are_not_scaled():
    encoder = BertEncoder(BertConfig(vocabulary=9, positions=4, depth=1)).apply(initialise)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    scale_to_width(encoder, 768)
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
