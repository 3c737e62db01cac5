"""The encoder sorts, trims and batches its inputs and decodes ahead; the literal one does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finegrain.encoder import Encoder
from finegrain.plan import Plan
from finegrain.preprocess import ImageTransform, load_image

CAPTIONS = (
    "a woman in a red coat",
    "",
    "man",
    "a tall man with a green backpack, blue jeans and white trainers walks to the left " * 4,
    "红色外套",
    "👩‍🦰 🧥",
    "man",
    "the person wears a long beige dress with puff sleeves and carries a small handbag",
    "word " * 300,
)
TOLERANCE = 2e-6  # float32 embeddings of length one


@pytest.fixture(scope="module")
def ort(tiny_plan) -> Encoder:
    return Encoder.from_plan(Plan(tiny_plan), threads=1)


@pytest.fixture(scope="module")
def eager(tiny_recipe, tiny_method) -> Encoder:
    from finegrain.preprocess.clip_bpe import clip_tokenizer
    from finegrain.runtime.eager import EagerRuntime

    image = tiny_recipe.method.image
    return Encoder(
        EagerRuntime(tiny_method, embed_dim=tiny_recipe.method.embed_dim),
        clip_tokenizer(tiny_recipe.method.text.context_length),
        ImageTransform(height=image.height, width=image.width),
    )


@pytest.fixture(scope="module")
def openvino(tiny_plan) -> Encoder:
    pytest.importorskip("openvino")
    return Encoder.from_plan(Plan(tiny_plan), runtime="openvino", threads=1)


@pytest.fixture(params=["ort", "openvino", "eager"])
def encoder(request) -> Encoder:
    return request.getfixturevalue(request.param)


def texts_one_by_one(encoder, captions):
    """Each caption alone and at the full context length, without sorting and trimming."""
    width = encoder.tokenizer.context_length
    rows = []
    for caption in captions:
        tokens = encoder.tokenizer.encode([caption], pad_to=width)
        rows.append(encoder.runtime.encode_texts(tokens.ids, tokens.eot)[0])
    return np.stack(rows)


def images_one_by_one(encoder, sources):
    pixels = [encoder.transform(load_image(source))[np.newaxis] for source in sources]
    return np.concatenate([encoder.runtime.encode_images(p) for p in pixels])


@pytest.mark.parametrize("batch_size", [1, 2, 7, 64])
def test_texts_of_mixed_lengths_equal_each_alone(encoder, batch_size):
    encoder.batch_size = batch_size
    embeddings = encoder.encode_texts(CAPTIONS)
    assert embeddings.dtype == np.float32
    np.testing.assert_allclose(embeddings, texts_one_by_one(encoder, CAPTIONS), atol=TOLERANCE)


@given(captions=st.lists(st.text(max_size=40), min_size=1, max_size=12), batch=st.integers(1, 8))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_texts_equal_each_alone(ort, captions, batch):
    ort.batch_size = batch
    wanted = texts_one_by_one(ort, captions)
    np.testing.assert_allclose(ort.encode_texts(captions), wanted, atol=TOLERANCE)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_pictures_in_batches_equal_each_alone(encoder, crops, batch_size):
    encoder.batch_size = batch_size
    sources = sorted(crops.iterdir())
    wanted = images_one_by_one(encoder, sources)
    np.testing.assert_allclose(encoder.encode_images(sources), wanted, atol=TOLERANCE)


def test_the_plan_has_the_embeddings_of_the_eager_model(ort, eager, crops):
    sources = sorted(crops.iterdir())
    for encode, inputs in (("encode_texts", CAPTIONS), ("encode_images", sources)):
        exported, wanted = getattr(ort, encode)(inputs), getattr(eager, encode)(inputs)
        assert np.sum(exported * wanted, axis=1).min() > 0.99999
        np.testing.assert_allclose(np.linalg.norm(exported, axis=1), 1, atol=1e-5)
