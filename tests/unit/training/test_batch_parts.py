from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from finegrain.methods import Batch
from finegrain.training.batches import moved, parts_of


def batch_of(pictures, captions):
    rows = torch.arange(pictures * captions)
    numbers = torch.arange(pictures)
    return Batch(
        pixels=numbers[:, None, None, None].expand(-1, 3, 2, 2).byte(),
        ids=rows[:, None].expand(-1, 5),
        eot=rows,
        pids=numbers,
        items=numbers,
        where=tuple(str(n) for n in range(pictures)),
        replaced=numbers % 2 == 0,
    )


@pytest.mark.parametrize("captions", [1, 2])
def test_parts_have_every_field_of_their_pictures(captions):
    whole = batch_of(6, captions)
    parts = parts_of(whole, 3)
    assert [part.where for part in parts] == [("0", "1"), ("2", "3"), ("4", "5")]
    for field in fields(Batch):
        pieces = [getattr(part, field.name) for part in parts]
        value = getattr(whole, field.name)
        if isinstance(value, torch.Tensor):
            assert torch.equal(torch.cat(pieces), value)
    assert [len(part.ids) for part in parts] == [2 * captions] * 3
    assert all(part.groups is None for part in parts)


def test_every_tensor_moves():
    batch = moved(batch_of(2, 1), torch.device("meta"))
    tensors = [getattr(batch, field.name) for field in fields(Batch)]
    kinds = {value.device.type for value in tensors if isinstance(value, torch.Tensor)}
    assert kinds == {"meta"}
    assert batch.where == ("0", "1")
