"""The verb ``index``."""

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
from finegrain.cli.index_report import report_index, unpacked_lines
from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb, named_value
from finegrain.errors import DataError, FinegrainError, GalleryError, ImageError, MissingExtraError
from finegrain.gallery.picture_files import unpacked_file
from finegrain.preprocess.folder import UNPACKED, read_folder
from finegrain.records import Problem, ProblemKind, Sample, Split, printable
from finegrain.search.ingest import Added
from finegrain.search.sync import AllowRemoving, checked_allowance

if TYPE_CHECKING:
    from finegrain.data.catalog import TextFormat


class _UpdateOptions(TypedDict):
    """Options for pictures that are in the gallery already."""

    replace: bool
    sync: bool
    allow_removing: AllowRemoving
    checksum: bool
    dry_run: bool


def add_index_verb(verbs: Verbs) -> None:
    index = add_verb(
        verbs,
        "index",
        _index,
        "add pictures to the gallery of a plan; the exit status is 1 if nothing of what was given "
        "is in the gallery, and 3 if one of several inputs is not, or --sync kept what is gone",
        "  finegrain index model.plan crops/ --metadata camera=gate-3\n"
        "  finegrain index model.plan crops/ --expire-days 30\n"
        "  finegrain index model.plan catalog.csv --sync --dry-run\n"
        "  finegrain index model.plan gate-3.mp4 --every 2 --start 2026-05-01T08:00\n"
        "  finegrain index model.plan catalog.csv --image-column file --caption-column title\n"
        "  finegrain index model.plan shopify_export.csv --images-root downloads/\n"
        "  finegrain index model.plan styles.csv --image-pattern 'images/{id}.jpg'\n"
        "  finegrain index model.plan market/ --name-pattern '{pid}_c{camera}s{seq}_{frame}'\n"
        "  finegrain index new.plan crops/ --gallery model.gallery --reindex",
    )
    index.add_argument("plan", type=Path)
    index.add_argument(
        "pictures", type=Path, nargs="*", help="folders, pictures, videos, or catalogues"
    )
    index.add_argument(
        "--metadata", type=named_value, action="append", default=[], metavar="NAME=VALUE",
        help="a column for all pictures",
    )  # fmt: skip
    index.add_argument(
        "--expire-days", type=float, metavar="DAYS",
        help="delete pictures this long after they were taken (--metadata time=...) or added",
    )  # fmt: skip
    index.add_argument(
        "--reindex", action="store_true",
        help="first encode pictures of another plan again; continues after an interruption",
    )  # fmt: skip
    index.set_defaults(several="pictures")
    index.add_argument(
        "--drop-unreadable", action="store_true",
        help="with --reindex: delete pictures that cannot be read any more",
    )  # fmt: skip
    follow = index.add_argument_group("pictures that are in the gallery already")
    follow.add_argument(
        "--replace", action="store_true",
        help="encode changed files again, and set changed columns (default: skip both)",
    )  # fmt: skip
    follow.add_argument(
        "--sync", action="store_true",
        help="as --replace; also find moved files, and remove those that the source lacks now",
    )  # fmt: skip
    follow.add_argument(
        "--checksum", action="store_true",
        help="read each file, to find those that have changed with the same size and time",
    )  # fmt: skip
    follow.add_argument(
        "--allow-empty", action="store_true",
        help="with --sync: remove the pictures of a folder or table that is empty or gone now",
    )  # fmt: skip
    follow.add_argument(
        "--allow-removing", type=_allowance, metavar="N|all",
        help="with --sync: remove up to N pictures (default: five, or a fifth of the source, and "
        "none below a folder that is empty now)",
    )  # fmt: skip
    follow.add_argument(
        "--dry-run", action="store_true",
        help="only report what would be done; pictures inside archives and tables are unpacked",
    )  # fmt: skip
    index.add_argument(
        "--left-out", metavar="FILE",
        help="list everything that was left out there (default: GALLERY.left-out.txt)",
    )  # fmt: skip
    index.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS",
        help="videos: time between the frames (default: 1)",
    )  # fmt: skip
    index.add_argument(
        "--start", metavar="TIME",
        help="videos: time of the first frame, such as 2026-05-01T08:00+02:00",
    )  # fmt: skip
    index.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN",
        help="folders: skip these names or paths, such as '*.png' or 'old/*'",
    )  # fmt: skip
    index.add_argument(
        "--name-pattern", metavar="PATTERN",
        help="folders: columns in file names, such as {pid}_c{camera}s{seq}_{frame}",
    )  # fmt: skip
    table = index.add_argument_group("tables, feeds and shards")
    table.add_argument("--image-column", metavar="NAME", help="default: by the kind of table")
    table.add_argument(
        "--image-pattern", metavar="PATTERN",
        help="path of the picture of a row, such as images/{id}.jpg",
    )  # fmt: skip
    table.add_argument("--caption-column", metavar="NAME", help="default: by the kind of table")
    table.add_argument("--pid-column", metavar="NAME", help="identifies the person or product")
    table.add_argument("--camera-column", metavar="NAME", help="default: camera")
    table.add_argument("--time-column", metavar="NAME", help="default: time")
    table.add_argument(
        "--time-format", metavar="FORMAT",
        help="format of times, such as '%%d/%%m/%%Y %%H:%%M' (default: ISO 8601, and "
        "unambiguous formats)",
    )  # fmt: skip
    table.add_argument(
        "--images-root", type=Path, metavar="FOLDER",
        help="folder of the downloaded pictures of a feed; nothing is downloaded",
    )  # fmt: skip
    table.add_argument("--encoding", metavar="NAME", help="encoding of tables, such as gbk")
    table.add_argument(
        "--fallback-encoding", metavar="NAME", help="encoding of tables that are not UTF-8",
    )  # fmt: skip
    table.add_argument(
        "--separator", metavar="CHARACTER", type=_character,
        help="separator of cells; tab for a tab (default: detected)",
    )  # fmt: skip
    table.add_argument(
        "--max-bad-share", type=float, default=0.1, metavar="SHARE",
        help="stop if a larger share of the rows of a catalogue is bad (default: 0.1)",
    )  # fmt: skip

    add_opening_options(index)


def _character(text: str) -> str:
    return {"tab": "\t", "\\t": "\t"}.get(text, text)


def _allowance(text: str) -> AllowRemoving:
    try:
        return checked_allowance(text if text == "all" else int(text))
    except (ValueError, GalleryError) as error:
        raise argparse.ArgumentTypeError(f"expected a number or 'all', got {text!r}") from error


def _index(arguments: argparse.Namespace) -> None:
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
        "checksum": arguments.checksum,
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
