"""A token table that holds only the rows that training changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_WORTHWHILE = 0.9
"""Largest share of trained rows for which a smaller table is made."""


class TrainedRows(nn.Module):
    """Looks up tokens in a table without the rows that no caption used.

    Known tokens have the same rows as in the full table. All other tokens share one row of zeros,
    so that a word that was never read adds its position only, and no noise.

    Args:
        table: The full table.
        tokens: Ids of the tokens that were trained.
    """

    def __init__(self, table: nn.Embedding, tokens: Sequence[int]) -> None:
        super().__init__()
        known = torch.tensor(tokens)
        rows = torch.zeros(table.num_embeddings, 1, dtype=torch.int32)
        rows[known, 0] = torch.arange(1, len(known) + 1, dtype=torch.int32)
        self.rows: Tensor
        self.register_buffer("rows", rows)
        trained = table.weight.detach()[known]
        self.weight = nn.Parameter(torch.cat([torch.zeros_like(trained[:1]), trained]))

    def forward(self, ids: Tensor) -> Tensor:
        rows = nn.functional.embedding(ids, self.rows).squeeze(-1)
        return nn.functional.embedding(rows, self.weight)


def keep_trained_rows(tower: object, tokens: Sequence[int]) -> None:
    """Replace the table of a text tower by :class:`TrainedRows`, where that saves much.

    A tower without a ``token_embedding`` stays as it is.
    """
    table = getattr(tower, "token_embedding", None)
    if not isinstance(tower, nn.Module) or not isinstance(table, nn.Embedding):
        return
    known = sorted({*tokens, getattr(tower, "pad_id", 0)})
    if known[-1] < table.num_embeddings and len(known) <= _WORTHWHILE * table.num_embeddings:
        tower.add_module("token_embedding", TrainedRows(table, known))
