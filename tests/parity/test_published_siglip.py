"""SigLIP and SigLIP 2 in Hugging Face's layout, from files, compared with transformers."""

from __future__ import annotations

import json

import pytest
import torch
from fixtures.published_models import Theirs, assert_equal, assert_equal_ids, shake
from fixtures.published_tokenizers import texts, write_gemma, write_unigram
from transformers import (
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipTokenizer,
)

from finegrain.runs.published import read_published
from finegrain.runs.run import eager_encoder

LENGTH = 24


def write_model(folder, *, words, resample, image_size=40):
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "intermediate_size": 100, "num_attention_heads": 3}
    model = SiglipModel(
        SiglipConfig(
            text_config={
                **sizes,
                "num_hidden_layers": 2,
                "vocab_size": words,
                "max_position_embeddings": LENGTH,
            },
            vision_config={
                **sizes,
                "num_hidden_layers": 3,
                "image_size": image_size,
                "patch_size": 12,
            },
        )
    ).eval()
    shake(model)
    model.save_pretrained(folder)
    processor = SiglipImageProcessorPil(
        size={"height": image_size, "width": image_size}, resample=resample
    )
    processor.save_pretrained(folder)
    return model, processor


def theirs_of(model, processor, tokenizer, pad_id):
    def ids(texts):
        return tokenizer(
            texts, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        ).input_ids

    return Theirs(
        pixels=lambda photo: processor(photo, return_tensors="pt").pixel_values[0],
        ids=ids,
        images=lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output,
        texts=lambda ids: model.get_text_features(input_ids=ids).pooler_output,
        pad_id=pad_id,
    )


@pytest.mark.slow
def test_siglip_is_read_from_its_folder(tmp_path):
    # 40 pixels are not a multiple of 12, as 384 is not of 14 in the published so400m
    write_unigram(tmp_path, tokenizer_class="SiglipTokenizer")
    model, processor = write_model(tmp_path, words=220, resample=3)
    tokenizer = SiglipTokenizer(str(tmp_path / "spiece.model"))
    published, manifest = assert_equal(
        tmp_path, theirs_of(model, processor, tokenizer, 1), tmp_path
    )
    assert published.layout == "hf_siglip"
    assert (manifest.fit, manifest.interpolation) == ("stretch", "bicubic")
    assert list(manifest.mean) == [0.5, 0.5, 0.5]
    assert manifest.logit_scale == pytest.approx(model.logit_scale.exp().item())
    assert manifest.logit_bias == pytest.approx(model.logit_bias.item())


def siglip_2(tmp_path, *, lower):
    lowered = tmp_path / "lowered"
    lowered.mkdir()
    write_gemma(tmp_path, lower=lower)
    model, processor = write_model(tmp_path, words=600, resample=2)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(write_gemma(lowered, lower=True)),
        pad_token="<pad>",
        padding_side="right",
    )
    return theirs_of(model, processor, tokenizer, 0)


def test_siglip_2_is_read_from_its_folder(tmp_path):
    _, manifest = assert_equal(tmp_path, siglip_2(tmp_path, lower=True), tmp_path)
    assert manifest.interpolation == "bilinear"
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "siglip"


def test_the_texts_of_siglip_2_are_lower_cased_if_its_tokenizer_file_does_not(tmp_path):
    theirs = siglip_2(tmp_path, lower=False)
    published = read_published(tmp_path)
    encoder = eager_encoder(published.recipe, published.method, torch.device("cpu"))
    # Python lower-cases a final Greek sigma to its final form, and the tokenizers library does not.
    assert_equal_ids(encoder, theirs, [text.replace("Σ", "S") for text in texts(2000)])
