from __future__ import annotations

import math
import random

import numpy as np
import pytest

pytest.importorskip("torchvision")

import torch
from torchvision.transforms import v2

from finegrain.data.augment import CLIP_MEAN, Augmentation
from finegrain.errors import DataError

SIZE = (32, 16)
QUIET = {"flip": 0.0, "pad": 0.0, "erase": 0.0}


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def channels_first(picture):
    return picture.transpose(2, 0, 1)


def test_without_options_the_picture_is_unchanged(picture):
    np.testing.assert_array_equal(Augmentation(SIZE, **QUIET)(picture, 0), channels_first(picture))


def test_pixels_are_a_function_of_picture_and_seed(picture):
    first, second = Augmentation(SIZE, color_jitter=0.2), Augmentation(SIZE, color_jitter=0.2)
    expected = [first(picture, seed) for seed in range(20)]
    for seed in reversed(range(20)):
        np.testing.assert_array_equal(second(picture, seed), expected[seed])
    assert len({out.tobytes() for out in expected}) > 15


def test_global_random_generators_are_not_used(picture):
    import torch

    def states():
        return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()

    torch.manual_seed(1)
    before = states()
    one = Augmentation(SIZE, picks=2)(picture, 5)
    assert states() == before
    torch.manual_seed(2)
    np.testing.assert_array_equal(Augmentation(SIZE, picks=2)(picture, 5), one)


def test_flip_mirrors_columns(picture):
    out = Augmentation(SIZE, **QUIET | {"flip": 1.0})(picture, 0)
    np.testing.assert_array_equal(out, channels_first(picture)[:, :, ::-1])


def test_flips_are_those_of_torchvision(picture):
    augmentation = Augmentation(SIZE, **QUIET | {"flip": 0.5})
    theirs = v2.RandomHorizontalFlip(0.5)
    for seed in range(20):
        torch.manual_seed(seed)
        expected = theirs(torch.from_numpy(picture.transpose(2, 0, 1)))
        np.testing.assert_array_equal(augmentation(picture, seed), expected)


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


PERSON = (384, 128)
DRAWS = 2000


def erased_by(augmentation, size, seeds):
    """Rows and columns of the rectangles that seeds erase; seeds that erase nothing are left
    out."""
    black = np.zeros((*size, 3), np.uint8)
    for seed in seeds:
        changed = augmentation(black, seed).any(axis=0)
        rows, columns = np.nonzero(changed)
        if len(rows):
            height, width = int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
            assert changed[rows[0] : rows[0] + height, columns[0] : columns[0] + width].all()
            yield rows[0], columns[0], height, width


def drawn_literally(size, rng):
    """Algorithm 1 of Zhong et al. (2020), with up to ten tries; None if all fail."""
    for _ in range(10):
        area = rng.uniform(0.02, 0.4) * size[0] * size[1]
        ratio = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height < size[0] and width < size[1]:
            top = rng.integers(size[0] - height + 1)
            return top, rng.integers(size[1] - width + 1), height, width
    return None


def distance(one, other):
    """Largest difference of two cumulative distributions (Kolmogorov and Smirnov)."""
    points = np.sort(np.concatenate([one, other]))

    def share_below(values):
        return np.searchsorted(np.sort(values), points, "right") / len(values)

    return np.abs(share_below(one) - share_below(other)).max()


@pytest.mark.parametrize("size", [PERSON, (224, 224), (96, 96)])
def test_erased_rectangles_are_distributed_as_published(size):
    augmentation = Augmentation(size, **QUIET | {"erase": 1.0})
    ours = list(erased_by(augmentation, size, range(DRAWS)))
    rng = np.random.default_rng(0)
    literal = [box for box in (drawn_literally(size, rng) for _ in range(DRAWS)) if box]
    assert abs(len(ours) - len(literal)) < 20
    ours, literal = np.array(ours, float).T, np.array(literal, float).T
    # The distance of two samples of 2,000 is under 0.062 in 999 cases of 1,000.
    for name, of in {
        "area": lambda top, left, h, w: h * w / (size[0] * size[1]),
        "ratio": lambda top, left, h, w: np.log(h / w),
        "top": lambda top, left, h, w: top,
        "left": lambda top, left, h, w: left,
    }.items():
        assert distance(of(*ours), of(*literal)) < 0.062, name


def test_erasing_takes_a_sixth_of_a_tall_picture_on_average():
    """These are the numbers of torchvision at 384x128. A cap at the square of the width gave
    0.06."""
    augmentation = Augmentation(PERSON, **QUIET | {"erase": 1.0})
    areas = [h * w / (384 * 128) for *_, h, w in erased_by(augmentation, PERSON, range(DRAWS))]
    assert np.mean(areas) == pytest.approx(0.180, abs=0.01)
    assert 0.38 < max(areas) < 0.41


def test_erasing_fills_with_the_given_colour():
    black = np.zeros((*SIZE, 3), np.uint8)
    augmentation = Augmentation(SIZE, **QUIET | {"erase": 1.0}, fill=(156, 147, 133))
    out = next(o for o in (augmentation(black, seed) for seed in range(9)) if o.any())
    assert {tuple(pixel) for pixel in out.reshape(3, -1).T} == {(0, 0, 0), (156, 147, 133)}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_erasing_has_the_given_probability(share):
    augmentation = Augmentation(PERSON, **QUIET | {"erase": share})
    count = len(list(erased_by(augmentation, PERSON, range(DRAWS))))
    assert count / DRAWS == pytest.approx(share, abs=0.04)


def test_a_shift_is_uniform():
    """Counts the positions of the top left pixel, of 21 x 21."""
    augmentation = Augmentation(PERSON, **QUIET | {"pad": 10 / 384})
    white = np.full((*PERSON, 3), 255, np.uint8)
    tops, lefts = [], []
    for seed in range(DRAWS):
        rows, columns = np.nonzero(augmentation(white, seed)[0])
        tops.append(rows.min() - (383 - rows.max()))
        lefts.append(columns.min() - (127 - columns.max()))
    for shifts in (tops, lefts):
        counts = np.bincount(np.array(shifts) + 10, minlength=21)
        assert len(counts) == 21
        # Chi-squared with 20 degrees of freedom is under 45.3 in 999 cases of 1,000.
        assert ((counts - DRAWS / 21) ** 2 / (DRAWS / 21)).sum() < 45.3


def test_color_jitter_keeps_grey_grey():
    grey = np.full((*SIZE, 3), 100, np.uint8)
    augmentation = Augmentation(SIZE, **QUIET, color_jitter=0.3)
    outs = [augmentation(grey, seed) for seed in range(500)]
    assert all((out == out[0, 0, 0]).all() for out in outs)
    levels = [int(out[0, 0, 0]) for out in outs]
    # A picture of one colour has no contrast, so only brightness changes, by up to 30 %.
    assert (min(levels), max(levels)) == (70, 130)
    assert np.mean(levels) == pytest.approx(100, abs=3)


def test_the_input_picture_is_not_changed(picture):
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
    [
        np.zeros((32, 16), np.uint8),
        np.zeros((3, 32, 16), np.uint8),
        np.zeros((32, 16, 3)),
        np.zeros((64, 32, 3), np.uint8),
    ],
)
def test_a_picture_of_another_size_is_refused(picture):
    with pytest.raises(DataError, match=r"expected a uint8 picture \[32, 16, 3\].*Resize it"):
        Augmentation(SIZE)(picture, 0)


@pytest.mark.parametrize("picks", [1, 2, 5])
def test_picks_are_a_function_of_picture_and_seed(picks, picture):
    first, second = (Augmentation(SIZE, **QUIET, picks=picks) for _ in range(2))
    expected = [first(picture, seed) for seed in range(30)]
    assert {(out.shape, out.dtype) for out in expected} == {((3, *SIZE), np.dtype(np.uint8))}
    for seed in reversed(range(30)):
        np.testing.assert_array_equal(second(picture, seed), expected[seed])
    assert len({out.tobytes() for out in expected}) > 10


def test_more_picks_change_more_pictures(picture):
    """One pick leaves the picture unchanged if it is grey, mirror or erasing and does not apply."""

    def share_left_alone(picks):
        augmentation = Augmentation(SIZE, **QUIET, picks=picks)
        same = channels_first(picture)
        return np.mean([np.array_equal(augmentation(picture, seed), same) for seed in range(300)])

    # Six operations: 0.9 of grey, half of mirroring, half of erasing.
    assert share_left_alone(1) == pytest.approx(1.9 / 6, abs=0.08)
    assert share_left_alone(2) == pytest.approx((1.9 / 6) ** 2, abs=0.08)


def test_a_negative_number_of_picks_is_refused():
    with pytest.raises(DataError, match="picks of 0 or more, got -1"):
        Augmentation(SIZE, picks=-1)
