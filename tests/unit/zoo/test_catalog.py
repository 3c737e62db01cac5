"""The models that have a name."""

from __future__ import annotations

import pytest

from finegrain.cli.parser import main
from finegrain.errors import WeightsError
from finegrain.zoo.catalog import KNOWN, best_models, is_free, known_model


def test_names_are_unique_and_cannot_be_taken_for_repositories():
    names = [model.name for model in KNOWN]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or "@" in name]


def test_repositories_have_an_owner_and_a_name():
    for model in KNOWN:
        for repository in (model.repository, model.onnx):
            assert repository is None or repository.count("/") == 1


def test_a_digest_is_stated_together_with_its_file_and_revision():
    for model in KNOWN:
        if model.sha256 is not None:
            assert model.file is not None
            assert model.revision is not None


def test_the_best_model_of_each_speed_has_a_free_licence():
    best = [known_model(name) for name in best_models()]
    assert sorted(model.speed for model in best) == ["fast", "medium", "slow"]
    for model in best:
        assert is_free(model.licence)
        for other in KNOWN:
            if other.speed == model.speed and other.coco is not None and is_free(other.licence):
                assert model.flickr30k + model.coco >= other.flickr30k + other.coco


@pytest.mark.parametrize(
    ("licence", "free"),
    [
        ("MIT", True),
        ("apache-2.0", True),
        ("bsd-3-clause", True),
        ("apple-amlr", False),
        ("cc-by-nc-4.0", False),
        ("MIT AND CC-BY-NC-4.0", False),
        ("other", False),
        ("", False),
    ],
)
def test_free_licences_are_recognised(licence, free):
    assert is_free(licence) is free


def test_a_close_name_is_suggested():
    with pytest.raises(WeightsError, match=r"no model 'clip-vit-b61'. Did you mean 'clip-vit-b16'"):
        known_model("clip-vit-b61")


def test_the_list_has_every_model_and_marks_the_best(capsys):
    assert main(["pull"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for model in KNOWN:
        (line,) = [line for line in lines if f" {model.name} " in line]
        assert line.startswith("*") is (model.name in best_models())
        assert model.licence in line
        assert f"{model.parameters * 4 / 1000:.2f} GB" in line
