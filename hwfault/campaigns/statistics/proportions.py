"""Intervals of the chance of an event: at a number of trials fixed beforehand, and at all numbers at once."""

import math

import numpy as np

from hwfault.campaigns.statistics.estimates import (
    COVERS,
    Array,
    Claim,
    Estimate,
    Method,
    check_confidence,
    check_counts,
)

CONFIDENCE = 0.95

_PRIOR = 0.5
"""Both parameters of the beta distribution that the sequence mixes over: Jeffreys'."""
_HALVINGS = 64
"""Enough to tell apart ends of 1e-8 to the last bits, from a bracket as wide as 1."""


def estimate_rate(
    events: float, trials: float, confidence: float = CONFIDENCE, *, sequential: bool, claim: Claim = "these"
) -> Estimate:
    """The rate of an event among independent trials, with its two-sided interval.

    `sequential` where the number of trials was not fixed beforehand, as wherever a stopping rule looked at them: then
    the interval is that of `sequence_ends`, otherwise that of `exact_ends`. Raises HwfaultError as they do.
    """
    low, high = (sequence_ends if sequential else exact_ends)(events, trials, confidence)
    by: Method = "sequence" if sequential else "clopper-pearson"
    return Estimate(events / trials, (float(low), float(high)), confidence, by, COVERS[claim])


def bound_rate(
    events: float,
    trials: float,
    confidence: float = CONFIDENCE,
    *,
    sequential: bool,
    above: bool = True,
    claim: Claim = "these",
) -> Estimate:
    """The rate of an event among independent trials, with a bound from above, or from below where not `above`.

    With the whole of 1 - confidence on that one side; the other end is 0 or 1. `sequential` as in `estimate_rate`.
    """
    if above:
        bound = sequence_at_most if sequential else exact_at_most
        ends = (0.0, float(bound(events, trials, confidence)))
    else:
        bound = sequence_at_least if sequential else exact_at_least
        ends = (float(bound(events, trials, confidence)), 1.0)
    by: Method = "sequence bound" if sequential else "clopper-pearson bound"
    return Estimate(events / trials, ends, confidence, by, COVERS[claim])


def exact_ends(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """Clopper and Pearson's two-sided interval of each of some proportions, for a number of trials fixed beforehand.

    The numbers of scipy.stats.binomtest(events, trials).proportion_ci(confidence, "exact"). Arrays of any shapes that
    broadcast; events need not be whole, as expected ones are not. Raises HwfaultError for a confidence outside (0, 1),
    no trials, or more events than trials.
    """
    check_confidence(confidence)
    one_sided = (1 + confidence) / 2
    return exact_at_least(events, trials, one_sided), exact_at_most(events, trials, one_sided)


def exact_at_most(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> Array:
    """Clopper and Pearson's one-sided upper bound on each of some proportions; as `exact_ends` otherwise."""
    from scipy.special import betaincinv  # slow to import, and only needed here

    k, n = _checked(events, trials, confidence)
    rest = np.where(k < n, n - k, 1.0)  # betaincinv knows no 0
    bound: Array = np.where(k < n, betaincinv(k + 1, rest, confidence), 1.0)
    return bound


def exact_at_least(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> Array:
    """Clopper and Pearson's one-sided lower bound on each of some proportions; as `exact_ends` otherwise."""
    from scipy.special import betaincinv  # slow to import, and only needed here

    k, n = _checked(events, trials, confidence)
    some = np.where(k > 0, k, 1.0)  # betaincinv knows no 0
    bound: Array = np.where(k > 0, betaincinv(some, n - k + 1, 1 - confidence), 0.0)
    return bound


def share_at_most(events: int, trials: int, confidence: float = CONFIDENCE) -> float:
    """`exact_at_most` of one proportion."""
    return float(exact_at_most(events, trials, confidence))


def sequence_ends(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> tuple[Array, Array]:
    """The two-sided confidence sequence of each of some proportions: true at all numbers of trials at once.

    With the chance of `confidence` no interval of the whole sequence, however long, misses the truth, so that one may
    look whenever one likes, and stop for whatever reason. Two one-sided sequences (`sequence_at_most`), each with half
    of the error: for rare events narrower than the two-sided mixture (by a third where nothing was seen in 1,000
    trials), elsewhere as wide. Arguments and errors as in `exact_ends`; sound to 1e8 trials.
    """
    check_confidence(confidence)
    one_sided = (1 + confidence) / 2
    return sequence_at_least(events, trials, one_sided), sequence_at_most(events, trials, one_sided)


def sequence_at_most(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> Array:
    """The one-sided upper confidence sequence of each of some proportions: true at all numbers of trials at once.

    A rate p is ruled out once the likelihood of the events, averaged over the part below p of a Beta(1/2, 1/2)
    distribution, exceeds that of p itself by a factor of 1 / (1 - confidence). Where the rate is p or more that ratio
    is a nonnegative supermartingale which starts at 1, and so ever comes there with a chance of at most 1 - confidence
    (Ville). Robbins, Ann. Math. Stat. 41 (1970) 1397; Howard, Ramdas, McAuliffe and Sekhon, Ann. Stat. 49 (2021) 1055.
    Without events it is about 3.8 / trials at 95 %. Arguments and errors as in `exact_ends`.
    """
    k, n = _checked(events, trials, confidence)
    bound: Array = np.where(k < n, _bisect(k, n, confidence, above=True), 1.0)
    return bound


def sequence_at_least(events: Array | float, trials: Array | float, confidence: float = CONFIDENCE) -> Array:
    """The one-sided lower confidence sequence of each of some proportions: `sequence_at_most` of the opposite event."""
    k, n = _checked(events, trials, confidence)
    bound: Array = np.where(k > 0, _bisect(k, n, confidence, above=False), 0.0)
    return bound


def _checked(events: Array | float, trials: Array | float, confidence: float) -> tuple[Array, Array]:
    """Numbers of events and of trials as arrays of one shape; raises HwfaultError for what cannot be."""
    check_confidence(confidence)
    check_counts(events, trials)
    k, n = np.broadcast_arrays(np.asarray(events, np.float64), np.asarray(trials, np.float64))
    return k, n


def _bisect(k: Array, n: Array, confidence: float, *, above: bool) -> Array:
    """The rate above the observed one, or below it, from which on rates are ruled out."""
    limit = -math.log1p(-confidence)
    # the ratio is at most 1 at the observed rate, and once it passes the limit it grows up to the end
    possible, ruled_out = k / n, np.full_like(n, 1.0 if above else 0.0)
    for _ in range(_HALVINGS):
        middle = (possible + ruled_out) / 2
        inside = _log_ratio(k, n, middle, above) < limit
        possible = np.where(inside, middle, possible)
        ruled_out = np.where(inside, ruled_out, middle)
    return ruled_out


def _log_ratio(k: Array, n: Array, rate: Array, above: bool) -> Array:
    """How much likelier k events in n are under the mixture on the near side of a rate than under it (logarithm).

    The near side is where the observed rate lies: below rates that lie `above` it.
    """
    from scipy.special import betainc, betaincc, betaln, xlog1py, xlogy  # slow to import, and only needed here

    near_side = betainc if above else betaincc
    after, before = near_side(k + _PRIOR, n - k + _PRIOR, rate), near_side(_PRIOR, _PRIOR, rate)
    of_mixture = betaln(k + _PRIOR, n - k + _PRIOR) - betaln(_PRIOR, _PRIOR)
    of_rate = xlogy(k, rate) + xlog1py(n - k, -rate)
    ratio: Array = of_mixture + np.log(after / before) - of_rate
    return ratio
