from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from finegrain.methods.momentum import EMPTY, FeatureQueue, MomentumCopy


def changed(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)


def tower():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def test_a_copy_follows_by_the_decay():
    original = tower()
    follower = MomentumCopy(original, decay=0.9)
    expected = [parameter.detach().clone() for parameter in original.parameters()]
    for _ in range(3):
        changed(original)
        follower.update(original)
        pairs = zip(expected, original.parameters(), strict=True)
        expected = [0.9 * old + 0.1 * new.detach() for old, new in pairs]
    for ours, theirs in zip(follower.module.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_statistics_and_counters_are_copied():
    original = tower()
    follower = MomentumCopy(original)
    original(torch.randn(5, 3))
    follower.update(original)
    assert int(follower.module[1].num_batches_tracked) == 1
    assert torch.equal(follower.module[1].running_mean, original[1].running_mean)


def test_a_restart_makes_the_copy_equal():
    original = tower()
    follower = MomentumCopy(original)
    changed(original)
    follower.restart(original)
    state = original.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in follower.module.state_dict().items())


def test_a_copy_can_follow_a_part_by_name():
    whole = nn.ModuleDict({"head": nn.Linear(4, 2), "tower": tower()})
    follower = MomentumCopy(nn.ModuleDict({"tower": whole["tower"]}), decay=0.0)
    changed(whole)
    follower.update(whole)
    assert torch.equal(follower.module["tower"][0].weight, whole["tower"][0].weight)


def test_a_copy_is_never_trained_and_the_original_still_is():
    original = tower()
    follower = MomentumCopy(original)
    assert not any(parameter.requires_grad for parameter in follower.parameters())
    assert all(parameter.requires_grad for parameter in original.parameters())
    assert follower.state_dict().keys() == {f"module.{name}" for name in original.state_dict()}


@settings(deadline=None, max_examples=60)
@given(size=st.integers(1, 7), steps=st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=6))
def test_the_newest_rows_are_kept_in_a_ring(size, steps):
    queue = FeatureQueue(size, 2)
    ring, pointer = [EMPTY] * size, 0
    for ids in steps:
        for pid in ids:
            ring[pointer], pointer = pid, (pointer + 1) % size
        values = torch.tensor(ids, dtype=torch.long)
        queue.hold(values[:, None].expand(-1, 2).float(), values)
        queue.write()
    assert queue.ids.tolist() == ring
    assert int(queue.pointer) == pointer
    filled = queue.filled
    assert filled.tolist() == [pid != EMPTY for pid in ring]
    assert torch.equal(queue.features[filled][:, 1], queue.ids[filled].float())
    assert torch.allclose(queue.features[~filled].norm(dim=1), torch.ones(int((~filled).sum())))


def test_parts_of_a_batch_are_enqueued_together_after_the_step():
    parts, at_once = FeatureQueue(5, 3), FeatureQueue(5, 3)
    at_once.load_state_dict(parts.state_dict())
    features = torch.randn(4, 3, requires_grad=True)
    queries = torch.randn(2, 3, requires_grad=True)
    loss = (queries @ parts.features.T).sum()
    for part in (slice(0, 2), slice(2, 4)):
        parts.hold(features[part], torch.arange(4)[part])
    assert not parts.filled.any()
    loss.backward()  # this would fail if the rows had changed in between
    parts.write()
    parts.write()
    at_once.hold(features, torch.arange(4))
    at_once.write()
    for name, tensor in at_once.state_dict().items():
        assert torch.equal(parts.state_dict()[name], tensor)
    assert not parts.features.requires_grad


def test_a_queue_is_restored_from_its_state():
    straight = FeatureQueue(3, 2)
    straight.hold(torch.randn(2, 2), torch.tensor([4, 5]))
    straight.write()
    resumed = FeatureQueue(3, 2)
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for queue in (straight, resumed):
        queue.hold(torch.ones(2, 2), torch.tensor([6, 7]))
        queue.write()
    assert resumed.ids.tolist() == straight.ids.tolist() == [7, 5, 6]
    assert torch.equal(resumed.features, straight.features)
