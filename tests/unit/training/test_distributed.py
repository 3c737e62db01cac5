"""Two processes under torchrun compared with one that takes their batches together."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from finegrain.methods import MinedConfig, RasaConfig
from finegrain.models.albef_image import AlbefImageConfig
from finegrain.models.albef_text import AlbefTextConfig
from finegrain.recipe import Augment, Schedule
from finegrain.runs.checkpoint import MODEL, last_checkpoint
from finegrain.training import train
from finegrain.training.distributed import join_world

SCRIPT = """
import os, sys
from pathlib import Path
from safetensors.torch import save_file
from finegrain.recipe import load_recipe
from finegrain.training import loop

kept = []
initialise = loop._Trainer.__init__
def spy(self, *arguments, **named):
    initialise(self, *arguments, **named)
    kept.append(self.model)
loop._Trainer.__init__ = spy
folder = Path(sys.argv[1])
loop.train(load_recipe(folder / "given.json"), folder / "run", progress=False)
tensors = {name: tensor.contiguous() for name, tensor in kept.pop().state_dict().items()}
save_file(tensors, folder / f"rank{os.environ['RANK']}.safetensors")
"""


# Random draws of a process, such as masked words, would differ, so no such loss is used.
def contrastive(recipe):
    return recipe


def with_queues(recipe):
    towers = {"image": recipe.method.image, "text": recipe.method.text}
    method = MinedConfig(**towers, embed_dim=16, decay=0.9, queue=27, hardest=5)
    return replace(recipe, method=method, losses={"tal": 1.0, "queue": 1.0})


def with_copies_and_queues(recipe):
    """RaSa without random draws: pictures equal their mirror images, and pitm has no weight."""
    method = RasaConfig(
        image=AlbefImageConfig(height=32, width=16, patch=8, channels=16, depth=1, heads=2),
        text=AlbefTextConfig(
            vocabulary=49408,
            context_length=16,
            channels=16,
            depth=1,
            fusion_depth=1,
            heads=2,
            dropout=0.0,
        ),
        embed_dim=16,
        momentum=0.9,
        queue=27,
        ramp=2,
    )
    plain = Augment(flip=0.0, pad=0.0, erase=0.0)
    return replace(recipe, method=method, losses={"cl": 1.0, "pitm": 0.0}, augment=plain)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [contrastive, with_queues, with_copies_and_queues])
def test_two_processes_train_as_one_with_twice_the_batch(kind, recipe, tmp_path):
    one = replace(kind(recipe), schedule=Schedule(epochs=1, steps=4), batch_size=16)
    two = replace(one, batch_size=8)
    (tmp_path / "given.json").write_text(two.to_json())
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "script.py", "."]
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in range(2))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    train(one, tmp_path / "one", progress=False)
    expected = load_file(last_checkpoint(tmp_path / "one") / MODEL)
    saved = load_file(last_checkpoint(tmp_path / "run") / MODEL)
    for name, tensor in expected.items():
        assert torch.equal(saved[name], first[name])
        torch.testing.assert_close(first[name], tensor, atol=1e-5, rtol=1e-4)


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with join_world() as world:
        assert (world.rank, world.size, world.is_first) == (0, 1, True)
        world.barrier()
    assert not torch.distributed.is_initialized()
