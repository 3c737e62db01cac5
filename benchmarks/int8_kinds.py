"""Formats of weights on a CPU: quality and speed of each.

    finegrain train recipes/tiny_synthetic.py -o runs/tiny
    python benchmarks/int8_kinds.py runs/tiny --results benchmarks/results/int8_kinds.json

Quality is measured on a trained run: each format is compared with the fp32 graphs, as an export
does. Speed is measured on three layers of ViT-B/16's towers with random weights, in CPU seconds of
one thread. It is the minimum over several rounds in which the formats take turns. The file has one
entry for each type of processor. On an Intel processor, ``make build/older_processor.so`` makes a
library that hides newer instructions:

    FINEGRAIN_PROCESSOR=avx2 LD_PRELOAD=build/older_processor.so python benchmarks/int8_kinds.py ...
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from tabulate import tabulate

from finegrain.encoder import Encoder
from finegrain.exporters import ExportProfile, Int8, export
from finegrain.exporters.int8 import quantise
from finegrain.exporters.parity import compare
from finegrain.exporters.precision import Batches, Fp32, Precision
from finegrain.exporters.to_onnx import image_graph, text_graph
from finegrain.methods import ClipConfig
from finegrain.models import TextConfig, VitConfig
from finegrain.plan import IMAGE, TEXT, TOKENIZER, Plan, write_plan
from finegrain.runs.run import load_run
from finegrain.runtime.instructions import this_processor

ROUNDS = {TEXT: 15, IMAGE: 3}
COMPARED = 120
"""Number of pictures, with their captions, on which the quality is measured."""
DEPTH = 3
"""Number of timed layers; ViT-B/16 has 12 equal ones."""
WORDS = 6
PICTURES = 2
BLOCK = 32
REPORTED = ("text_cosine", "image_cosine", "top10_overlap", "rank1_agreement", "rank1", "mAP")
Graphs = Mapping[str, bytes]


@dataclass(frozen=True)
class EightBits:
    """Signed weights that use all eight bits; products saturate without VNNI."""

    name: str = "8 bits"
    min_cosine: float = -1

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        return _lowered(graph, limit=127)


@dataclass(frozen=True)
class SevenBits:
    """Signed weights of at most 64."""

    name: str = "7 bits"
    min_cosine: float = -1

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        return _lowered(graph, limit=64)


@dataclass(frozen=True)
class Unsigned:
    """The weights of :class:`EightBits` as unsigned bytes around 128."""

    name: str = "8 bits unsigned"
    min_cosine: float = -1

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        model = onnx.load_model_from_string(_lowered(graph, limit=127))
        products = [node for node in model.graph.node if node.op_type == "MatMulInteger"]
        read = {node.input[1] for node in products}
        for weight in model.graph.initializer:
            if weight.name in read:
                moved = (numpy_helper.to_array(weight).astype(np.int16) + 128).astype(np.uint8)
                weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
        model.graph.initializer.append(numpy_helper.from_array(np.uint8(128), "middle"))
        for node in products:
            node.input.append("middle")
        return _bytes(model)


@dataclass(frozen=True)
class FourBits:
    """Blocks of 4-bit weights with one scale each, multiplied by activations of 8 bits."""

    name: str = "4 bits in blocks"
    min_cosine: float = -1

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        quantiser = MatMulNBitsQuantizer(
            onnx.load_model_from_string(graph), bits=4, block_size=BLOCK, accuracy_level=4
        )
        quantiser.process()
        return _bytes(quantiser.model.model)


@dataclass(frozen=True)
class Halves:
    """Weights in fp16, converted to fp32 before the products."""

    name: str = "fp16 weights"
    min_cosine: float = -1

    def lower(self, graph: bytes, batches: Batches = ()) -> bytes:
        model = onnx.load_model_from_string(graph)
        casts = []
        for weight in model.graph.initializer:
            if weight.data_type == TensorProto.FLOAT and len(weight.dims) == 2:
                half = numpy_helper.to_array(weight).astype(np.float16)
                casts.append(helper.make_node("Cast", [f"{weight.name}_half"], [weight.name], to=1))
                weight.CopyFrom(numpy_helper.from_array(half, f"{weight.name}_half"))
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)
        return _bytes(model)


KINDS: tuple[Precision, ...] = (
    Fp32(min_cosine=-1),
    EightBits(),
    SevenBits(),
    Int8(min_cosine=-1),
    Unsigned(),
    FourBits(),
    Halves(),
)


def _lowered(graph: bytes, *, limit: int) -> bytes:
    """Lower a graph as :class:`Int8` does, with a scale from the largest weight of a channel."""

    def by_largest(
        values: NDArray[np.float32],
    ) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        scales = quantise(values, axis=0)[1] * np.float32(127 / limit)
        return np.rint(values / scales).clip(-limit, limit).astype(np.int8), scales

    module = "finegrain.exporters.int8"
    with patch(f"{module}.quantise_pairs", by_largest), patch(f"{module}.MAX_PAIR", 2 * limit):
        return Int8().lower(graph)


def _bytes(model: onnx.ModelProto) -> bytes:
    data: bytes = model.SerializeToString()
    return data


def quality(run: Path) -> dict[str, dict[str, float]]:
    """Agreement of each format with fp32 on the pictures of a parity check, by name."""
    measured = {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.plan"
        export(run, ExportProfile(name="fp32", opset=23, match=None), path)
        fp32 = Encoder.from_plan(Plan(path), threads=1)
        samples = load_run(run)[0].data.splits()["val"].samples
        for kind in KINDS:
            plan = Plan(path)
            members = {member: kind.lower(plan.take(member)) for member in (TEXT, IMAGE)}
            members[TOKENIZER] = plan.take(TOKENIZER)
            lowered = Path(folder) / "lowered.plan"
            write_plan(lowered, plan.manifest, members)
            encoder = Encoder.from_plan(Plan(lowered), threads=1)
            profile = ExportProfile(name=kind.name, text=kind, image=kind)
            report = compare(fp32, encoder, samples[:COMPARED], profile)
            measured[kind.name] = {n: round(getattr(report, n), 4) for n in REPORTED}
    return measured


def towers() -> Graphs:
    """Both towers in fp32, with the width of ViT-B/16."""
    image, text = VitConfig(depth=DEPTH), TextConfig(depth=DEPTH)
    torch.manual_seed(0)
    method = ClipConfig(image=image, text=text).build().eval()
    return {
        TEXT: text_graph(method, context_length=text.context_length, opset=23),
        IMAGE: image_graph(method, height=image.height, width=image.width, opset=23),
    }


def speed(fp32: Graphs) -> dict[str, dict[str, float]]:
    """CPU milliseconds of a caption and of a picture, and megabytes of both towers, by name."""
    draw, image = np.random.default_rng(0), VitConfig()
    feeds = {
        TEXT: {
            "ids": draw.integers(1, 49_000, (1, WORDS), np.int32),
            "eot": np.array([WORDS - 1], np.int32),
        },
        IMAGE: {
            "pixels": draw.integers(0, 256, (PICTURES, 3, image.height, image.width), np.uint8)
        },
    }
    measured: dict[str, dict[str, float]] = {kind.name: {} for kind in KINDS}
    for member, feed in feeds.items():
        sessions = {}
        for kind in KINDS:
            graph = kind.lower(fp32[member])
            size = measured[kind.name]
            size["megabytes"] = round(size.get("megabytes", 0) + len(graph) / 1e6, 1)
            sessions[kind.name] = _session(graph)
        least = dict.fromkeys(sessions, float("inf"))
        for turn in range(1 + ROUNDS[member]):
            for name, session in sessions.items():
                start = time.process_time()
                session.run(["embeddings"], feed)
                if turn:  # the first round is warm-up
                    least[name] = min(least[name], time.process_time() - start)
        what, items = ("caption_ms", 1) if member == TEXT else ("picture_ms", PICTURES)
        for name, seconds in least.items():
            measured[name][what] = round(1e3 * seconds / items, 2)
    return measured


def _session(graph: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def main() -> None:
    logging.disable(logging.INFO)  # ONNX Runtime's quantiser logs each node
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the trained run whose quality is measured")
    parser.add_argument("--results", type=Path, help="file of the results")
    arguments = parser.parse_args()
    processor = this_processor()
    near, fast = quality(arguments.run), speed(towers())
    ways = {kind.name: near[kind.name] | fast[kind.name] for kind in KINDS}
    print(tabulate([{"way": name, **row} for name, row in ways.items()], headers="keys"))
    if arguments.results is None:
        return
    stated: dict[str, Any] = {"what": "int8_kinds", "by_processor": {}}
    if arguments.results.exists():
        stated = json.loads(arguments.results.read_text())
    stated["by_processor"][" ".join((processor.machine, *processor.instructions))] = {
        "machine": {
            "cpu_name": processor.name,
            "machine": processor.machine,
            "instructions": list(processor.instructions),
            "instructions_hidden": "FINEGRAIN_PROCESSOR" in os.environ,
            "onnxruntime": onnxruntime.__version__,
        },
        "ways": ways,
    }
    arguments.results.write_text(json.dumps(stated, indent=1) + "\n")


if __name__ == "__main__":
    main()
