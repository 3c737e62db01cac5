"""pull, index, query and grid, from a published repository to pictures."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
from fixtures.loopback_hub import COMMIT
from fixtures.published_clips import SIDE, write_hugging_face_clip, write_open_clip
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil

from finegrain.cli.parser import main
from finegrain.encoder import Encoder
from finegrain.plan import Plan

LENGTH, DIM = 77, 16
SENTENCES = ["woman in red coat", "a man", "", "coat " * 100, "blue jeans, white shirt"]
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    """A CLIP as transformers writes it, with random weights."""
    folder = tmp_path_factory.mktemp("hugging_face")
    model = write_hugging_face_clip(folder, length=LENGTH, dim=DIM)
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIDE},
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=MEAN,
        image_std=STD,
        resample=3,
    )
    processor.save_pretrained(folder)
    return folder, model, processor


@pytest.fixture(scope="module")
def open_clip_folder(tmp_path_factory):
    """A CLIP as open_clip publishes it, with random weights."""
    folder = tmp_path_factory.mktemp("open_clip")
    preprocess = {"mean": MEAN, "std": STD, "resize_mode": "shortest"}
    model = write_open_clip(folder, preprocess, length=LENGTH, dim=DIM, heads=4)
    # The file of timm's image tower, which such repositories also have.
    save_file({"head.weight": torch.zeros(2)}, folder / "model.safetensors")
    transform = open_clip.image_transform(SIDE, is_train=False, mean=MEAN, std=STD)
    return folder, model, transform


def pull_index_and_query(name, tmp_path, crops, capsys):
    """Pull, index, query; returns the encoder of the plan."""
    plan, grid = tmp_path / "model.plan", tmp_path / "matches.png"
    assert main(["pull", name, "-o", str(plan)]) == 0
    shown = capsys.readouterr().out
    assert f"finegrain index {plan} photos/" in shown
    assert f"revision: {COMMIT}" in shown
    assert main(["index", str(plan), str(crops)]) == 0
    assert main(["query", str(plan), "woman in red coat", "--grid", str(grid)]) == 0
    assert "10 matches" in capsys.readouterr().out
    assert Image.open(grid).width > SIDE
    assert main(["doctor", str(plan)]) == 0
    assert f"repository: {name}" in capsys.readouterr().out
    opened = Plan(plan)
    assert opened.manifest.source == {
        "name": "clip",
        "repository": name,
        "revision": COMMIT,
        "licence": "mit",
        "model": "CLIP",
    }
    assert len(opened.manifest.weights) == 1
    return Encoder.from_plan(opened)


@torch.no_grad()
def test_a_clip_of_transformers_is_pulled_and_searched(hub, hugging_face, tmp_path, crops, capsys):
    folder, model, processor = hugging_face
    hub.add_folder("somebody/clip", folder)
    encoder = pull_index_and_query("somebody/clip", tmp_path, crops, capsys)
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    ids = tokenize(SENTENCES, context_length=LENGTH)
    texts = F.normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)
    np.testing.assert_allclose(encoder.encode_texts(SENTENCES), texts, atol=1e-5)
    files = sorted(crops.iterdir())[:10]
    pixels = processor([Image.open(f).convert("RGB") for f in files], return_tensors="pt")
    images = F.normalize(model.get_image_features(**pixels).pooler_output, dim=-1)
    np.testing.assert_allclose(encoder.encode_images(files), images, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_a_clip_of_open_clip_is_pulled_and_searched(hub, open_clip_folder, tmp_path, crops, capsys):
    folder, model, transform = open_clip_folder
    hub.add_folder("somebody/clip", folder)
    encoder = pull_index_and_query("somebody/clip", tmp_path, crops, capsys)
    ids = open_clip.get_tokenizer("ViT-B-32")(SENTENCES, context_length=LENGTH)
    texts = model.encode_text(ids, normalize=True)
    np.testing.assert_allclose(encoder.encode_texts(SENTENCES), texts, atol=1e-5)
    files = sorted(crops.iterdir())[:10]
    pixels = torch.stack([transform(Image.open(f)) for f in files])
    images = model.encode_image(pixels, normalize=True)
    np.testing.assert_allclose(encoder.encode_images(files), images, atol=1e-5)
