from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finegrain.models import ConvConfig, TextConfig, VitConfig
from finegrain.models.token_selection import (
    TokenSelection,
    allowed_patches,
    allowed_words,
    most_attended,
)
from finegrain.models.transformer import Attended


def attended(n, length, seed=0):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.randn(n, length, generator=generator).softmax(dim=1)
    return Attended(torch.randn(n, length, 8, generator=generator), attention)


def literal(selection, attended, allowed, count):
    """Computed for one row and one token at a time."""
    rows = []
    for tokens, attention, may in zip(*attended, allowed, strict=True):
        candidates = [j for j in range(len(tokens)) if may[j]]
        best = sorted(candidates, key=lambda j: -attention[j].item())[:count]
        embedded = []
        for j in best:
            x = (tokens[j] / tokens[j].norm())[None]
            embedded.append(
                selection.fc(x) + selection.out(selection.norm(selection.hidden(x)).relu())
            )
        rows.append(torch.cat(embedded).max(dim=0).values)
    return torch.stack(rows)


@settings(deadline=None, max_examples=25)
@given(
    ends=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    count=st.integers(1, 14),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_the_output_is_the_maximum_over_the_most_attended_words(ends, count, seed):
    torch.manual_seed(seed)
    selection = TokenSelection(8, 6).eval()
    selection.norm.running_mean.normal_()
    shown = attended(len(ends), 10, seed)
    allowed = allowed_words(shown, torch.tensor(ends))
    assert allowed.any(dim=1).all()
    got = selection(shown, allowed, count)
    torch.testing.assert_close(got, literal(selection, shown, allowed, count))


def test_the_end_of_an_empty_caption_is_selected():
    shown = attended(2, 5)
    allowed = allowed_words(shown, torch.tensor([1, 3]))
    assert allowed.nonzero().tolist() == [[0, 1], [1, 1], [1, 2]]
    assert most_attended(shown.attention, allowed, 3)[0].tolist() == [1, 1, 1]


def test_the_class_token_is_never_selected():
    shown = attended(3, 6)
    chosen = most_attended(shown.attention, allowed_patches(shown), 5)
    assert (chosen.sort(dim=1).values == torch.arange(1, 6)).all()


@torch.no_grad()
def test_the_attention_of_a_tower_is_that_of_its_last_block():
    """Compared with torch's attention, averaged over heads; for captions, that of the end token."""
    torch.manual_seed(0)
    image = VitConfig(height=32, width=32, patch=16, channels=16, depth=2, heads=2).build(8).eval()
    text = TextConfig(vocabulary=50, context_length=9, channels=16, depth=2, heads=2).build(8)
    pixels, ids = torch.randint(0, 256, (3, 3, 32, 32)).byte(), torch.randint(1, 50, (3, 9))
    eot = torch.tensor([8, 3, 5])
    for tower, x, at, shown in (
        (image, image._embedded(pixels), torch.zeros(3).long(), image.attended(pixels)),
        (text, text._embedded(ids), eot, text.attended(ids, eot)),
    ):
        first, last = tower.transformer.resblocks
        causal = tower.transformer.causal
        theirs = torch.nn.MultiheadAttention(16, 2, batch_first=True)
        theirs.load_state_dict(last.attn.state_dict())
        x = last.ln_1(first(x, causal=causal))
        mask = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() if causal else None
        _, weights = theirs(x, x, x, attn_mask=mask, need_weights=True)
        torch.testing.assert_close(shown.attention, weights[torch.arange(3), at])
    torch.testing.assert_close(image.attended(pixels).tokens, image.tokens(pixels))
    torch.testing.assert_close(text.attended(ids, eot).tokens, text.tokens(ids))
    assert text.attended(ids, eot).attention[1, 4:].tolist() == [0] * 5


@torch.no_grad()
def test_cells_of_a_conv_tower_are_ranked_by_similarity_to_the_embedding():
    tower = ConvConfig(height=128, width=64).tiny().build(8).eval()
    tokens, attention = tower.attended(torch.randint(0, 256, (2, 3, 64, 32)).byte())
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2))
    products = torch.einsum("nld,nd->nl", tokens, tokens[:, 0])
    assert torch.equal(products.argsort(dim=1), attention.argsort(dim=1))


@pytest.mark.parametrize("training", [True, False])
def test_dropout_of_attention_applies_in_training_only(training):
    torch.manual_seed(0)
    config = TextConfig(vocabulary=9, context_length=6, channels=8, depth=1, heads=2, dropout=0.5)
    tower = config.build(4).train(training)
    ids, eot = torch.randint(1, 9, (2, 6)), torch.tensor([5, 5])
    assert torch.equal(tower(ids, eot), tower(ids, eot)) != training
