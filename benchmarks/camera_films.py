"""Tracks and moments on rendered films, beside whole frames in the gallery.

    python benchmarks/camera_films.py model.plan

People walk past two cameras. A simulated detector gives the true boxes with errors: their sides
are off by up to 4 %, 5 % of the people are missed, and 2 % of the frames have a false box. The
tracking figures are those of the library ``trackers``. A query is a caption of a person, and its
right moments are the walks of that person. A moment that is returned is right if it is of the same
camera and its intersection over union with a right one is 0.5 or more. False alarms are moments
with a probability above 0.5 for people who are in none of the films. Writes
``benchmarks/results/camera_films.json``, without times: only the share of each stage.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tabulate import tabulate

import finegrain
from finegrain.cameras.boxes import Box
from finegrain.cameras.tracks import Tracker
from finegrain.search.moments import Moments
from finegrain.synthetic import captions_of, film, filmed_scene, identities, seen_moments, view_of
from finegrain.synthetic.film_writer import write_film
from finegrain.synthetic.films import FilmedScene, FilmFrame, SeenMoment

ROOT = Path(__file__).parents[1]
START = datetime(2026, 5, 1, 8, tzinfo=UTC)
SEED = 77
RATE, EVERY_FRAME = 5, 1.0
LEAST_IOU = 0.5
THUMBNAIL = (16, 12)


class SimulatedDetector:
    """Gives the true boxes of the frame that looks most like the given one, with errors."""

    def __init__(self, frames: Sequence[FilmFrame], seed: int) -> None:
        self._looks = np.stack([_look(frame.pixels) for frame in frames])
        self.boxes = [_with_errors(frame, np.random.default_rng((seed, n)))
                      for n, frame in enumerate(frames)]  # fmt: skip

    def __call__(self, pixels: np.ndarray) -> list[Box]:
        distances = np.abs(self._looks - _look(pixels)).sum(axis=1)
        return self.boxes[int(np.argmin(distances))]


def _look(pixels: np.ndarray) -> np.ndarray:
    import cv2

    small = cv2.resize(pixels, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()


def _with_errors(frame: FilmFrame, rng: np.random.Generator) -> list[Box]:
    boxes = []
    for person in frame.people:
        x, y, width, height = person.box
        if rng.random() >= 0.05:
            off = rng.uniform(-0.04, 0.04, 4) * (width, height, width, height)
            score = 0.4 + 0.55 * person.visible
            boxes.append(Box(x + off[0], y + off[1], width + off[2], height + off[3], score=score))
    if rng.random() < 0.02:
        height, width = frame.pixels.shape[:2]
        place = rng.uniform(0, 0.7, 2) * (width, height)
        boxes.append(Box(*place.tolist(), 0.15 * width, 0.4 * height, score=0.55))
    return boxes


def tracking(films: Mapping[str, Sequence[FilmFrame]], seed: int) -> dict[str, float]:
    """IDF1, MOTA and the number of switched identities over all films."""
    from trackers import eval as library

    clear, identity, count = [], [], 0
    for frames in films.values():
        detector, tracker = SimulatedDetector(frames, seed), Tracker(1 / RATE)
        truths, tracks, overlaps = [], [], []
        for frame, boxes in zip(frames, detector.boxes, strict=True):
            tracked = tracker.update(boxes, frame.time)
            truths.append(np.array([person.walk for person in frame.people], int))
            tracks.append(np.array([number for number, _ in tracked], int))
            overlaps.append(
                library.box_iou(
                    _corners([person.box for person in frame.people]),
                    _corners([box[:4] for _, box in tracked]),
                    box_format="xyxy",
                )
            )
        truths, tracks = _from_zero(truths), _from_zero(tracks)
        count += sum(map(len, truths))
        clear.append(library.compute_clear_metrics(truths, tracks, overlaps))
        identity.append(library.compute_identity_metrics(truths, tracks, overlaps))
    accuracy = library.aggregate_clear_metrics(clear)
    return {
        "IDF1": float(library.aggregate_identity_metrics(identity)["IDF1"]),
        "MOTA": float(accuracy["MOTA"]),
        "switches": int(accuracy["IDSW"]),
        "people_in_frames": count,
    }


def _corners(boxes: Sequence[Sequence[float]]) -> np.ndarray:
    sides = np.asarray(boxes, float).reshape(-1, 4)
    return np.concatenate([sides[:, :2], sides[:, :2] + sides[:, 2:]], 1)


def _from_zero(ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    known = sorted({int(id_) for frame in ids for id_ in frame})
    return [np.array([known.index(id_) for id_ in frame], int) for frame in ids]


def recall(moments: Moments, right: Sequence[SeenMoment]) -> tuple[float, float]:
    """Share of right moments among the returned ones, and whether the first one is right."""
    hits = [[_iou(moment, truth) >= LEAST_IOU for truth in right] for moment in moments]
    reached = np.array(hits, bool).reshape(len(moments), len(right)).any(axis=0)
    return float(reached.mean()), float(bool(hits) and any(hits[0]))


def _iou(moment: Any, truth: SeenMoment) -> float:
    if moment.camera != truth.camera:
        return 0.0
    start, end = (_since(time) for time in (moment.start, moment.end))
    shared = min(end, truth.end) - max(start, truth.start)
    whole = max(end, truth.end) - min(start, truth.start)
    return max(0.0, shared) / whole


def _since(time: str) -> float:
    return (datetime.fromisoformat(time) - START).total_seconds()


def measure(plan: Path, folder: Path, scene: FilmedScene, num_absent: int) -> dict[str, Any]:
    films = {camera.name: list(film(scene, camera)) for camera in scene.cameras}
    right = [m for c in scene.cameras for m in seen_moments(scene, films[c.name], c)]
    people = {walk.identity.pid: walk.identity for walk in scene.walks}
    strangers = identities(len(people) + num_absent, seed=SEED)[len(people) :]
    with (
        finegrain.Searcher(plan, gallery=folder / "tracks", threads=1) as tracks,
        finegrain.Searcher(plan, gallery=folder / "frames", threads=1) as whole,
    ):
        seconds: dict[str, float] = {}
        for name, frames in films.items():
            path = folder / f"{name}.mp4"
            write_film(path, (frame.pixels for frame in frames), scene.rate)
            watched = tracks.watch(path, detector=SimulatedDetector(frames, SEED), start=START)
            for stage, spent in watched.cameras[name].seconds.items():
                seconds[stage] = seconds.get(stage, 0.0) + spent
            whole.add_video(path, every=EVERY_FRAME, camera=name, start=START, progress=False)
        ways = {}
        for name, searcher, per in (("tracks", tracks, "track"), ("whole frames", whole, "time")):
            at_k: dict[str, list[float]] = {"recall": [], "first": []}
            for pid, identity in people.items():
                own = [moment for moment in right if moment.pid == pid]
                text = _caption(identity)
                share, first = recall(searcher.moments(text, len(own) + 2, per=per), own)
                at_k["recall"].append(share)
                at_k["first"].append(first)
            ways[name] = {way: fmean(values) for way, values in at_k.items()}
            ways[name]["rows"] = len(searcher.gallery)
        certain, alarms = (
            [
                sum((m.probability or 0.0) > 0.5 for m in tracks.moments(_caption(person), 3))
                for person in chosen
            ]
            for chosen in (list(people.values()), strangers)
        )
    total = sum(seconds.values())
    return {
        "what": "camera_films",
        "films": len(films),
        "seconds": scene.seconds,
        "people": len(people),
        "moments": len(right),
        "tracking": tracking(films, SEED),
        "ways": ways,
        "strangers": len(strangers),
        "false_alarms": sum(alarms),
        "people_above_half": sum(count > 0 for count in certain),
        "share_of_time": {stage: spent / total for stage, spent in seconds.items()},
    }


def _caption(person: Any) -> str:
    return captions_of(person, view_of(person, 0), 0, seed=SEED)[0].text


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("plan", type=Path)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=80.0)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    arguments = parser.parse_args()
    scene = filmed_scene(
        identities(arguments.people, seed=SEED),
        num_cameras=2,
        seconds=arguments.seconds,
        rate=RATE,
        seed=SEED,
    )
    with TemporaryDirectory() as folder:
        measured = measure(arguments.plan, Path(folder), scene, num_absent=arguments.people)
    rows = [(name, at["recall"], at["first"]) for name, at in measured["ways"].items()]
    print(tabulate(rows, headers=["", "recall", "first is right"], floatfmt=".3f"))
    print(
        json.dumps(
            {
                **measured["tracking"],
                "false_alarms": measured["false_alarms"],
                "people_above_half": measured["people_above_half"],
            }
        )
    )
    path = arguments.out / "camera_films.json"
    path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
