"""What is required of a hardened network, as numbers of what was tried."""

import math

from hwfault.campaigns.hardening.choice import Limits
from hwfault.campaigns.hardening.harm import Harm, half_of_error
from hwfault.campaigns.statistics.proportions import sequence_at_most
from hwfault.campaigns.statistics.strata import most_of_strata
from hwfault.campaigns.study.hardening import Hardening, Key
from hwfault.errors import HwfaultError


def limits_of(harm: Harm, asked: Hardening, rate: float | None) -> Limits:
    """What is required, as the most of what was tried; raises HwfaultError for what was tried too little to say."""
    if harm.weighted and not harm.whole and not harm.stratified and asked.require:
        raise HwfaultError(
            f"{harm.question}: drawn flips cannot show what is required where each site has a rate of its own; "
            "expected a census (exhaustive: always), or one rate for all"
        )
    wrong = _share(harm, asked, "sdc", rate)
    lost = _share(harm, asked, "accuracy_lost", rate)
    if lost is not None:
        _check_answers(harm)
    limits = Limits(
        wrong=None if wrong is None else _most_events(harm, harm.wrong, wrong, harm.of_one_look),
        due=_most(harm, asked, "due", rate),
    )
    if lost is None:
        return limits
    if not harm.whole:
        # the interval of `lost_ends`, as if no answer were mended
        spoiled = sum(sum(site.spoiled or ()) for site in harm.sites)
        return limits._replace(spoiled=_most_events(harm, spoiled, lost, half_of_error(harm.of_one_look)))
    most = math.nextafter(lost * harm.tried, -math.inf)
    return limits._replace(lost=most if harm.weighted else math.floor(most))


def _share(harm: Harm, asked: Hardening, key: Key, rate: float | None) -> float | None:
    """What one flip may do at most (None: anything)."""
    limit = asked.limit(key)
    if limit is None or rate is None:
        return limit
    return limit / (rate * harm.bits)


def _most(harm: Harm, asked: Hardening, key: Key, rate: float | None) -> float | None:
    """The most of what was tried that stays below a limit; of numbers that need not be whole."""
    share = _share(harm, asked, key, rate)
    return None if share is None else math.nextafter(share * harm.tried, -math.inf)


def _check_answers(harm: Harm) -> None:
    """Raises HwfaultError where it is not known how many right answers flips cost."""
    if all(site.lost is not None for site in harm.sites):
        return
    if harm.whole:
        raise HwfaultError(
            f"{harm.question}: how many right answers flips cost is known of samples with labels alone; require sdc"
        )
    raise HwfaultError(
        f"{harm.question}: how many right answers drawn flips cost is known of samples with labels alone, whose golden "
        "answers the store keeps; require sdc, or have `hwfault campaign resume` add these to an older store"
    )


def _most_events(harm: Harm, seen: float, share: float, confidence: float) -> float:
    """The most events, of so many that were seen, with which their rate is below a share.

    For drawn pairs with which the bound of the confidence sequence is, for flips from strata that of the gamma interval
    whichever of them are left; below 0 where none is few enough.
    """
    if harm.stratified:
        # the largest weight bounds the interval of any choice; what is chosen has its own, which is no wider
        drawn = [one.trials for site in harm.sites for one in site.drawn or ()]
        heaviest = max(one / trials for one, trials in zip(harm.shares(), drawn, strict=True))
        return harm.tried * most_of_strata(share, heaviest, confidence)
    if harm.weighted:
        return math.nextafter(share * harm.tried, -math.inf)
    if harm.whole:
        most = math.ceil(share * harm.tried) - 1  # strictly below
        return min(most, harm.tried)
    # the bound grows with the number of events, so the place is found by halving
    low, high = -1, int(seen)
    while low < high:
        middle = (low + high + 1) // 2
        if float(sequence_at_most(middle, harm.tried, confidence)) < share:
            low = middle
        else:
            high = middle - 1
    return low
