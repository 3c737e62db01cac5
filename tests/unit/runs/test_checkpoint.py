from __future__ import annotations

import pytest
import torch
from torch import nn

from finegrain.errors import CheckpointError, WeightsError
from finegrain.runs.checkpoint import (
    MODEL,
    OPTIMIZER,
    STATE,
    State,
    best_checkpoint,
    folder_of,
    last_checkpoint,
    load_model,
    load_optimizer,
    read_state,
    save_checkpoint,
)
from finegrain.zoo.files import MAX_HEADER_BYTES


def made(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4))
    model = model.to(memory_format=torch.channels_last)
    return model, torch.optim.AdamW(model.parameters(), fused=True)


def step(model, optimizer):
    optimizer.zero_grad()
    loss = model(torch.rand(5, 3, 6, 6)).square().mean()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_model_optimizer_and_random_state_are_restored(tmp_path):
    model, optimizer = made()
    step(model, optimizer)
    folder = save_checkpoint(tmp_path, State(step=1), model, optimizer)
    expected = [step(model, optimizer) for _ in range(3)]
    other, its_optimizer = made(seed=1)
    load_model(folder, other)
    load_optimizer(folder, its_optimizer)
    assert [step(other, its_optimizer) for _ in range(3)] == expected
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_moments_have_the_memory_layout_of_their_parameters(tmp_path):
    model, optimizer = made()
    step(model, optimizer)
    folder = save_checkpoint(tmp_path, State(step=1), model, optimizer)
    other, its_optimizer = made()
    load_optimizer(folder, its_optimizer)
    for parameter in other.parameters():
        assert its_optimizer.state[parameter]["exp_avg"].stride() == parameter.stride()


@pytest.mark.parametrize(("file", "load"), [(MODEL, load_model), (OPTIMIZER, load_optimizer)])
def test_a_checkpoint_with_an_endless_header_is_refused(tmp_path, file, load):
    parts = dict(zip((MODEL, OPTIMIZER), made(), strict=True))
    folder = save_checkpoint(tmp_path, State(step=1), *parts.values())
    tensors = (folder / file).read_bytes()
    length = int.from_bytes(tensors[:8], "little")
    padded = tensors[8 : 8 + length] + b" " * MAX_HEADER_BYTES
    (folder / file).write_bytes(len(padded).to_bytes(8, "little") + padded + tensors[8 + length :])
    with pytest.raises(CheckpointError, match="expected a header of at most"):
        load(folder, parts[file])


def test_the_newest_and_the_best_are_kept(tmp_path):
    model, optimizer = made()
    for number, best in ((10, None), (20, 20), (30, 20), (40, 20)):
        state = State(step=number, best_step=best, best_rank1=best and 50.0)
        folder = save_checkpoint(tmp_path, state, model, optimizer)
        assert read_state(folder) == state
    assert sorted(f.name for f in (tmp_path / "checkpoints").iterdir()) == ["000020", "000040"]
    assert last_checkpoint(tmp_path) == folder_of(tmp_path, 40)
    assert best_checkpoint(tmp_path) == folder_of(tmp_path, 20)


def test_without_validation_the_newest_is_the_best(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, State(step=10), model, optimizer)
    folder = save_checkpoint(tmp_path, State(step=20), model, optimizer)
    assert best_checkpoint(tmp_path) == folder


def test_the_millionth_step_is_newer_than_the_one_before(tmp_path):
    model, optimizer = made()
    state = State(step=999_999, best_step=999_999, best_rank1=1.0)
    save_checkpoint(tmp_path, state, model, optimizer)
    newest = State(step=1_000_000, best_step=999_999, best_rank1=1.0)
    assert last_checkpoint(tmp_path) == folder_of(tmp_path, 999_999)
    assert save_checkpoint(tmp_path, newest, model, optimizer) == last_checkpoint(tmp_path)


def test_saving_a_step_again_replaces_it(tmp_path):
    model, optimizer = made()
    save_checkpoint(tmp_path, State(step=1), model, optimizer)
    state = State(step=1, best_step=1, best_rank1=3.0)
    assert read_state(save_checkpoint(tmp_path, state, model, optimizer)) == state


@pytest.mark.parametrize("failing", ["mkdir", "model", "optimizer", "rename"])
def test_a_crash_while_writing_leaves_the_previous_checkpoint(failing, tmp_path, monkeypatch):
    model, optimizer = made()
    before = save_checkpoint(tmp_path, State(step=1), model, optimizer)

    def crash(*arguments, **named):
        raise OSError("no space left on device")

    where = {
        "mkdir": "pathlib.Path.mkdir",
        "model": "finegrain.runs.checkpoint.save_file",
        "optimizer": "finegrain.runs.checkpoint._optimizer_tensors",
        "rename": "finegrain.runs.checkpoint.os.replace",
    }
    with monkeypatch.context() as patched:
        patched.setattr(where[failing], crash)
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(tmp_path, State(step=2), model, optimizer)
    assert last_checkpoint(tmp_path) == best_checkpoint(tmp_path) == before
    load_model(before, model)
    after = save_checkpoint(tmp_path, State(step=2), model, optimizer)
    assert list((tmp_path / "checkpoints").iterdir()) == [after]


def test_a_folder_without_a_checkpoint_is_an_error(tmp_path):
    assert last_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"has no checkpoint; train one with: finegrain tr"):
        best_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing or damaged"):
        load_model(tmp_path, nn.Linear(1, 1))


@pytest.mark.parametrize("content", [b"", b"{", b'{"steps": 3}', b"[1]", b"\xff"])
def test_a_damaged_state_is_an_error(content, tmp_path):
    (tmp_path / STATE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.json is damaged"):
        read_state(tmp_path)


@pytest.mark.parametrize("file", [MODEL, OPTIMIZER])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_tensors_are_an_error(file, share, tmp_path):
    model, optimizer = made()
    step(model, optimizer)
    folder = save_checkpoint(tmp_path, State(step=1), model, optimizer)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointError, match=f"{file} is missing or damaged"):
        (load_model if file == MODEL else load_optimizer)(
            folder, model if file == MODEL else optimizer
        )


def test_a_model_of_another_shape_is_refused(tmp_path):
    model, optimizer = made()
    folder = save_checkpoint(tmp_path, State(step=1), model, optimizer)
    with pytest.raises(WeightsError, match="do not fit the model"):
        load_model(folder, nn.Conv2d(3, 4, 2))
