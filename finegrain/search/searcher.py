"""Adds pictures to the gallery of a plan and searches them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, overload

from finegrain.encoder import Encoder
from finegrain.errors import PlanError, QueryError, require
from finegrain.evaluation.background import Background
from finegrain.gallery import Gallery, Reindexed
from finegrain.gallery.backend import Memory
from finegrain.gallery.pictures import SUFFIXES
from finegrain.plan import Plan
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem, Sample
from finegrain.rerank import RerankBy
from finegrain.runtime.base import RuntimeChoice
from finegrain.search.alerts.alert import Alert, Rate
from finegrain.search.asking.asked import Asked, Denial, asked_all, asked_one
from finegrain.search.asking.attributes import Attribute, checked_attributes
from finegrain.search.asking.calibrating import Calibrated, JudgedQuery
from finegrain.search.asking.dialogue import CANDIDATES, Dialogue
from finegrain.search.asking.negation import Reader
from finegrain.search.asking.topics import Asker
from finegrain.search.hubs import correct_hubs
from finegrain.search.ingest import Added, IngestOptions, Metadata, columns_of, ingest
from finegrain.search.matches import Matches
from finegrain.search.moments import GAP_SECONDS, Moments, Per, find_moments
from finegrain.search.queries import Query
from finegrain.search.reranker import Prepared, Reranker, checked_depth, match_head
from finegrain.search.retriever import (
    DEFAULT_K,
    Request,
    Retriever,
    VectorPlace,
    answer,
    gallery_path,
)
from finegrain.search.sync import AllowRemoving
from finegrain.search.video import Boxes, ingest_video

if TYPE_CHECKING:
    from finegrain.cameras.detection import DetectorChoice
    from finegrain.cameras.pipeline import Watched
    from finegrain.cameras.sources import Source
    from finegrain.serve.browse import Browsing

__all__ = ["SUFFIXES", "Added", "Searcher"]

RERANK_K = 64


class Searcher:
    """Searches a gallery of pictures by text or by picture.

    Example:
        >>> import finegrain
        >>> searcher = finegrain.Searcher("model.plan")                  # doctest: +SKIP
        >>> searcher.add("crops/", metadata={"camera": "gate-3"})        # doctest: +SKIP
        >>> searcher.query("woman in red coat", k=5)                     # doctest: +SKIP

    Args:
        plan: Path of a ``model.plan``.
        gallery: Path or address of the gallery, or an open one. By default ``model.gallery``
            next to the plan, which the first :meth:`add` creates.
        runtime: Name of the runtime of the towers, or the address of a Triton server.
        threads: Number of CPU threads of the towers; by default one per physical core.
        trust_engines: Load the TensorRT engines inside the plan. An engine is executable code:
            enable this only for plans from a source that you trust.
        vectors: ``"memory"`` searches with the index of the gallery. ``"gpu"`` also keeps the
            vectors on an NVIDIA GPU and returns the same hits; it requires the path of a gallery.
            With ``runtime="tensorrt"`` and a plan with ``search.onnx``, a text query then is one
            launch. Otherwise it requires FAISS for GPUs or PyTorch.
        memory: ``"codes"`` or ``"vectors"``: what an exact search keeps in memory; see
            :class:`~finegrain.gallery.Gallery`. An open gallery keeps its own choice.
        rerank: ``"match"`` re-ranks the first pictures of a text query with the match head of the
            plan, which reads the words together with each picture. Queries by picture have no
            words and are not re-ranked.
        rerank_k: Maximum number of pictures to re-rank; see :mod:`finegrain.rerank`.
        rerank_by: ``"both"`` orders them by cosine and match probability. ``"match"`` orders them
            by the match head alone, as reported in RaSa's paper, and scores all of them.
        hub_correction: Lower the scores of pictures that are near many queries, if the plan has
            the settings for it. Queries by picture, and searches with ``vectors="gpu"``, leave it
            out.

    Raises:
        PlanError: The plan cannot be read or run, or has no match head for ``rerank``; or there
            is no GPU.
        QueryError: ``vectors`` or an argument of re-ranking is invalid.
        MissingExtraError: The runtime or the GPU library is not installed.
        GalleryError: The gallery is damaged or holds vectors of another plan; or ``vectors`` is
            ``"gpu"`` and the gallery is not a file or is already open.
    """

    def __init__(
        self,
        plan: str | Path,
        *,
        gallery: str | Path | Gallery | None = None,
        runtime: RuntimeChoice = "onnxruntime",
        threads: int | None = None,
        trust_engines: bool = False,
        vectors: VectorPlace = "memory",
        memory: Memory = "codes",
        rerank: Literal["match"] | None = None,
        rerank_k: int = RERANK_K,
        rerank_by: RerankBy = "both",
        hub_correction: bool = True,
    ) -> None:
        opened = Plan(plan)
        self.manifest = opened.manifest
        self._rerank_k = checked_depth(rerank, rerank_k, rerank_by)
        self._rerank_by = rerank_by
        if rerank is not None:
            match_head(self.manifest)
        self._reranker: Reranker | None = None
        self._retriever = Retriever(
            opened,
            gallery,
            vectors=vectors,
            memory=memory,
            runtime=runtime,
            threads=threads,
            trust_engines=trust_engines,
            hub_correction=hub_correction,
        )
        self._encoder = self._retriever.encoder
        self._asker = Asker(self._encoder, self._retriever.words, self.manifest.logit_scale)

    @property
    def gallery(self) -> Gallery:
        """The open gallery.

        Raises:
            GalleryError: There is no gallery yet.
        """
        return self._retriever.gallery

    def add(
        self,
        pictures: ImageSource | Crop | Iterable[ImageSource | Crop],
        metadata: Metadata | Sequence[Metadata] | None = None,
        *,
        expire_after: timedelta | float | None = None,
        replace: bool = False,
        sync: bool = False,
        allow_removing: AllowRemoving = None,
        checksum: bool = False,
        source: str | Path | None = None,
        dry_run: bool = False,
        progress: bool = True,
    ) -> Added:
        """Encode pictures and add them to the gallery.

        Each batch is stored when it is encoded. After an interruption, add the same folder again:
        files that are in the gallery already are skipped. A picture that cannot be read is
        reported in the result and does not stop the rest.

        Args:
            pictures: A folder (including its subfolders), a file, a
                :class:`~finegrain.preprocess.Crop`, an array, a Pillow image, or several of the
                latter four. For pictures without a file, a thumbnail is stored.
            metadata: Columns for all pictures, or one mapping for each picture. ``camera``,
                ``pid``, ``time`` (ISO 8601) and ``track`` are built-in columns.
            expire_after: Time until the pictures are deleted, in seconds or as timedelta. It
                starts at the ``time`` of a picture if that is known, otherwise now.
            replace: Update pictures that are in the gallery already: encode changed files again
                and set the columns in ``metadata``. By default such pictures stay as they are,
                and the result counts those that differ.
            sync: As ``replace``; also delete pictures that are no longer in the source, and
                detect moved files by their content.
            allow_removing: The most pictures that ``sync`` may remove: a number or ``"all"``. By
                default it removes up to five, or a fifth of the source, and nothing below a folder
                that is empty now, since a disk may not be mounted. Others stay, and the result
                names them.
            checksum: Read each file, and compare its content also if its size and time are those
                of the picture in the gallery.
            source: The folder or any name that identifies the origin of the pictures. ``sync``
                deletes only pictures of this source. The default is the folder in ``pictures``.
            dry_run: Report what would be done without doing it.
            progress: Show a progress bar.

        Raises:
            ImageError: The file or folder does not exist, or holds no picture.
            GalleryError: The metadata is invalid, or ``sync`` has no source.
        """
        if source is None and isinstance(pictures, str | Path) and os.path.isdir(pictures):
            source = Path(pictures)
        options = IngestOptions.of(
            source, replace, sync, expire_after, dry_run, progress, allow_removing, checksum
        )
        with self._retriever.for_ingest(dry_run=dry_run) as gallery:
            return ingest(self._encoder, gallery, pictures, metadata, options)

    def add_video(
        self,
        path: str | Path,
        *,
        every: float = 1.0,
        boxes: Boxes | None = None,
        camera: str | None = None,
        start: datetime | str | None = None,
        metadata: Metadata | None = None,
        expire_after: timedelta | float | None = None,
        progress: bool = True,
    ) -> Added:
        """Encode frames of a video file, or detections in them, and add them to the gallery.

        The ``image`` of each is an address such as
        ``/films/gate-3.mp4#t=12.400&xywh=10,20,64,128``. It opens like the path of a picture
        while the video exists; a thumbnail is stored as well. After an interruption, repeat the
        call to continue.

        Args:
            path: Path of the video.
            every: Seconds between frames.
            boxes: A detector, or earlier detections. A detector takes an upright RGB frame, uint8
                ``[H, W, 3]``, and returns boxes ``(x, y, width, height)`` or
                :class:`~finegrain.search.video.Box`; it does not run again on a frame with boxes
                in the gallery. Earlier detections map seconds from the first frame to boxes, and
                determine the frames. By default whole frames are added.
            camera: Name of the camera.
            start: Time of the first frame, from which the ``time`` of each frame follows: a
                datetime or ISO 8601, in UTC unless it states an offset.
            metadata: Further columns for all of them.
            expire_after: As in :meth:`add`.
            progress: Show a progress bar, in seconds of video.

        Raises:
            ImageError: The video cannot be read, or ``every`` or a box is invalid.
            GalleryError: ``start`` or the metadata is invalid.
            MissingExtraError: PyAV is not installed.
        """
        return ingest_video(
            self._encoder,
            self._retriever.made(),
            path,
            step=every,
            boxes=boxes,
            camera=camera,
            start=start,
            metadata=metadata,
            expire_after=expire_after,
            progress=progress,
        )

    def watch(
        self,
        sources: Source | Iterable[Source],
        *,
        detector: DetectorChoice = "people",
        every: float = 0.2,
        best: int = 4,
        start: datetime | str | None = None,
        follow: bool = False,
        attempts: int | None = None,
        seconds: float | None = None,
        expire_after: timedelta | float | None = None,
        hardware: str | None = None,
        tell: Callable[[str], None] = print,
    ) -> Watched:
        """Watch cameras: detect and track people, and add the best crops of each track.

        A track is named ``camera/number/start``. Its rows are stored as soon as it ends: its best
        crops, and its mean vector (column ``vector``: ``crop`` or ``mean``), with the columns
        ``track_start`` and ``track_end``. After an interruption, repeat the call to continue. A
        camera that cannot be read does not stop the others. See :meth:`moments` for the search.

        Args:
            sources: Addresses (``rtsp://``, ``rtsps://``, ``http://``, ``https://``), devices such
                as ``/dev/video0``, videos, patterns of paths, folders of videos, or YAML lists of
                cameras; see :mod:`finegrain.cameras.camera_file`.
            detector: ``"people"`` for the detector of OpenCV, the path of an ONNX detector (see
                :mod:`finegrain.cameras.onnx_heads`), or a function of an RGB frame that returns
                boxes or ``supervision.Detections``.
            every: Seconds between the frames that are looked at.
            best: Number of crops to keep of each track.
            start: Time of the first frame of videos.
            follow: Wait for more videos in folders.
            attempts: How often a stream is tried in a row before it is given up; None for ever.
            seconds: Stop after this time. An interrupt from the keyboard also ends watching.
            expire_after: As in :meth:`add`, unless a list of cameras says it.
            hardware: Device that decodes, such as ``"cuda"``.
            tell: Receives a message about each problem of a camera.

        Raises:
            CameraError: A source, a list of cameras, the detector or a number is invalid.
            MissingExtraError: A library of ``finegrain[cameras]`` is not installed.
        """
        from finegrain.cameras.watching import watch

        return watch(
            self._encoder,
            self._retriever.made(),
            sources,
            detector=detector,
            every=every,
            best=best,
            start=start,
            follow=follow,
            attempts=attempts,
            seconds=seconds,
            expire_after=expire_after,
            hardware=hardware,
            tell=tell,
        )

    def load(self, source: str | Path) -> list[int]:
        """Add vectors that :func:`finegrain.search.bulk.embed_dataset` or an export has written.

        See :meth:`Gallery.load`.

        Returns:
            Ids of the new pictures.

        Raises:
            GalleryError: The source is damaged, or its vectors belong to another plan.
        """
        return self._retriever.made().load(source)

    def add_samples(
        self,
        samples: Sequence[Sample],
        metadata: Metadata | None = None,
        *,
        expire_after: timedelta | float | None = None,
        replace: bool = False,
        sync: bool = False,
        allow_removing: AllowRemoving = None,
        checksum: bool = False,
        source: str | Path | None = None,
        problems: Sequence[Problem] = (),
        dry_run: bool = False,
        progress: bool = True,
    ) -> Added:
        """Add the pictures of a dataset or catalogue with their pids, cameras and columns.

        Args:
            samples: The samples. The first caption of each becomes the column ``caption``.
            metadata: Further columns for all of them.
            expire_after, replace, sync, allow_removing, checksum, dry_run: As in
                :meth:`add`.
            source: The table or folder of the samples.
            problems: Problems in reading the source. If pictures or rows were lost, ``sync``
                deletes only pictures whose files are gone.
            progress: Show a progress bar.
        """
        options = IngestOptions.of(
            source, replace, sync, expire_after, dry_run, progress, allow_removing, checksum
        )
        pictures = [sample.image for sample in samples]
        columns = [columns_of(sample, metadata or {}) for sample in samples]
        with self._retriever.for_ingest(dry_run=dry_run) as gallery:
            return ingest(self._encoder, gallery, pictures, columns, options, problems=problems)

    @overload
    def query(
        self,
        query: Query | None = None,
        k: int | None = None,
        *,
        image: ImageSource | None = None,
        images: Sequence[ImageSource] | None = None,
        text: str | None = None,
        weight: float | None = None,
        like: Sequence[int] = (),
        unlike: Sequence[int] = (),
        avoid: str | Sequence[str] = (),
        negation: bool | Reader = True,
        words: bool = True,
        min_probability: float | None = None,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> Matches: ...
    @overload
    def query(
        self,
        query: list[Query] | list[str] | tuple[Query, ...],
        k: int | None = None,
        *,
        avoid: str | Sequence[str] = (),
        negation: bool | Reader = True,
        words: bool = True,
        min_probability: float | None = None,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> list[Matches]: ...
    def query(
        self,
        query: Query | list[Query] | list[str] | tuple[Query, ...] | None = None,
        k: int | None = None,
        *,
        image: ImageSource | None = None,
        images: Sequence[ImageSource] | None = None,
        text: str | None = None,
        weight: float | None = None,
        like: Sequence[int] = (),
        unlike: Sequence[int] = (),
        avoid: str | Sequence[str] = (),
        negation: bool | Reader = True,
        words: bool = True,
        min_probability: float | None = None,
        where: str | None = None,
        group_by: str | None = None,
        distinct: float | None = None,
        offset: int = 0,
    ) -> Matches | list[Matches]:
        """Find the pictures that match a text or are similar to a picture.

        Args:
            query: A text or a picture, or a list of several, which are searched in one batch. A
                picture is a :class:`~pathlib.Path`, an array, bytes or a Pillow image.
            k: Number of matches; 10 by default.
            image, images: One picture, or several of one person or product, instead of ``query``.
                The query is the mean of their embeddings. The notes name those of several
                pictures that cannot be read.
            text: Words that change the picture, such as ``"but in a blue jacket"``. The score is
                a product of both; see :mod:`finegrain.search.asking.composition`.
            weight: Weight of these words, from 0 (the picture alone) to 1; 0.7 by default.
            like, unlike: Ids of pictures of the gallery that were judged right and wrong for this
                query. They leave the answer; :meth:`Matches.refine` takes ranks instead.
            avoid: One or more phrases for what must not be there, such as ``"backpack"``. A picture
                loses the part of their scores that is above the mean of the gallery.
            negation: Also read such phrases in texts, as in "man without a backpack, not wearing
                a hat"; the notes say what was read. ``False`` searches for all words as they
                are. A function reads other languages than English; it returns a
                :class:`~finegrain.search.asking.negation.Reading`.
            words: Also read words that the model does not know: everyday names as "jumper", and
                words with a typo. The notes say what was changed, and which words the model never
                read. Nothing changes if the plan has no vocabulary, as with a pretrained text
                tower; see :mod:`finegrain.search.asking.words`.
            min_probability: Leave out matches with a lower probability. If none remains, the first
                note says that nobody in the gallery fits, and ``rejected`` is the best match. The
                plan needs a calibration, which an export fits on the validation split, and
                :meth:`calibrate` on your own queries.
            where: Filter on the columns, such as
                ``"camera = 'gate-3' and time >= '2026-05-01T08:00'"``.
            group_by: A column such as ``"pid"`` or ``"track"``; only the best picture of each
                value is returned.
            distinct: Leave out pictures whose cosine with a better match is above this value, for
                example neighbouring frames of a video. Start with 0.98.
            offset: Number of best matches to skip, for example for a second page.

        Returns:
            Matches, best first; fewer than ``k`` if fewer pictures remain after filtering and
            grouping. Their ``notes`` report words that the model did not read and filter values
            that no picture has. For a list of queries, a list of matches.

        Raises:
            QueryError: The text is empty, too long, or not text; ``k``, ``offset`` or
                ``distinct`` is out of range; no picture has the column ``group_by``; or arguments
                do not fit together.
            ImageError: The query picture cannot be read, or none of several.
            FilterError: The filter does not parse, or a column is unknown.
            GalleryError: The gallery is empty.
        """
        request = Request.checked(
            k,
            offset=offset,
            where=where,
            group_by=group_by,
            distinct=distinct,
            min_probability=min_probability,
        )
        denial = Denial.checked(avoid, negation)
        if isinstance(query, list | tuple):
            of_one = (image, images, text, weight, like or None, unlike or None)
            if any(argument is not None for argument in of_one):
                raise QueryError(
                    "image, images, text, weight, like and unlike belong to one query, got a list "
                    "of queries. Search for them one by one."
                )
            return self._answer(asked_all(query, denial), request, words=words)
        asked = asked_one(
            query,
            denial,
            image=image,
            images=images,
            text=text,
            weight=weight,
            like=like,
            unlike=unlike,
        )
        return self._answer([asked], request, words=words)[0]

    def _answer(self, queries: Sequence[Asked], request: Request, *, words: bool) -> list[Matches]:
        if words and (reader := self._retriever.words) is not None:
            queries = [asked.with_words_of(reader) for asked in queries]
        reranker = self._open_reranker() if any(q.text is not None for q in queries) else None
        return answer(self._retriever, reranker, queries, request)

    def dialogue(
        self,
        text: str,
        k: int | None = None,
        *,
        attributes: str | Sequence[Attribute] | None = None,
        candidates: int = CANDIDATES,
        where: str | None = None,
        avoid: str | Sequence[str] = (),
        negation: bool | Reader = True,
        words: bool = True,
    ) -> Dialogue:
        """Search by a text, and ask questions until the answer is clear.

        Each question is the one whose answer is expected to tell most about which candidate is
        right; see :mod:`finegrain.search.asking.dialogue`. No language model takes part.

        Args:
            text: The text.
            k: Number of matches; 10 by default.
            attributes: What may be asked: ``"people"``, ``"garments"``, or a list of
                :class:`~finegrain.search.asking.attributes.Attribute`. By default the columns of
                the candidates that have few different texts. If there are none, the list for
                people, or that for garments if the training captions had no people.
            candidates: Number of best pictures of the query among which answers decide.
            where, avoid, negation, words: As in :meth:`query`.

        Example:
            >>> dialogue = searcher.dialogue("woman in red coat")    # doctest: +SKIP
            >>> print(dialogue.question)                             # doctest: +SKIP
            >>> dialogue.answer("black")                             # doctest: +SKIP
            >>> dialogue.matches                                     # doctest: +SKIP

        Raises:
            QueryError: An argument is invalid, or no picture fits the filter.
            FilterError: The filter does not parse, or a column is unknown.
            GalleryError: The gallery is empty.
        """
        listed = checked_attributes(attributes)
        request = Request.checked(k, offset=0, where=None, group_by=None, distinct=None)
        best = self.query(
            text, candidates, where=where, avoid=avoid, negation=negation, words=words
        )
        return self._asker.open(best, self.gallery, listed, k=request.k)

    def moments(
        self,
        query: Query,
        k: int = DEFAULT_K,
        *,
        where: str | None = None,
        per: Per = "track",
        min_probability: float | None = None,
        gap: float = GAP_SECONDS,
    ) -> Moments:
        """Find when somebody who fits a text or a picture was in front of a camera.

        See :mod:`finegrain.search.moments` for the rule.

        Args:
            query: A text or a picture.
            k: Number of moments.
            where: Filter, such as ``"camera = 'gate-3' and entered_door is not null"``.
            per: ``"track"`` gives a moment for each track of :meth:`watch`. ``"time"`` joins
                pictures of one camera that are close in time, such as frames of
                :meth:`add_video`.
            min_probability: Leave out moments of a lower probability; needs a calibration.
            gap: Most seconds between two pictures of one moment. Tracks of :meth:`watch` have few
                pictures and are not divided.

        Raises:
            QueryError: The query or an argument is invalid, or no picture has a track.
            FilterError: The filter does not parse, or a column is unknown.
            GalleryError: There is no gallery.
        """
        return find_moments(
            self._retriever,
            query,
            k,
            where=where,
            per=per,
            min_probability=min_probability,
            gap=gap,
        )

    def calibrate(
        self, queries: Sequence[JudgedQuery], *, bank: Sequence[str] | None = None
    ) -> Calibrated:
        """Fit the probability of a match on queries whose right pictures are known.

        The searcher uses it at once; :meth:`Calibrated.write` stores it in the plan.

        Args:
            queries: At least 30 queries with right pictures in the gallery, and any number without.
            bank: At least 100 texts such as earlier queries, which replace the bank of hub
                correction. Its settings are chosen on the queries. The gallery then lacks its
                biases: store the result, and call ``finegrain gallery correct-hubs PLAN``.

        Raises:
            EvaluationError: There are too few queries or texts, or matches are all right or all
                wrong.
            GalleryError: The gallery is empty.
        """
        return self._retriever.calibrate(queries, bank)

    def alert(
        self,
        query: Query,
        *,
        false_alarms_per_day: float | None = 1.0,
        min_score: float | None = None,
        pictures_per_day: float | None = None,
        where: str | None = None,
        avoid: str | Sequence[str] = (),
        negation: bool | Reader = True,
        per: str | None = "track",
        after: int | None = None,
    ) -> Alert:
        """Make a standing query over the pictures that are added from now on, also by others.

        Example:
            >>> alert = searcher.alert("person in a yellow raincoat")    # doctest: +SKIP
            >>> for match in alert.follow():                             # doctest: +SKIP
            ...     print(match.camera, match.time, match.score)

        Args:
            query: A text or a picture.
            false_alarms_per_day: Mean number of wrong pictures in a day that raise an alarm. It
                becomes a least score, from the scores that the query has with the pictures of the
                gallery; see :mod:`finegrain.search.alerts.threshold`.
            min_score: The least score itself, instead of a rate.
            pictures_per_day: Number of pictures that are added in a day. By default those of the
                last seven days are counted.
            where: Filter on the columns.
            avoid, negation: As in :meth:`query`.
            per: Column with one alarm for each value. None gives an alarm for each picture.
            after: Id of the last picture that is not examined; by default the last of the gallery.

        Raises:
            QueryError: The query or a number is invalid.
            FilterError: The filter does not parse.
            GalleryError: There is no gallery, or it has fewer than 200 pictures for a rate.
        """
        rate = Rate.checked(
            false_alarms_per_day=false_alarms_per_day,
            min_score=min_score,
            pictures_per_day=pictures_per_day,
        )
        asked = Denial.checked(avoid, negation).of(query)
        hubs = self._retriever.hubs
        return Alert(
            asked.label,
            self._retriever.scorer.score(asked).scoring,
            self.gallery,
            rate,
            where=where,
            per=per,
            after=after,
            biased=not hubs.is_possible or (hubs.is_on and asked.is_by_words),
            calibration=self._retriever.calibration if asked.is_by_words else None,
        )

    def browse(self, *, port: int = 0, open_browser: bool = True) -> Browsing:
        """Open the search page for this searcher, in a browser on this machine.

        The page ends with the process or with ``close()``. In a notebook, the result shows a link.
        Nobody else can use the page: the link has a code that works once.

        Args:
            port: Port; 0 takes a free one.
            open_browser: Open the page in the browser; pass False on a machine without a screen.

        Raises:
            GalleryError: There is no gallery.
            MissingExtraError: The service is not installed: ``pip install "finegrain[serve]"``.
        """
        for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart", "httpx"):
            require(module, "serve")
        from finegrain.serve.browse import browse

        return browse(self, port=port, open_browser=open_browser)

    def prepare(self, *, progress: bool = True) -> Prepared:
        """Compute the tokens of all pictures for re-ranking.

        Without this call, queries compute the missing tokens of their candidates. The tokens are
        stored in ``<gallery>.tokens``, which may be deleted at any time.

        Raises:
            PlanError: The searcher was opened without ``rerank``.
        """
        reranker = self._open_reranker()
        if reranker is None:
            raise PlanError("there is nothing to prepare: open the searcher with rerank='match'")
        return reranker.prepare(progress=progress)

    def expire(self) -> int:
        """Delete the pictures that have expired (``expire_after``); returns their number."""
        return self.gallery.expire()

    @classmethod
    def reindex(
        cls,
        plan: str | Path,
        *,
        gallery: str | Path | None = None,
        drop_unreadable: bool = False,
        threads: int | None = None,
        progress: bool = True,
    ) -> Reindexed:
        """Encode the pictures of a gallery again with another plan.

        See :meth:`Gallery.reindex`. Afterwards the gallery opens only with the new plan.

        Args:
            plan: Path of the new ``model.plan``.
            gallery: Path of the gallery; by default ``model.gallery`` next to the plan.
            drop_unreadable: Delete pictures that can no longer be read. By default the gallery
                keeps its old plan if there are any.
            threads: Number of CPU threads of the towers; by default one per physical core.
            progress: Show a progress bar.

        Raises:
            GalleryError: There is no gallery, or it cannot be written.
        """
        opened = Plan(plan)
        background = Background.of_plan(opened)
        with Gallery(gallery_path(opened.path, gallery), create=False) as filled:
            result = filled.reindex(
                Encoder.from_plan(opened, threads=threads),
                opened.manifest.fingerprint,
                drop_unreadable=drop_unreadable,
                progress=progress,
            )
            if result.switched and background is not None and background.hub_correction:
                correct_hubs(background.hub_correction, filled, progress=progress)
            return result

    def close(self) -> None:
        if self._reranker is not None:
            self._reranker.close()
        self._retriever.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        size = len(self._retriever.opened) if self._retriever.opened is not None else 0
        return f"Searcher({self.manifest.method}, {size} pictures in {str(self._retriever.path)!r})"

    def _open_reranker(self) -> Reranker | None:
        if self._rerank_k is not None and self._reranker is None:
            self._reranker = Reranker(
                self._encoder, self.manifest, self.gallery, k=self._rerank_k, by=self._rerank_by
            )
        return self._reranker
