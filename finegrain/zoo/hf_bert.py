"""BERT's weights in the layout of Hugging Face transformers (``BertModel`` and its tasks)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from finegrain.models.joint_bert import Bert
from finegrain.zoo.files import read_state_dict
from finegrain.zoo.renaming import check_fits, rename

_LAYER = {
    "attention.self.query.{}": "query.{}",
    "attention.self.key.{}": "key.{}",
    "attention.self.value.{}": "value.{}",
    "attention.output.dense.{}": "attention_out.{}",
    "attention.output.LayerNorm.{}": "attention_norm.{}",
    "intermediate.dense.{}": "mlp_in.{}",
    "output.dense.{}": "mlp_out.{}",
    "output.LayerNorm.{}": "mlp_norm.{}",
}
THEIRS_TO_OURS = {
    "embeddings.word_embeddings.weight": "words.weight",
    "embeddings.position_embeddings.weight": "positions.weight",
    "embeddings.token_type_embeddings.weight": "types.weight",
    "embeddings.LayerNorm.{}": "norm.{}",
    **{f"encoder.layer.{{}}.{theirs}": f"layers.{{}}.{ours}" for theirs, ours in _LAYER.items()},
    "pooler.dense.{}": "pooler.{}",
}
IGNORE = ("embeddings.position_ids", "cls.{}")
"""Tensors without a counterpart. ``cls`` has BERT's heads for words and for the next sentence."""
_OLD = {"gamma": "weight", "beta": "bias"}
"""Names of normalisation parameters in checkpoints converted from TensorFlow."""
WORDS = "words.weight"


def convert(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of Hugging Face's BERT to finegrain's names.

    Raises:
        WeightsError: A name is unknown.
    """
    return rename({_modern(name): t for name, t in state.items()}, THEIRS_TO_OURS, IGNORE)


def load_bert_weights(bert: Bert, path: Path, *, words: bool = True) -> None:
    """Load a weight file into a BERT, in place.

    Args:
        bert: An encoder with the sizes of the file.
        path: A ``.safetensors``, ``.bin`` or ``.pt`` file.
        words: Also load the word embeddings. Use False if the model has another vocabulary: the
            word embeddings then keep their initial values.

    Raises:
        WeightsError: The file cannot be read, or does not fit.
    """
    own = bert.state_dict()
    unchanged = {} if words else {WORDS: own[WORDS]}
    state = convert(read_state_dict(path)) | unchanged
    check_fits(state, own, advice="Choose the sizes of the file in method.joint.")
    bert.load_state_dict(state)


def _modern(name: str) -> str:
    rest, _, last = name.removeprefix("bert.").rpartition(".")
    return f"{rest}.{_OLD.get(last, last)}"
