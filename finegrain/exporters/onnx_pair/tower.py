"""One tower of a published graph: what reads its inputs, and which output is the embedding."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, inliner

from finegrain.errors import ExportError
from finegrain.exporters.onnx_pair.settings import MASK, TYPES

IMAGE_OUTPUTS = ("image_embeds", "image_embedding", "image_features", "embedding")
TEXT_OUTPUTS = ("text_embeds", "text_embedding", "text_features", "embedding")
POOLED = "pooler_output"
"""The embedding of SigLIP, whose towers end with the pooling. CLIP projects it further."""

MIN_OPSET = 11
"""First opset with all operators that wrap a tower."""
MAX_NODES = 200_000

_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tower:
    """A tower as it was published.

    Attributes:
        file: The file it was read from.
        model: The part of the graph that the embedding needs.
        main: Name of the input of pixels or ids.
        others: Names of further inputs: an attention mask or token types.
        output: Name of the output.
        one_by_one: Whether the graph takes a batch of exactly one.
    """

    file: Path
    model: ModelProto
    main: str
    others: tuple[str, ...]
    output: str
    one_by_one: bool

    def element_type(self, name: str) -> int:
        """Element type of an input, such as ``TensorProto.INT64``."""
        return int(self._value(name).type.tensor_type.elem_type)

    @property
    def output_type(self) -> int:
        """Element type of the output."""
        return int(self.model.graph.output[0].type.tensor_type.elem_type)

    def fixed(self, axis: int) -> int | None:
        """Size of an axis of the pixels or ids; None if any size will do."""
        return sizes(self._value(self.main))[axis]

    @property
    def precision(self) -> str:
        """``fp16`` if most of the weights are, else ``fp32``."""
        weights = self.model.graph.initializer
        halves = sum(len(t.raw_data) for t in weights if t.data_type == TensorProto.FLOAT16)
        return "fp16" if halves > sum(len(t.raw_data) for t in weights) / 2 else "fp32"

    def _value(self, name: str) -> ValueInfoProto:
        return next(value for value in self.model.graph.input if value.name == name)


def image_tower(model: ModelProto, file: Path, *, pooled: bool) -> Tower:
    """Take the image tower out of a published graph.

    Args:
        model: The graph; it may have a text tower as well.
        file: Its file, for messages.
        pooled: Whether the output of the pooling is the embedding, as in SigLIP.

    Raises:
        ExportError: The graph is quantised, has operators that are not standard, or not the
            inputs and outputs of an image tower.
    """
    names = (*IMAGE_OUTPUTS, *([POOLED] if pooled else []))
    tower = _tower(model, file, (), names)
    if len(sizes(tower._value(tower.main))) != 4 or tower.fixed(1) not in (3, None):
        raise ExportError(
            f"{file}: expected pixels of shape [N, 3, H, W] as input {tower.main!r}, got "
            f"{sizes(tower._value(tower.main))}"
        )
    if tower.element_type(tower.main) not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise _wrong_type(tower, "float32 or float16, normalised")
    return tower


def text_tower(model: ModelProto, file: Path, *, pooled: bool) -> Tower:
    """Take the text tower out of a published graph; see :func:`image_tower`."""
    names = (*TEXT_OUTPUTS, *([POOLED] if pooled else []))
    tower = _tower(model, file, (MASK, TYPES), names)
    if len(sizes(tower._value(tower.main))) != 2:
        raise ExportError(
            f"{file}: expected ids of shape [N, L] as input {tower.main!r}, got "
            f"{sizes(tower._value(tower.main))}"
        )
    for name in (tower.main, *tower.others):
        if tower.element_type(name) not in (TensorProto.INT32, TensorProto.INT64):
            raise _wrong_type(tower, "int32 or int64")
    return tower


def sizes(value: ValueInfoProto) -> list[int | None]:
    """Sizes of the axes of an input or output; None for an axis of any size."""
    dims = value.type.tensor_type.shape.dim
    return [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims]


def _tower(
    model: ModelProto, file: Path, others: Collection[str], outputs: Collection[str]
) -> Tower:
    opset = _opset(model, file)
    if model.functions:
        model = inliner.inline_local_functions(model)
    _check_operators(model, file)
    output = _embedding(model.graph, file, outputs)
    graph = _needed(model.graph, output)
    names = [value.name for value in graph.input]
    mains = [name for name in names if name not in others]
    if len(mains) != 1:
        raise ExportError(
            f"{file}: output {output!r} is computed from the inputs {', '.join(names) or 'none'}; "
            "expected it to need one tower only: pixels, or ids"
            + (f" with {' and '.join(others)}" if others else "")
            + ". Export each tower to a graph of its own."
        )
    built = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=model.ir_version
    )
    main = next(value for value in graph.input if value.name == mains[0])
    batch = next(iter(sizes(main)), None)
    if batch not in (None, 1):
        raise ExportError(
            f"{file} takes batches of exactly {batch}; expected any batch, or 1. Export it again "
            "with a dynamic batch."
        )
    return Tower(
        file=file,
        model=built,
        main=mains[0],
        others=tuple(name for name in names if name in others),
        output=output,
        one_by_one=batch == 1,
    )


def _opset(model: ModelProto, file: Path) -> int:
    opset = next((o.version for o in model.opset_import if o.domain in _STANDARD), 0)
    if opset < MIN_OPSET:
        raise ExportError(
            f"{file} has opset {opset}; expected {MIN_OPSET} or more. Export the graph again with "
            "a newer opset, such as 18."
        )
    return int(opset)


def _check_operators(model: ModelProto, file: Path) -> None:
    custom, quantised = set(), set()
    for count, node in enumerate(_nodes(model.graph)):
        if count >= MAX_NODES:
            raise ExportError(f"{file} has more than {MAX_NODES} nodes; refused")
        if _is_quantised(node.op_type):
            quantised.add(node.op_type)
        elif node.domain not in _STANDARD:
            custom.add(f"{node.domain}.{node.op_type}")
    if quantised:
        raise ExportError(
            f"{file} is quantised: it has {_some(quantised)}. A plan is made from the graphs in "
            "fp32 or fp16. For an int8 plan, export PyTorch weights with the profile cpu_int8."
        )
    if custom:
        raise ExportError(
            f"{file} has operators that only some runtimes know: {_some(custom)}. Expected the "
            "standard operators of ONNX. Take the graph as it was before it was optimised."
        )


def _is_quantised(operator: str) -> bool:
    return (
        "quantize" in operator.lower()
        or operator.startswith(("QLinear", "QAttention", "QGemm"))
        or operator.endswith(("Integer", "NBits", "IntegerToFloat"))
    )


def _nodes(graph: GraphProto) -> Iterator[NodeProto]:
    """All nodes of a graph and of the graphs inside them."""
    pending = [graph]
    while pending:
        for node in pending.pop().node:
            yield node
            for attribute in node.attribute:
                pending.extend([attribute.g] if attribute.HasField("g") else attribute.graphs)


def _embedding(graph: GraphProto, file: Path, known: Collection[str]) -> str:
    outputs = {value.name: sizes(value) for value in graph.output}
    for name in known:
        if name in outputs:
            return name
    rows = [name for name, dims in outputs.items() if len(dims) == 2]
    if len(outputs) == 1 and rows:
        return rows[0]
    raise ExportError(
        f"{file} has the outputs {_some(outputs)}; expected {' or '.join(known)}, or a single "
        "output [N, D]. Export the graph with the projected embedding as its output."
    )


def _needed(graph: GraphProto, output: str) -> GraphProto:
    """The part of a graph that an output depends on."""
    needed = {output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
            for attribute in node.attribute:
                for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                    needed.update(name for n in _nodes(inner) for name in n.input)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    constants = {tensor.name for tensor in weights}
    return onnx.helper.make_graph(
        list(reversed(nodes)),
        "tower",
        # Old exporters list the weights among the inputs.
        [value for value in graph.input if value.name in needed and value.name not in constants],
        [value for value in graph.output if value.name == output],
        weights,
        sparse_initializer=[s for s in graph.sparse_initializer if s.values.name in needed],
    )


def _wrong_type(tower: Tower, expected: str) -> ExportError:
    got = {
        name: TensorProto.DataType.Name(tower.element_type(name)).lower()
        for name in (tower.main, *tower.others)
    }
    return ExportError(f"{tower.file}: expected inputs of type {expected}, got {got}")


def _some(names: Collection[str]) -> str:
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return (", ".join(sorted(names)[:6]) or "none") + more
