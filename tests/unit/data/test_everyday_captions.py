from __future__ import annotations

import random
from pathlib import Path

import pytest

from finegrain.data.datasets import SyntheticPeople
from finegrain.data.everyday_captions import NAMES, in_everyday_words, mistyped, reworded
from finegrain.data.everyday_words import READ_AS
from finegrain.records import Sample, Split

CAPTION = "A woman in a red coat, black trousers and running shoes."


def test_other_names_are_read_as_the_words_that_they_replace():
    for plain, names in NAMES.items():
        assert all(READ_AS[name][0] == plain != name for name in names)
    assert "jumper" not in NAMES["coat"]
    assert "trench coat" in NAMES["coat"]


def test_about_half_of_the_words_with_other_names_are_replaced():
    texts = [in_everyday_words(CAPTION, random.Random(seed)) for seed in range(200)]
    assert 70 < sum("trousers" in text for text in texts) < 130
    assert len(set(texts)) > 100
    assert all("running shoes" in text for text in texts)


def test_articles_and_capitals_suit_the_new_word():
    texts = {in_everyday_words("A coat", random.Random(seed), share=1.0) for seed in range(200)}
    assert {"An ulster", "A mackintosh"} <= texts
    lady = in_everyday_words("Woman", random.Random(0), share=1.0)
    assert lady[0].isupper()


def test_a_typo_exchanges_neighbouring_letters_of_longer_words():
    typed = mistyped("woman in a long-sleeved red coat", 1.0, random.Random(1))
    assert typed != "woman in a long-sleeved red coat"
    assert sorted(typed) == sorted("woman in a long-sleeved red coat")
    assert typed.endswith("red coat")
    assert mistyped(CAPTION, 0.0, random.Random(1)) == CAPTION


def test_the_same_seed_gives_the_same_captions():
    samples = tuple(
        Sample(image=Path(f"{n}.jpg"), captions=(CAPTION, CAPTION), pid=n) for n in range(9)
    )
    split = Split(name="train", samples=samples)
    first, again, other = (reworded(split, "everyday", typos=0.1, seed=seed) for seed in (3, 3, 4))
    assert first == again != other
    assert reworded(split, "plain", typos=0.0, seed=3) is split
    assert [s.pid for s in first.samples] == list(range(9))


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    root = str(tmp_path_factory.mktemp("people") / "synthetic")
    return {
        wording: SyntheticPeople(
            root=root, train=4, val=2, test=2, pictures_per_identity=1, wording=wording
        ).splits()
        for wording in ("plain", "everyday")
    }


def test_only_training_captions_of_synthetic_people_change(people):
    plain, everyday = people["plain"], people["everyday"]
    assert [s.captions for s in plain["train"].samples] != [
        s.captions for s in everyday["train"].samples
    ]
    assert [s.image for s in plain["train"].samples] == [s.image for s in everyday["train"].samples]
    assert plain["val"] == everyday["val"]
    assert plain["test"] == everyday["test"]
