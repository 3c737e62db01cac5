"""Errors for repositories that `finegrain pull` cannot use."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time

import open_clip
import pytest
import torch
from fixtures.loopback_hub import Repository
from safetensors.torch import save

from finegrain.cli.parser import main

NAME = "somebody/clip"
SIZES = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 16, "width": 64, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return save(open_clip.model.CLIP(**SIZES).state_dict())


@pytest.fixture
def refused(hub, tmp_path, capsys):
    """Publishes files, checks that pulling them fails in one line and writes nothing to the
    folder."""

    def pull(files, *options):
        hub.repositories[NAME] = Repository(files)
        folder = tmp_path / "plans"
        folder.mkdir(exist_ok=True)
        assert main(["pull", NAME, "-o", str(folder / "model.plan"), *options]) == 1
        assert list(folder.iterdir()) == []
        shown = [text for text in capsys.readouterr().err.splitlines() if "finegrain: " in text]
        assert len(shown) == 1
        return shown[0]

    return pull


def config(**changes):
    return json.dumps({"model_cfg": SIZES | changes}).encode()


def header(entries):
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "content",
    [
        # The stated header is longer than the file.
        struct.pack("<Q", 1 << 62) + b"{}",
        # A tensor is stated where the file has no bytes.
        header({"a": {"dtype": "F32", "shape": [1000000], "data_offsets": [0, 4000000]}}),
        # Two tensors share bytes.
        header(
            {
                "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            }
        )
        + bytes(4),
        # The shape does not match the number of bytes.
        header({"a": {"dtype": "F32", "shape": [9, 9], "data_offsets": [0, 4]}}) + bytes(4),
        b"",
        b"not safetensors at all",
    ],
)
def test_safetensors_with_wrong_lengths_are_refused(refused, content):
    files = {"open_clip_model.safetensors": content, "open_clip_config.json": config()}
    assert "cannot be read as weights" in refused(files)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("vision_cfg", "image_size", 10**9),
        ("vision_cfg", "head_width", 0),
        ("text_cfg", "heads", 10**9),
        ("text_cfg", "heads", "many"),
    ],
)
def test_a_configuration_with_absurd_sizes_is_refused(refused, weights, part, name, value):
    changed = config(**{part: SIZES[part] | {name: value}})
    files = {"open_clip_model.safetensors": weights, "open_clip_config.json": changed}
    assert str(value) in refused(files)


def test_a_configuration_that_is_not_json_is_refused(refused, weights):
    files = {"open_clip_model.safetensors": weights, "open_clip_config.json": b"\xff{"}
    assert "cannot be read as JSON" in refused(files)


def test_a_pickle_that_would_run_code_is_refused(refused, tmp_path):
    trace = tmp_path / "ran"
    # What pickle writes for an object that calls os.system.
    harmful = f"cposix\nsystem\n(S'touch {trace}'\ntR.".encode()
    assert "weight" in refused({"pytorch_model.bin": harmful, "config.json": b"{}"})
    assert not trace.exists()


def test_a_text_only_model_is_refused_before_its_weights_are_downloaded(hub, refused):
    files = {"config.json": b'{"model_type": "bert"}', "model.safetensors": bytes(9000)}
    assert "describes a model of type 'bert' without an image tower" in refused(files)
    assert hub.sent("model.safetensors") == []


def test_weights_of_another_model_are_refused(refused):
    files = {"model.safetensors": save({"encoder.layer.0.weight": torch.zeros(2)})}
    assert "encoder.layer.0.weight. Is it a checkpoint of another model?" in refused(files)


def test_two_weight_files_need_a_choice(refused, weights):
    message = refused({"epoch_1.safetensors": weights, "epoch_2.safetensors": weights})
    assert "epoch_1.safetensors, epoch_2.safetensors. Choose one by --file NAME" in message


def test_a_folder_as_the_target_is_refused(tmp_path, capsys):
    assert main(["pull", NAME, "-o", str(tmp_path)]) == 1
    assert "model.plan, got a folder" in capsys.readouterr().err


def test_options_without_a_name_are_refused(capsys):
    assert main(["pull", "--accept-licence"]) == 1
    assert "expected the name of a model" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="sends the signal of Ctrl-C as POSIX does")
def test_ctrl_c_during_the_download_leaves_nothing(hub, weights, tmp_path):
    hub.repositories[NAME] = Repository(
        {"open_clip_model.safetensors": weights, "open_clip_config.json": config()},
        wait={"open_clip_model.safetensors"},
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
    pull = subprocess.Popen(
        [sys.executable, "-m", "finegrain", "pull", NAME, "-o", str(tmp_path / "model.plan")],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not hub.sent("open_clip_model.safetensors"):
        assert pull.poll() is None, pull.stderr.read()
        time.sleep(0.05)
    pull.send_signal(signal.SIGINT)
    _, shown = pull.communicate(timeout=600)
    assert pull.returncode == 130
    assert shown.endswith("finegrain: stopped\n")
    assert not list(tmp_path.glob("*.plan*"))
    assert not list(tmp_path.rglob("*.incomplete"))
