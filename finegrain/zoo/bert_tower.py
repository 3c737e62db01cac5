"""BERT and RoBERTa as the text tower of a published model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from finegrain.errors import WeightsError
from finegrain.zoo import hf_bert

POSITIONS, TYPES = "positions.weight", "types.weight"
HEAD_WIDTH = 64
"""Channels per attention head of all published towers of this kind."""
ROBERTA_OFFSET = 2
"""RoBERTa numbers positions from 2; the rows before are of the padding and unused."""


def convert_bert(state: Mapping[str, Tensor], *, offset: int = 0) -> dict[str, Tensor]:
    """Rename the tensors of a ``BertModel`` or ``XLMRobertaModel`` to those of a text tower.

    Args:
        state: The tensors of the encoder, without a prefix. Its pooler is left out, because it
            is not used.
        offset: Number of the first position.

    Raises:
        WeightsError: A name is unknown.
    """
    used = {name: t for name, t in state.items() if not name.startswith("pooler.")}
    tower = hf_bert.convert(used)
    if POSITIONS in tower:
        tower[POSITIONS] = tower[POSITIONS][offset:]
    if TYPES in tower and len(tower[TYPES]) == 1:  # RoBERTa; the second type is not used
        tower[TYPES] = torch.cat([tower[TYPES], torch.zeros_like(tower[TYPES])])
    return {f"text_tower.bert.{name}": tensor for name, tensor in tower.items()}


def bert_sizes(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes of a text tower from its converted tensors, as fields of a ``BertTextConfig``.

    Raises:
        WeightsError: A tensor is missing or has the wrong number of dimensions.
    """

    def shape(name: str) -> tuple[int, int]:
        tensor = state.get(f"text_tower.bert.{name}")
        if tensor is None or tensor.ndim != 2:
            raise WeightsError(f"expected a BERT with a matrix {name}; the file has none")
        return tensor.shape[0], tensor.shape[1]

    vocabulary, channels = shape("words.weight")
    layers = {n.split(".")[3] for n in state if n.startswith("text_tower.bert.layers.")}
    return {
        "vocabulary": vocabulary,
        "channels": channels,
        "positions": shape(POSITIONS)[0],
        "depth": len(layers),
        "heads": max(1, channels // HEAD_WIDTH),
        "mlp_width": shape("layers.0.mlp_in.weight")[0],
    }
