"""Rates over strata (layers, bits): the weighted sum of their proportions, with Fay and Feuer's gamma interval."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from hwfault.campaigns.statistics.estimates import (
    COVERS,
    Array,
    Claim,
    Estimate,
    check_confidence,
    check_counts,
    exact_estimate,
)
from hwfault.campaigns.statistics.proportions import CONFIDENCE
from hwfault.errors import HwfaultError


def estimate_strata(
    events: Sequence[int] | Array,
    trials: Sequence[int] | Array,
    sizes: Sequence[int] | Array,
    confidence: float = CONFIDENCE,
    *,
    claim: Claim = "these",
) -> Estimate:
    """The rate over all faults, from independent trials in each stratum of `sizes` faults.

    Each stratum counts by its share of the faults. For numbers of trials fixed beforehand, also where no event was
    seen. A stratum of which every fault was tried adds its rate and no doubt; where all were, the rate is exact. Fay
    and Feuer, Stat. Med. 16 (1997) 791: the weighted sum is taken for a gamma variable, above that with one more event
    of the heaviest weight. Raises HwfaultError for strata without trials or faults, or with more trials than faults.
    """
    check_confidence(confidence)
    k, n, faults = _check_strata(events, trials, sizes)
    weights = faults / faults.sum() / n  # of one event
    value = float((weights * k).sum())
    sampled = n < faults
    if not sampled.any():
        return exact_estimate(value, int(faults.sum()))

    known = float((weights * k)[~sampled].sum())
    low, high = gamma_ends(k[sampled], weights[sampled], confidence)
    # the sampled strata can at most have nothing but events
    most = float((faults / faults.sum())[sampled].sum())
    ends = known + low, known + min(high, most)
    return Estimate(value, ends, confidence, "gamma", COVERS[claim])


def estimate_drawn_strata(
    events: ArrayLike,
    trials: ArrayLike,
    sizes: ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    claim: Claim = "these",
    of: str = "the rate",
) -> Estimate:
    """The rate over all faults, from trials that were drawn with replacement in each stratum of `sizes` faults.

    As `estimate_strata`, but no stratum is ever known whole, however many trials it has; one without trials, as where
    time was up or all of them failed, may have any rate, and the number is that of the others. Raises HwfaultError
    where none has a trial.
    """
    check_confidence(confidence)
    k, n, faults = (np.asarray(numbers, np.float64) for numbers in (events, trials, sizes))
    seen = n > 0
    if not seen.any():
        raise HwfaultError("no stratum has a trial, expected some in one of them at least")
    check_counts(k[seen], n[seen])
    known = float(faults[seen].sum() / faults.sum())
    weights = faults[seen] / faults[seen].sum() / n[seen]
    value = float((weights * k[seen]).sum())
    low, high = gamma_ends(k[seen], weights, confidence)
    # a rate is never above 1, and what was not tried may have any
    ends = known * low, known * min(high, 1.0) + (1 - known)
    return Estimate(value, ends, confidence, "gamma", COVERS[claim], of)


def estimate_part_of_strata(
    events: ArrayLike,
    trials: ArrayLike,
    shares: ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    of: str = "the rate",
) -> Estimate:
    """The sum over some strata of rate times share, from trials that were drawn with replacement in each.

    `shares` are what each stratum's rate counts for; where those of all strata are given, it is the rate over all
    faults. Without a stratum that has a share it is 0, exactly. Fay and Feuer's gamma interval, as `estimate_strata`.
    Raises HwfaultError for a stratum without trials.
    """
    check_confidence(confidence)
    k, n, share = (np.asarray(numbers, np.float64) for numbers in (events, trials, shares))
    counts = share > 0
    if not counts.any():
        return exact_estimate(0.0, 1, of)
    k, n, share = k[counts], n[counts], share[counts]
    check_counts(k, n)
    weights = share / n
    low, high = gamma_ends(k, weights, confidence)
    ends = low, min(high, float(share.sum()))
    return Estimate(float((weights * k).sum()), ends, confidence, "gamma", COVERS["these"], of)


def most_of_strata(limit: float, heaviest: float, confidence: float = CONFIDENCE) -> float:
    """The largest weighted sum of events whose gamma interval ends below a limit, whichever strata they are in.

    `heaviest` is the largest weight of one event. All weights are taken for that, which makes the variance the largest
    that it can be, and with it the interval's end. Below 0 where not even no event would be few enough.
    """
    alike = np.array([heaviest])
    low, high = -heaviest, max(limit, 0.0)
    if not gamma_ends(np.zeros(1), alike, confidence)[1] < limit:
        return -heaviest
    for _ in range(60):
        middle = (low + high) / 2
        if gamma_ends(np.array([max(middle, 0.0) / heaviest]), alike, confidence)[1] < limit:
            low = middle
        else:
            high = middle
    return low


def gamma_ends(events: Array, weights: Array, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Fay and Feuer's interval of a sum of Poisson numbers of events, each times the weight of one event."""
    from scipy.special import gammaincinv  # slow to import, and only needed here

    error = (1 - confidence) / 2
    total = float((weights * events).sum())
    variance = float((weights**2 * events).sum())
    heaviest = float(weights.max())

    low = 0.0
    if total > 0:
        low = variance / total * float(gammaincinv(total**2 / variance, error))
    total, variance = total + heaviest, variance + heaviest**2
    high = variance / total * float(gammaincinv(total**2 / variance, 1 - error))
    return low, high


def _check_strata(
    events: Sequence[int] | Array, trials: Sequence[int] | Array, sizes: Sequence[int] | Array
) -> tuple[Array, Array, Array]:
    """The numbers of each stratum as arrays; raises HwfaultError for what cannot be."""
    k, n, faults = (np.asarray(numbers, np.float64) for numbers in (events, trials, sizes))
    if not k.size or not k.shape == n.shape == faults.shape or k.ndim != 1:
        raise HwfaultError(
            f"given events, trials and sizes of the shapes {k.shape}, {n.shape} and {faults.shape}, "
            "expected one number of each for every stratum"
        )
    empty = np.flatnonzero(~(faults >= 1))
    if empty.size:
        raise HwfaultError(f"stratum {empty[0]} has {faults[empty[0]]:g} faults, expected at least one: leave it out")
    untried = np.flatnonzero(~(n >= 1))
    if untried.size:
        raise HwfaultError(f"stratum {untried[0]} has no trials, expected at least one: its part is not known")
    too_many = np.flatnonzero(n > faults)
    if too_many.size:
        i = too_many[0]
        raise HwfaultError(f"stratum {i} has {n[i]:g} trials, but only {faults[i]:g} faults: draw without repeating")
    check_counts(k, n)
    return k, n, faults
