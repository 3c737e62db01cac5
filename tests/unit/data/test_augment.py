from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("albumentations")

from finegrain.data.augment import CLIP_MEAN, Augmentation
from finegrain.errors import DataError

SIZE = (32, 16)
QUIET = {"flip": 0.0, "pad": 0.0, "erase": 0.0}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def channels_first(picture):
    return picture.transpose(2, 0, 1)


def test_nothing_switched_on_changes_nothing(picture):
    np.testing.assert_array_equal(Augmentation(SIZE, **QUIET)(picture, 0), channels_first(picture))


@pytest.mark.parametrize("shape", [(64, 50, 3), (5, 7, 3), (1, 1, 3)])
def test_any_size_comes_out_at_the_size_asked_for(shape):
    out = Augmentation(SIZE, color_jitter=0.2)(np.full(shape, 90, np.uint8), 3)
    assert (out.shape, out.dtype) == ((3, *SIZE), np.uint8)
    assert out.flags["C_CONTIGUOUS"]


def test_pixels_are_a_function_of_picture_and_seed(picture):
    first, second = Augmentation(SIZE, color_jitter=0.2), Augmentation(SIZE, color_jitter=0.2)
    expected = [first(picture, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(second(picture, seed), expected[seed])
    assert len({out.tobytes() for out in expected}) > 15


def test_the_global_generators_are_neither_read_nor_moved(picture):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    one = Augmentation(SIZE)(picture, 5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(2)
    np.testing.assert_array_equal(Augmentation(SIZE)(picture, 5), one)


def test_flip_mirrors_columns(picture):
    out = Augmentation(SIZE, **QUIET | {"flip": 1.0})(picture, 0)
    np.testing.assert_array_equal(out, channels_first(picture)[:, :, ::-1])


def test_flipping_and_erasing_are_independent():
    marked = np.zeros((*SIZE, 3), np.uint8)
    marked[:, :8] = 255  # the white half is on the left unless mirrored
    mean = np.array(CLIP_MEAN)[:, None, None]
    augmentation = Augmentation(SIZE, pad=0.0)
    seen = np.zeros((2, 2))
    for seed in range(400):
        out = augmentation(marked, seed)
        flipped = int(out[:, :, :8].sum() < out[:, :, 8:].sum())
        seen[flipped, int((out == mean).all(axis=0).any())] += 1
    assert seen.min() > 60  # 100 expected in each of the four


def test_pad_shifts_by_at_most_its_share(picture):
    augmentation = Augmentation(SIZE, **QUIET | {"pad": 2 / 32})
    padded = np.pad(channels_first(picture), ((0, 0), (2, 2), (2, 2)))
    windows = {padded[:, y : y + 32, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    results = {augmentation(picture, seed).tobytes() for seed in range(200)}
    assert results <= windows
    assert len(results) > 20


def test_erasing_fills_a_rectangle_with_the_mean_colour(picture):
    black = np.zeros((*SIZE, 3), np.uint8)
    for seed in range(30):
        out = Augmentation(SIZE, **QUIET | {"erase": 1.0})(black, seed)
        changed = out.any(axis=0)
        share = changed.mean()
        assert share < 0.5
        rows, columns = np.nonzero(changed)
        if len(rows):
            assert changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
            assert (out[:, changed].T == CLIP_MEAN).all()


def test_color_jitter_keeps_grey_grey():
    grey = np.full((*SIZE, 3), 100, np.uint8)
    outs = [Augmentation(SIZE, **QUIET, color_jitter=0.3)(grey, seed) for seed in range(10)]
    assert all((out == out[0, 0, 0]).all() for out in outs)
    assert len({out[0, 0, 0] for out in outs}) > 5


def test_the_picture_itself_is_never_changed(picture):
    frozen = picture.copy()
    frozen.flags.writeable = False
    strided = np.ascontiguousarray(channels_first(picture)).transpose(1, 2, 0)
    augmentation = Augmentation(SIZE, color_jitter=0.2)
    for seed in range(20):
        expected = augmentation(picture, seed)
        np.testing.assert_array_equal(augmentation(frozen, seed), expected)
        np.testing.assert_array_equal(augmentation(strided, seed), expected)
    np.testing.assert_array_equal(picture, frozen)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (0, 16)}, "expected size as height and width"),
        ({"flip": 1.5}, "expected flip between 0 and 1, got 1.5"),
        ({"pad": -0.1}, "expected pad between 0 and 1"),
        ({"erase": float("nan")}, "expected erase between 0 and 1"),
        ({"color_jitter": 2}, "expected color_jitter between 0 and 1"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(DataError, match=message):
        Augmentation(**({"size": SIZE} | values))


@pytest.mark.parametrize(
    "picture",
    [np.zeros((32, 16), np.uint8), np.zeros((3, 32, 16), np.uint8), np.zeros((32, 16, 3))],
)
def test_something_else_than_a_picture_is_refused(picture):
    with pytest.raises(DataError, match=r"expected a uint8 picture \[H, W, 3\]"):
        Augmentation(SIZE)(picture, 0)


NO_NETWORK = """
import sys
def hook(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "urllib.")):
        print(event); sys.stdout.flush(); import os; os._exit(9)
sys.addaudithook(hook)
from finegrain.data.augment import Augmentation
Augmentation((8, 8))
assert "albumentations" in sys.modules
"""


def test_building_asks_nothing_of_the_network():
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    subprocess.run([sys.executable, "-c", NO_NETWORK], check=True, env=environment)


@pytest.mark.parametrize("picks", [1, 2, 5])
def test_picks_are_a_function_of_picture_and_seed(picks, picture):
    first, second = (Augmentation(SIZE, **QUIET, picks=picks) for _ in range(2))
    expected = [first(picture, seed) for seed in range(30)]
    assert {(out.shape, out.dtype) for out in expected} == {((3, *SIZE), np.dtype(np.uint8))}
    for seed in reversed(range(30)):
        np.testing.assert_array_equal(second(picture, seed), expected[seed])
    assert len({out.tobytes() for out in expected}) > 10


def test_a_picked_operation_may_do_nothing_and_more_picks_do_more(picture):
    """One pick leaves the picture alone where it is grey, mirror or erasing and says no."""

    def share_left_alone(picks):
        augmentation = Augmentation(SIZE, **QUIET, picks=picks)
        same = channels_first(picture)
        return np.mean([np.array_equal(augmentation(picture, seed), same) for seed in range(300)])

    # Of six: 0.9 of grey, half of mirroring, half of erasing.
    assert share_left_alone(1) == pytest.approx(1.9 / 6, abs=0.08)
    assert share_left_alone(2) == pytest.approx((1.9 / 6) ** 2, abs=0.08)


def test_fewer_picks_than_none():
    with pytest.raises(DataError, match="picks of 0 or more, got -1"):
        Augmentation(SIZE, picks=-1)
