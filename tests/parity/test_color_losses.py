"""The losses of the colour tasks compared with loops over their formulas, and with Pillow's
chroma."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finegrain.losses.color_words import color_words
from finegrain.losses.colorization import chroma, colorization, grey


def pictures(count, height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (count, 3, height, width)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


def test_grey_and_chroma_equal_those_of_jpeg():
    """Pillow rounds its YCbCr to whole numbers around 128."""
    pixels = pictures(1, 16, 8)
    image = Image.fromarray(pixels[0].permute(1, 2, 0).numpy()).convert("YCbCr")
    expected = torch.from_numpy(np.asarray(image).astype(np.float32)).permute(2, 0, 1)
    result = torch.cat([255 * grey(pixels)[0], 255 / 2 * chroma(pixels)[0] + 128])
    assert (result - expected).abs().max() < 1.01


def test_a_grey_picture_has_no_chroma_and_is_its_own_luma():
    pixels = pictures(2, 8, 8)[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(chroma(pixels), torch.zeros(2, 2, 8, 8), atol=1e-6, rtol=0)
    torch.testing.assert_close(grey(pixels), pixels[:, :1].float() / 255)


def test_chroma_reaches_one_at_pure_blue_and_red():
    pixels = torch.tensor([[0, 0, 255], [255, 0, 0], [255, 255, 0], [0, 255, 255]])
    result = chroma(pixels.to(torch.uint8)[..., None, None])[..., 0, 0]
    torch.testing.assert_close(result[:, 0].abs().max(), torch.tensor(1.0))
    torch.testing.assert_close(result[:, 1].abs().max(), torch.tensor(1.0))
    torch.testing.assert_close(result[0], -result[2])
    torch.testing.assert_close(result[1], -result[3])


@settings(deadline=None, max_examples=20)
@given(
    pictures_=st.integers(1, 3),
    captions=st.integers(1, 3),
    cells=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    seed=st.integers(0, 99),
)
def test_colorization_is_the_mean_squared_error_of_cells(pictures_, captions, cells, seed):
    pixels = pictures(pictures_, 8 * cells[0], 8 * cells[1], seed)
    generator = torch.Generator().manual_seed(seed)
    predicted = torch.randn(captions * pictures_, 2, *cells, generator=generator)
    colour = chroma(pixels)
    errors = []
    for row in range(captions * pictures_):
        for channel in range(2):
            for i in range(cells[0]):
                for j in range(cells[1]):
                    cell = colour[row // captions, channel, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                    errors.append((predicted[row, channel, i, j] - cell.mean()).item() ** 2)
    expected = sum(errors) / len(errors)
    assert colorization(predicted, pixels).item() == pytest.approx(expected, rel=1e-4)


def test_color_words_is_the_mean_of_negative_log_probabilities():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(5, 4, generator=generator)
    targets = torch.tensor([0, 3, 1, 1, 2])
    total = 0.0
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        total -= math.log(math.exp(row[target]) / sum(map(math.exp, row)))
    assert color_words(scores, targets).item() == pytest.approx(total / 5, rel=1e-5)


def test_without_masked_words_the_loss_is_zero_and_has_a_gradient():
    scores = torch.zeros(0, 4, requires_grad=True)
    loss = color_words(scores, torch.zeros(0, dtype=torch.long))
    assert loss.item() == 0
    loss.backward()
    assert scores.grad is not None
