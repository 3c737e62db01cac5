from __future__ import annotations

import argparse
import subprocess
import sys
import time

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from finegrain.bounded.plain_yaml import MAX_BYTES
from finegrain.errors import WeightsError
from finegrain.zoo.released_config import ReleasedConfig, read_released_config

RELEASED = {
    "MLM": True,
    "alpha": 0.9,
    "batch_size": 64,
    "beta": 0.999,
    "bias_lr_factor": 2.0,
    "cmt_depth": 4,
    "dataset_name": "RSTPReid",
    "distributed": False,
    "id_loss_weight": 0.5,
    "img_aug": True,
    "img_size": (384, 128),
    "loss_names": "sdm+mlm+id",
    "lr": 1e-05,
    "lr_factor": 5.0,
    "lrscheduler": "cosine",
    "milestones": (20, 50),
    "mlm_loss_weight": 1.0,
    "num_epoch": 60,
    "optimizer": "Adam",
    "output_dir": "logs/RSTPReid/irra",
    "pretrain_choice": "ViT-B/16",
    "resume": False,
    "stride_size": 16,
    "temperature": 0.02,
    "text_length": 77,
    "vocab_size": 49408,
    "warmup_epochs": 5,
    "warmup_factor": 0.1,
    "weight_decay": 4e-05,
}


@pytest.fixture
def read(tmp_path):
    def written(content: object) -> ReleasedConfig:
        path = tmp_path / "configs.yaml"
        if isinstance(content, dict):
            arguments = argparse.Namespace(**content)
            content = yaml.dump(vars(arguments), default_flow_style=False)
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        return read_released_config(path)

    return written


def test_a_released_configuration_is_read(read, tmp_path):
    config = read(RELEASED)
    assert "!!python/tuple" in (tmp_path / "configs.yaml").read_text()
    assert config.fields == {
        "method.temperature": 0.02,
        "method.fusion_depth": 4,
        "method.text.context_length": 77,
        "method.text.vocabulary": 49408,
        "method.image.height": 384,
        "method.image.width": 128,
        "method.image.patch": 16,
        "method.identities": 3701,
        "data": {"type": "RstpReid"},
        "losses": {"sdm": 1.0, "mlm": 1.0, "id": 0.5},
        "optimizer.lr": 1e-5,
        "optimizer.weight_decay": 4e-5,
        "optimizer.betas": [0.9, 0.999],
        "optimizer.kind": "adam",
        "optimizer.eps": 1e-3,
        "schedule.epochs": 60,
        "schedule.warmup": 5 / 60,
        "schedule.by_epoch": True,
        "schedule.initial": 0.1,
        "batch_size": 64,
    }
    assert config.ignored == (
        "MLM",
        "distributed",
        "milestones",
        "output_dir",
        "resume",
    )


def test_fields_without_a_counterpart_are_listed(read):
    config = read({"dataset_name": "MyPeople", "pretrain_choice": "RN50", "optimizer": "SGD"})
    assert config == ReleasedConfig(
        ignored=("dataset_name", "optimizer", "pretrain_choice"),
        different={"optimizer": "SGD", "pretrain_choice": "RN50"},
    )
    assert config.dataset is None


def test_a_name_that_is_there_twice_is_refused(read):
    with pytest.raises(WeightsError, match="expected each name once, got 'lr' twice"):
        read(b"lr: 1.0e-5\nbatch_size: 64\nlr: 1.0e-4\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr_factor", 1.0),
        ("bias_lr_factor", 1.0),
        ("img_aug", False),
        ("sampler", "identity"),
        ("lrscheduler", "step"),
        ("optimizer", "SGD"),
        ("target_lr", 1e-6),
        ("weight_decay_bias", 1e-4),
    ],
)
def test_settings_that_no_recipe_can_express_are_refused(read, name, value):
    assert read(RELEASED).different == {}
    config = read(RELEASED | {name: value})
    assert config.different == {name: value}
    assert name in config.ignored


def test_adamw_has_another_epsilon(read):
    fields = read(RELEASED | {"optimizer": "AdamW"}).fields
    assert (fields["optimizer.kind"], fields["optimizer.eps"]) == ("adamw", 1e-8)


RDE = RELEASED | {
    "loss_names": "TAL+sr0.3_tau0.015_margin0.1_n0.0",
    "tau": 0.02,
    "margin": 0.2,
    "select_ratio": 0.4,
    "noisy_rate": 0.0,
    "txt_aug": True,
}


def test_a_configuration_beside_rde_is_read(tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(RDE))
    config = read_released_config(path, fork="rde")
    assert config.dataset == "RstpReid"
    assert config.different == {}
    of_method = {n: v for n, v in config.fields.items() if n.startswith("method.")}
    assert of_method == {
        "method.temperature": 0.02,
        "method.margin": 0.2,
        "method.ratio": 0.4,
        "method.disturb": 0.2,
        "method.items": 37010,
        "method.text.context_length": 77,
        "method.text.vocabulary": 49408,
        "method.image.height": 384,
        "method.image.width": 128,
        "method.image.patch": 16,
    }
    assert config.fields["caption_noise"] == 0.0
    assert "losses" not in config.fields


def test_another_loss_and_wrong_captions_of_rde_are_reported(tmp_path):
    path = tmp_path / "configs.yaml"
    path.write_text(yaml.dump(RDE | {"loss_names": "SDM+x", "noisy_rate": 0.5, "txt_aug": False}))
    config = read_released_config(path, fork="rde")
    assert config.different == {"loss_names": "SDM+x"}
    assert config.fields["caption_noise"] == 0.5
    assert config.fields["method.disturb"] == 0.0


@given(st.dictionaries(st.sampled_from(sorted(RELEASED)), st.none() | st.integers() | st.text()))
def test_every_field_is_either_used_or_listed(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("config") / "configs.yaml"
    path.write_text(yaml.dump(RELEASED | changes), encoding="utf-8")
    try:
        config = read_released_config(path)
    except WeightsError:
        return
    assert set(config.ignored) <= set(RELEASED)
    assert not {"lr", "num_epoch", "img_size", "loss_names"} & set(config.ignored)


def test_overlapping_patches_are_refused(read):
    with pytest.raises(WeightsError, match=r"stride_size 16.*got stride_size 12"):
        read(RELEASED | {"stride_size": 12})


@pytest.mark.parametrize("size", [224, (384,), (384, 128, 3), ("384", "128"), "384x128", None])
def test_an_invalid_picture_size_is_refused(read, size):
    with pytest.raises(WeightsError, match=r"expected img_size as \(height, width\)"):
        read({"img_size": size})


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system",
        "!!python/object/new:subprocess.Popen",
        "!!python/object:easydict.EasyDict",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple/other",
        "!!set",
        "!!binary",
        "!local",
        "!",
    ],
)
def test_any_other_tag_is_refused_by_name(read, tag):
    name = tag.replace("!!", "tag:yaml.org,2002:")
    with pytest.raises(WeightsError, match=r"asks for .*; expected plain values") as raised:
        read(f"lr: 0.1\nimg_size: {tag}\n- 384\n- 128\n")
    assert f"asks for {name};" in str(raised.value)


def test_a_command_is_refused_and_not_executed(read, tmp_path):
    sentinel = tmp_path / "ran"
    text = f"img_size: !!python/object/apply:os.system\n- touch {sentinel}\n"
    with pytest.raises(WeightsError, match=r"asks for .*os\.system"):
        read(text)
    assert not sentinel.exists()
    script = "import sys, yaml; yaml.unsafe_load(sys.stdin)"
    subprocess.run([sys.executable, "-c", script], input=text, text=True, check=True)
    assert sentinel.exists(), "the file is not malicious, and the test proves nothing"


BOMB = "a: &a [1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (BOMB, r"refers to \*a"),
        ("[" * 60000, "nested 5 deep"),
        ("lr: 1\n" * MAX_BYTES, "at most 65536 bytes"),
        ("a: [1, 2", "cannot be read as YAML"),
        ("a: 1\nb: 2001-99-99", "cannot be read as YAML"),
        ("img_size: !!python/tuple 3", "cannot be read as YAML"),
        (b"\x00\xff\xfe", "cannot be read as YAML"),
        ("- 1\n- 2", r"expected named values in .*got \[1, 2\]"),
        ("1: 2", "expected named values"),
        ("", "expected named values in .*got None"),
    ],
    ids=["bomb", "deep", "long", "cut", "date", "tuple", "binary", "list", "number", "empty"],
)
def test_other_files_are_refused(read, content, message):
    started = time.perf_counter()
    with pytest.raises(WeightsError, match=message):
        read(content)
    assert time.perf_counter() - started < 2


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match=r"absent.yaml cannot be read"):
        read_released_config(tmp_path / "absent.yaml")
