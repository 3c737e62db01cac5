"""The transform of pictures, compared with Pillow, torchvision and PyTorch."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finegrain.errors import ImageError
from finegrain.preprocess import Fit, ImageTransform, Interpolation, load_image

NOISE = np.random.default_rng(0).integers(0, 256, (24, 16, 3), np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    height=st.integers(1, 64),
    width=st.integers(1, 64),
    fit=st.sampled_from(get_args(Fit)),
    interpolation=st.sampled_from(get_args(Interpolation)),
    antialias=st.booleans(),
)
def test_the_result_has_the_given_size(size, height, width, fit, interpolation, antialias):
    transform = ImageTransform(
        height=height, width=width, fit=fit, interpolation=interpolation, antialias=antialias
    )
    result = transform(Image.new("RGB", size, "red"))
    assert (result.shape, result.dtype) == ((3, height, width), np.uint8)
    assert result.flags.c_contiguous
    assert result[0].min() == 255  # red and white are both full in the red channel


def test_stretch_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = ImageTransform(height=8, width=8)(Image.fromarray(stripes))
    assert 118 <= small.min() <= small.max() <= 137


def test_a_picture_of_the_right_size_is_unchanged():
    result = ImageTransform(height=24, width=16)(Image.fromarray(NOISE))
    np.testing.assert_array_equal(result, NOISE.transpose(2, 0, 1))


def test_pad_keeps_the_aspect_ratio_and_centres_on_white():
    result = ImageTransform(height=20, width=40, fit="pad")(Image.new("RGB", (10, 20), "blue"))
    assert (result[:, :, 15:25] == np.array([0, 0, 255]).reshape(3, 1, 1)).all()
    assert (result[:, :, :15] == 255).all()
    assert (result[:, :, 25:] == 255).all()


def test_a_picture_one_pixel_wide_is_transformed():
    for fit in get_args(Fit):
        transform = ImageTransform(height=32, width=16, fit=fit)
        assert transform(Image.new("RGB", (1, 999))).shape == (3, 32, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 0, "width": 4}, "1 to 4096"),
        ({"height": 4, "width": 5000}, "1 to 4096"),
        ({"height": 4, "width": 4, "fit": "cut"}, "fit as one of stretch, pad, crop; got 'cut'"),
        ({"height": 4, "width": 4, "interpolation": "lanczos"}, "bilinear, bicubic; got 'lanczos'"),
    ],
)
def test_impossible_transforms_are_refused(options, message: str):
    with pytest.raises(ImageError, match=message):
        ImageTransform(**options)


def test_the_transform_requires_rgb():
    with pytest.raises(ImageError, match="mode L"):
        ImageTransform(height=4, width=4)(Image.new("L", (4, 4)))


# --- compared with the libraries that models are trained with ------------------------------


@pytest.fixture(scope="module")
def pictures(ten_pictures):
    return [load_image(path) for path in ten_pictures.images]


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("size", [(384, 128), (224, 224), (384, 384)])
def test_stretch_equals_torchvision_on_a_pillow_picture(size, interpolation, pictures):
    T = pytest.importorskip("torchvision.transforms")
    theirs = T.Compose([T.Resize(size, T.InterpolationMode(interpolation)), T.PILToTensor()])
    ours = ImageTransform(height=size[0], width=size[1], interpolation=interpolation)
    for picture in pictures:
        np.testing.assert_array_equal(ours(picture), theirs(picture).numpy())


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_crop_equals_clips_preprocessing(side, interpolation, pictures):
    """The shorter side is resized, and the centre is cropped."""
    T = pytest.importorskip("torchvision.transforms")
    theirs = T.Compose(
        [T.Resize(side, T.InterpolationMode(interpolation)), T.CenterCrop(side), T.PILToTensor()]
    )
    ours = ImageTransform(height=side, width=side, fit="crop", interpolation=interpolation)
    for picture in pictures:
        np.testing.assert_array_equal(ours(picture), theirs(picture).numpy())


def test_crop_covers_a_tall_result(pictures):
    """The picture is resized until it covers both sides, and the centre is cropped."""
    ours = ImageTransform(height=300, width=100, fit="crop")
    for picture in pictures:
        scale = max(300 / picture.height, 100 / picture.width)
        size = (int(picture.width * scale + 1e-9), int(picture.height * scale + 1e-9))
        left, top = round((size[0] - 100) / 2), round((size[1] - 300) / 2)
        resized = picture.resize(size, Image.Resampling.BILINEAR)
        cut = np.asarray(resized.crop((left, top, left + 100, top + 300))).transpose(2, 0, 1)
        np.testing.assert_array_equal(ours(picture), cut)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("size", [(384, 128), (40, 30), (97, 55)])
def test_without_antialiasing_it_equals_pytorch(size, interpolation, pictures):
    torch = pytest.importorskip("torch")
    ours = ImageTransform(
        height=size[0], width=size[1], interpolation=interpolation, antialias=False
    )
    for picture in pictures:
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        expected = torch.nn.functional.interpolate(pixels, size, mode=interpolation)
        expected = expected[0].round().clamp(0, 255).numpy()
        np.testing.assert_allclose(ours(picture).astype(int), expected, atol=1)


@pytest.mark.parametrize("antialias", [True, False])
def test_a_long_and_thin_picture_is_cropped_in_bounded_memory(antialias):
    """At full size it would take 3 GB. A picture of a hundredth of the length gives the same
    crop."""
    transform = ImageTransform(height=224, width=224, fit="crop", antialias=antialias)
    assert transform(Image.new("RGB", (20_000, 1), "red"))[0].min() == 255
    thin = Image.fromarray(np.tile(NOISE, (1, 200, 1))[:4])
    middle = thin.crop((1400, 0, 1800, 4))
    np.testing.assert_allclose(transform(thin).astype(int), transform(middle), atol=2)
