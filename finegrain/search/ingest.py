"""Taking pictures into a gallery: encoded batch by batch, each durable when it is done."""

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
from finegrain.gallery.entries import Entry, checked_entry
from finegrain.gallery.pictures import name_problem, path_of, pictures_in, thumbnail
from finegrain.gallery.stamps import stamp_of
from finegrain.preprocess import Crop, ImageSource
from finegrain.records import Problem, ProblemKind, Sample, Scalar
from finegrain.search.sync import Changes, Item, Mode, plan_changes

_SHOWN = 10

Metadata = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class Added:
    """What :meth:`Searcher.add` did, or would do.

    Attributes:
        ids: Ids of the pictures that were encoded, in the order given: new ones, and those that
            have changed.
        num_new: How many pictures are new.
        num_reencoded: Pictures that have changed and were encoded again.
        num_updated: Pictures whose columns alone were changed.
        num_moved: Pictures that were found again under another path.
        num_removed: Pictures that were removed as their source no longer gives them.
        num_known: Pictures that the gallery held already, and that stay as they are.
        num_differing: How many of these differ from what was given.
        num_kept_back: Pictures that may have been removed from their source, which could not be
            read as a whole; they stay.
        problems: What was left out, and why.
        is_plan: Nothing was done: this is what would be.
    """

    ids: list[int] = field(default_factory=list)
    num_new: int = 0
    num_reencoded: int = 0
    num_updated: int = 0
    num_moved: int = 0
    num_removed: int = 0
    num_known: int = 0
    num_differing: int = 0
    num_kept_back: int = 0
    problems: list[Problem] = field(default_factory=list)
    is_plan: bool = False

    @property
    def num_given(self) -> int:
        """How many pictures are in the gallery that were given."""
        parts = (self.num_new, self.num_reencoded, self.num_updated, self.num_moved)
        return sum(parts) + self.num_known

    def __add__(self, other: Added) -> Added:
        names = [name for name in self.__slots__ if name.startswith("num_")]
        return Added(
            **{name: getattr(self, name) + getattr(other, name) for name in names},
            ids=self.ids + other.ids,
            problems=self.problems + other.problems,
            is_plan=self.is_plan or other.is_plan,
        )

    def __str__(self) -> str:
        would = "would have " if self.is_plan else ""
        lines = [f"{would}added {self.num_new} pictures"]
        for count, what in (
            (self.num_reencoded, "encoded {} again that have changed"),
            (self.num_updated, "updated the columns of {}"),
            (self.num_moved, "found {} again that have moved"),
            (self.num_removed, "removed {} that are gone"),
            (self.num_known, "passed over {} that were there already"),
        ):
            lines += [would + what.format(count)] if count else []
        if self.num_differing:
            lines += [
                f"{self.num_differing} of these differ from what was given and stay as they are; "
                "bring them up to date with replace=True, or --replace"
            ]
        if self.num_kept_back:
            lines += [
                f"kept {self.num_kept_back} that may be gone, since not all of the source could be "
                "read; mend it and try again"
            ]
        return "\n  ".join([*lines, *described(self.problems)])


def described(problems: Sequence[Problem]) -> list[str]:
    """Lines about what was left out: by kind, and the first ten."""
    if not problems:
        return []
    kinds = Counter(problem.kind.value for problem in problems)
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    more = len(problems) - _SHOWN
    return [
        f"left out {len(problems)} ({counts}):",
        *map(str, problems[:_SHOWN]),
        *([f"... and {more} more"] if more > 0 else []),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How pictures are taken in.

    Attributes:
        mode: What may be done to those that are there.
        source: The folder or table that gives them, by its real path or any name.
        expire_after: As of :meth:`Searcher.add`.
        is_plan: Only say what would be done.
        progress: Show a bar.
    """

    mode: Mode
    source: str | None
    expire_after: timedelta | float | None
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
    ) -> Manner:
        """Check how the arguments go together.

        Raises:
            GalleryError: ``sync`` is asked for without a source, of which alone it may remove.
        """
        if sync and source is None:
            raise GalleryError(
                "sync removes what its source no longer gives, so it needs one: give a folder, or "
                "source= with the name of what gives these pictures"
            )
        if isinstance(source, Path) or (source is not None and os.path.exists(source)):
            source = os.path.realpath(source)
        return cls(
            mode="sync" if sync else "replace" if replace else "add",
            source=source,
            expire_after=expire_after,
            is_plan=dry_run,
            progress=progress,
        )


def take_in(
    encoder: Encoder,
    gallery: Gallery,
    pictures: ImageSource | Crop | Iterable[ImageSource | Crop],
    metadata: Metadata | Sequence[Metadata] | None,
    manner: Manner,
    *,
    problems: Sequence[Problem] = (),
) -> Added:
    """Encode pictures and keep them; see :meth:`Searcher.add`.

    Args:
        encoder: Of the gallery's plan.
        gallery: Where they are kept.
        pictures: What is given.
        metadata: Columns for all of them, or for each.
        manner: What may be done.
        problems: What of the source could not be read.
    """
    given = pictures_in(pictures)
    sources = given.pictures
    left_out = [*problems, *given.left_out]
    items = _items(sources, _columns(metadata, len(sources)), manner, left_out)
    last = gallery.last_id()
    changes = plan_changes(
        gallery,
        items,
        manner.mode,
        source=manner.source,
        is_whole=not any(problem.is_loss for problem in left_out),
    )
    if not manner.is_plan:
        gallery.rewrite(changes.rewrite)
    ids: list[int] = []
    if not manner.is_plan:
        entries = {item.position: item.entry for item in items} | changes.merged
        wanted = [sources[position] for position in changes.encode]
        for batch in encoder.stream_images(wanted, progress=manner.progress):
            places = [changes.encode[position] for position in batch.positions]
            kept = [_with_file(entries[place], sources[place]) for place in places]
            ids += gallery.add_entries(batch.embeddings, kept, since=last, own={*ids})
            left_out += batch.problems
        gone = [*_replaced(gallery, changes, ids), *changes.stale, *changes.remove]
        if gone:
            gallery.delete(gone)
    return _added(changes, ids, left_out, manner)


def _replaced(gallery: Gallery, changes: Changes, ids: Sequence[int]) -> list[int]:
    """Rows that give way: those of pictures which could be encoded again."""
    encoded = {row.image for row in gallery.rows(ids)} if changes.give_way else set()
    return [row.id for row in gallery.rows(changes.give_way) if row.image in encoded]


def _added(changes: Changes, ids: list[int], left_out: list[Problem], manner: Manner) -> Added:
    num_encoded = len(changes.encode) if manner.is_plan else len(ids)
    num_reencoded = min(changes.num_reencoded, num_encoded)
    return Added(
        ids=ids,
        num_new=num_encoded - num_reencoded,
        num_reencoded=num_reencoded,
        num_updated=changes.num_updated,
        num_moved=changes.num_moved,
        num_removed=len(changes.remove),
        num_known=changes.num_unchanged,
        num_differing=changes.num_differing,
        num_kept_back=changes.kept_back,
        problems=left_out,
        is_plan=manner.is_plan,
    )


def _items(
    sources: Sequence[ImageSource],
    columns: Sequence[Metadata],
    manner: Manner,
    left_out: list[Problem],
) -> list[Item]:
    """What was given, but for what cannot be named or would be gone at once."""
    now = times.utc_text(times.now())
    items = []
    for position, (source, row) in enumerate(zip(sources, columns, strict=True)):
        if (misnamed := name_problem(source)) is not None:
            left_out.append(misnamed)
            continue
        path = path_of(source)
        entry = checked_entry(
            f"pictures[{position}]",
            row,
            image=path,
            expire_after=manner.expire_after,
            source=manner.source,
        )
        if entry.expires_at is not None and entry.expires_at <= now:
            where = path or f"picture {position}"
            why = f"its time is over since {entry.expires_at}: it was taken at {entry.time}"
            left_out.append(Problem(where=where, why=why, kind=ProblemKind.EXPIRED))
            continue
        items.append(Item(position, entry, frozenset(row)))
    return items


def _with_file(entry: Entry, source: ImageSource) -> Entry:
    """An entry with the stamp of its file, or a thumbnail where it has none."""
    if entry.image is None:
        return replace(entry, thumbnail=thumbnail(source))
    return replace(entry, stamp=stamp_of(entry.image))


def columns_of(sample: Sample, metadata: Metadata) -> Metadata:
    """What a gallery keeps of a sample, beside its picture."""
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
