"""The attention rollout compared with loops over its definition, and with PyTorch's attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finegrain.models.rollout import Rollout
from finegrain.models.transformer import Attention


def literal(matrices, at, discard):
    """One row of the product, for one picture: matrices ``[L, L]``, the lowest first."""
    length = len(matrices[0])
    product = torch.eye(length)
    for matrix in matrices:
        entries = [(matrix[i, j].item(), i, j) for i in range(length) for j in range(length)]
        kept = matrix.clone()
        for _, i, j in sorted(entries)[: int(length * length * discard)]:
            if (i, j) != (0, 0):
                kept[i, j] = 0
        mixed = (kept + torch.eye(length)) / 2
        product = (mixed / mixed.sum(dim=1, keepdim=True)) @ product
    return product[at]


@pytest.mark.parametrize("discard", [0.0, 0.25, 0.9])
def test_rows_equal_the_definition(discard):
    torch.manual_seed(0)
    matrices = [torch.rand(3, 7, 7).softmax(dim=-1) for _ in range(3)]
    matrices[1][0, 0, 0] = 1e-6  # the first entry is kept even if it is the smallest
    at = torch.tensor([0, 3, 6])
    rows = Rollout(layers=(0, 1, 2), discard=discard).rows(matrices, at)
    for n in range(3):
        expected = literal([matrix[n] for matrix in matrices], int(at[n]), discard)
        torch.testing.assert_close(rows[n], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(3))


@pytest.mark.parametrize("causal", [False, True])
def test_the_matrix_equals_that_of_pytorch(causal):
    torch.manual_seed(0)
    ours, theirs = Attention(8, 2), nn.MultiheadAttention(8, 2, batch_first=True)
    nn.init.normal_(theirs.in_proj_bias)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1) if causal else None
    _, expected = theirs(x, x, x, attn_mask=mask)
    matrix = ours.matrix(x, causal=causal)
    torch.testing.assert_close(matrix, expected)
    at = torch.tensor([4, 2])
    torch.testing.assert_close(ours.row(x, at, causal=causal), matrix[torch.arange(2), at])
