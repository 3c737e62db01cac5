"""The verb ``watch``."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from finegrain.cli.exit_status import IncompleteError
from finegrain.cli.json_output import printable_json
from finegrain.cli.opening import add_opening_options, open_searcher
from finegrain.cli.verb import Verbs, add_verb
from finegrain.errors import CameraError
from finegrain.records import printable


def add_watch_verb(verbs: Verbs) -> None:
    watch = add_verb(
        verbs,
        "watch",
        _watch,
        "detect and track people in cameras and videos, and add the best crops of each track; the "
        "exit status is 1 if no camera could be read, and 3 if one of several could not",
        "  finegrain watch model.plan rtsp://user:password@10.0.0.5/live\n"
        "  finegrain watch model.plan /dev/video0 --detector rtdetr.onnx\n"
        "  finegrain watch model.plan site.yaml --expire-days 30\n"
        "  finegrain watch model.plan recordings/ --follow\n"
        "  finegrain watch model.plan 'films/*.mp4' --start 2026-05-01T08:00+02:00",
    )
    watch.add_argument("plan", type=Path)
    watch.add_argument(
        "sources", nargs="+", metavar="SOURCE",
        help="addresses (rtsp, rtsps, http, https), devices, videos, patterns, folders of videos, "
        "or YAML lists of cameras",
    )  # fmt: skip
    watch.add_argument(
        "--detector", default="people", metavar="NAME|FILE",
        help="people (of OpenCV), or an ONNX detector: RT-DETR, D-FINE, RF-DETR, YOLOX or "
        "ultralytics (default: people)",
    )  # fmt: skip
    watch.add_argument(
        "--every", type=float, default=0.2, metavar="SECONDS",
        help="time between the frames that are looked at (default: %(default)s)",
    )  # fmt: skip
    watch.add_argument(
        "--best", type=int, default=4, metavar="N",
        help="crops to keep of each track (default: %(default)s)",
    )  # fmt: skip
    watch.add_argument(
        "--start", metavar="TIME",
        help="videos: time of the first frame, such as 2026-05-01T08:00+02:00 (default: as the "
        "file states it)",
    )  # fmt: skip
    watch.add_argument("--follow", action="store_true", help="folders: wait for more videos")
    watch.add_argument(
        "--attempts", type=int, metavar="N",
        help="give a stream up after N attempts in a row (default: never)",
    )  # fmt: skip
    watch.add_argument("--seconds", type=float, metavar="S", help="stop after this time")
    watch.add_argument(
        "--expire-days", type=float, metavar="DAYS", help="delete pictures after this time",
    )  # fmt: skip
    watch.add_argument("--hardware", metavar="NAME", help="device that decodes, such as cuda")
    watch.add_argument("--json", action="store_true", help="print the counts as JSON")
    add_opening_options(watch)


def _watch(arguments: argparse.Namespace) -> None:
    with open_searcher(arguments) as searcher:
        watched = searcher.watch(
            arguments.sources,
            detector=arguments.detector,
            every=arguments.every,
            best=arguments.best,
            start=arguments.start,
            follow=arguments.follow,
            attempts=arguments.attempts,
            seconds=arguments.seconds,
            expire_after=(
                None if arguments.expire_days is None else arguments.expire_days * 86_400
            ),
            hardware=arguments.hardware,
            tell=lambda message: print(printable(message), file=sys.stderr, flush=True),
        )
    print(printable_json(asdict(watched)) if arguments.json else printable(repr(watched)))
    if len(watched.failed) == len(watched.cameras):
        raise CameraError("no camera could be read; see above")
    if watched.failed:
        raise IncompleteError(f"could not be read: {', '.join(watched.failed)}")
