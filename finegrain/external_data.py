"""Whether an ONNX graph reads other files.

A tensor of a graph may be in a file beside it. The graph of a plan has come as bytes, so that a
runtime would look in the working directory, for data that the plan's digests say nothing of. What
is read here of the format (https://onnx.ai/onnx/repo-docs/IR.html) is just enough to see such
tensors, as the serving wing does not need the onnx package for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator

MAX_FIELDS = 2_000_000
"""Most fields that are looked at; the graphs of a ViT-B/16 have some ten thousand."""

# Which fields of a message hold which messages, by their numbers in onnx.proto.
_WITHIN = {
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
    """Whether a tensor of a graph, or of a graph within it, says that its data is in a file.

    What is no ONNX graph reads none: no runtime loads it.

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
            if isinstance(value, memoryview) and (inner := _WITHIN[kind].get(number)) is not None:
                pending.append((value, inner))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Numbers and values of the fields of a message, up to where it is damaged."""
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
                yield number, 0  # what is inside comes as fields of its own, of no known message
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
