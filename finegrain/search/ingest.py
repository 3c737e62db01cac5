"""Adds pictures to a gallery. Each batch is stored when it is encoded."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from finegrain import times
from finegrain.encoder import Encoder
from finegrain.errors import GalleryError
from finegrain.gallery import Gallery
from finegrain.gallery.entries import checked_retention, entry_from_mapping
from finegrain.gallery.picture_files import discard_unpacked, stamp_of, unpacked_file
from finegrain.gallery.pictures import name_problem, path_of, pictures_in, thumbnail
from finegrain.gallery.row import Entry, Row
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem, ProblemKind, Sample, Scalar, printable
from finegrain.search.sync import (
    AllowRemoving,
    Changes,
    Item,
    Mode,
    checked_allowance,
    plan_changes,
    stored_again,
)

_SHOWN = 10

Metadata = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """Result of :meth:`Searcher.add`, or what it would do in a dry run.

    Attributes:
        ids: Ids of the encoded pictures in the order of the input, both new and changed ones. A
            picture that another run has added has its id there.
        num_new: Number of new pictures.
        num_reencoded: Number of changed or damaged pictures, which were encoded again.
        num_updated: Number of pictures of which only the columns were changed.
        num_moved: Number of pictures whose file has another path now.
        num_removed: Number of pictures that were deleted because their source lacks them now.
        num_known: Number of pictures that were in the gallery already and stay as they are.
        num_differing: Number of pictures in ``num_known`` that differ from the input.
        num_overtaken: Number of pictures that another run added while this one encoded them.
        num_kept_back: Number of pictures that their source may lack now. They stay because parts
            of the source could not be read.
        removed: Paths of the ``num_removed`` pictures.
        refused: Paths of pictures that their source lacks now, and that stay because they are too
            many to be removed without ``allow_removing``.
        problems: Pictures, rows and files that were left out.
        notes: Columns whose values are of another kind than those in the gallery.
        is_plan: Whether this is the result of a dry run.
    """

    ids: list[int] = field(default_factory=list)
    num_new: int = 0
    num_reencoded: int = 0
    num_updated: int = 0
    num_moved: int = 0
    num_removed: int = 0
    num_known: int = 0
    num_differing: int = 0
    num_overtaken: int = 0
    num_kept_back: int = 0
    removed: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_plan: bool = False

    @property
    def num_given(self) -> int:
        """Number of pictures of the input that are in the gallery now."""
        return (
            self.num_new
            + self.num_reencoded
            + self.num_updated
            + self.num_moved
            + self.num_known
            + self.num_overtaken
        )

    def __add__(self, other: Added) -> Added:
        names = [name for name in self.__slots__ if name.startswith("num_")]
        return Added(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            ids=self.ids + other.ids,
            removed=self.removed + other.removed,
            refused=self.refused + other.refused,
            problems=self.problems + other.problems,
            notes=self.notes + other.notes,
            is_plan=self.is_plan or other.is_plan,
        )

    def __str__(self) -> str:
        would = "would have " if self.is_plan else ""
        lines = [f"{would}added {self.num_new} pictures"]
        for count, what in (
            (self.num_reencoded, "encoded again {} that have changed or were damaged"),
            (self.num_updated, "updated the columns of {}"),
            (self.num_moved, "updated the paths of {} that have moved"),
            (self.num_removed, "removed {} that are gone"),
            (self.num_known, "skipped {} that were there already"),
            (self.num_overtaken, "skipped {} that another run added meanwhile"),
        ):
            lines += [would + what.format(count)] if count else []
        if self.is_plan and self.removed:
            lines += ["to remove:", *_first(self.removed)]
        if self.refused:
            lines += [
                f"kept {len(self.refused)} that are gone, because many at once, or all of a "
                "folder, may be on a disk that is not mounted. If they are to be removed: "
                f"--allow-removing {len(self.refused)} (or allow_removing=)",
                *_first(self.refused),
            ]
        if self.num_differing:
            lines += [
                f"{self.num_differing} of these differ from the input and stay as they are; "
                "update them with replace=True, or --replace"
            ]
        if self.num_kept_back:
            lines += [
                f"kept {self.num_kept_back} that may be gone, because parts of the source could "
                "not be read; repair it and try again"
            ]
        lines += [f"note: {printable(note)}" for note in self.notes]
        return "\n  ".join([*lines, *described(self.problems)])


def described(problems: Sequence[Problem]) -> list[str]:
    """Lines that list problems: the number of each kind, and the first ten."""
    if not problems:
        return []
    kinds = Counter(problem.kind.value for problem in problems)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return [f"left out {len(problems)} ({counts}):", *_first(problems)]


def _first(items: Sequence[Problem | str]) -> list[str]:
    """The first items as lines that a terminal can show, and the number of the others."""
    num_more = len(items) - _SHOWN
    lines = [printable(str(item)) for item in items[:_SHOWN]]
    return [*lines, *([f"... and {num_more} more"] if num_more > 0 else [])]


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestOptions:
    """Options of :func:`ingest`; create them with :meth:`of`.

    Attributes:
        mode: What may be done to pictures that are in the gallery already.
        source: Real path of the folder or table of the pictures, or any name.
        retention: How long to keep the pictures, or None to keep them until they are deleted.
        allow_removing: The most pictures that ``sync`` may remove.
        checksum: Compare files of the same size and time by their content.
        is_plan: Report what would be done without doing it.
        progress: Show a progress bar.
    """

    mode: Mode
    source: str | None
    retention: timedelta | None
    allow_removing: AllowRemoving
    checksum: bool
    is_plan: bool
    progress: bool

    @classmethod
    def of(
        cls,
        source: str | Path | None,
        replace: bool,
        sync: bool,
        expire_after: timedelta | float | None,
        dry_run: bool,
        progress: bool,
        allow_removing: AllowRemoving = None,
        checksum: bool = False,
    ) -> IngestOptions:
        """Check the arguments of :meth:`Searcher.add`.

        Raises:
            GalleryError: ``sync`` is true and there is no source, or ``expire_after`` or
                ``allow_removing`` is invalid.
        """
        if sync and source is None:
            raise GalleryError(
                "sync removes pictures that its source no longer holds, so it needs a source: pass "
                "a folder, or a name for the source of these pictures as source="
            )
        if isinstance(source, Path) or (source is not None and os.path.exists(source)):
            source = os.path.realpath(source)
        return cls(
            mode="sync" if sync else "replace" if replace else "add",
            source=source,
            retention=checked_retention(expire_after),
            allow_removing=checked_allowance(allow_removing),
            checksum=checksum,
            is_plan=dry_run,
            progress=progress,
        )


def ingest(
    encoder: Encoder,
    gallery: Gallery,
    pictures: ImageSource | Crop | Iterable[ImageSource | Crop],
    metadata: Metadata | Sequence[Metadata] | None,
    options: IngestOptions,
    *,
    problems: Sequence[Problem] = (),
) -> Added:
    """Encode pictures and add them to a gallery; see :meth:`Searcher.add`.

    Args:
        encoder: Encoder of the plan of the gallery.
        gallery: The gallery.
        pictures: A folder or pictures.
        metadata: Columns for all pictures, or for each picture.
        options: Options.
        problems: Problems in reading the source, which the result repeats.
    """
    # What another run adds after this one has listed its source is not there to be removed.
    removable = {place.id for place in gallery.places()} if options.mode == "sync" else set()
    listing = pictures_in(pictures)
    sources = listing.pictures
    left_out = [*problems, *listing.left_out]
    items = _items(sources, _columns(metadata, len(sources)), options, left_out)
    changes = plan_changes(
        gallery,
        items,
        options.mode,
        source=options.source,
        is_whole=not any(problem.is_loss for problem in left_out),
        unread=[os.path.realpath(problem.where) for problem in left_out if problem.is_unread],
        allow_removing=options.allow_removing,
        checksum=options.checksum,
        removable=removable,
    )
    of_position = {item.position: item.entry for item in items} | changes.replaced
    notes = gallery.notes_on_kinds(
        [*(of_position[position] for position in changes.encode), *changes.rewrite]
    )
    if not options.is_plan:
        gallery.rewrite(changes.rewrite)
    ids: list[int] = []
    num_overtaken = 0
    if not options.is_plan:
        replaced: list[int] = []
        by_position = {item.position: item for item in items}
        to_encode = [sources[position] for position in changes.encode]
        for batch in encoder.stream_images(to_encode, progress=options.progress):
            positions = [changes.encode[i] for i in batch.positions]
            of_batch = {i: changes.replaced[i] for i in positions if i in changes.replaced}
            of_position |= _replaced_now(gallery, of_batch, by_position, options)
            stamped = [_with_file(of_position[i], sources[i]) for i in positions]
            inserted = gallery.add_entries(batch.embeddings, stamped, known=changes.seen)
            ids += inserted.ids
            replaced += [row.id for row in of_batch.values()]
            num_overtaken += inserted.num_overtaken
            changes.seen.update(inserted.ids)
            left_out += batch.problems
        changes.keep_returned()
        to_delete = [*replaced, *changes.stale, *changes.remove]
        if to_delete:
            gallery.delete(to_delete)
        paths = {path for path in map(path_of, sources) if path is not None and unpacked_file(path)}
        discard_unpacked(paths - gallery.known(paths), lambda path: False)
    return _added(changes, ids, num_overtaken, left_out, notes, options)


def _replaced_now(
    gallery: Gallery,
    replaced: Mapping[int, Row],
    items: Mapping[int, Item],
    options: IngestOptions,
) -> dict[int, Row]:
    """The columns of changed pictures by position; they may have been set meanwhile.

    Args:
        gallery: The gallery.
        replaced: The rows of changed pictures by position, as they were planned.
        items: Pictures of the input by position.
        options: Options.
    """
    rows = {row.id: row for row in gallery.rows(row.id for row in replaced.values())}
    return {
        position: stored_again(items[position], rows[row.id], options.mode, options.source)
        for position, row in replaced.items()
        if row.id in rows
    }


def _added(
    changes: Changes,
    ids: list[int],
    num_overtaken: int,
    left_out: list[Problem],
    notes: list[str],
    options: IngestOptions,
) -> Added:
    num_encoded = len(changes.encode) if options.is_plan else len(ids) - num_overtaken
    num_reencoded = min(len(changes.replaced), num_encoded)
    return Added(
        ids=ids,
        num_new=num_encoded - num_reencoded,
        num_reencoded=num_reencoded,
        num_updated=changes.num_updated,
        num_moved=changes.num_moved,
        num_removed=len(changes.remove),
        num_known=changes.num_unchanged,
        num_differing=changes.num_differing,
        num_overtaken=num_overtaken,
        num_kept_back=changes.kept_back,
        removed=list(changes.remove.values()),
        refused=list(changes.refused.values()),
        problems=left_out,
        notes=notes,
        is_plan=options.is_plan,
    )


def _items(
    sources: Sequence[ImageSource],
    columns: Sequence[Metadata],
    options: IngestOptions,
    left_out: list[Problem],
) -> list[Item]:
    """Items of the pictures, without those with an invalid name and those that have expired."""
    now = times.utc_text(times.now())
    items = []
    for position, (source, row) in enumerate(zip(sources, columns, strict=True)):
        if (misnamed := name_problem(source)) is not None:
            left_out.append(misnamed)
            continue
        path = path_of(source)
        entry = entry_from_mapping(
            f"pictures[{position}]",
            row,
            image=path,
            retention=options.retention,
            source=options.source,
        )
        if entry.expires_at is not None and entry.expires_at <= now:
            where = path or f"picture {position}"
            why = f"it has expired at {entry.expires_at}, because it was taken at {entry.time}"
            left_out.append(Problem(where=where, why=why, kind=ProblemKind.EXPIRED))
            continue
        items.append(Item(position, entry, frozenset(row)))
    return items


def _with_file(entry: Entry, source: ImageSource) -> Entry:
    """Add the stamp of its file to an entry, or a thumbnail if it has no file."""
    if entry.image is None:
        return replace(entry, thumbnail=thumbnail(source))
    return replace(entry, stamp=stamp_of(entry.image))


def columns_of(sample: Sample, metadata: Metadata) -> Metadata:
    """Columns of a sample for the gallery."""
    camera = {"camera": sample.camera} if sample.camera is not None else {}
    return {
        **({"caption": sample.captions[0]} if sample.captions else {}),
        **metadata,
        **sample.metadata,
        **({} if sample.pid is None else {"pid": sample.pid}),
        **camera,
    }


def _columns(
    metadata: Metadata | Sequence[Metadata] | None, num_pictures: int
) -> Sequence[Metadata]:
    if metadata is None or isinstance(metadata, Mapping):
        return [metadata or {}] * num_pictures
    if len(metadata) != num_pictures:
        raise GalleryError(
            f"expected metadata for each of the {num_pictures} pictures, got {len(metadata)}"
        )
    return metadata
