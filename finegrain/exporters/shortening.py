"""Shorter embeddings: the principal components of a run's own embeddings, appended to its graphs.

Embeddings of pictures and of captions are in different regions of the embedding space, and differ
little within each. Each kind is therefore centred by its own mean, then projected on the
directions in which both kinds vary most, and normalised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from finegrain.encoder import Encoder
from finegrain.errors import ExportError
from finegrain.exporters.parity import MAX_COMPARED, ShorteningReport
from finegrain.methods import Method
from finegrain.metrics import RetrievalMetrics, retrieval_metrics
from finegrain.plan import IMAGE, TEXT
from finegrain.records import Matched, PictureTokens, Pid, Sample, identities
from finegrain.runtime.eager import EagerRuntime

MAX_FITTED = 2000
"""Most pictures, each with one caption, that the projection is fitted on."""

FITTED_A_DIM = 4
"""Fewest pictures and captions for each number of a shortened embedding."""

_EMBEDDINGS = "embeddings"
_TINY = 1e-12

Array = NDArray[np.float32]


def check_dim(dim: int, width: int) -> None:
    """Check the width of shortened embeddings.

    Raises:
        ExportError: It is not a whole number below ``width``, that of the full embeddings.
    """
    if not isinstance(dim, int) or isinstance(dim, bool) or not 0 < dim < width:
        raise ExportError(
            f"expected dim= from 1 to {width - 1}, below the width of the embeddings, got "
            f"{dim!r:.40}; leave it out to export the full embeddings"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Shortening:
    """A projection of embeddings.

    Attributes:
        matrix: Directions, ``[d, D]``.
        means: Mean of the embeddings of pictures and of captions, by member of the plan, ``[D]``.
        num_fitted: Number of pictures and captions that it was fitted on.
        held_out: Whether no identity of the parity check is among them.
    """

    matrix: Array
    means: dict[str, Array]
    num_fitted: int
    held_out: bool

    @classmethod
    def fitted(
        cls, encoder: Encoder, samples: Sequence[Sample], compared: Sequence[Sample], dim: int
    ) -> Self:
        """Fit a projection.

        Args:
            encoder: The model.
            samples: Samples of the model's own data, none of them for tests.
            compared: Samples of the parity check. Their identities are left out if enough others
                remain.
            dim: Width of the shortened embeddings.

        Raises:
            ExportError: The width is not below that of the embeddings, or there are too few
                samples.
        """
        check_dim(dim, encoder.embed_dim)
        needed = -(-FITTED_A_DIM * dim // 2)
        if len(samples) < needed:
            raise ExportError(
                f"dim={dim} needs {needed} pictures with captions of the validation or training "
                f"split of the run, got {len(samples)}; export with data= that has them, or leave "
                "out dim="
            )
        known = {_identity(sample) for sample in compared[:MAX_COMPARED]}
        others = [sample for sample in samples if _identity(sample) not in known]
        held_out = len(others) >= needed
        used = (others if held_out else samples)[:MAX_FITTED]
        images = encoder.encode_images([sample.image for sample in used])
        texts = encoder.encode_texts([sample.captions[0] for sample in used if sample.captions])
        means = {IMAGE: images.mean(axis=0), TEXT: texts.mean(axis=0)}
        spread = _covariance(images - means[IMAGE]) + _covariance(texts - means[TEXT])
        _, directions = np.linalg.eigh(spread)  # by ascending variance
        matrix = np.ascontiguousarray(directions[:, : -dim - 1 : -1].T, np.float32)
        return cls(matrix, means, len(images) + len(texts), held_out)

    @property
    def dim(self) -> int:
        return len(self.matrix)

    def encoder(self, full: Encoder, method: Method) -> Encoder:
        """The eager twin of a plan with shortened embeddings."""
        runtime = EagerRuntime(method, embed_dim=full.embed_dim)
        return Encoder(_ShortenedRuntime(runtime, self), full.tokenizer, full.transform)

    def shortened(self, member: str, embeddings: Array) -> Array:
        """Shortened embeddings ``[N, d]`` of pictures or captions."""
        projected = (embeddings - self.means[member]) @ self.matrix.T
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return projected / np.maximum(lengths, np.float32(_TINY))

    def appended(self, member: str, graph: bytes) -> bytes:
        """A graph whose output ``embeddings`` is shortened, in fp32."""
        model = onnx.load_from_string(graph)
        _rename(model.graph, _EMBEDDINGS, "full_embeddings")
        constants = {
            "shortening_mean": self.means[member],
            "shortening_matrix": self.matrix.T,
            "shortening_axis": np.array([1], np.int64),
            "shortening_least": np.array(_TINY, np.float32),
        }
        model.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in constants.items()
        )
        for operator, inputs, output in (
            ("Sub", ["full_embeddings", "shortening_mean"], "centred"),
            ("MatMul", ["centred", "shortening_matrix"], "projected"),
            ("Mul", ["projected", "projected"], "squares"),
            ("ReduceSum", ["squares", "shortening_axis"], "sum_of_squares"),
            ("Sqrt", ["sum_of_squares"], "lengths"),
            ("Max", ["lengths", "shortening_least"], "divisors"),
            ("Div", ["projected", "divisors"], _EMBEDDINGS),
        ):
            name = f"shortening_{output}"
            model.graph.node.append(helper.make_node(operator, inputs, [output], name))
        (output,) = (value for value in model.graph.output if value.name == "full_embeddings")
        batch = output.type.tensor_type.shape.dim[0]
        rows = batch.dim_param or batch.dim_value
        output.CopyFrom(
            helper.make_tensor_value_info(_EMBEDDINGS, TensorProto.FLOAT, [rows, self.dim])
        )
        onnx.checker.check_model(model)
        appended: bytes = model.SerializeToString()
        return appended

    def report(self, encoder: Encoder, compared: Sequence[Sample]) -> ShorteningReport:
        """Compare full with shortened embeddings on the samples of the parity check."""
        samples = compared[:MAX_COMPARED]
        pairs = [(text, s.pid) for s in samples for text in s.captions][:MAX_COMPARED]
        pids = identities([*(pid for _, pid in pairs), *(sample.pid for sample in samples)])
        images = encoder.encode_images([sample.image for sample in samples])
        texts = encoder.encode_texts([text for text, _ in pairs])

        def metrics(texts: Array, images: Array) -> RetrievalMetrics:
            return retrieval_metrics(texts, images, pids[: len(pairs)], pids[len(pairs) :])

        full = metrics(texts, images)
        short = metrics(self.shortened(TEXT, texts), self.shortened(IMAGE, images))
        return ShorteningReport(
            full_dim=encoder.embed_dim,
            dim=self.dim,
            num_fitted=self.num_fitted,
            held_out=self.held_out,
            full_rank1=full.rank1,
            full_mAP=full.mAP,
            rank1=short.rank1,
            mAP=short.mAP,
        )


class _ShortenedRuntime:
    """Shortens the embeddings of a runtime.

    Args:
        runtime: Gives the full embeddings.
        shortening: The projection.
    """

    def __init__(self, runtime: EagerRuntime, shortening: Shortening) -> None:
        self._runtime = runtime
        self._shortening = shortening
        self.embed_dim = shortening.dim

    def close(self) -> None:
        self._runtime.close()

    def encode_images(self, pixels: NDArray[np.uint8]) -> Array:
        return self._shortening.shortened(IMAGE, self._runtime.encode_images(pixels))

    def encode_texts(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> Array:
        return self._shortening.shortened(TEXT, self._runtime.encode_texts(ids, eot))

    @property
    def has_match_head(self) -> bool:
        return self._runtime.has_match_head

    def encode_with_tokens(self, pixels: NDArray[np.uint8]) -> tuple[Array, PictureTokens]:
        embeddings, tokens = self._runtime.encode_with_tokens(pixels)
        return self._shortening.shortened(IMAGE, embeddings), tokens

    def match(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], tokens: PictureTokens
    ) -> Matched:
        return self._runtime.match(ids, eot, tokens)


def _identity(sample: Sample) -> Pid | Path:
    return sample.image if sample.pid is None else sample.pid


def _covariance(centred: Array) -> NDArray[np.float64]:
    wide = centred.astype(np.float64)
    return wide.T @ wide / len(wide)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value of a graph wherever it is written or read."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
    for value in graph.output:
        if value.name == old:
            value.name = new
