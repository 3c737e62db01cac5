"""Cross-attention in absorbed form compared with standard cross-attention."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from finegrain.models.fusion_bert import FusionBert, LookAt, words_before
from finegrain.models.joint_bert import BertConfig

CONFIG = BertConfig(vocabulary=40, positions=16, channels=24, depth=2, heads=4)


def randomised(module):
    """Set biases and gains to values other than 0 and 1."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.fixture(scope="module")
def bert():
    torch.manual_seed(0)
    return randomised(FusionBert(CONFIG, fusion_depth=3, looked_at=10)).double()


@settings(max_examples=25, deadline=None)
@given(
    heads=st.sampled_from([1, 2, 4]),
    pictures=st.integers(1, 3),
    length=st.integers(1, 6),
    tokens=st.integers(1, 7),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_absorbed_attention_equals_standard_attention(heads, pictures, length, tokens, seed):
    torch.manual_seed(seed)
    look = randomised(LookAt(8, heads=heads, looked_at=5, dropout=0.1)).double()
    x = torch.randn(pictures, length, 8).double()
    picture = torch.randn(pictures, tokens, 5).double()
    torch.testing.assert_close(look.absorbed(x, picture), look(x, picture))
    shared = look.absorbed(x[:1], picture)
    torch.testing.assert_close(shared, look(x[:1].expand(pictures, -1, -1), picture))


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("depth", [1, 3])
def test_fusing_one_caption_equals_fusing_its_copies(depth, padding):
    torch.manual_seed(depth)
    bert = randomised(FusionBert(CONFIG, fusion_depth=depth, looked_at=10)).double()
    ids = torch.randint(0, 40, (1, 6 + padding))
    seen = words_before(torch.tensor([6]), 6 + padding)
    tokens = torch.randn(4, 7, 10).double()
    one = bert.fuse_one(bert.read(ids, seen), seen, tokens)
    copies = bert.read(ids.expand(4, -1), seen.expand(4, -1))
    plain = bert.fuse(copies, seen.expand(4, -1), tokens)
    torch.testing.assert_close(one, plain[:, 0])
    own_length = seen[:, :6]
    exact = bert.fuse_one(bert.read(ids[:, :6], own_length), own_length, tokens)
    torch.testing.assert_close(exact, one)


@torch.no_grad()
def test_words_attend_to_their_own_picture(bert):
    seen = words_before(torch.tensor([5]), 5)
    words = bert.read(torch.arange(5)[None], seen)
    tokens = torch.randn(3, 7, 10).double()
    together = bert.fuse_one(words, seen, tokens)
    for one in range(3):
        alone = bert.fuse_one(words, seen, tokens[one : one + 1])
        torch.testing.assert_close(alone[0], together[one])


def counted(compute):
    """Number of multiply-accumulate operations."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        compute()
    return counter.get_total_flops() / 2


def test_the_absorbed_form_needs_fewer_operations_in_bert_base():
    """At 384x384 in patches of 16, and a caption of twenty words."""
    pictures, length, patches, width, heads = 2, 20, 577, 768, 12
    with torch.device("meta"):
        look = LookAt(width, heads=heads, looked_at=width, dropout=0.0)
        x = torch.empty(pictures, length, width)
        tokens = torch.empty(pictures, patches, width)
    plain, absorbed = counted(lambda: look(x, tokens)), counted(lambda: look.absorbed(x, tokens))
    own = 2 * length * width**2  # queries and output
    expected = 2 * patches * width**2 + 2 * length * patches * width
    assert plain == pictures * (own + expected)
    assert absorbed == pictures * (
        own + 2 * length * heads * patches * width + 2 * length * width**2
    )
    assert plain / absorbed == pytest.approx(2.78, abs=0.01)


def test_a_pair_takes_the_stated_number_of_operations_in_bert_base():
    """In all upper layers: 2.0 instead of 5.2 thousand million multiplications."""
    config = BertConfig(depth=0)
    pictures, length = 64, 20
    with torch.device("meta"):
        bert = FusionBert(config, fusion_depth=6, looked_at=768).eval()
        tokens = torch.empty(pictures, 577, 768)
        one = torch.empty(1, length, 768)
        seen = torch.empty(1, length, dtype=torch.bool)
    many, all_seen = one.expand(pictures, -1, -1), seen.expand(pictures, -1)
    plain = counted(lambda: bert.fuse(many, all_seen, tokens)) / pictures
    absorbed = counted(lambda: bert.fuse_one(one, seen, tokens)) / pictures
    assert plain / 1e9 == pytest.approx(5.18, abs=0.01)
    assert absorbed / 1e9 == pytest.approx(2.01, abs=0.01)
