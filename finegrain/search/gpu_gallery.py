"""A gallery whose vectors are searched on a GPU.

The file, its filters and groups, and the exact scores are those of any gallery. What the GPU
adds is which rows are worth a look, from a copy of the vectors in fp16.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from finegrain.errors import GalleryError, PlanError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.backend import Search
from finegrain.gallery.entries import checked_k
from finegrain.gallery.grouping import Thinning
from finegrain.gallery.milvus import MilvusAddress
from finegrain.gallery.sqlite.followed_store import FollowedStore
from finegrain.index.exact import Ids, VectorIndex, Vectors
from finegrain.index.gpu.faiss_scan import FaissScan
from finegrain.index.gpu.mirror import Mirror, Scan
from finegrain.index.gpu.tensorrt_scan import Answer, TensorRtScan
from finegrain.plan import SEARCH, Plan
from finegrain.runtime.base import RuntimeChoice
from finegrain.runtime.tensorrt.backend import BackendName

FEW_ROWS = 4096
"""Of a filter that allows no more, the vectors are read on the host: 8 MiB at width 512."""
LEAST_SPARE = 4096
"""Least room for rows to come; it is an eighth of those that are there, where that is more. So a
growing gallery is rarely copied anew."""

MakeScan = Callable[[int, int, int], Scan]
"""An empty scan with room for so many vectors, for so many more if it can, and of that width."""


@runtime_checkable
class CaptionScan(Protocol):
    """A scan that also embeds captions."""

    def ask(self, ids: NDArray[np.int32], eot: NDArray[np.int32]) -> list[Answer]: ...


class GpuGallery(Gallery):
    """A :class:`~finegrain.gallery.Gallery` in a file, searched on a GPU, hit for hit the same.

    The vectors stay in memory on the host, and on the GPU as fp16: 1 KiB for a row of 512, with
    room for some more. They follow the file: what is added is copied behind the others, and
    what is deleted, has expired or is left out by a filter is in no answer from then on. In
    the GPU's memory the numbers of a deleted picture stay, without a name, until an eighth of
    all was removed or the gallery is closed. Searches take turns.

    The GPU estimates; the host proves that the best are among what it named, or reads on. Few
    pictures that a filter allows, depths that a GPU does not select and data that fp16 cannot
    tell apart are searched by the index on the host.

    Args:
        path: The file; it is created when there is none.
        fingerprint: Identity of the plan that makes the vectors.
        dim: Width of the vectors; needed for a new gallery.
        make_scan: From :func:`scan_maker`.

    Raises:
        GalleryError: As of any gallery; or it is not in a file.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fingerprint: str | None = None,
        dim: int | None = None,
        make_scan: MakeScan,
    ) -> None:
        # Not the constructor above, which would open another store.
        require_file(path)
        self._gpu = GpuStore(Path(path), fingerprint=fingerprint, dim=dim, make_scan=make_scan)
        self._store = self._gpu

    def search_caption(
        self,
        ids: NDArray[np.int32],
        eot: NDArray[np.int32],
        k: int,
        where: str | None = None,
        *,
        group_by: str | None = None,
        distinct: float | None = None,
    ) -> list[Hit] | None:
        """As :meth:`search` with the embedding of one caption, which the same launch makes.

        Args:
            ids: Of the caption, int32 ``[1, L]``.
            eot: Its end, int32 ``[1]``.
            k, where, group_by, distinct: As of :meth:`search`.

        Returns:
            ``None`` where the scan embeds no captions, or there is nothing to search.
        """
        depth = checked_k(k)
        thinning = Thinning(self._store, group_by=group_by, distinct=distinct)
        asked = self._gpu.asking(ids, eot, where)
        if asked is None:
            return None
        vector, search = asked
        return thinning.search(search, vector, depth)[0]


class GpuStore(FollowedStore):
    """A store that searches what a GPU holds of it.

    Args:
        path, fingerprint, dim: As of :class:`GpuGallery`.
        make_scan: Makes a scan each time that vectors are copied anew.
    """

    def __init__(
        self, path: Path, *, fingerprint: str | None, dim: int | None, make_scan: MakeScan
    ) -> None:
        super().__init__(path, fingerprint=fingerprint, dim=dim, create=True, index=None)
        self._make_scan = make_scan
        self._turn = threading.Lock()
        self._process = os.getpid()
        self._mirror: Mirror | None = None

    def searching(self, where: str | None) -> Search:
        allowed = None if where is None else self.ids_where(where)
        return lambda queries, depth: self._search(queries, depth, allowed)

    def asking(
        self, ids: NDArray[np.int32], eot: NDArray[np.int32], where: str | None
    ) -> tuple[Vectors, Search] | None:
        """The embedding of a caption ``[1, D]``, and a search for it that knows the answer.

        It is None where the scan embeds no captions, or there is nothing to search.
        """
        allowed = None if where is None else self.ids_where(where)
        with self._turn:
            mirror = self._followed(self._index())
            if mirror is None or not isinstance(mirror.scan, CaptionScan):
                return None
            (answer,) = mirror.scan.ask(ids, eot)
        query, rows, estimates = answer.query, answer.rows, answer.estimates

        def search(queries: Vectors, depth: int) -> list[list[Hit]]:
            with self._turn:
                error, shown = mirror.error(query, answer.sent), mirror.shown(allowed)
                known = mirror.settled(query, rows, estimates, error, depth, shown)
            return self._search(queries, depth, allowed) if known is None else [known]

        return answer.embedding[None], search

    def close(self) -> None:
        with self._turn:
            self._drop()
        super().close()

    def _search(self, queries: Vectors, k: int, allowed: Ids | None) -> list[list[Hit]]:
        with self._turn:
            index = self._index()
            if allowed is not None and len(allowed) <= FEW_ROWS:
                return index.search(queries, k, allowed)
            mirror = self._followed(index)
            if mirror is None:
                return [[] for _ in queries]
            return mirror.search(queries, k, allowed)

    def _index(self) -> VectorIndex:
        if self._process != os.getpid():
            raise GalleryError(
                f"{self.path} is searched on a GPU, which a forked process cannot use. Open it in "
                "this process, or start it by spawn: multiprocessing.get_context('spawn')."
            )
        # Without an approximate index it is the exact one.
        return cast(VectorIndex, self._follower.index())

    def _followed(self, index: VectorIndex) -> Mirror | None:
        """The mirror of what is in the index now; None where nothing is."""
        if not len(index):
            self._drop()
            return None
        try:
            if self._mirror is None or not self._mirror.follow(index):
                # First, so that the GPU never holds both.
                self._drop()
                spare = max(len(index) // 8, LEAST_SPARE)
                self._mirror = Mirror(index, self._make_scan(len(index), spare, self.dim))
                self._mirror.follow(index)
        except BaseException:
            # Rows and ids may no longer agree.
            self._drop()
            raise
        return self._mirror

    def _drop(self) -> None:
        mirror, self._mirror = self._mirror, None
        if mirror is not None:
            mirror.scan.close()


def scan_maker(plan: Plan, runtime: RuntimeChoice, *, trust_engines: bool = False) -> MakeScan:
    """What scans a plan's vectors here: TensorRT by captions, else FAISS for GPUs, else PyTorch.

    Args:
        plan: It is opened again for each scan.
        runtime: TensorRT is taken where it runs the towers and the plan has ``search.onnx``.
        trust_engines: As of :class:`~finegrain.runtime.tensorrt.TensorRtRuntime`.

    Raises:
        PlanError: There is no GPU.
        MissingExtraError: Neither PyTorch nor FAISS for GPUs is installed.
    """
    match runtime:
        case "tensorrt" | "tensorrt-rtx" if SEARCH in plan.manifest.sha256:
            return _by_captions(plan, runtime, trust_engines=trust_engines)
    if find_spec("torch") is not None and not FaissScan.is_for_gpus():
        from finegrain.index.gpu.torch_scan import TorchScan

        TorchScan.require_gpu()
        return lambda rows, spare, dim: TorchScan(_none(dim), "cuda", capacity=rows + spare)
    FaissScan.require_gpu()
    return lambda rows, spare, dim: FaissScan.on_gpu(_none(dim), capacity=rows + spare)


def _by_captions(plan: Plan, backend: BackendName, *, trust_engines: bool) -> MakeScan:
    path, fingerprint = plan.path, plan.manifest.fingerprint

    def make(rows: int, spare: int, dim: int) -> Scan:
        again = Plan(path)
        if again.manifest.fingerprint != fingerprint:
            raise PlanError(f"{path} was replaced by another plan; open the searcher again")
        return TensorRtScan(again, rows, spare=spare, backend=backend, trust_engines=trust_engines)

    return make


def require_file(path: str | Path | Gallery) -> None:
    """Refuse a gallery that a GPU cannot follow.

    Raises:
        GalleryError: It is at an address, or open already with an index of its own.
    """
    if isinstance(path, Gallery):
        raise GalleryError(
            "expected the path of a gallery to search on a GPU, got an open one, which has an "
            f"index of its own, exact or approximate; close it and give {str(path.path)!r}"
        )
    address = MilvusAddress.of(path)
    if address is not None:
        raise GalleryError(
            f"expected a gallery in a file to search on a GPU, got the address {address.shown}, "
            "whose server searches; leave out vectors='gpu'"
        )


def _none(dim: int) -> NDArray[np.float16]:
    return np.empty((0, dim), np.float16)
