from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import ImageError, QueryError
from finegrain.plan import Plan


@pytest.fixture(scope="module")
def encoder(tiny_plan) -> Encoder:
    return Encoder.from_plan(Plan(tiny_plan), threads=1)


@pytest.fixture(autouse=True)
def _batches_of_four(encoder):
    encoder.batch_size = 4


@pytest.fixture
def sources(crops, tmp_path) -> list[Path]:
    """Good pictures, with a broken one, a missing one and an empty one between them."""
    good = sorted(crops.iterdir())[:7]
    (tmp_path / "broken.jpg").write_bytes(good[0].read_bytes()[:200])
    (tmp_path / "empty.jpg").touch()
    return [
        good[0],
        tmp_path / "broken.jpg",
        *good[1:4],
        tmp_path / "missing.jpg",
        tmp_path / "empty.jpg",
        *good[4:],
    ]


def test_texts_keep_their_order(encoder):
    captions = ["a very long caption of many words", "coat", "a red coat", "coat", "hat"]
    forward, backward = encoder.encode_texts(captions), encoder.encode_texts(captions[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)
    np.testing.assert_allclose(forward[1], forward[3], atol=1e-6)
    assert np.abs(forward[1] - forward[4]).max() > 0.01


def test_pictures_keep_their_order(encoder, crops):
    sources = sorted(crops.iterdir())
    forward, backward = encoder.encode_images(sources), encoder.encode_images(sources[::-1])
    np.testing.assert_allclose(forward, backward[::-1], atol=1e-6)


def test_one_picture_as_path_text_bytes_array_and_image_is_one_embedding(encoder, crops):
    path = crops / "03.jpg"
    with Image.open(path) as image:
        image.load()
    sources = [path, str(path), path.read_bytes(), np.asarray(image), image]
    embeddings = encoder.encode_images(sources)
    np.testing.assert_allclose(embeddings, np.repeat(embeddings[:1], 5, axis=0), atol=1e-6)


def test_an_empty_input_has_no_embeddings(encoder):
    for embeddings in (encoder.encode_texts([]), encoder.encode_images([])):
        assert embeddings.shape == (0, encoder.embed_dim)
        assert embeddings.dtype == np.float32
    assert list(encoder.stream_images([])) == []


@pytest.mark.parametrize("captions", [[None], [3], ["coat", 3.5], [["coat"]], [b"coat"]])
def test_a_caption_that_is_not_text_is_refused(encoder, captions):
    with pytest.raises(QueryError, match="expected a caption as text, got"):
        encoder.encode_texts(captions)


def test_a_single_text_is_not_split_into_letters(encoder):
    with pytest.raises(QueryError, match="expected a list of captions, got one text 'red coat'"):
        encoder.encode_texts("red coat")


def test_a_stream_names_unreadable_pictures_and_keeps_positions(encoder, sources):
    batches = list(encoder.stream_images(sources))
    positions = [position for batch in batches for position in batch.positions]
    assert positions == [0, 2, 3, 4, 7, 8, 9]
    assert [len(batch.embeddings) for batch in batches] == [3, 2, 2]
    problems = [problem for batch in batches for problem in batch.problems]
    assert [Path(p.where).name for p in problems] == ["broken.jpg", "missing.jpg", "empty.jpg"]
    streamed = np.concatenate([batch.embeddings for batch in batches])
    wanted = encoder.encode_images([sources[i] for i in positions])
    np.testing.assert_allclose(streamed, wanted, atol=1e-6)


def test_a_problem_names_its_file_once(encoder, sources):
    for batch in encoder.stream_images(sources):
        for problem in batch.problems:
            assert str(problem).count(problem.where) == 1
            assert problem.why


def test_a_batch_without_a_readable_picture_is_empty(encoder):
    (batch,) = encoder.stream_images([b"", b"not a picture", None])
    assert batch.positions == []
    assert batch.embeddings.shape == (0, encoder.embed_dim)
    assert [problem.where for problem in batch.problems] == ["bytes", "bytes", "NoneType"]


def test_encoding_all_stops_at_an_unreadable_picture(encoder, sources):
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        encoder.encode_images(sources)


def test_a_stream_decodes_no_more_than_a_batch_ahead(encoder, crops):
    """Otherwise a million pictures would be held in memory."""
    read = []

    class Watched(list):
        def __iter__(self):
            for item in super().__iter__():
                read.append(item)
                yield item

    stream = encoder.stream_images(Watched([crops / "00.jpg"] * 40))
    next(stream)
    assert len(read) <= 3 * encoder.batch_size
    stream.close()
    assert len(read) <= 3 * encoder.batch_size


def test_the_progress_bar_counts_unreadable_pictures(encoder, sources, capsys):
    list(encoder.stream_images(sources, progress=True))
    encoder.encode_texts(["coat", "hat"], progress=True)
    shown = capsys.readouterr().err
    assert "10/10" in shown
    assert "2/2" in shown
