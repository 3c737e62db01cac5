"""Wraps the towers of a published pair to the inputs and outputs of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from finegrain.errors import ExportError
from finegrain.exporters.onnx_pair.settings import MASK, TYPES, Pixels
from finegrain.exporters.onnx_pair.tower import Tower

_TOWER = "tower/"
"""Prefix of all names of the published graph, so that none collides with a name of ours."""


def image_graph(tower: Tower, pixels: Pixels, *, embed_dim: int) -> bytes:
    """A graph from ``pixels`` uint8 ``[N, 3, H, W]`` to ``embeddings`` float32 ``[N, D]``."""
    size = [3, pixels.transform.height, pixels.transform.width]
    scale, offset = pixels.scale_and_offset()
    wrapping = _Wrapping(tower, embed_dim)
    wrapping.constant("scale", scale.reshape(3, 1, 1))
    wrapping.constant("offset", offset.reshape(3, 1, 1))
    wrapping.node("Cast", ["pixels"], "float_pixels", to=TensorProto.FLOAT)
    wrapping.node("Mul", ["float_pixels", "scale"], "scaled")
    wrapping.node("Add", ["scaled", "offset"], "normalised")
    wrapping.feed(tower.main, "normalised", size)
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", *size])]
    return wrapping.graph(inputs)


def text_graph(tower: Tower, *, pad_id: int, pad_to: int | None, embed_dim: int) -> bytes:
    """A graph from ``ids`` int32 ``[N, L]`` and ``eot`` int32 ``[N]`` to ``embeddings`` ``[N, D]``.

    Ids after the end of the text are replaced by the padding of the model. The tower reads the
    position ``eot`` where it would have searched for the end of the text among the ids.

    Args:
        tower: The published tower.
        pad_id: The id of padding.
        pad_to: Length to which captions are padded; None runs the tower at the length ``L``.
        embed_dim: Width of the embeddings, ``D``.
    """
    wrapping = _Wrapping(tower, embed_dim)
    wrapping.constant("zero", np.array(0, np.int32))
    wrapping.constant("one", np.array(1, np.int32))
    wrapping.constant("column", np.array([-1, 1], np.int64))
    wrapping.constant("pad", np.array(pad_id, np.int32))
    wrapping.node("Reshape", ["eot", "column"], "eot_column")
    ids = "ids"
    if pad_to is not None:
        # As many columns of padding as the context is long, of which the first ones are taken.
        wrapping.constant("context", np.array([[pad_id] * pad_to], np.int32))
        wrapping.constant("first", np.array([0], np.int64))
        wrapping.constant("last", np.array([pad_to], np.int64))
        wrapping.constant("axis", np.array([1], np.int64))
        wrapping.node("Mul", ["eot_column", "zero"], "zeros")
        wrapping.node("Add", ["context", "zeros"], "padding")
        wrapping.node("Concat", ["ids", "padding"], "long", axis=1)
        wrapping.node("Slice", ["long", "first", "last", "axis"], "padded")
        ids = "padded"
    wrapping.node("Shape", [ids], "shape")
    wrapping.constant("second", np.array(1, np.int64))
    wrapping.node("Gather", ["shape", "second"], "length")
    wrapping.node("Cast", ["length"], "length_int32", to=TensorProto.INT32)
    wrapping.node("Range", ["zero", "length_int32", "one"], "positions")
    wrapping.node("Greater", ["positions", "eot_column"], "after")
    wrapping.node("Where", ["after", "pad", ids], "text")
    width: list[int | None] = [pad_to]
    wrapping.feed(tower.main, "text", width)
    if MASK in tower.others:
        wrapping.node("Not", ["after"], "before")
        wrapping.node("Cast", ["before"], "mask", to=TensorProto.INT32)
        wrapping.feed(MASK, "mask", width)
    if TYPES in tower.others:
        wrapping.node("Mul", ["text", "zero"], "types")
        wrapping.feed(TYPES, "types", width)
    wrapping.read_end_at("eot")
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT32, ["N", "L"]),
        helper.make_tensor_value_info("eot", TensorProto.INT32, ["N"]),
    ]
    return wrapping.graph(inputs)


class _Wrapping:
    """Collects the nodes around a tower.

    A tower that was exported for a batch of one runs once for each item, in a ``Scan``.
    """

    def __init__(self, tower: Tower, embed_dim: int) -> None:
        self._file = tower.file
        self._opset = tower.model.opset_import[0].version
        self._ir_version = tower.model.ir_version
        self._one_by_one = tower.one_by_one
        self._embed_dim = embed_dim
        self._row_type = tower.output_type
        self._types = {name: tower.element_type(name) for name in (tower.main, *tower.others)}
        # A copy, because a second graph may be made from the tower.
        prefixed = onnx.compose.add_prefix(tower.model, _TOWER)
        self._body: list[NodeProto] = list(prefixed.graph.node)
        self._weights: list[TensorProto] = list(prefixed.graph.initializer)
        self._sparse = list(prefixed.graph.sparse_initializer)
        self._ids = _TOWER + tower.main
        self._output = _TOWER + tower.output
        self._nodes: list[NodeProto] = []
        self._fed: list[tuple[str, str, int, Sequence[int | None]]] = []

    def constant(self, name: str, value: NDArray[Any]) -> None:
        self._weights.append(numpy_helper.from_array(value, name))

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    def feed(self, name: str, value: str, size: Sequence[int | None]) -> None:
        """Feed an input of the tower, in the type of the tower.

        Args:
            name: Input of the tower.
            value: Name of the value, with a batch as its first axis.
            size: Sizes of the other axes.
        """
        cast = f"{name}_cast"
        self.node("Cast", [value], cast, to=self._types[name])
        self._fed.append((_TOWER + name, cast, self._types[name], size))

    def read_end_at(self, eot: str) -> None:
        """Replace the search for the end of the text by the position that is given."""
        searches = _searches_of_ids(self._body, self._ids, {t.name for t in self._weights})
        if not searches:
            return
        for count, search in enumerate(searches):
            keeps = all(a.i for a in search.attribute if a.name == "keepdims")
            shape = f"end_shape_{count}"
            self.constant(shape, np.array([-1, 1] if keeps else [-1], np.int64))
            at = self._body.index(search)
            reshape = helper.make_node("Reshape", [_TOWER + "eot", shape], list(search.output))
            self._body[at] = reshape
        self._types["eot"] = TensorProto.INT64
        self.feed("eot", eot, [])

    def graph(self, inputs: Sequence[ValueInfoProto]) -> bytes:
        """Build the graph, with normalised embeddings as its output."""
        if self._one_by_one:
            self._nodes.append(self._scan())
            rows = "rows"
        else:
            names = {value: name for name, value, *_ in self._fed}
            # The tower reads its inputs under its own names.
            self._nodes += [helper.make_node("Identity", [v], [n]) for v, n in names.items()]
            self._nodes += self._body
            rows = self._output
        self.node("Cast", [rows], "float_rows", to=TensorProto.FLOAT)
        self.node("LpNormalization", ["float_rows"], "embeddings", axis=-1, p=2)
        output = helper.make_tensor_value_info(
            "embeddings", TensorProto.FLOAT, ["N", self._embed_dim]
        )
        graph = helper.make_graph(
            self._nodes, "tower", inputs, [output], self._weights, sparse_initializer=self._sparse
        )
        return _checked(
            helper.make_model(
                graph,
                opset_imports=[helper.make_opsetid("", self._opset)],
                ir_version=self._ir_version,
                producer_name="finegrain",
            ),
            str(self._file),
        )

    def _scan(self) -> NodeProto:
        """Run the tower once for each item of the batch."""
        before, items = [], []
        for name, _, kind, size in self._fed:
            shape = f"{name}_batch_of_one"
            self.constant(shape, np.array([1, *(-1 if s is None else s for s in size)], np.int64))
            before.append(helper.make_node("Reshape", [f"{name}_item", shape], [name]))
            items.append(helper.make_tensor_value_info(f"{name}_item", kind, list(size)))
        self.constant("flat", np.array([-1], np.int64))
        after = helper.make_node("Reshape", [self._output, "flat"], ["row"])
        row = helper.make_tensor_value_info("row", self._row_type, [self._embed_dim])
        body = helper.make_graph([*before, *self._body, after], "one_item", items, [row])
        return helper.make_node(
            "Scan", [v for _, v, *_ in self._fed], ["rows"], body=body, num_scan_inputs=len(items)
        )


def _searches_of_ids(nodes: Sequence[NodeProto], ids: str, weights: set[str]) -> list[NodeProto]:
    """The ``ArgMax`` nodes of a text tower that see nothing but the ids."""
    # Values that depend on the ids, and values that depend at most on their shape.
    from_ids, constant = {ids}, set(weights)
    searches = []
    for node in nodes:
        inputs = {name for name in node.input if name}
        if inputs <= constant or node.op_type == "Shape":
            constant.update(node.output)
        elif inputs <= from_ids | constant and not any(a.HasField("g") for a in node.attribute):
            if node.op_type == "ArgMax" and _axis(node) in (1, -1):
                searches.append(node)
            elif node.op_type in _KEEP_IDS:
                from_ids.update(node.output)
    return searches


_KEEP_IDS = frozenset(
    {"Add", "Cast", "Equal", "Greater", "Identity", "Mul", "Reshape", "Sub", "Where"}
)
"""Operators between the ids and the search for the end of the text, which keep their places. To
look up a token's weights is none of them."""


def _axis(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)


def _checked(model: ModelProto, name: str) -> bytes:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError) as error:
        first_line = str(error).strip().partition("\n")[0]
        raise ExportError(f"{name} is not a valid ONNX graph: {first_line}") from error
    data: bytes = model.SerializeToString()
    return data
