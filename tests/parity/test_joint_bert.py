"""The joint encoder compared with BERT of Hugging Face, and its patch tokens with the formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import BertConfig as TheirConfig
from transformers import BertModel

from finegrain.models.joint_bert import BertConfig, JointBert, PatchEmbedding
from finegrain.zoo.hf_bert import convert

CONFIG = BertConfig(vocabulary=50, positions=20, channels=24, depth=3, heads=4)
PATCHES, FEATURES = 6, 10


@pytest.fixture(scope="module", params=["gelu", "gelu_tanh"])
def activation(request):
    return request.param


@pytest.fixture(scope="module")
def theirs(activation):
    torch.manual_seed(0)
    model = BertModel(
        TheirConfig(
            hidden_act={"gelu": "gelu", "gelu_tanh": "gelu_new"}[activation],
            vocab_size=CONFIG.vocabulary,
            max_position_embeddings=CONFIG.positions,
            hidden_size=CONFIG.channels,
            num_hidden_layers=CONFIG.depth,
            num_attention_heads=CONFIG.heads,
            intermediate_size=4 * CONFIG.channels,
        )
    )
    for parameter in model.parameters():  # biases and gains that are not 0 and 1
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def joint(theirs, activation):
    torch.manual_seed(1)
    config = replace(CONFIG, activation=activation)
    joint = JointBert(config, patches=PATCHES, features=FEATURES)
    joint.bert.load_state_dict(convert(theirs.state_dict()))
    return joint.eval()


@pytest.fixture
def ids():
    return torch.randint(1, CONFIG.vocabulary, (3, 12))


@torch.no_grad()
def test_words_without_patches_equal_the_reference(theirs, joint, ids):
    seen = torch.arange(12) < torch.tensor([12, 5, 1])[:, None]
    expected = theirs(input_ids=ids, attention_mask=seen.long())
    tokens = joint.bert(joint.bert.embed(ids), seen)
    torch.testing.assert_close(tokens[seen], expected.last_hidden_state[seen], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        joint.bert.pool(tokens), expected.pooler_output, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_words_and_patches_equal_the_reference_on_the_same_tokens(theirs, joint, ids):
    """The encoder of the reference gets one sequence of words, padding and patches."""
    features, eot = torch.randn(3, PATCHES, FEATURES), torch.tensor([11, 4, 1])
    x = torch.cat([joint.bert.embed(ids), joint.patch_embedding(features)], dim=1)
    seen = torch.cat([torch.arange(12) <= eot[:, None], torch.ones(3, PATCHES).bool()], dim=1)
    hidden = (1 - seen.float())[:, None, None] * torch.finfo(torch.float32).min
    expected = x
    for layer in theirs.encoder.layer:
        expected = layer(expected, hidden)
        expected = expected[0] if isinstance(expected, tuple) else expected
    tokens = joint(ids, eot, features)
    torch.testing.assert_close(tokens[seen], expected[seen], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_patch_token_is_the_normalised_sum():
    embedding = PatchEmbedding(patches=4, features=5, width=6, dropout=0.1).eval()
    for parameter in embedding.parameters():
        nn.init.normal_(parameter)
    features = torch.randn(2, 4, 5)
    got = embedding(features)
    for n in range(2):
        for p in range(4):
            summed = embedding.projection.weight @ features[n, p]
            summed = summed + embedding.positions.weight[p] + embedding.kind.weight[0]
            centred = summed - summed.mean()
            scaled = centred / (centred.square().mean() + 1e-12).sqrt()
            expected = scaled * embedding.norm.weight + embedding.norm.bias
            torch.testing.assert_close(got[n, p], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing(joint, ids):
    features, eot = torch.randn(3, PATCHES, FEATURES), torch.tensor([7, 4, 2])
    short = joint(ids[:, :8], eot, features)
    long = joint(ids, eot, features)
    torch.testing.assert_close(long[:, 12:], short[:, 8:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(long[:, 0], short[:, 0], atol=1e-5, rtol=1e-5)


def test_the_base_size_has_the_parameters_of_bert_base():
    """Google's uncased model has 109,482,240; the others belong to the patches."""
    with torch.device("meta"):
        joint = JointBert(BertConfig(vocabulary=30522), patches=64, features=2048)
    assert sum(p.numel() for p in joint.bert.parameters()) == 109_482_240
    added = sum(p.numel() for p in joint.patch_embedding.parameters())
    assert added == 2048 * 768 + 64 * 768 + 768 + 2 * 768
