from __future__ import annotations

import json

import pytest

from finegrain.cli.parser import main
from finegrain.errors import ImageError, QueryError
from finegrain.search.asking.composition import change_of, changes_nothing


@pytest.fixture(scope="module")
def crop(crops):
    return crops / "04.jpg"


def ids(matches):
    return [match.id for match in matches]


def test_words_change_a_picture(crops_searcher, crop):
    text = "but in a blue jacket"
    matches = crops_searcher.query(image=crop, text=text, k=12)
    assert matches.query == "<picture> but in a blue jacket"
    assert ids(matches) != ids(crops_searcher.query(crop, 12))
    assert ids(matches) != ids(crops_searcher.query("in a blue jacket", 12))
    assert matches == crops_searcher.query(images=[crop], text=text, weight=0.7, k=12)


def test_weights_at_the_ends_leave_one_part(crops_searcher, crop):
    words = crops_searcher.query("in a blue jacket", 12)
    by_weight = {
        weight: crops_searcher.query(image=crop, text="but in a blue jacket", weight=weight, k=12)
        for weight in (0, 1)
    }
    assert ids(by_weight[0]) == ids(crops_searcher.query(crop, 12))
    # The mean of neutral words is subtracted, so the order is near that of the words only.
    assert by_weight[1][0].id in ids(words[:6])


@pytest.mark.parametrize("text", ["this person", "the same person", "But this, with the same!"])
def test_words_that_change_nothing_leave_the_search_by_picture_as_it_was(
    crops_searcher, crop, text
):
    matches = crops_searcher.query(image=crop, text=text)
    plain = crops_searcher.query(crop)
    assert [(m.id, m.score) for m in matches] == [(m.id, m.score) for m in plain]
    assert "changes nothing" in matches.notes[0]


def test_words_that_change_something_are_told_from_others():
    assert not any(map(changes_nothing, ["red", "this person in red", "a man", "thesame"]))
    assert changes_nothing("a photo of the same person")
    assert change_of("But, in a hat") == "in a hat"
    assert change_of("now and in butter colours") == "in butter colours"
    assert change_of("but") == "but"


def test_denied_words_apply_to_a_picture(crops_searcher, crop):
    only_denied = crops_searcher.query(image=crop, text="without a bag")
    assert "read as: the picture without 'bag'" in only_denied.notes[0]
    both = crops_searcher.query(image=crop, text="but in a blue jacket without a bag")
    assert "read as: 'in a blue jacket' without 'bag'" in both.notes[0]
    avoided = crops_searcher.query(image=crop, text="but in a blue jacket", avoid="bag")
    assert ids(avoided) == ids(both)


def test_feedback_applies_to_composed_queries(crops_searcher, crop):
    matches = crops_searcher.query(image=crop, text="in a blue jacket", k=5)
    refined = matches.refine(unlike=[1])
    assert matches[0].id not in ids(refined)


def test_one_picture_alone_is_a_search_by_it(crops_searcher, crop):
    assert crops_searcher.query(image=crop) == crops_searcher.query(crop)


def test_a_picture_that_cannot_be_read_beside_words_is_named(crops_searcher, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"broken\.jpg.*words alone"):
        crops_searcher.query(image=broken, text="in a blue jacket")


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), "0.5", True, [0.5]])
def test_a_weight_outside_its_range_is_refused(crops_searcher, crop, weight):
    with pytest.raises(QueryError, match="from 0"):
        crops_searcher.query(image=crop, text="in red", weight=weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "in red"}, "belong to image"),
        ({"query": "coat", "weight": 0.5}, "belong to image"),
        ({"query": "coat", "image": b"x"}, "text: query"),
        ({"image": b"x", "images": [b"y"]}, "both"),
        ({"image": b"x", "weight": 0.5}, "also pass text"),
        ({"image": b"x", "text": ""}, "text: the query is empty"),
        ({"image": "crop.jpg", "text": "in red"}, "pathlib"),
        ({"query": ["coat"], "text": "in red"}, "one by one"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(crops_searcher, arguments, message):
    with pytest.raises(QueryError, match=message):
        crops_searcher.query(**arguments)


def test_the_command_composes_a_picture_and_a_text(crops_searcher, tiny_plan, crop, capsys):
    base = ["query", str(tiny_plan), "--gallery", str(crops_searcher.gallery.path), "--json"]
    assert main([*base, "--image", str(crop), "but in a blue jacket", "--weight", "0.4"]) == 0
    shown = [row["id"] for row in json.loads(capsys.readouterr().out)]
    expected = crops_searcher.query(image=crop, text="but in a blue jacket", weight=0.4)
    assert shown == ids(expected)
    assert main([*base, "--image", str(crop), "in red", "in blue"]) == 1
    assert "one text beside --image" in capsys.readouterr().err
