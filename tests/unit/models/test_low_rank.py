from __future__ import annotations

import torch
from torch import nn

from finegrain.models.low_rank import add_low_rank, merged
from finegrain.models.transformer import Attention


def test_an_update_equals_the_formula_of_the_paper():
    """``W x + (alpha / r) B A x`` (Hu et al. 2021, equation 3)."""
    torch.manual_seed(0)
    layer = nn.Linear(6, 4)
    weight = layer.weight.detach().clone()
    assert add_low_rank(layer, ["weight"], rank=2, alpha=8.0) == ["weight"]
    update = layer.parametrizations.weight[0]
    x = torch.randn(3, 6)
    torch.testing.assert_close(layer(x), x @ weight.T + layer.bias)  # B is zero
    nn.init.normal_(update.up)
    expected = [weight @ row + 8 / 2 * update.up @ (update.down @ row) + layer.bias for row in x]
    torch.testing.assert_close(layer(x), torch.stack(expected))


def test_a_merged_state_gives_the_same_outputs():
    torch.manual_seed(0)
    attention, plain = Attention(8, 2), Attention(8, 2)
    nn.init.normal_(attention.in_proj_weight)
    names = add_low_rank(attention, ["in_proj_weight", "*.weight"], rank=3, alpha=3.0)
    assert names == ["in_proj_weight", "out_proj.weight"]
    for name, parameter in attention.named_parameters():
        if name.endswith(".up"):
            nn.init.normal_(parameter)
    plain.load_state_dict(merged(attention.state_dict()))
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(plain(x, causal=True), attention(x, causal=True))


def test_a_state_without_updates_is_unchanged():
    state = nn.Linear(3, 2).state_dict()
    assert merged(state).keys() == state.keys()
