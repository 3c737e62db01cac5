"""Hub correction against a literal loop over the formula."""

from __future__ import annotations

import numpy as np
import pytest

from finegrain.evaluation.hub_correction import HubCorrection


def literal_bias(row, bank, weight, neighbours):
    products = sorted((float(np.dot(row, caption)) for caption in bank), reverse=True)
    return -weight * sum(products[:neighbours]) / neighbours


@pytest.mark.parametrize(("neighbours", "weight"), [(1, 0.5), (3, 1.0), (40, 0.25)])
def test_biases_equal_the_formula(neighbours, weight):
    random = np.random.default_rng(3)
    bank, rows = (random.normal(size=(n, 16)).astype(np.float32) for n in (40, 1030))
    biases = HubCorrection(bank, weight, neighbours).biases(rows)
    expected = [literal_bias(row, bank, weight, neighbours) for row in rows]
    np.testing.assert_allclose(biases, expected, atol=1e-5)


def test_equal_products_count_as_often_as_they_occur():
    bank = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    (bias,) = HubCorrection(bank, 1.0, 3).biases([[0.6, 0.8]])
    assert bias == pytest.approx(-(0.6 + 0.6 + 0.8) / 3)
