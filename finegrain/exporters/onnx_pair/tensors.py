"""Reading of a published graph, with the tensors that are stored in files beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, TensorProto

from finegrain.errors import ExportError

MAX_BYTES = (2 << 30) - (16 << 20)
"""Size limit of a graph with its tensors. A plan holds its graphs as protobuf messages, which must
be smaller than 2 GiB."""


def read_graph(file: Path) -> ModelProto:
    """Read a graph and all its tensors.

    Raises:
        ExportError: The file is not an ONNX graph, is too large, or its tensors are not in files
            of the same folder.
    """
    if file.stat().st_size > MAX_BYTES:
        raise _too_large(file)
    try:
        model = onnx.load_model(file, load_external_data=False)
    except Exception as error:  # protobuf's errors, and protobuf is no dependency of ours
        raise ExportError(f"{file} cannot be read as an ONNX graph: {error}") from error
    if not model.graph.node:
        raise ExportError(f"expected an ONNX graph in {file}, got a file without one")
    total = file.stat().st_size
    for tensor in _tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            data = _external_data(tensor, file, MAX_BYTES - total)
            total += len(data)
            del tensor.external_data[:]
            tensor.ClearField("data_location")
            tensor.raw_data = data
    return model


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """All tensors of a model, also of nested graphs and functions."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph: GraphProto = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        for attribute in nodes.pop().attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                graphs.append(attribute.g)
            yield from attribute.tensors
            graphs.extend(attribute.graphs)


def _external_data(tensor: TensorProto, file: Path, limit: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    source = _beside(file, entries.get("location", ""))
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
    except ValueError as error:
        raise ExportError(f"{file}: tensor {tensor.name!r} states {error}; refused") from error
    size = source.stat().st_size
    if length < 0 and "length" not in entries:
        length = size - offset
    if offset < 0 or length < 0 or offset + length > size:
        raise ExportError(
            f"{file}: tensor {tensor.name!r} is said to be at bytes {offset} to {offset + length} "
            f"of {source.name}, which has {size}. Download the file again."
        )
    if length > limit:
        raise _too_large(file)
    with source.open("rb") as opened:
        opened.seek(offset)
        return opened.read(length)


def _beside(file: Path, location: str) -> Path:
    """The file of that name in the folder of a graph.

    The cache of the Hugging Face hub keeps the content of each file in ``blobs``, beside its
    ``snapshots`` of links. No other link may lead out of the folder.
    """
    if not location or location in (".", "..") or set(location) & set("/\\:\0"):
        raise ExportError(
            f"{file} has tensors in {location!r}; expected the plain name of a file in the same "
            "folder; refused"
        )
    source = file.parent / location
    if not source.is_file():
        raise ExportError(
            f"{file} has tensors in {location}, which is not beside it. Get it from where the "
            "graph comes from."
        )
    target = source.resolve()
    blobs = [p.parent / "blobs" for p in file.absolute().parents if p.name == "snapshots"]
    if target.parent not in (file.parent.resolve(), *(folder.resolve() for folder in blobs)):
        raise ExportError(f"{source} is a link that leads out of its folder; refused")
    return target


def _too_large(file: Path) -> ExportError:
    return ExportError(
        f"{file} has tensors of more than {MAX_BYTES >> 20} MiB, which do not fit a plan. Take a "
        "smaller model, or its graphs in fp16."
    )
