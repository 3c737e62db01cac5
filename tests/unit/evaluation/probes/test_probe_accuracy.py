from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from finegrain.cli.parser import main
from finegrain.data.datasets import Catalog
from finegrain.encoder import Encoder
from finegrain.errors import DataError, EvaluationError, ImageError
from finegrain.evaluation.probes import Accuracy, ProbeReport, Skipped, probe, probe_split
from finegrain.evaluation.probes.accuracy import Z_95, choice_accuracy, wilson_interval
from finegrain.plan import Plan
from finegrain.records import Sample, Split

COLOURS = ("red", "blue", "green")


@given(right=st.integers(0, 50), more=st.integers(0, 50))
def test_the_interval_equals_wilsons(right, more):
    """Its ends solve ``(share - x)^2 = z^2 x (1 - x) / n``."""
    count = right + more + 1
    share = right / count
    low, high = wilson_interval(share, count)
    assert 0 <= low <= share <= high <= 1
    for end in (low, high):
        assert (share - end) ** 2 == pytest.approx(Z_95**2 * end * (1 - end) / count, abs=1e-12)


def test_the_interval_equals_published_values():
    """Newcombe 1998, table I: 81 of 263, and 0 of 20."""
    assert wilson_interval(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0.0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@pytest.mark.parametrize(("share", "count"), [(0.5, 0), (-0.1, 5), (1.1, 5), (math.nan, 5)])
def test_an_interval_without_items_is_refused(share, count):
    with pytest.raises(EvaluationError, match="expected a share from 0 to 1"):
        wilson_interval(share, count)


def test_ties_count_in_equal_shares():
    scores = [[3, 2, 1, 0], [1, 1, 0, 0], [0, 1, 0, 0], [2, 2, 2, 2]]
    assert choice_accuracy(scores) == (1 + 1 / 2 + 0 + 1 / 4) / 4


@pytest.mark.parametrize("scores", [[], [[]], [[1.0]], [1.0, 2.0], [[1.0, math.nan]]])
def test_invalid_scores_are_refused(scores):
    with pytest.raises(EvaluationError):
        choice_accuracy(scores)


def test_a_report_is_a_table_and_json():
    report = ProbeReport(
        split="test",
        results=(Accuracy(probe="negation", items=400, choices=4, accuracy=0.5),),
        skipped=(Skipped(probe="color swap", why="expected 30 pictures or more, got 3"),),
    )
    lines = str(report).splitlines()
    assert lines[0].split() == [
        "probe",
        "(test)",
        "items",
        "choices",
        "chance",
        "accuracy",
        "95",
        "%",
    ]
    assert lines[2].split() == ["negation", "400", "4", "25.0", "50.0", "45.1", "to", "54.9"]
    assert lines[3] == "color swap: not asked; expected 30 pictures or more, got 3"
    assert json.loads(json.dumps(report.to_dict())) == {
        "split": "test",
        "probes": [
            {
                "probe": "negation",
                "items": 400,
                "choices": 4,
                "chance": 0.25,
                "accuracy": 0.5,
                "interval": [0.4512, 0.5488],
            }
        ],
        "skipped": {"color swap": "expected 30 pictures or more, got 3"},
    }


# --- models -----------------------------------------------------------------------------


class Seeing:
    """An encoder that represents the colours above and below, and no negation.

    A picture has its colours in its name: ``3-red-blue.jpg``.
    """

    def encode_images(self, images, *, progress=False):
        return np.array([self._embedding(str(image)) for image in images])

    def encode_texts(self, captions, *, progress=False):
        return np.array([self._embedding(caption) for caption in captions])

    def _embedding(self, text):
        words = text.replace("-", " ").replace(".", " ").lower().split()
        actual = [COLOURS.index(word) for word in words if word in COLOURS]
        vector = np.zeros(6, np.float32)
        vector[[place * 3 + colour for place, colour in enumerate(actual[:2])]] = 1
        return vector / np.linalg.norm(vector)


class Counting(Seeing):
    """An encoder that represents colours without their garments."""

    def _embedding(self, text):
        bag = super()._embedding(text).reshape(2, 3).sum(axis=0)
        return bag / np.linalg.norm(bag)


class Failing(Seeing):
    def encode_images(self, images, *, progress=False):
        raise ImageError("0-red-blue.jpg: broken")


@pytest.fixture
def split():
    pairs = [(top, below) for top in COLOURS for below in COLOURS if top != below]
    samples = tuple(
        Sample(
            image=Path(f"{n}-{top}-{below}.jpg"),
            captions=(f"{top} coat over {below} jeans",),
            pid=n,
        )
        for n, (top, below) in enumerate(pairs * 5)
    )
    return Split(name="test", samples=samples)


def accuracies(encoder, split):
    report = probe_split(encoder, split)
    return {result.probe: (result.items, result.accuracy) for result in report.results}


def test_a_model_that_binds_colours_to_things_has_full_accuracy(split):
    actual = accuracies(Seeing(), split)
    assert actual["color swap"] == actual["color swap, caption to picture"] == (30, 1.0)
    assert actual["attribute swap: color"] == (30, 1.0)


def test_a_bag_of_words_model_is_at_chance(split):
    actual = accuracies(Counting(), split)
    assert actual["color swap"] == actual["color swap, caption to picture"] == (30, 0.5)
    assert actual["attribute swap: color"] == (30, 1.0)


def test_a_model_that_ignores_negation_prefers_the_denied_caption(split):
    class Naming(Seeing):
        """Represents one colour of a caption, for any upper garment."""

        def _embedding(self, text):
            vector = super()._embedding(text)
            return np.where(np.arange(6) < 3, vector, 0).astype(np.float32)

    upper = [
        Sample(image=s.image, captions=(s.captions[0].split(" over ")[0],), pid=s.pid)
        for s in split.samples
    ]
    actual = accuracies(Naming(), Split(name="test", samples=tuple(upper)))
    assert actual["negation: negative"][1] == 0.0
    assert (
        actual["negation: affirmative"][1] == 0.5
    )  # the embedding is the same with and without the negation


def test_probes_with_too_few_items_are_left_out_and_reported(split):
    few = Split(name="val", samples=split.samples[:29])
    report = probe_split(Seeing(), few)
    assert report.results == ()
    (skipped,) = [s for s in report.skipped if s.probe == "color swap"]
    assert skipped.why == (
        "expected 30 pictures or more with a caption that names two colours of two things, got 29"
    )
    assert len(probe_split(Seeing(), few, min_items=29).results) > 3


def test_an_unreadable_picture_is_an_error(split):
    with pytest.raises(ImageError, match="broken"):
        probe_split(Failing(), split)


# --- a dataset, a plan, the command line ------------------------------------------------


@pytest.fixture
def catalog(tmp_path):
    rows = ["image,caption,material,part"]
    for n in range(32):
        top, below = COLOURS[n % 3], COLOURS[(n + 1) % 3]
        Image.new("RGB", (16, 32), top).save(tmp_path / f"{n}.png")
        material = ("cotton", "silk")[n % 2]
        rows.append(f"{n}.png,{top} {material} coat with {below} jeans,{material},test")
    (tmp_path / "catalog.csv").write_text("\n".join(rows))
    return Catalog(table=str(tmp_path / "catalog.csv"), split_column="part")


def test_a_plan_is_probed_on_a_catalogue(tiny_plan, catalog):
    report = probe(tiny_plan, catalog, split="test", progress=False)
    actual = {result.probe: result.items for result in report.results}
    assert actual["color swap"] == actual["attribute swap: material"] == actual["negation"] == 32
    encoder = Encoder.from_plan(Plan(tiny_plan), threads=1)
    again = probe(encoder, catalog, split="test", progress=False)
    assert [r.items for r in again.results] == [r.items for r in report.results]


def test_an_encoder_needs_data_with_the_split(tiny_plan, catalog):
    encoder = Encoder.from_plan(Plan(tiny_plan), threads=1)
    with pytest.raises(EvaluationError, match="give one by data="):
        probe(encoder)
    with pytest.raises(DataError, match="no split 'val'"):
        probe(encoder, catalog)


def test_a_too_small_split_has_no_probes(tiny_plan, catalog):
    report = probe(tiny_plan, catalog, split="test", min_items=33, progress=False)
    assert report.results == ()
    assert str(report).count("not asked; expected 33 pictures") == len(report.skipped)


def test_the_command_prints_a_table_and_writes_json(
    tiny_plan, tiny_recipe, catalog, tmp_path, capsys
):
    recipe = tmp_path / "recipe.json"
    about = tiny_recipe.to_dict() | {
        "data": {
            "type": "Catalog",
            "table": catalog.table,
            "image_column": "image",
            "caption_columns": ["caption"],
            "pid_column": None,
            "split_column": "part",
        }
    }
    recipe.write_text(json.dumps(about))
    argv = ["evaluate", str(tiny_plan), "--probe", "--split", "test", "--recipe", str(recipe)]
    assert main([*argv, "--json", str(tmp_path / "probes.json")]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("probe (test)")
    assert "attribute swap: headwear: not asked; expected 30 pictures" in shown
    written = json.loads((tmp_path / "probes.json").read_text())
    assert {p["probe"] for p in written["probes"]} >= {"color swap", "negation: hybrid"}
