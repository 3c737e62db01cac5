from __future__ import annotations

import numpy as np
import pytest

from finegrain.evaluation.hub_correction import HubCorrection, choose
from finegrain.metrics import retrieval_metrics


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def hubs():
    """Pictures near their own queries; those with an even number are also near all queries."""
    random = np.random.default_rng(0)
    own = random.normal(size=(60, 32))
    common = random.normal(size=32)
    images = own + np.where(np.arange(60)[:, None] % 2 == 0, 1.2, 0.0) * common
    texts = own + 0.9 * random.normal(size=own.shape) + common
    bank = random.normal(size=(200, 32)) + common
    return unit(bank), unit(texts), unit(images), np.arange(60)


def test_a_weight_of_zero_has_no_biases(hubs):
    bank, _, images, _ = hubs
    assert not HubCorrection(bank, 0.0, 1).biases(images).any()


def test_a_gallery_without_pictures_has_no_biases(hubs):
    assert HubCorrection(hubs[0], 0.5, 8).biases(np.empty((0, 32))).shape == (0,)


def test_a_bias_does_not_depend_on_other_pictures(hubs):
    bank, _, images, _ = hubs
    correction = HubCorrection(bank, 0.5, 8)
    alone = [correction.biases(row[None])[0] for row in images]
    np.testing.assert_allclose(correction.biases(images), alone, atol=1e-6)


def test_a_correction_is_chosen_where_pictures_are_near_all_queries(hubs):
    bank, texts, images, pids = hubs
    chosen = choose(bank, images, texts @ images.T, pids[:, None] == pids[None])
    assert chosen.weight > 0
    plain = retrieval_metrics(texts, images, pids, pids)
    assert chosen.metrics(texts, images, pids, pids).mAP > plain.mAP + 5


def test_no_correction_is_chosen_where_it_does_not_help():
    rows = np.eye(16, dtype=np.float32)
    bank = np.ones((8, 16), np.float32) / 4
    chosen = choose(bank, rows, rows @ rows.T, np.eye(16, dtype=bool))
    assert (chosen.weight, chosen.neighbours) == (0.0, 1)


def test_a_small_bank_is_not_asked_for_more_neighbours_than_it_has(hubs):
    bank, texts, images, pids = hubs
    right = pids[:, None] == pids[None]
    assert choose(bank[:10], images, texts @ images.T, right).neighbours <= 10


def test_queries_without_a_right_picture_do_not_count(hubs):
    bank, texts, images, pids = hubs
    right = pids[:, None] == pids[None]
    chosen = choose(bank, images, texts @ images.T, right)
    nobody = np.concatenate([right, np.zeros_like(right)])
    again = choose(bank, images, np.concatenate([texts, -texts]) @ images.T, nobody)
    assert (again.weight, again.neighbours) == (chosen.weight, chosen.neighbours)
