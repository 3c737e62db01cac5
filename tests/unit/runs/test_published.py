"""A folder in the layout of Hugging Face or open_clip becomes a model that can be exported."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import tokenizers
import torch
from fixtures.published_clips import SIDE, WORDS, write_hugging_face_clip, write_open_clip
from tokenizers import models, normalizers, pre_tokenizers, processors
from torch.nn import functional as F

from finegrain.errors import WeightsError
from finegrain.preprocess.clip_bpe import clip_tokenizer
from finegrain.runs.published import read_published
from finegrain.runs.run import image_transform

LENGTH, DIM = 12, 16


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hugging_face")
    model = write_hugging_face_clip(folder, length=LENGTH, dim=DIM)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"do_center_crop": True, "resample": 3, "image_mean": [0.5, 0.4, 0.3]})
    )
    return folder, model


@torch.no_grad()
def test_a_folder_of_hugging_face_is_read_with_its_configuration(hugging_face):
    folder, model = hugging_face
    published = read_published(folder)
    ids = torch.tensor([[49406, 5, 6, 49407], [49406, 7, 49407, 0]])
    wanted = F.normalize(model.get_text_features(input_ids=ids).pooler_output, dim=-1)
    got = published.method.encode_texts(ids.int(), torch.tensor([3, 2]))
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)
    assert not published.method.training
    assert published.layout == "hf_clip"
    transform = image_transform(published.recipe)
    assert (transform.height, transform.fit, transform.interpolation) == (SIDE, "crop", "bicubic")


def test_the_digest_is_that_of_the_weight_file(hugging_face):
    published = read_published(hugging_face[0], "model.safetensors")
    assert published.sha256 == hashlib.sha256(published.file.read_bytes()).hexdigest()


@torch.no_grad()
def test_a_folder_of_open_clip_is_read_with_its_configuration(tmp_path):
    preprocess = {"mean": [0.1] * 3, "std": [0.2] * 3, "resize_mode": "squash"}
    model = write_open_clip(tmp_path, preprocess, length=LENGTH, dim=DIM, heads=2)
    published = read_published(tmp_path)
    assert published.layout == "openai_clip"
    assert published.recipe.fit == "stretch"
    assert published.recipe.method.image.mean == (0.1, 0.1, 0.1)
    assert published.recipe.method.image.activation == "quick_gelu"
    pixels = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    wanted = model.encode_image((pixels / 255 - 0.1) / 0.2, normalize=True)
    torch.testing.assert_close(published.method.encode_images(pixels), wanted, atol=1e-5, rtol=0)


def write_clip_tokenizer(folder, *, without=0):
    """CLIP's tokenizer as transformers writes it, without the first merges."""
    ours = json.loads(clip_tokenizer().to_json())["model"]
    ids = {p: n for p, n in ours["vocab"].items() if n < WORDS - 2}
    start, end = "<|startoftext|>", "<|endoftext|>"
    ids |= {start: WORDS - 2, end: WORDS - 1}
    merges = [tuple(merge) for merge in ours["merges"][without:]]
    model = models.BPE(ids, merges, end_of_word_suffix="</w>", unk_token=end)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = tokenizers.Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.RobertaProcessing((end, ids[end]), (start, ids[start]))
    tokenizer.enable_padding(length=LENGTH)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def copied(hugging_face, tmp_path):
    shutil.copytree(hugging_face[0], tmp_path / "clip")
    return tmp_path / "clip"


def test_the_tokenizer_of_clip_beside_the_weights_is_accepted(copied):
    write_clip_tokenizer(copied)
    assert read_published(copied).recipe.method.text.tokenizer_file is None


def test_another_tokenizer_beside_the_weights_is_refused(copied):
    write_clip_tokenizer(copied, without=2000)
    with pytest.raises(WeightsError, match=r"tokenizer\.json gives 'a photo.*another tokenizer"):
        read_published(copied)
    (copied / "tokenizer.json").write_text("{}")
    with pytest.raises(WeightsError, match="is not a tokenizer"):
        read_published(copied)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="neither model"):
        read_published(tmp_path)
