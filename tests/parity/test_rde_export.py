"""RDE's embeddings from ONNX Runtime equal those of the eager model, at any length."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch

from finegrain.exporters.to_onnx import image_graph, text_graph
from finegrain.methods import RdeConfig
from finegrain.models import ConvConfig, TextConfig, VitConfig

OPSET = 18
TINY = RdeConfig(image=VitConfig(), text=TextConfig(context_length=40)).tiny()
CONV = replace(TINY, image=ConvConfig().tiny())


@pytest.fixture(
    scope="module", params=[pytest.param(TINY, marks=pytest.mark.slow), CONV], ids=["vit", "conv"]
)
def method(request):
    torch.manual_seed(0)
    method = request.param.build().eval()
    for selection in (method.image_selection, method.text_selection):
        selection.norm.running_mean.normal_(std=0.1)
        selection.norm.running_var.uniform_(0.5, 2)
    return method


def session(graph):
    return ort.InferenceSession(graph, providers=["CPUExecutionProvider"])


def captions(words, length):
    """One caption for each number of words, padded to a length."""
    draw = np.random.default_rng(0)
    ids, eot = np.zeros((len(words), length), np.int32), np.array(words, np.int32) + 1
    for row, count in zip(ids, words, strict=True):
        row[0], row[count + 1] = 49406, 49407
        row[1 : count + 1] = draw.integers(1, 49405, count)
    return ids, eot


@torch.no_grad()
def test_embeddings_of_pictures_equal_the_eager_ones(method):
    image = method.config.image
    graph = session(image_graph(method, height=image.height, width=image.width, opset=OPSET))
    draw = np.random.default_rng(0)
    for count in (1, 5):
        size = (count, 3, image.height, image.width)
        pixels = draw.integers(0, 256, size, dtype=np.uint8)
        (result,) = graph.run(None, {"pixels": pixels})
        expected = method.encode_images(torch.from_numpy(pixels)).numpy()
        assert result.shape == (count, method.config.embed_dim)
        np.testing.assert_allclose(result, expected, atol=1e-5)


@torch.no_grad()
def test_embeddings_of_captions_of_any_length_and_padding_equal_the_eager_ones(method):
    """From no word to the full context length; 11 words of it are selected."""
    graph = session(text_graph(method, context_length=40, opset=OPSET))
    words = [0, 1, 5, 10, 11, 12, 30]
    ids, eot = captions(words, 40)
    expected = method.encode_texts(torch.from_numpy(ids), torch.from_numpy(eot)).numpy()
    for length in (32, 40):
        (result,) = graph.run(None, {"ids": ids[:, :length], "eot": eot})
        np.testing.assert_allclose(result, expected, atol=1e-5)
    for row, count in enumerate(words):
        one = {"ids": ids[row : row + 1, : count + 2], "eot": eot[row : row + 1]}
        np.testing.assert_allclose(graph.run(None, one)[0][0], expected[row], atol=1e-5)
        eager = method.encode_texts(*(torch.from_numpy(part) for part in one.values()))
        np.testing.assert_allclose(eager[0].numpy(), expected[row], atol=1e-5)
