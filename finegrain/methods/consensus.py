"""Which training pairs belong together: two losses, a mixture of each, and their agreement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MixtureFit:
    """How a mixture of two normal distributions is fitted. The defaults are the released ones.

    Attributes:
        iterations: Most steps of expectation and maximisation.
        tolerance: Gain of the mean log-likelihood, in nats, below which they end.
        spread: Added to both variances; the losses are scaled to 0..1.
    """

    iterations: int = 10
    tolerance: float = 1e-2
    spread: float = 5e-4


FINE = MixtureFit(iterations=100, tolerance=1e-4, spread=1e-6)
"""The released fit for RSTPReid, and for any dataset with more than 40 % wrong captions."""


@dataclass(frozen=True, kw_only=True)
class Consensus(MixtureFit):
    """When pairs are divided, and how the mixtures are fitted.

    Its own fit is that of data with few wrong captions. ``when_noisy`` replaces it when more
    than ``noisy_above`` of the captions are known to be wrong, as in the released code
    (``processor.py``, ``get_loss``).

    Attributes:
        start: Epochs before the first division. Pretrained towers can divide at once, as the
            paper's do; to towers from random weights every pair is as wrong as any other.
        noisy_above: Share of wrong captions, in 0..1.
        when_noisy: The fit above that share.
    """

    start: int = 0
    noisy_above: float = 0.4
    when_noisy: MixtureFit = FINE

    def fit(self, noise: float) -> MixtureFit:
        """The fit for a training split of which a share ``noise`` of the captions is wrong."""
        return self.when_noisy if noise > self.noisy_above else self


def consensus(a: Values, b: Values, fit: MixtureFit, *, seed: int) -> NDArray[np.bool_]:
    """Confident consensus division (Qin et al. 2024, RDE, section 3.3).

    A pair is trusted where its loss belongs to the lower of two normal distributions in both
    views, and is not where it does in neither. Where the views disagree a coin decides.

    Args:
        a: Losses of one view, ``[N]``.
        b: Losses of the other, ``[N]``.
        fit: How the mixture of each view is fitted.
        seed: Of the coin.

    Returns:
        True for pairs to train on, ``[N]``.
    """
    in_a, in_b = is_low(a, fit), is_low(b, fit)
    coin = np.random.default_rng(seed).integers(0, 2, len(a)).astype(bool)
    return np.where(in_a == in_b, in_a, coin)


def is_low(losses: Values, fit: MixtureFit) -> NDArray[np.bool_]:
    """Where a loss more likely belongs to the lower distribution than to the upper one.

    Should that be all of them, the least likely hundredth is taken out all the same. (There
    the released code also takes out what is exactly as likely as the first that stays: once
    most losses are zero, everything.)
    """
    width = losses.max() - losses.min()
    if width == 0:
        return np.ones(len(losses), bool)
    probability = low_probability((losses - losses.min()) / width, fit)
    low: NDArray[np.bool_] = probability > 0.5
    if low.all():
        low = probability >= np.sort(probability)[len(probability) // 100]
    return low


def low_probability(x: Values, fit: MixtureFit) -> Values:
    """Of each value ``[N]``, the probability that it is of the lower of two normal distributions.

    They are fitted by expectation maximisation from the best division of the values at one
    point, so that nothing is left to chance. Not all values may be equal.
    """
    shares = (x[:, None] > _best_division(x)) == np.array([False, True])
    likelihood = -np.inf
    for _ in range(fit.iterations):
        before = likelihood
        weights, means, variances = _maximise(x, shares.astype(np.float64), fit.spread)
        likelihood, shares = _expect(x, weights, means, variances)
        if abs(likelihood - before) < fit.tolerance:
            break
    weights, means, variances = _maximise(x, shares, fit.spread)
    _, shares = _expect(x, weights, means, variances)
    lower: Values = shares[:, means.argmin()]
    return lower


def _best_division(x: Values) -> float:
    """Two-means, exactly: the highest value of the lower part."""
    ordered = np.sort(x)
    below = np.arange(1, len(x))
    sums = ordered.cumsum()
    lower, upper = sums[:-1], sums[-1] - sums[:-1]
    # The squared distances to the two means are least where this is greatest.
    gain = lower**2 / below + upper**2 / (len(x) - below)
    gain[ordered[1:] == ordered[:-1]] = -np.inf
    return float(ordered[gain.argmax()])


def _maximise(x: Values, shares: Values, spread: float) -> tuple[Values, Values, Values]:
    """Weights, means and variances of two distributions that own ``shares [N, 2]`` of values."""
    counts = shares.sum(axis=0) + 10 * np.finfo(np.float64).eps
    means = x @ shares / counts
    variances = (shares * (x[:, None] - means) ** 2).sum(axis=0) / counts + spread
    return counts / counts.sum(), means, variances


def _expect(x: Values, weights: Values, means: Values, variances: Values) -> tuple[float, Values]:
    """Mean log-likelihood of the values, and which share of each the distributions own."""
    squares = (x[:, None] - means) ** 2 / variances
    joint = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + squares)
    total = np.logaddexp(joint[:, 0], joint[:, 1])
    return float(total.mean()), np.exp(joint - total[:, None])
