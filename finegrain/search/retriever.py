"""Retrieves the pictures whose vectors are nearest to the vector of a query."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import GalleryError, QueryError
from finegrain.gallery import Gallery, Hit
from finegrain.gallery.milvus import MilvusAddress
from finegrain.index.gpu.index import Gpu
from finegrain.index.gpu.scans import scan_maker
from finegrain.plan import Plan
from finegrain.preprocess import ImageSource
from finegrain.runtime.base import RuntimeChoice

MAX_QUERY_CHARACTERS = 2_000

VectorPlace = Literal["memory", "gpu"]
"""Where a search reads the vectors."""


class Retriever:
    """Searches the gallery of a plan by vectors. A new gallery is created on first use.

    Args:
        plan: A freshly opened plan; its graphs are moved into the runtime.
        gallery: Path or address, or an open gallery; by default next to the plan.
        vectors, runtime, threads, trust_engines: As in :class:`~finegrain.Searcher`.

    Raises:
        QueryError: ``vectors`` is unknown.
        PlanError: The plan cannot be run, or there is no GPU to search on.
        MissingExtraError: The runtime or the GPU library is not installed.
        GalleryError: The gallery is damaged, holds vectors of another plan, or does not support
            ``vectors``.
    """

    def __init__(
        self,
        plan: Plan,
        gallery: str | Path | Gallery | None,
        *,
        vectors: VectorPlace,
        runtime: RuntimeChoice,
        threads: int | None,
        trust_engines: bool,
    ) -> None:
        if vectors not in ("memory", "gpu"):
            raise QueryError(f"expected vectors='memory' or 'gpu', got {vectors!r:.40}")
        self._dim, self._fingerprint = plan.manifest.embed_dim, plan.manifest.fingerprint
        place = gallery_path(plan.path, gallery) if not isinstance(gallery, Gallery) else gallery
        self._index: Gpu | None = None
        if vectors == "gpu":
            # Check this before building the towers, which may take minutes.
            _require_file(place)
            self._index = Gpu(scan_maker(plan, runtime, trust_engines=trust_engines))
        self.encoder = Encoder.from_plan(
            plan, runtime=runtime, threads=threads, trust_engines=trust_engines
        )
        self.opened: Gallery | None = None
        if isinstance(place, Gallery):
            self.path = place.path
            self._refuse_foreign_vectors(place)
            self.opened = place
        else:
            self.path = place
            if Gallery.exists(place):
                self.made()

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: There is no gallery yet.
        """
        if self.opened is None:
            raise GalleryError(
                f"there is no gallery at {self.path} yet. Add pictures with Searcher.add(folder) "
                "or: finegrain index PLAN FOLDER"
            )
        return self.opened

    def made(self) -> Gallery:
        """The open gallery; a missing one is created."""
        if self.opened is None:
            self.opened = Gallery(
                self.path, fingerprint=self._fingerprint, dim=self._dim, index=self._index
            )
        return self.opened

    @contextmanager
    def for_ingest(self, *, dry_run: bool) -> Iterator[Gallery]:
        """The gallery, created if needed; for a dry run an empty temporary one instead."""
        if self.opened is not None or not dry_run:
            yield self.made()
            return
        with (
            TemporaryDirectory(prefix="finegrain-") as folder,
            Gallery(Path(folder) / "g", fingerprint=self._fingerprint, dim=self._dim) as gallery,
        ):
            yield gallery

    def hits(
        self,
        queries: Sequence[str | ImageSource],
        k: int,
        where: str | None,
        *,
        group_by: str | None,
        distinct: float | None,
    ) -> list[list[Hit]]:
        """The ``k`` best hits of each query; see :meth:`finegrain.gallery.Gallery.search`.

        Raises:
            ImageError: A query picture cannot be read.
        """
        gallery = self.gallery
        if len(queries) == 1 and isinstance(queries[0], str) and self._index is not None:
            tokens = self.encoder.tokenizer.encode([queries[0]])
            ids = np.ascontiguousarray(tokens.ids[:, : tokens.eot[0] + 1])
            hits = gallery.search_caption(
                ids, tokens.eot, k, where, group_by=group_by, distinct=distinct
            )
            if hits is not None:
                return [hits]
        return gallery.search(
            self._encoded(queries), k, where, group_by=group_by, distinct=distinct
        )

    def _encoded(self, queries: Sequence[str | ImageSource]) -> NDArray[np.float32]:
        """Embeddings of texts and pictures, ``[Q, D]``."""
        vectors = np.empty((len(queries), self.encoder.embed_dim), np.float32)
        texts = {n: query for n, query in enumerate(queries) if isinstance(query, str)}
        pictures = {n: query for n, query in enumerate(queries) if not isinstance(query, str)}
        if texts:
            vectors[list(texts)] = self.encoder.encode_texts(list(texts.values()))
        if pictures:
            vectors[list(pictures)] = self.encoder.encode_images(list(pictures.values()))
        return vectors

    def close(self) -> None:
        self.encoder.close()
        if self.opened is not None:
            self.opened.close()

    def _refuse_foreign_vectors(self, gallery: Gallery) -> None:
        if gallery.fingerprint != self._fingerprint:
            raise GalleryError(
                f"expected a gallery of plan {self._fingerprint[:12]}, got {gallery.path} with "
                f"vectors of plan {str(gallery.fingerprint)[:12]}, which cannot be compared. "
                "Encode its pictures again: finegrain index PLAN PICTURES --reindex"
            )


def gallery_path(plan: Path, gallery: str | Path | None) -> str | Path:
    """Location of a gallery; by default next to the plan."""
    return plan.with_suffix(".gallery") if gallery is None else gallery


def _require_file(place: str | Path | Gallery) -> None:
    """Check that a gallery is given by the path of a file, so that it can be searched on a GPU.

    Raises:
        GalleryError: The gallery is at an address, or is open already with an index of its own.
    """
    if isinstance(place, Gallery):
        raise GalleryError(
            "expected the path of a gallery to search on a GPU, got an open one, which has an "
            f"index of its own, exact or approximate. Close it and pass {str(place.path)!r}."
        )
    address = MilvusAddress.of(place)
    if address is not None:
        raise GalleryError(
            f"expected a gallery in a file to search on a GPU, got the address {address.shown}, "
            "whose server searches. Leave out vectors='gpu'."
        )


def check_query(query: object, *, place: str = "") -> None:
    """Check that a query is a picture, or a text that is valid and not empty or too long.

    Args:
        query: The query.
        place: Where it is among several, for the message.

    Raises:
        QueryError: The query is invalid.
    """
    fault = None
    if isinstance(query, str):
        fault = _fault_of_text(query)
    elif not isinstance(query, Path | bytes | np.ndarray | Image.Image):
        fault = f"expected a text or a picture to search for, got {type(query).__name__}"
    if fault is not None:
        raise QueryError(f"{place}: {fault}" if place else fault)


def _fault_of_text(query: str) -> str | None:
    if all(c.isspace() or unicodedata.category(c) == "Cf" for c in query):
        return "the query is empty; say what to look for, as in 'woman in red coat'"
    if len(query) > MAX_QUERY_CHARACTERS:
        return (
            f"the query has {len(query)} characters, more than {MAX_QUERY_CHARACTERS}; "
            "a caption of a sentence or two searches best"
        )
    control = [c for c in query if unicodedata.category(c) in ("Cc", "Cs") and c not in "\t\n\r"]
    return f"the query holds the control character {control[0]!r}; remove it" if control else None
