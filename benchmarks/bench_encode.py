"""The towers on ONNX Runtime, beside the same weights in eager PyTorch on the same input."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from finegrain.encoder import Encoder
from finegrain.methods import Clip
from finegrain.preprocess import TokenBatch
from finegrain.runtime.eager import EagerRuntime

CAPTION = "The woman is wearing a beige trench coat with a belt, black tights and high heels."


@pytest.fixture
def eager(method: Clip, encoder: Encoder) -> EagerRuntime:
    return EagerRuntime(method, embed_dim=encoder.embed_dim, device=torch.device("cpu"))


@pytest.mark.parametrize("batch", [1, 32])
def test_encode_texts(
    encoder: Encoder,
    eager: EagerRuntime,
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    batch: int,
) -> None:
    tokens = encoder.tokenizer.encode([CAPTION] * batch)

    def ours(tokens: TokenBatch) -> NDArray[np.float32]:
        return encoder.runtime.encode_texts(tokens.ids, tokens.eot)

    def plain(tokens: TokenBatch) -> NDArray[np.float32]:
        return eager.encode_texts(tokens.ids, tokens.eot)

    np.testing.assert_allclose(ours(tokens), plain(tokens), atol=1e-4)
    race(ours, plain, [tokens], rounds=rounds(100 if batch == 1 else 20))


@pytest.mark.parametrize("batch", [1, 8])
def test_encode_images(
    encoder: Encoder,
    eager: EagerRuntime,
    race: Callable[..., dict[str, Any]],
    rounds: Callable[[int], int],
    batch: int,
) -> None:
    size = (batch, 3, encoder.transform.height, encoder.transform.width)
    pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    ours, plain = encoder.runtime.encode_images, eager.encode_images
    np.testing.assert_allclose(ours(pixels), plain(pixels), atol=1e-4)
    race(ours, plain, [pixels], rounds=rounds(40 if batch == 1 else 10))
