"""Interrupted runs, and runs that cannot write."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from filelock import FileLock

import finegrain.runs.checkpoint
import finegrain.training.loop as loop
from finegrain.cli.parser import main
from finegrain.errors import CheckpointError
from finegrain.runs.checkpoint import MODEL, STATE, last_checkpoint, read_state
from finegrain.training import train
from finegrain.training.run_lock import HOLDER, LOCK
from tests.unit.training.test_resume import assert_same_end


class Killed(BaseException):
    """In place of a signal that cannot be caught."""


def killed_at(monkeypatch, step):
    """Stop training in the middle of a step."""
    take_step = loop._Trainer._step

    def until(self, batch, at):
        if at == step:
            raise Killed
        return take_step(self, batch, at)

    monkeypatch.setattr(loop._Trainer, "_step", until)


def test_resuming_from_a_timed_checkpoint_is_exact(recipe, tmp_path, monkeypatch):
    """Step 11 is in the middle of the second epoch of eight steps."""
    train(recipe, tmp_path / "straight", progress=False)
    with monkeypatch.context() as patch:
        killed_at(patch, 11)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "resumed", checkpoint_minutes=0, progress=False)
    assert read_state(last_checkpoint(tmp_path / "resumed")).step == 11
    train(recipe, tmp_path / "resumed", resume=True, progress=False)
    assert_same_end(tmp_path / "straight", tmp_path / "resumed")


def test_short_runs_have_checkpoints_at_epochs_only(recipe, tmp_path, monkeypatch):
    killed_at(monkeypatch, 11)
    with pytest.raises(Killed):
        train(recipe, tmp_path, progress=False)
    assert read_state(last_checkpoint(tmp_path)).step == 8


def full(path, *_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


@pytest.mark.parametrize("what", ["_sync", "_write", "json"])
def test_a_full_disk_keeps_the_last_checkpoint(recipe, what, tmp_path, monkeypatch):
    train(recipe, tmp_path, stop_after=8, progress=False)
    good = last_checkpoint(tmp_path)
    before = (good / MODEL).read_bytes()
    with monkeypatch.context() as patch:
        if what == "json":
            patch.setattr("finegrain.training.loop.append_metrics", lambda *_, **__: full(tmp_path))
        else:
            patch.setattr(finegrain.runs.checkpoint, what, full)
        with pytest.raises(
            CheckpointError, match=r"cannot write into .*No space.*--resume.*000008 is complete"
        ):
            train(recipe, tmp_path, resume=True, progress=False)
    assert last_checkpoint(tmp_path) == good
    assert (good / MODEL).read_bytes() == before
    assert [p.name for p in good.parent.iterdir()] == [good.name]
    assert train(recipe, tmp_path, resume=True, progress=False).steps == 20


def test_a_file_in_place_of_the_folder_is_an_error(brief, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        CheckpointError, match=r"cannot write into .*there is no checkpoint yet.*-o"
    ):
        train(brief, tmp_path / "file" / "run", progress=False)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="who may write everywhere")
def test_an_unwritable_folder_is_an_error(brief, tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(CheckpointError, match=r"cannot write into"):
            train(brief, tmp_path / "run", progress=False)
    finally:
        tmp_path.chmod(0o700)


def test_an_error_without_relation_to_the_disk_is_not_changed(brief, tmp_path, monkeypatch):
    def interrupted(*_):
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(finegrain.runs.checkpoint, "_write", interrupted)
    with pytest.raises(OSError, match="no memory"):
        train(brief, tmp_path, progress=False)


def test_files_are_synced_before_they_are_renamed(brief, tmp_path, monkeypatch):
    """Every file and folder is synced before the rename, and the rename before the removal."""
    events = []
    sync, rename, remove = os.fsync, os.replace, finegrain.runs.checkpoint.shutil.rmtree

    def synced(descriptor):
        events.append(("sync", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def renamed(source, target):
        paths = [source, *source.iterdir()]
        events.append(("rename", {p.stat().st_ino for p in paths}))
        rename(source, target)

    def removed(path, **options):
        if not path.name.startswith("."):
            events.append(("remove", path.name))
        remove(path, **options)

    train(brief, tmp_path, stop_after=1, progress=False)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(finegrain.runs.checkpoint.shutil, "rmtree", removed)
    train(brief, tmp_path, resume=True, progress=False)
    kinds = [kind for kind, _ in events]
    at = kinds.index("rename")
    assert events[at][1] <= {inode for kind, inode in events[:at] if kind == "sync"}
    parent = (tmp_path / "checkpoints").stat().st_ino
    assert ("sync", parent) in events[at:]
    if "remove" in kinds:
        assert kinds.index("remove") > events.index(("sync", parent))


def test_two_trainings_into_one_folder_are_refused(brief, tmp_path):
    """The lock belongs to another process, which ends without releasing it."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from finegrain.training.run_lock import only_training\n"
        "with only_training(Path(sys.argv[1])):\n"
        "    print('held', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match=rf": process {other.pid} on .* since .*-o"):
            train(brief, tmp_path, progress=False)
        other.kill()
    assert train(brief, tmp_path, progress=False).steps == 2
    assert not (tmp_path / HOLDER).exists()


def test_a_lock_without_a_description_is_reported(brief, tmp_path):
    (tmp_path / HOLDER).write_text("{")
    with (
        FileLock(tmp_path / LOCK),
        pytest.raises(CheckpointError, match="another training: another process"),
    ):
        train(brief, tmp_path, progress=False)


def test_the_state_is_written_last_and_atomically(brief, tmp_path):
    train(brief, tmp_path, progress=False)
    assert json.loads((last_checkpoint(tmp_path) / STATE).read_text())["step"] == 2


def test_overrides_have_priority_over_tiny(recipe):
    assert recipe.tiny(["schedule.epochs=3"]).schedule == replace(
        recipe.schedule, epochs=3, steps=None, evaluate_every=1
    )
    assert recipe.tiny(["schedule.epochs=3", "schedule.steps=7"]).schedule.steps == 7
    assert recipe.tiny(["batch_size=4", "data.train=20"]).batch_size == 4
    assert recipe.tiny().schedule.steps == 10


def test_the_command_line_passes_overrides_and_minutes(recipe, tmp_path, monkeypatch, capsys):
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    calls = []
    monkeypatch.setattr("finegrain.train", lambda *args, **options: calls.append((args, options)))
    argv = ["train", str(tmp_path / "recipe.json"), "--set", "schedule.epochs=2"]
    assert main([*argv, "--tiny", "--checkpoint-minutes", "2"]) == 0
    assert main(argv) == 0
    (tiny, _), (plain, _) = (args for args, _ in calls)
    assert tiny == recipe.tiny(["schedule.epochs=2"])
    assert plain == replace(recipe, schedule=replace(recipe.schedule, epochs=2))
    assert [options["checkpoint_minutes"] for _, options in calls] == [2.0, 5.0]
