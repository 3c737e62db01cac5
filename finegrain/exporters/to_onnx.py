"""ONNX graphs of the towers and of the match head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import OnnxExporterError

from finegrain.errors import ExportError
from finegrain.methods import TwoTowers
from finegrain.methods.match_head import Matcher, from_codes, to_codes

# PyTorch's exporter treats a dimension of 1 as constant, so the example has two items.
EXAMPLE_BATCH, EXAMPLE_LENGTH = 2, 8
MAX_DIM = 1 << 20


M = TypeVar("M")


class _Graph(nn.Module, Generic[M]):
    part: str

    def __init__(self, method: M) -> None:
        super().__init__()
        self.method = method


class _ImageGraph(_Graph[TwoTowers]):
    part = "image tower"

    def forward(self, pixels: Tensor) -> Tensor:
        return self.method.encode_images(pixels)


class _ImageGraphWithTokens(_Graph[Matcher]):
    part = "image tower"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embeddings, tokens = self.method.encode_with_tokens(pixels)
        return embeddings, *to_codes(tokens)


class _MatchGraph(_Graph[Matcher]):
    part = "match head"

    def forward(self, ids: Tensor, eot: Tensor, codes: Tensor, scales: Tensor) -> Sequence[Tensor]:
        output = self.method.match_of(ids, eot, from_codes(codes, scales))
        return [tensor for tensor in output if tensor is not None]


class _TextGraph(_Graph[TwoTowers]):
    part = "text tower"

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        return self.method.encode_texts(ids, eot)


def image_graph(method: TwoTowers, *, height: int, width: int, opset: int) -> bytes:
    """A graph from ``pixels`` uint8 ``[N, 3, H, W]`` to ``embeddings`` float32 ``[N, D]``.

    ``N`` is any number.

    Raises:
        ExportError: The image tower cannot be exported to this opset.
    """
    return _export_image(_ImageGraph(method), height, width, ["embeddings"], opset)


def image_graph_with_tokens(method: Matcher, *, height: int, width: int, opset: int) -> bytes:
    """A graph like :func:`image_graph` that also outputs the tokens for the match head.

    These are ``codes`` int8 ``[N, T, W]`` and ``scales`` float32 ``[N, T]``.

    Raises:
        ExportError: The image tower cannot be exported to this opset.
    """
    return _export_image(
        _ImageGraphWithTokens(method), height, width, ["embeddings", "codes", "scales"], opset
    )


def match_graph(
    method: Matcher, *, tokens: int, width: int, context_length: int, opset: int
) -> bytes:
    """A graph that matches one caption with ``N`` pictures.

    Its inputs are ``ids`` int32 ``[1, L]``, ``eot`` int32 ``[1]``, ``codes`` int8 ``[N, T, W]``
    and ``scales`` float32 ``[N, T]``. Its outputs are ``logits`` and, for methods that have them,
    ``scores``, both float32 ``[N]``; see :class:`~finegrain.methods.match_head.MatchOutput`.

    Raises:
        ExportError: The match head cannot be exported to this opset.
    """
    length = min(EXAMPLE_LENGTH, context_length - 1)
    example = {
        "ids": torch.ones(1, length, dtype=torch.int32),
        "eot": torch.full((1,), length - 1, dtype=torch.int32),
        "codes": torch.ones(EXAMPLE_BATCH, tokens, width, dtype=torch.int8),
        "scales": torch.ones(EXAMPLE_BATCH, tokens),
    }
    batch = torch.export.Dim("batch", min=1, max=MAX_DIM)
    length_dim = torch.export.Dim("tokens", min=2, max=context_length)
    shapes = {"ids": {1: length_dim}, "eot": {}, "codes": {0: batch}, "scales": {0: batch}}
    graph = _MatchGraph(method)
    with torch.no_grad():
        outputs = ["logits", "scores"][: len(graph.eval()(**example))]
    return _export(graph, example, shapes, outputs, opset)


def text_graph(method: TwoTowers, *, context_length: int, opset: int) -> bytes:
    """A graph from ``ids`` int32 ``[N, L]`` and ``eot`` int32 ``[N]`` to ``embeddings`` ``[N, D]``.

    ``N`` is any number, ``L`` any length up to the context, and the embeddings are float32.

    Raises:
        ExportError: The text tower cannot be exported to this opset.
    """
    length = min(EXAMPLE_LENGTH, context_length - 1)
    example = {
        "ids": torch.ones(EXAMPLE_BATCH, length, dtype=torch.int32),
        "eot": torch.full((EXAMPLE_BATCH,), length - 1, dtype=torch.int32),
    }
    batch = torch.export.Dim("batch", min=1, max=MAX_DIM)
    tokens = torch.export.Dim("tokens", min=2, max=context_length)
    shapes = {"ids": {0: batch, 1: tokens}, "eot": {0: batch}}
    return _export(_TextGraph(method), example, shapes, ["embeddings"], opset)


def _export_image(
    graph: _Graph[Any], height: int, width: int, outputs: list[str], opset: int
) -> bytes:
    pixels = torch.zeros(EXAMPLE_BATCH, 3, height, width, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_DIM)
    return _export(graph, {"pixels": pixels}, {"pixels": {0: batch}}, outputs, opset)


def _export(
    graph: _Graph[Any],
    example: dict[str, Tensor],
    shapes: dict[str, dict[int, torch.export.Dim]],
    outputs: list[str],
    opset: int,
) -> bytes:
    with warnings.catch_warnings():
        # ids and eot share the name of their batch dimension on purpose.
        warnings.filterwarnings("ignore", message=".*The axis name: batch will not be used")
        try:
            program = torch.onnx.export(
                graph.eval(),
                kwargs=example,
                input_names=list(example),
                output_names=outputs,
                dynamic_shapes=shapes,
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except OnnxExporterError as error:
            method = type(graph.method).__name__
            raise ExportError(
                f"the {graph.part} of {method} has no export path to ONNX opset {opset}: "
                f"{_first_line(error)}. Its operations must not depend on the values of its "
                "inputs, and ONNX must have each of them."
            ) from error
    assert program is not None  # dynamo=True always returns a program
    return _without_traces(program.model_proto).SerializeToString()


def _first_line(error: BaseException) -> str:
    """The first line of the innermost cause. Outer errors are advice for exporter authors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's metadata, which contains stack traces with paths of this machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        values = [*graph.input, *graph.output, *graph.value_info] if graph is model.graph else []
        initializers = list(model.graph.initializer) if graph is model.graph else []
        for item in [graph, *graph.node, *values, *initializers]:
            del item.metadata_props[:]
            item.doc_string = ""
    return model
