"""A caption's best pictures in one launch: the text tower, all products, and the selection.

:class:`~finegrain.runtime.tensorrt.scan.TensorRtScan` says what the launch does. Of the rows that
it brings back the exact scores are taken from the vectors.

Tested against stand-ins for CUDA and TensorRT. Not yet run on a GPU. The proof of the answer
takes it that a GPU sums products of fp16 in fp32: that the answers are the exact ones is what
``benchmarks/bench_gpu.py`` checks before it measures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import GalleryError
from finegrain.gallery.estimate import Ids, Vectors
from finegrain.gallery.index import Hit
from finegrain.plan import Plan
from finegrain.runtime.tensorrt.backend import BackendName
from finegrain.runtime.tensorrt.scan import SEARCH, Answer, TensorRtScan, require_search
from finegrain.runtime.topk.exact import best, exact_scores
from finegrain.runtime.topk.settled import halve, settle

__all__ = ["SEARCH", "TensorRtSearch"]


class TensorRtSearch:
    """Searches vectors on a GPU by captions.

    Any thread may call it; callers take turns. Close it, or use it in ``with``.

    Args:
        plan: A freshly opened plan that has ``search.onnx``; its graphs are taken out.
        ids: Of the vectors, ascending, ``[N]``.
        vectors: Embeddings of pictures by the same plan, ``[N, D]``; kept on the host for
            exact scores, and copied to the GPU as fp16.
        backend, device, cache, trust_engines: As of
            :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`, whose text engine it takes.

    Raises:
        PlanError: There is no GPU or no ``search.onnx``, or TensorRT refuses.
        GalleryError: There are no vectors, too many, or of another width.
        MissingExtraError: TensorRT or cuda-python is not installed.
    """

    def __init__(
        self,
        plan: Plan,
        ids: Ids,
        vectors: Vectors,
        *,
        backend: BackendName = "tensorrt",
        device: int = 0,
        cache: Path | None = None,
        trust_engines: bool = False,
    ) -> None:
        require_search(plan)
        dim = plan.manifest.embed_dim
        if vectors.shape != (len(ids), dim):
            raise GalleryError(
                f"expected vectors [{len(ids)}, {dim}], got {list(vectors.shape)}; "
                "take those of a gallery of this plan"
            )
        self._ids, self._vectors = ids, vectors
        halves, self._halving = halve(vectors)
        self._scan = TensorRtScan(
            plan,
            len(ids),
            backend=backend,
            device=device,
            cache=cache,
            trust_engines=trust_engines,
        )
        try:
            self._scan.append(halves)
        except BaseException:
            self._scan.close()
            raise

    def search(self, ids: NDArray[np.int32], eot: NDArray[np.int32], k: int) -> list[list[Hit]]:
        """The ``k`` best for each caption, as :class:`~finegrain.runtime.topk.exact.TopK` says.

        Where ``k`` is more than the plan's search selects, or vectors are so near to each other
        that its selection proves nothing, all vectors are read on the host.

        Args:
            ids: Captions as the tokenizer gives them, int32 ``[N, L]``.
            eot: Their ends, int32 ``[N]``.
            k: How many, at least one.

        Raises:
            QueryError: Captions are longer than the plan's context, or their ends do not match.
            PlanError: CUDA failed, or the search is closed.
        """
        return [self._settled(answer, k) for answer in self._scan.ask(ids, eot)]

    def close(self) -> None:
        """Free all that is on the GPU, after the search that is running."""
        self._scan.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _settled(self, answer: Answer, k: int) -> list[Hit]:
        query = answer.query
        there = answer.rows < len(self._ids)  # and not one of the rows that are no vector yet
        rows, estimates = answer.rows[there], answer.estimates[there]
        if k <= len(rows) or len(rows) == len(self._ids):
            error = self._halving.error(query, answer.sent)
            error += self._scan.coarseness * self._halving.longest
            settled = settle(query, self._vectors, rows, estimates, error, k)
            if settled is not None:
                return best(self._ids, *settled, k)
        every = np.arange(len(self._ids))
        return best(self._ids, every, exact_scores(answer.embedding, self._vectors), k)
