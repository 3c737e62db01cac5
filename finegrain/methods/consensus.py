"""Detection of wrong training pairs by two losses, each with a Gaussian mixture.

Source: Qin et al. 2024 (RDE), section 3.3, https://arxiv.org/abs/2308.09911.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class MixtureFit:
    """Options for fitting a mixture of two normal distributions.

    The defaults are those of the released code.

    Attributes:
        iterations: Maximum number of expectation-maximisation steps.
        tolerance: The fit ends when the mean log-likelihood, in nats, grows by less.
        spread: Added to both variances; the losses are scaled to 0..1.
    """

    iterations: int = 10
    tolerance: float = 1e-2
    spread: float = 5e-4


FINE = MixtureFit(iterations=100, tolerance=1e-4, spread=1e-6)
"""The options of the released code for RSTPReid, and for more than 40 % wrong captions."""


@dataclass(frozen=True, kw_only=True)
class Consensus(MixtureFit):
    """When pairs are divided into trusted and untrusted, and how the mixtures are fitted.

    The inherited options are for data with few wrong captions. ``when_noisy`` replaces them if
    more than ``noisy_above`` of the captions are known to be wrong, as in the released code
    (``processor.py``, ``get_loss``).

    Attributes:
        start: Number of epochs before the first division. The paper uses 0, since its towers are
            pretrained. Towers with random weights cannot tell correct pairs from wrong ones.
        noisy_above: Share of wrong captions, 0 to 1.
        when_noisy: Options of the fit above that share.
    """

    start: int = 0
    noisy_above: float = 0.4
    when_noisy: MixtureFit = FINE

    def fit(self, noise: float) -> MixtureFit:
        """Options for a training split with a share ``noise`` of wrong captions, 0 to 1."""
        return self.when_noisy if noise > self.noisy_above else self


def consensus(a: Values, b: Values, fit: MixtureFit, *, seed: int) -> NDArray[np.bool_]:
    """Confident consensus division (Qin et al. 2024, RDE, section 3.3).

    A pair is trusted if its loss belongs to the lower of two normal distributions in both views,
    and not trusted if it does so in neither. If the views disagree, the choice is random.

    Args:
        a: Losses of the first view, ``[N]``.
        b: Losses of the second view, ``[N]``.
        fit: Options for the mixture of each view.
        seed: Seed of the random choices.

    Returns:
        True for pairs to train on, ``[N]``.
    """
    in_a, in_b = is_low(a, fit), is_low(b, fit)
    coin = np.random.default_rng(seed).integers(0, 2, len(a)).astype(bool)
    return np.where(in_a == in_b, in_a, coin)


def is_low(losses: Values, fit: MixtureFit) -> NDArray[np.bool_]:
    """True where a loss more likely belongs to the lower distribution than to the upper one.

    If that holds for all losses, the least likely 1 % become False. (The released code also
    excludes losses that are exactly as likely as the first one that stays. Once most losses are
    zero, this excludes all.)

    Args:
        losses: ``[N]``.
        fit: Options for the mixture.

    Returns:
        Bool ``[N]``.
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
    """Probability of each value to come from the lower of two normal distributions, ``[N]``.

    The distributions are fitted by expectation maximisation. The start is the best division of
    the values at one point, so the result is deterministic.

    Args:
        x: Values, ``[N]``; at least two must differ.
        fit: Options for the mixture.
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
    """Exact 2-means in one dimension: the largest value of the lower cluster."""
    ordered = np.sort(x)
    below = np.arange(1, len(x))
    sums = ordered.cumsum()
    lower, upper = sums[:-1], sums[-1] - sums[:-1]
    # The sum of squared distances to the two means is smallest where this is largest.
    gain = lower**2 / below + upper**2 / (len(x) - below)
    gain[ordered[1:] == ordered[:-1]] = -np.inf
    return float(ordered[gain.argmax()])


def _maximise(x: Values, shares: Values, spread: float) -> tuple[Values, Values, Values]:
    """M-step: weights, means and variances of two distributions from ``shares [N, 2]``."""
    counts = shares.sum(axis=0) + 10 * np.finfo(np.float64).eps
    means = x @ shares / counts
    variances = (shares * (x[:, None] - means) ** 2).sum(axis=0) / counts + spread
    return counts / counts.sum(), means, variances


def _expect(x: Values, weights: Values, means: Values, variances: Values) -> tuple[float, Values]:
    """E-step: mean log-likelihood of the values, and the shares ``[N, 2]``."""
    squares = (x[:, None] - means) ** 2 / variances
    joint = np.log(weights) - 0.5 * (np.log(2 * np.pi * variances) + squares)
    total = np.logaddexp(joint[:, 0], joint[:, 1])
    return float(total.mean()), np.exp(joint - total[:, None])
