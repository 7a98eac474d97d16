"""What is required of a hardened network, as numbers of what was tried."""

import math

from hwfault.campaigns.hardening.choice import Limits
from hwfault.campaigns.hardening.harm import Harm
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
    return Limits(_most_wrong(harm, asked, rate), _most(harm, asked, "due", rate), _most_lost(harm, asked, rate))


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


def _most_lost(harm: Harm, asked: Hardening, rate: float | None) -> float | None:
    if asked.limit("accuracy_lost") is not None and any(site.lost is None for site in harm.sites):
        raise HwfaultError(
            f"{harm.question}: how many right answers flips cost is known of a census with labels alone; require sdc, "
            "or try every flip (exhaustive: always)"
        )
    most = _most(harm, asked, "accuracy_lost", rate)
    return most if most is None or harm.weighted else math.floor(most)


def _most_wrong(harm: Harm, asked: Hardening, rate: float | None) -> float | None:
    """The most wrong answers of what was tried with which the rate of SDC is below its limit (None: no limit).

    For drawn pairs with which the bound of the confidence sequence is, for flips from strata that of the gamma interval
    whichever of them are left; below 0 where none is few enough.
    """
    share = _share(harm, asked, "sdc", rate)
    if share is None:
        return None
    if harm.each_look is not None:
        # the largest weight bounds the interval of any choice; what is chosen has its own, which is no wider
        drawn = [one.trials for site in harm.sites for one in site.drawn or ()]
        heaviest = max(one / trials for one, trials in zip(harm.shares(), drawn, strict=True))
        return harm.tried * most_of_strata(share, heaviest, harm.each_look)
    if harm.weighted:
        return math.nextafter(share * harm.tried, -math.inf)
    if harm.whole:
        most = math.ceil(share * harm.tried) - 1  # strictly below
        return min(most, harm.tried)
    # the bound grows with the number of events, so the place is found by halving
    low, high = -1, int(harm.wrong)
    while low < high:
        middle = (low + high + 1) // 2
        if float(sequence_at_most(middle, harm.tried, harm.confidence)) < share:
            low = middle
        else:
            high = middle - 1
    return low
