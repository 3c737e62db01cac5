from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from finegrain.models import TextConfig
from finegrain.models.trained_rows import TrainedRows, keep_trained_rows

KNOWN = [3, 7, 49407]


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TextConfig(channels=32, depth=1, heads=2, context_length=8).build(16).eval()


def test_known_tokens_have_the_embedding_of_the_full_table(tower):
    smaller = copy.deepcopy(tower)
    keep_trained_rows(smaller, KNOWN)
    assert smaller.token_embedding.weight.shape == (5, 32)  # with the padding and the shared row
    ids, eot = torch.tensor([[3, 7, 3, 49407], [7, 49407, 0, 0]]), torch.tensor([3, 1])
    assert torch.equal(smaller(ids, eot), tower(ids, eot))


def test_other_tokens_share_a_row_of_zeros(tower):
    rows = TrainedRows(tower.token_embedding, KNOWN)
    ids = torch.tensor([[0, 3], [500, 7]], dtype=torch.int32)
    expected = tower.token_embedding(ids.long())
    expected[:, 0] = 0
    assert torch.equal(rows(ids), expected)


def test_a_table_that_was_mostly_trained_stays(tower):
    nearly_all = copy.deepcopy(tower)
    keep_trained_rows(nearly_all, range(48_000))
    assert isinstance(nearly_all.token_embedding, nn.Embedding)


def test_a_tower_without_such_a_table_stays():
    other = nn.Linear(2, 2)
    keep_trained_rows(other, KNOWN)
    assert dict(other.named_children()) == {}
