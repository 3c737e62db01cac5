"""The file format of SentencePiece, as far as a unigram model needs it.

The fields are those of ``sentencepiece_model.proto`` (https://github.com/google/sentencepiece).
They are declared here, because the generated module inside the ``sentencepiece`` package works only
with the newest protobuf.
"""

from __future__ import annotations

import functools
from typing import Any

from finegrain.errors import require

UNIGRAM = 1
"""Value of ``model_type`` of a unigram model."""

_STRING, _FLOAT, _INT32, _BYTES, _MESSAGE = "STRING", "FLOAT", "INT32", "BYTES", "MESSAGE"
_MESSAGES = {
    "Piece": {"piece": (1, _STRING), "score": (2, _FLOAT)},
    "Trainer": {"model_type": (3, _INT32), "unk_id": (40, _INT32)},
    "Normalizer": {"precompiled_charsmap": (2, _BYTES)},
    "Model": {
        "pieces": (1, "Piece"),
        "trainer_spec": (2, "Trainer"),
        "normalizer_spec": (3, "Normalizer"),
    },
}


def parse_sentence_pieces(data: bytes) -> Any:
    """Parse a ``spiece.model``.

    Returns:
        A message with ``pieces``, ``trainer_spec`` and ``normalizer_spec``.

    Raises:
        MissingExtraError: protobuf is not installed.
        DecodeError: ``data`` is not such a file.
    """
    model = _model_class()()
    model.ParseFromString(data)
    return model


@functools.cache
def _model_class() -> Any:
    require("google.protobuf", "train")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    file = descriptor_pb2.FileDescriptorProto(name="finegrain_pieces.proto", package="finegrain")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message_name, fields in _MESSAGES.items():
        message = file.message_type.add(name=message_name)
        for name, (number, kind) in fields.items():
            is_message = kind in _MESSAGES
            field = message.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if name == "pieces" else kinds.LABEL_OPTIONAL,
                type=kinds.Type.Value(f"TYPE_{_MESSAGE if is_message else kind}"),
            )
            if is_message:
                field.type_name = f".finegrain.{kind}"
            elif name == "model_type":
                field.default_value = str(UNIGRAM)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("finegrain.Model"))
