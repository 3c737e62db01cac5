"""Runs the verb ``index`` with its parsed arguments."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import finegrain
from finegrain.cli.commands import open_searcher
from finegrain.cli.index_report import report_index, unpacked_lines
from finegrain.errors import DataError, FinegrainError, GalleryError, ImageError, MissingExtraError
from finegrain.gallery.picture_files import unpacked_file
from finegrain.preprocess.folder import UNPACKED, read_folder
from finegrain.records import Problem, ProblemKind, Sample, Split, printable
from finegrain.search.ingest import Added
from finegrain.search.sync import AllowRemoving

if TYPE_CHECKING:
    from finegrain.data.catalog import TextFormat


class _UpdateOptions(TypedDict):
    """Options for pictures that are in the gallery already."""

    replace: bool
    sync: bool
    allow_removing: AllowRemoving
    dry_run: bool


def index(arguments: argparse.Namespace) -> None:
    if not arguments.pictures and not arguments.reindex:
        raise ImageError("there is nothing to index: pass folders, pictures, videos or catalogues")
    if arguments.reindex:
        done = finegrain.Searcher.reindex(
            arguments.plan,
            gallery=arguments.gallery,
            drop_unreadable=arguments.drop_unreadable,
        )
        print(done)
        if not done.switched:
            raise GalleryError("the gallery still holds the vectors of its old plan")
    with open_searcher(arguments) as searcher:
        total = Added()
        for sources in _together(arguments.pictures):
            total += _index_sources(searcher, sources, arguments)
        if arguments.rerank:
            print(searcher.prepare())
        print(searcher)
        if any(os.path.isdir(f"{source}{UNPACKED}") for source in arguments.pictures):
            print("\n  ".join(unpacked_lines(searcher.gallery)))
    report_index(total, _left_out_path(arguments), sources=arguments.pictures)
    if not total.is_plan:
        print(f"\nsearch it with:\n  {_next_command(arguments)}")


def _next_command(arguments: argparse.Namespace) -> str:
    """The command that searches the gallery."""
    gallery = ["--gallery", arguments.gallery] if arguments.gallery else []
    example = ["woman in red coat", *gallery, "--grid", "matches.png"]
    return shlex.join(["finegrain", "query", str(arguments.plan), *example])


def _together(sources: Sequence[Path]) -> Iterator[list[Path]]:
    """Groups of arguments: consecutive pictures of one folder together, others alone."""
    for (are_pictures, _), group in groupby(sources, key=lambda p: (_is_picture(p), p.parent)):
        if are_pictures:
            yield list(group)
        else:
            yield from ([source] for source in group)


def _is_picture(source: Path) -> bool:
    from finegrain.data.catalog import input_kind

    try:
        return source.is_file() and input_kind(source) == "picture"
    except (DataError, OSError, ValueError):  # reported when it is indexed
        return False


def _index_sources(
    searcher: finegrain.Searcher, sources: Sequence[Path], arguments: argparse.Namespace
) -> Added:
    """Add several pictures, or the pictures of one other argument.

    If there are several arguments, an error in one of them becomes a problem in the result.
    """
    from finegrain.data.catalog import input_kind, read_pictures

    source = sources[0]
    retention = None if arguments.expire_days is None else arguments.expire_days * 86_400
    columns = dict(arguments.metadata)
    update_options: _UpdateOptions = {
        "replace": arguments.replace,
        "sync": arguments.sync,
        "allow_removing": arguments.allow_removing,
        "dry_run": arguments.dry_run,
    }
    try:
        if arguments.sync and _holds_nothing(source, _text_format(arguments)):
            removed = _all_removed(searcher, source, arguments)
            if removed is not None:
                print(removed)
                return removed
        match input_kind(source):
            case "video" if arguments.dry_run:
                raise ImageError(f"{source} is a video, which --dry-run does not support")
            case "video":
                added = searcher.add_video(
                    source,
                    every=arguments.every,
                    start=arguments.start,
                    metadata=columns,
                    expire_after=retention,
                )
            case "picture":
                split = read_pictures(
                    sources, name_pattern=arguments.name_pattern, time_format=arguments.time_format
                )
                update_options["replace"] |= update_options["sync"]
                update_options["sync"] = False  # a single picture cannot show what its folder lacks
                added = searcher.add_samples(
                    split.samples,
                    columns,
                    expire_after=retention,
                    source=source.parent,
                    problems=split.problems,
                    **update_options,
                )
            case _:
                splits = _splits(source, arguments).values()
                for note in (note for split in splits for note in split.notes):
                    print(printable(note), file=sys.stderr)
                samples = [sample for split in splits for sample in split.samples]
                if arguments.dry_run:
                    _tell_unpacked(samples)
                added = searcher.add_samples(
                    samples,
                    columns,
                    expire_after=retention,
                    source=source,
                    problems=[problem for split in splits for problem in split.problems],
                    **update_options,
                )
    except (DataError, ImageError, MissingExtraError, OSError, ValueError) as error:
        if len(arguments.pictures) == 1:
            if not isinstance(error, FinegrainError):
                raise DataError(f"{source} cannot be read: {error}.") from error
            raise
        print(printable(str(error)), file=sys.stderr)
        problem = Problem(where=str(source), why=str(error), kind=ProblemKind.INPUT)
        return Added(problems=[problem])
    print(added)
    return added


def _tell_unpacked(samples: Sequence[Sample]) -> None:
    """Tell where a dry run has unpacked pictures, which their paths require."""
    files = (unpacked_file(str(sample.image)) for sample in samples)
    for folder in sorted({file.parent for file in files if file is not None}):
        print(
            f"note: a dry run unpacks pictures, too: they are in {printable(str(folder))}, where "
            "a run without --dry-run uses them. Delete the folder if no gallery uses it",
            file=sys.stderr,
        )


def _holds_nothing(source: Path, text: TextFormat) -> bool:
    """Whether a folder or table is empty or gone, as when a disk is not mounted."""
    from finegrain.data.catalog import input_kind, open_table

    if source.is_dir():
        listing = read_folder(source)
        return not (
            listing.pictures or listing.tables or any(p.is_unread for p in listing.left_out)
        )
    if not source.exists() or not source.stat().st_size:
        return True
    try:
        is_table = input_kind(source) == "catalog" and source.suffix.lower() != ".tar"
        return is_table and next(open_table(source, text).rows, None) is None
    except DataError:
        return False


def _all_removed(
    searcher: finegrain.Searcher, source: Path, arguments: argparse.Namespace
) -> Added | None:
    """Remove the pictures of an empty source if that is allowed; None if there are none.

    Raises:
        ImageError: The gallery has pictures of the source, and removing them is not allowed.
    """
    allowed: AllowRemoving = "all" if arguments.allow_empty else arguments.allow_removing or 0
    added = searcher.add_samples(
        [], source=source, sync=True, allow_removing=allowed, dry_run=arguments.dry_run
    )
    if added.refused:
        raise ImageError(
            f"{source} is empty or gone, and the gallery has {len(added.refused)} pictures of it; "
            "they stay. Mount or restore it, or add --allow-empty to remove them"
        )
    return added if added.num_removed else None


def _left_out_path(arguments: argparse.Namespace) -> Path:
    """Path of the list of problems: next to the file of the gallery, or next to the plan."""
    if arguments.left_out:
        return Path(arguments.left_out)
    gallery = arguments.gallery
    default = arguments.plan.with_suffix(".gallery")
    path = Path(gallery) if gallery and "://" not in gallery else default
    return path.with_name(f"{path.name}.left-out.txt")


def _text_format(arguments: argparse.Namespace) -> TextFormat:
    from finegrain.data.catalog import TextFormat

    return TextFormat(
        encoding=arguments.encoding,
        fallback_encoding=arguments.fallback_encoding,
        separator=arguments.separator,
    )


def _splits(source: Path, arguments: argparse.Namespace) -> Mapping[str, Split]:
    """Read a catalogue or a folder of pictures."""
    from finegrain.data.catalog import (
        CatalogOptions,
        Roles,
        read_picture_folder,
        read_with,
    )

    options = CatalogOptions(
        roles=Roles(
            image=arguments.image_column,
            pattern=arguments.image_pattern,
            captions=(arguments.caption_column,) if arguments.caption_column else (),
            pid=arguments.pid_column,
            camera=arguments.camera_column,
            time=arguments.time_column,
            time_format=arguments.time_format,
            for_search=True,
        ),
        text=_text_format(arguments),
        images_root=arguments.images_root,
        max_bad_share=arguments.max_bad_share,
    )
    if not source.is_dir():
        return read_with(source, options)
    return read_picture_folder(
        source, options, exclude=arguments.exclude, name_pattern=arguments.name_pattern
    )
