from __future__ import annotations

from dataclasses import replace

import pytest

from finegrain.errors import CheckpointError
from finegrain.preprocess.vocabulary import VOCABULARY
from finegrain.recipe import Lora, load_recipe
from finegrain.records import Sample, Split
from finegrain.runs.vocabulary import read_vocabulary, reads_only_captions, write_vocabulary


def test_the_vocabulary_of_a_text_tower_from_random_weights_is_that_of_its_captions(tiny_recipe):
    assert reads_only_captions(tiny_recipe)


@pytest.mark.parametrize(
    "change",
    [{"weights": "clip-vit-b16"}, {"lora": Lora()}, {"frozen": ("text_tower.token_*",)}],
    ids=str,
)
def test_other_words_are_known_to_a_tower_that_starts_from_weights(tiny_recipe, change):
    assert not reads_only_captions(replace(tiny_recipe, **change))


def test_words_of_berts_text_tower_are_not_stated():
    assert not reads_only_captions(load_recipe("rasa_cuhk_pedes").tiny())


def test_the_file_of_a_run_is_read(tiny_recipe, tmp_path):
    assert read_vocabulary(tmp_path) is None
    samples = (Sample(image=tmp_path / "a.jpg", captions=("red coat", "blue coat"), pid=1),)
    split = Split(name="train", samples=samples)
    write_vocabulary(tmp_path, split, tiny_recipe.method.text.tokenizer())
    vocabulary = read_vocabulary(tmp_path)
    assert vocabulary is not None
    assert vocabulary.words == {"coat": 2, "red": 1, "blue": 1}
    assert [file.name for file in tmp_path.iterdir()] == [VOCABULARY]


def test_a_damaged_file_is_an_error_that_says_how_to_go_on(tmp_path):
    (tmp_path / VOCABULARY).write_text("{")
    with pytest.raises(CheckpointError, match="delete the file"):
        read_vocabulary(tmp_path)
