"""The explanation of a score compared with its definition, one change at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from finegrain.encoder import Encoder
from finegrain.errors import ImageError, QueryError
from finegrain.plan import Plan
from finegrain.search.explanation import Explanation, explain
from finegrain.search.searcher import Searcher

QUERY = "woman in red coat"


@pytest.fixture(scope="module")
def encoder(tiny_plan: Path) -> Encoder:
    return Encoder.from_plan(Plan(tiny_plan), threads=1)


@pytest.fixture(scope="module")
def picture(crops: Path) -> Image.Image:
    with Image.open(sorted(crops.iterdir())[0]) as image:
        return image.convert("RGB")


@pytest.fixture(scope="module")
def explanation(encoder: Encoder, picture: Image.Image) -> Explanation:
    return explain(encoder, QUERY, picture, cells=8)


def score(encoder: Encoder, text: str, picture: Image.Image) -> float:
    return float(encoder.encode_texts([text])[0] @ encoder.encode_images([picture])[0])


def covered(picture: Image.Image, row: int, column: int) -> Image.Image:
    """The 4 x 2 cells of a 128 x 64 picture; each is hidden with half a cell around it."""
    mean = np.asarray(picture).reshape(-1, 3).mean(axis=0).round().astype(np.uint8)
    pixels = np.array(picture)
    top, left = max(0, 32 * row - 16), max(0, 32 * column - 16)
    pixels[top : 32 * row + 48, left : 32 * column + 48] = mean
    return Image.fromarray(pixels)


def test_the_share_of_a_word_is_the_decrease_without_it(
    explanation: Explanation, encoder: Encoder, picture: Image.Image
) -> None:
    whole = score(encoder, QUERY, picture)
    lacking = ("in red coat", "woman red coat", "woman in coat", "woman in red")
    wanted = [whole - score(encoder, text, picture) for text in lacking]
    assert explanation.words == ("woman", "in", "red", "coat")
    assert explanation.score == pytest.approx(whole, abs=1e-5)
    assert explanation.contribution == pytest.approx(wanted, abs=1e-5)
    assert set(explanation.matched) == {
        word for word, adds in zip(explanation.words, wanted, strict=True) if adds > 0
    }
    assert sorted(explanation.matched + explanation.unmatched) == sorted(explanation.words)


def test_relevance_is_the_second_difference_of_the_score(
    explanation: Explanation, encoder: Encoder, picture: Image.Image
) -> None:
    assert explanation.relevance.shape == (4, 4, 2)
    for word, lacking in ((2, "woman in coat"), (3, "woman in red")):
        for row, column in ((0, 0), (1, 1), (3, 0)):
            hidden = covered(picture, row, column)
            wanted = (
                score(encoder, QUERY, picture)
                - score(encoder, lacking, picture)
                - score(encoder, QUERY, hidden)
                + score(encoder, lacking, hidden)
            )
            assert explanation.relevance[word, row, column] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "cells"), [((1, 1), 50), ((300, 2), 50), ((7, 90), 1), ((9, 9), 7)]
)
def test_any_picture_has_cells(encoder: Encoder, size: tuple[int, int], cells: int) -> None:
    result = explain(encoder, "coat", Image.new("RGB", size, "red"), cells=cells)
    _, rows, columns = result.relevance.shape
    assert 1 <= rows * columns <= 2 * cells
    assert np.isfinite(result.relevance).all()
    assert result.draw().size > (48, 48)


def test_an_explanation_can_be_printed_saved_and_converted_to_json(
    explanation: Explanation, tmp_path: Path
) -> None:
    assert "score" in str(explanation)
    assert all(word in str(explanation) for word in explanation.words)
    explanation.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as drawn:
        assert drawn.size == explanation.draw().size
    assert np.array(explanation.to_dict()["relevance"]).shape == (4, 4, 2)
    assert "data:image/png" in explanation._repr_html_()


def test_a_long_query_is_drawn_in_rows(encoder: Encoder, picture: Image.Image) -> None:
    result = explain(encoder, " ".join(f"word{i}" for i in range(90)), picture, cells=2)
    assert len(result.words) == 64
    assert result.draw().height < 3000


@pytest.mark.parametrize(("query", "cells"), [("   ", 4), ("coat", 0)])
def test_inputs_that_cannot_be_explained_are_errors(
    encoder: Encoder, picture: Image.Image, query: str, cells: int
) -> None:
    with pytest.raises(QueryError):
        explain(encoder, query, picture, cells=cells)


@pytest.mark.parametrize(
    ("name", "message"),
    [("why.gif", r"ends in \.png or \.jpg, got 'why.gif'"), ("no/why.png", "explanation")],
)
def test_a_path_that_cannot_be_written_is_an_error(
    explanation: Explanation, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        explanation.save(tmp_path / name)


def test_a_match_has_an_explanation(crops_searcher: Searcher, encoder: Encoder) -> None:
    match = crops_searcher.query(QUERY, 3)[1]
    why = match.explain()
    assert why.query == QUERY
    assert why.score == pytest.approx(match.score, abs=1e-4)
    assert why.relevance.shape == (4, 8, 4)
    finer = match.explain(cells=50)
    assert finer.relevance.shape == (4, 10, 5)
    np.testing.assert_allclose(finer.contribution, why.contribution, atol=1e-6)
    with pytest.raises(QueryError, match="cells of 1 or more"):
        match.explain(cells=0)


def test_a_match_of_a_picture_has_no_words(crops_searcher: Searcher, picture: Image.Image) -> None:
    with pytest.raises(QueryError, match="text"):
        crops_searcher.query(picture, 1)[0].explain()
