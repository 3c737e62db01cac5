"""RaSa's ``config.yaml`` agrees with the recipes, and its other values are reported."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from finegrain import load_recipe
from finegrain.errors import WeightsError
from finegrain.recipe import override
from finegrain.runs.conversion import as_overrides
from finegrain.zoo.rasa_config import read_rasa_config

RECIPES = Path(__file__).parents[3] / "recipes"
RELEASED = {
    "train_file": ["../dataset/CUHK-PEDES/processed_data/train.json"],
    "val_image_root": "../dataset/CUHK-PEDES/imgs",
    "bert_config": "configs/config_bert.json",
    "max_words": 50,
    "image_res": 384,
    "batch_size_train": 13,
    "batch_size_test": 64,
    "mlm_probability": 0.15,
    "weak_pos_pair_probability": 0.1,
    "mrtd_mask_probability": 0.3,
    "queue_size": 65536,
    "momentum": 0.995,
    "vision_width": 768,
    "embed_dim": 256,
    "temp": 0.07,
    "k_test": 128,
    "alpha": 0.4,
    "warm_up": True,
    # A parser of YAML 1.1 reads 1e-5 as text.
    "optimizer": {"opt": "adamW", "lr": "1e-5", "weight_decay": 0.02, "lr_custm": "1e-4"},
    "schedular": {
        "sched": "cosine",
        "lr": 1e-05,
        "epochs": 30,
        "min_lr": 1e-06,
        "decay_rate": 1,
        "warmup_lr": 1e-05,
        "warmup_epochs": 1,
        "cooldown_epochs": 0,
    },
    "eval_epoch": 29,
    "weights": [0.5, 1, 1, 0.5, 0.5],
}
"""Settings of the released checkpoints, from the values of the released file."""


@pytest.fixture
def read(tmp_path):
    def written(**changes):
        (tmp_path / "config.yaml").write_text(yaml.dump(RELEASED | changes))
        return read_rasa_config(tmp_path / "config.yaml")

    return written


@pytest.mark.parametrize("dataset", ["CUHK-PEDES", "ICFG-PEDES", "RSTPReid"])
def test_the_released_configurations_agree_with_the_recipes(dataset, read):
    config = read(train_file=[f"../dataset/{dataset}/processed_data/train.json"])
    ours = load_recipe(RECIPES / f"rasa_{dataset.lower().replace('-', '_')}.py")
    assert config.dataset == type(ours.data).__name__
    assert config.different == {}
    assert override(ours, as_overrides(config.fields)) == ours


def test_every_value_is_read(read):
    config = read(
        batch_size_train=7,
        image_res=256,
        max_words=30,
        temp=0.05,
        weights=[1, 2, 3, 4, 5],
        optimizer={"opt": "adamW", "lr": 2e-5, "weight_decay": 0.1, "lr_custm": 1e-4},
        schedular=RELEASED["schedular"] | {"epochs": 9},
    )
    assert config.fields["batch_size"] == 7
    assert config.fields["method.image.height"] == config.fields["method.image.width"] == 256
    assert config.fields["method.text.context_length"] == 31
    assert config.fields["method.temperature"] == 0.05
    assert config.fields["losses"] == {"cl": 1, "pitm": 2, "mlm": 3, "prd": 4, "mrtd": 5}
    assert config.fields["optimizer.lr"] == 2e-5
    assert config.fields["optimizer.weight_decay"] == 0.1
    assert config.fields["schedule.final"] == pytest.approx(0.05)
    assert config.fields["schedule.epochs"] == 9
    assert "k_test" in config.ignored


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"warm_up": False}, {"warm_up": False}),
        ({"optimizer": {"opt": "sgd"}}, {"optimizer.opt": "sgd"}),
        ({"optimizer": {"lr_custm": 1e-3}}, {"optimizer.lr_custm": 1e-3}),
        ({"schedular": {"warmup_epochs": 3}}, {"schedular.warmup_epochs": 3}),
    ],
)
def test_settings_that_no_recipe_can_express_are_refused(read, changes, different):
    assert read(**changes).different == different


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": [1, 2]}, "expected weights of the losses cl, pitm"),
        ({"weights": "many"}, "expected weights of the losses"),
        ({"max_words": "fifty"}, "expected max_words as a whole number"),
    ],
)
def test_invalid_values_are_refused(read, changes, message):
    with pytest.raises(WeightsError, match=message):
        read(**changes)


def test_an_unknown_dataset_is_refused(read):
    assert read(train_file=["elsewhere/train.json"]).dataset is None
