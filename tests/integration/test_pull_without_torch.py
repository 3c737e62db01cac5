"""The three commands of the quick start, in processes without PyTorch."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest
from fixtures.loopback_hub import Repository
from fixtures.onnx_pairs import write_immich
from PIL import Image

from finegrain.cli.parser import main
from finegrain.plan import Plan

NAME = "somebody/pair"
COMMAND = """
import sys
for name in ("torch", "torchvision", "transformers", "open_clip", "timm", "safetensors", "cv2"):
    sys.modules[name] = None
from finegrain.__main__ import main
raise SystemExit(main())
"""


@pytest.fixture
def finegrain(hub, tmp_path):
    """Runs a command in its own folder; returns its exit status, output and errors."""
    environment = {**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", COMMAND, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two ONNX towers with random weights, in the layout of Immich."""
    folder = tmp_path_factory.mktemp("pair")
    write_immich(folder)
    return folder


def test_the_plan_is_written_once_with_its_prompt(pair, tmp_path, monkeypatch):
    """If it were written twice, a full disk in between would lose the prompt."""
    written = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (written.append(str(b)), replace(a, b)))
    out = tmp_path / "model.plan"
    pulled = ["pull", "--from", str(pair), "--prompt", "a photo of {}", "-o", str(out)]
    assert main(pulled) == 0
    assert written.count(str(out)) == 1
    assert Plan(out).manifest.prompt == "a photo of {}"


def test_pull_index_and_query_work(hub, pair, finegrain, crops, tmp_path):
    hub.add_folder(NAME, pair)
    status, shown, error = finegrain("pull", NAME, "-o", "model.plan")
    assert status == 0, error
    assert "visual/model.onnx: SHA-256" in shown
    assert "finegrain index model.plan photos/" in shown
    status, _, error = finegrain("index", "model.plan", crops)
    assert status == 0, error
    status, _, error = finegrain("query", "model.plan", "red coat", "--grid", "matches.png")
    assert status == 0, error
    assert Image.open(tmp_path / "matches.png").width > 100
    status, shown, _ = finegrain("doctor", "model.plan")
    assert status == 0
    assert "licence: mit" in shown


def test_pytorch_weights_need_an_extra_that_the_error_names(hub, finegrain, tmp_path):
    hub.repositories[NAME] = Repository({"model.safetensors": bytes(5000)})
    (tmp_path / "model.safetensors").write_bytes(bytes(5000))
    for arguments in (("pull", NAME), ("pull", "--from", "model.safetensors")):
        status, _, error = finegrain(*arguments)
        assert status == 1
        assert 'pip install "finegrain[train]"' in error.splitlines()[-1]
    assert hub.sent("model.safetensors") == []
    assert not list(tmp_path.glob("*.plan*"))


def test_an_invalid_tokenizer_file_is_refused(hub, pair, tmp_path, capsys):
    hub.add_folder(NAME, pair).files["textual/tokenizer.json"] = b"not a tokenizer"
    assert main(["pull", NAME, "-o", str(tmp_path / "model.plan")]) == 1
    assert "tokenizer.json" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.plan*"))


@pytest.mark.parametrize(
    ("error", "status", "shown"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_an_older_plan_is_kept_if_the_new_one_cannot_be_written(
    pair, tmp_path, capsys, monkeypatch, error, status, shown
):
    def fail(descriptor):
        raise error

    plan = tmp_path / "model.plan"
    plan.write_bytes(b"an older plan")
    monkeypatch.setattr("finegrain.plan.os.fsync", fail)
    assert main(["pull", "--from", str(pair), "-o", str(plan)]) == status
    assert shown in capsys.readouterr().err
    assert plan.read_bytes() == b"an older plan"
    assert list(tmp_path.iterdir()) == [plan]
