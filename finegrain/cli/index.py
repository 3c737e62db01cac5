"""What the verb ``index`` does with its parsed arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import finegrain
from finegrain.cli.commands import open_searcher
from finegrain.cli.index_report import report_index
from finegrain.errors import DataError, GalleryError, ImageError
from finegrain.records import Problem, Split
from finegrain.search.ingest import Added


class Following(TypedDict):
    """What `index` may do to pictures that are there already."""

    replace: bool
    sync: bool
    dry_run: bool


def index(arguments: argparse.Namespace) -> None:
    if not arguments.pictures and not arguments.reindex:
        raise ImageError("nothing to index: give folders, pictures, videos or catalogues")
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
        for source in arguments.pictures:
            total += _index_source(searcher, source, arguments)
        if arguments.rerank:
            print(searcher.prepare())
        print(searcher)
    report_index(total, _left_out_path(arguments), num_sources=len(arguments.pictures))


def _index_source(
    searcher: finegrain.Searcher, source: Path, arguments: argparse.Namespace
) -> Added:
    """Add what one argument holds; one of several that cannot be read is a problem."""
    from finegrain.data.catalog import input_kind

    retention = None if arguments.expire_days is None else arguments.expire_days * 86_400
    columns = dict(arguments.metadata)
    following: Following = {
        "replace": arguments.replace,
        "sync": arguments.sync,
        "dry_run": arguments.dry_run,
    }
    try:
        match input_kind(source):
            case "video" if arguments.dry_run:
                raise ImageError(f"{source} is a video, of which --dry-run says nothing")
            case "video":
                added = searcher.add_video(
                    source,
                    every=arguments.every,
                    start=arguments.start,
                    metadata=columns,
                    expire_after=retention,
                )
            case "picture":
                added = searcher.add(
                    source, columns, expire_after=retention, source=source, **following
                )
            case _:
                splits = _splits(source, arguments).values()
                for note in (note for split in splits for note in split.notes):
                    print(note, file=sys.stderr)
                added = searcher.add_samples(
                    [sample for split in splits for sample in split.samples],
                    columns,
                    expire_after=retention,
                    source=source,
                    problems=[problem for split in splits for problem in split.problems],
                    **following,
                )
    except (DataError, ImageError) as error:
        if len(arguments.pictures) == 1:
            raise
        print(error, file=sys.stderr)
        return Added(problems=[Problem(where=str(source), why=str(error))])
    print(added)
    return added


def _left_out_path(arguments: argparse.Namespace) -> Path:
    """Where to name all that was left out: beside the gallery's file, or beside the plan."""
    if arguments.left_out:
        return Path(arguments.left_out)
    gallery = arguments.gallery
    beside = arguments.plan.with_suffix(".gallery")
    place = Path(gallery) if gallery and "://" not in gallery else beside
    return place.with_name(f"{place.name}.left-out.txt")


def _splits(source: Path, arguments: argparse.Namespace) -> Mapping[str, Split]:
    """What a catalogue or a folder of pictures holds."""
    from finegrain.data.catalog import (
        CatalogOptions,
        Roles,
        TextFormat,
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
        text=TextFormat(
            encoding=arguments.encoding,
            fallback_encoding=arguments.fallback_encoding,
            separator=arguments.separator,
        ),
        images_root=arguments.images_root,
        max_bad_share=arguments.max_bad_share,
    )
    if not source.is_dir():
        return read_with(source, options)
    return read_picture_folder(
        source, options, exclude=arguments.exclude, name_pattern=arguments.name_pattern
    )
