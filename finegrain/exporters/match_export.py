"""Export of a match head: its graph, its weight beside the cosine, and its parity check."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.evaluation.reranking import CandidateScores, score_candidates
from finegrain.exporters.parity import MAX_COMPARED, MatchReport
from finegrain.exporters.to_onnx import match_graph
from finegrain.methods.match_head import Matcher
from finegrain.records import Sample

DEPTH = 16
"""Number of candidates per caption that the parity check compares."""


class MatchExport:
    """Exports a match head and compares it with the eager model.

    The eager model's scores select the weight of a match, and are the reference of the parity
    check.

    Args:
        method: A method with a match head.
        eager: The same method as an encoder.
        samples: The samples to compare on. The first 400 pictures and captions are used.
    """

    def __init__(self, method: Matcher, eager: Encoder, samples: Sequence[Sample]) -> None:
        self._method = method
        transform = eager.transform
        pixels = torch.zeros(1, 3, transform.height, transform.width, dtype=torch.uint8)
        with torch.inference_mode():
            _, self._tokens, self._width = method.match_tokens(pixels).shape
        self._samples = samples[:MAX_COMPARED]
        self._eager = self._search(eager)
        self._weight = self._eager.best_weight()

    @property
    def manifest(self) -> dict[str, float]:
        """The re-ranker's entries in the plan's manifest."""
        return {"tokens": self._tokens, "width": self._width, "weight": self._weight}

    def graph(self, *, context_length: int, opset: int) -> bytes:
        return match_graph(
            self._method,
            tokens=self._tokens,
            width=self._width,
            context_length=context_length,
            opset=opset,
        )

    def compare(self, exported: Encoder) -> MatchReport:
        """Compare both models on the captions and the candidates of the eager model."""
        got = self._search(exported, self._eager.candidates)
        first, eager = self._eager.metrics(0.0), self._eager.metrics(self._weight)
        metrics = got.metrics(self._weight)
        return MatchReport(
            num_pairs=got.candidates.size,
            # np.max propagates a NaN, and max does not.
            probability_error=float(np.abs(got.probability - self._eager.probability).max()),
            weight=self._weight,
            first_rank1=first.rank1,
            first_mAP=first.mAP,
            eager_rank1=eager.rank1,
            eager_mAP=eager.mAP,
            rank1=metrics.rank1,
            mAP=metrics.mAP,
        )

    def _search(
        self, encoder: Encoder, candidates: NDArray[np.intp] | None = None
    ) -> CandidateScores:
        return score_candidates(
            encoder,
            self._samples,
            depth=DEPTH,
            max_captions=MAX_COMPARED,
            candidates=candidates,
        )
