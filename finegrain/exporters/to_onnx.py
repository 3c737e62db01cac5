"""The towers as ONNX graphs, and the match head of a method that has one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import onnx
import torch
from torch import Tensor, nn
from torch.onnx import OnnxExporterError

from finegrain.errors import ExportError
from finegrain.methods import TwoTowers
from finegrain.methods.match_head import Matcher, from_codes, to_codes

# An example of one would be taken for a constant batch.
EXAMPLE_BATCH, EXAMPLE_LENGTH = 2, 8
MAX_DIM = 1 << 20


class _OfMethod(nn.Module):
    part: str

    def __init__(self, method: TwoTowers) -> None:
        super().__init__()
        self.method = method


class _ImageGraph(_OfMethod):
    part = "image tower"

    def forward(self, pixels: Tensor) -> Tensor:
        return self.method.encode_images(pixels)


class _ImageGraphWithTokens(_OfMethod):
    part = "image tower"

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.method, Matcher)
        embeddings, tokens = self.method.encode_with_tokens(pixels)
        return embeddings, *to_codes(tokens)


class _MatchGraph(_OfMethod):
    part = "match head"

    def forward(self, ids: Tensor, eot: Tensor, codes: Tensor, scales: Tensor) -> Sequence[Tensor]:
        assert isinstance(self.method, Matcher)
        output = self.method.match_of(ids, eot, from_codes(codes, scales))
        return [tensor for tensor in output if tensor is not None]


class _TextGraph(_OfMethod):
    part = "text tower"

    def forward(self, ids: Tensor, eot: Tensor) -> Tensor:
        return self.method.encode_texts(ids, eot)


def image_graph(
    method: TwoTowers, *, height: int, width: int, opset: int, tokens: bool = False
) -> bytes:
    """``pixels`` uint8 ``[N, 3, H, W]`` to ``embeddings`` float32 ``[N, D]``, any ``N``.

    With ``tokens`` also to ``codes`` int8 ``[N, T, W]`` and ``scales`` float32 ``[N, T]``.
    """
    pixels = torch.zeros(EXAMPLE_BATCH, 3, height, width, dtype=torch.uint8)
    batch = torch.export.Dim("batch", min=1, max=MAX_DIM)
    graph = _ImageGraphWithTokens(method) if tokens else _ImageGraph(method)
    outputs = ["embeddings", "codes", "scales"] if tokens else ["embeddings"]
    return _export(graph, {"pixels": pixels}, {"pixels": {0: batch}}, outputs, opset)


def match_graph(
    method: TwoTowers, *, tokens: int, width: int, context_length: int, opset: int
) -> bytes:
    """One caption with ``N`` pictures, to ``logits`` and perhaps ``scores``, float32 ``[N]``.

    They are those of :class:`~finegrain.methods.match_head.MatchOutput`.
    Inputs are ``ids`` int32 ``[1, L]``, ``eot`` int32 ``[1]``, ``codes`` int8 ``[N, T, W]`` and
    ``scales`` float32 ``[N, T]``.
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
    """``ids`` int32 ``[N, L]`` and ``eot`` int32 ``[N]`` to ``embeddings`` float32 ``[N, D]``.

    ``N`` is any number and ``L`` any length up to the context.
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


def _export(
    graph: _OfMethod,
    example: dict[str, Tensor],
    shapes: dict[str, dict[int, torch.export.Dim]],
    outputs: list[str],
    opset: int,
) -> bytes:
    with warnings.catch_warnings():
        # That ids and eot share one name for their batch is meant.
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
                f"{_first_line(error)}. What it does for each input must not depend on the "
                "values in it, and every operation needs an ONNX twin."
            ) from error
    assert program is not None  # with dynamo=True it never is
    return _without_traces(program.model_proto).SerializeToString()


def _first_line(error: BaseException) -> str:
    """The innermost cause: what is around it is advice for authors of exporters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().partition("\n")[0]


def _without_traces(model: onnx.ModelProto) -> onnx.ModelProto:
    """Drop the exporter's notes: they hold stack traces with this machine's paths."""
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
