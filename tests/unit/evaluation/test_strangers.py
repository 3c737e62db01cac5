from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finegrain.evaluation.strangers import EASY, HARD, strangers_of
from finegrain.records import Sample

COATS = ("red coat", "blue dress", "green suit")


def made(cameras: int = 2, *, num: int = 300) -> list[Sample]:
    """Two pictures of each person; person ``n`` wears the coat ``n % 3``, in camera ``n % 2``."""
    return [
        Sample(
            image=Path(f"{n}.jpg"),
            captions=(f"the person wears a {COATS[n // 2 % 3]}",),
            pid=n // 2,
            camera=f"gate-{n // 2 % cameras}" if cameras else None,
        )
        for n in range(num)
    ]


@pytest.fixture(scope="module")
def right():
    pids = np.arange(300) // 2
    return pids[:, None] == pids[None]


def test_easy_strangers_are_in_another_scene(right):
    easy = strangers_of(made(), right)[EASY]
    camera = np.arange(300) // 2 % 2
    assert (easy == (camera[:, None] != camera[None])).all()


def test_hard_strangers_are_in_the_same_scene_and_wear_the_same(right):
    hard = strangers_of(made(), right)[HARD]
    camera, coat = np.arange(300) // 2 % 2, np.arange(300) // 2 % 3
    assert not (hard & right).any()
    assert not (hard & (camera[:, None] != camera[None])).any()
    # 48 strangers of the same camera wear the same; the others of the 100 do not
    same = hard & (coat[:, None] == coat[None])
    assert same.sum(axis=1).tolist() == [48] * 300
    assert hard.sum(axis=1).tolist() == [100] * 300


def test_words_that_most_captions_have_do_not_count(right):
    samples = made()
    longer = [
        Sample(image=s.image, captions=(f"{s.captions[0]} in a street at night",), pid=s.pid,
               camera=s.camera)
        for s in samples
    ]  # fmt: skip
    assert (strangers_of(longer, right)[HARD] == strangers_of(samples, right)[HARD]).all()


def test_data_without_cameras_does_not_tell_strangers_apart(right):
    assert strangers_of(made(0), right) == {}


def test_one_camera_has_hard_strangers_only(right):
    assert list(strangers_of(made(1), right)) == [HARD]
