"""Detects ONNX graphs that read their tensors from other files.

A tensor of a graph may be stored in a separate file ("external data"). A plan gives its graphs to
the runtime as bytes, so a runtime would look for that file in the working directory. The digests
of the plan do not cover such a file. This module parses just enough of the format
(https://onnx.ai/onnx/repo-docs/IR.html) to detect these tensors, because serving needs the onnx
package for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_FIELDS = 2_000_000
"""Maximum number of fields to parse; the graphs of a ViT-B/16 have about ten thousand."""

# Fields that hold other messages: for each message, field number in onnx.proto -> message.
_NESTED = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14
_EXTERNAL = 1
_VARINT, _EIGHT_BYTES, _MESSAGE, _GROUP, _END_GROUP, _FOUR_BYTES = range(6)


def reads_files(model: bytes) -> bool:
    """Whether a tensor of a graph, or of a nested graph, has its data in another file.

    Args:
        model: A serialised ONNX model. The result is False for other bytes, which no runtime
            loads.

    Raises:
        ValueError: The graph has more than :data:`MAX_FIELDS` fields.
    """
    pending = [(memoryview(model), "model")]
    count = 0
    while pending:
        message, kind = pending.pop()
        for number, value in _fields(message):
            count += 1
            if count > MAX_FIELDS:
                raise ValueError(f"it has more than {MAX_FIELDS} fields")
            if kind == "tensor" and (
                number == _EXTERNAL_DATA or (number, value) == (_DATA_LOCATION, _EXTERNAL)
            ):
                return True
            if isinstance(value, memoryview) and (inner := _NESTED[kind].get(number)) is not None:
                pending.append((value, inner))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message, up to the first damaged field."""
    at = 0
    try:
        while at < len(message):
            key, at = _varint(message, at)
            number, wire = key >> 3, key & 7
            if wire == _VARINT:
                value, at = _varint(message, at)
                yield number, value
            elif wire == _MESSAGE:
                size, at = _varint(message, at)
                if at + size > len(message):
                    return
                yield number, message[at : at + size]
                at += size
            elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
                at += 8 if wire == _EIGHT_BYTES else 4
                yield number, 0
            elif wire in (_GROUP, _END_GROUP):
                yield number, 0  # the fields inside a group follow; no message of ONNX uses groups
            else:
                return
    except IndexError:
        return


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            break
    return value, at
