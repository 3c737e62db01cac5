"""Films of synthetic people agree with their ground truth."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from finegrain.errors import DataError
from finegrain.synthetic import film, filmed_scene, identities, seen_moments, write_films
from finegrain.synthetic.films import LEAST_VISIBLE, FilmedScene, FilmFrame

PEOPLE = identities(3, seed=3)


@pytest.fixture(scope="module")
def scene() -> FilmedScene:
    return filmed_scene(PEOPLE, num_cameras=2, seconds=12, rate=4, size=(120, 160), seed=1)


@pytest.fixture(scope="module")
def frames(scene: FilmedScene) -> list[FilmFrame]:
    return list(film(scene, scene.cameras[0]))


def test_a_film_is_reproducible(scene: FilmedScene, frames: list[FilmFrame]):
    again = list(film(scene, scene.cameras[0]))
    assert len(frames) == 48
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(frames, again, strict=True))
    assert [f.people for f in frames] == [f.people for f in again]


def test_a_person_is_in_one_place_at_a_time(scene: FilmedScene):
    for pid in {walk.identity.pid for walk in scene.walks}:
        own = sorted((w for w in scene.walks if w.identity.pid == pid), key=lambda w: w.start)
        assert len(own) == 3
        assert all(a.stop <= b.start for a, b in pairwise(own))
        assert own[0].camera == own[2].camera  # the person returns


def test_boxes_surround_what_moves(frames: list[FilmFrame]):
    empty = np.median([frame.pixels for frame in frames], axis=0)
    for frame in frames:
        assert {person.visible >= LEAST_VISIBLE for person in frame.people} <= {True}
        moving = np.abs(frame.pixels - empty).max(axis=2) > 40
        inside = np.zeros_like(moving)
        for person in frame.people:
            x, y, width, height = person.box
            assert 0 <= x < x + width <= 160
            assert 0 <= y < y + height <= 120
            inside[y : y + height, x : x + width] = True
            assert moving[y : y + height, x : x + width].mean() > 0.1
        # Those who are hardly visible have no box.
        assert moving[~inside].sum() < 0.03 * moving.size


def test_people_are_hidden_by_the_pillar_and_by_each_other(frames: list[FilmFrame]):
    shares = [person.visible for frame in frames for person in frame.people]
    assert min(shares) < 0.7
    assert max(shares) > 0.97


def test_moments_last_as_long_as_a_person_is_visible(scene: FilmedScene, frames: list[FilmFrame]):
    for moment in seen_moments(scene, frames, scene.cameras[0]):
        times = [f.time for f in frames if any(p.walk == moment.walk for p in f.people)]
        assert (moment.start, moment.end) == (times[0], times[-1] + 0.25)
        walk = scene.walks[moment.walk]
        assert walk.start <= moment.start
        assert moment.end <= walk.stop + 0.25


def test_written_films_hold_the_frames_and_the_truth(tmp_path: Path, scene: FilmedScene):
    av = pytest.importorskip("av")
    paths = write_films(tmp_path / "films", scene)
    assert [path.name for path in paths] == ["cam_1.mp4", "cam_2.mp4"]
    truth = json.loads((tmp_path / "films" / "films.json").read_text(encoding="utf-8"))
    expected = list(film(scene, scene.cameras[1]))
    with av.open(paths[1]) as video:
        read = [(f.time, f.to_ndarray(format="rgb24")) for f in video.decode(video=0)]
    assert [time for time, _ in read] == [frame.time for frame in expected]
    for (_, pixels), frame in zip(read, expected, strict=True):
        assert cv2.PSNR(pixels, frame.pixels) > 25
    people = truth["cam_2"]["frames"]
    assert [[p["walk"] for p in frame["people"]] for frame in people] == [
        [p.walk for p in frame.people] for frame in expected
    ]
    with pytest.raises(DataError, match="holds films already"):
        write_films(tmp_path / "films", scene)


def test_arguments_out_of_range_are_refused():
    with pytest.raises(DataError, match="1 to 6 cameras"):
        filmed_scene(PEOPLE, num_cameras=7)
    with pytest.raises(DataError, match="expected people"):
        filmed_scene([])
