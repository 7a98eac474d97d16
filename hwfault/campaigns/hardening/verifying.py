"""Measures verified: by paired trials beside none, and check bits by words with several flips."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from hwfault.campaigns.hardening.advice import Advice
from hwfault.campaigns.hardening.candidates import BASELINE, Comparison, elements_to_try, flips_to_try
from hwfault.campaigns.hardening.harm import Harm
from hwfault.campaigns.hardening.measures import Measure
from hwfault.campaigns.hardening.proof import Proof, try_all
from hwfault.campaigns.hardening.ranges import golden_ranges
from hwfault.campaigns.hardening.several import Several, sample_several
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.hardening import Hardening
from hwfault.campaigns.study.records import Study
from hwfault.errors import HwfaultError

_TOGETHER = 16

Begin = Callable[[str, int], Callable[[], object]]
"""`begin(what, steps)` shows progress, and answers with what to call after each step."""


class Verified(NamedTuple):
    """What was compared, and what came of it, in one order."""

    comparisons: tuple[Comparison, ...]
    proofs: tuple[Proof, ...]


def verify(
    folder: Path,
    study: Study,
    trust: Trust,
    read: tuple[Harm, Hardening, Advice] | None,
    trials: int,
    begin: Begin,
    kept: Sequence[Proof] = (),
) -> Verified:
    """Tries the plan, the first measures and clipped activations at the rate, and elements taken out of use.

    `read` is what single flips told, None for a study without; of what was `kept` in the store nothing is sampled
    again at the same rates. Raises HwfaultError where there is nothing to try.
    """
    measurement = Measurement(study, trust)
    costs = (study.hardening or Hardening()).costs
    ranges = golden_ranges(measurement, begin("ranges of activations", measurement.engine.samples))
    comparisons = elements_to_try(measurement, measurement.tasks, ranges, costs)
    several: tuple[Several, ...] = ()
    if read is not None and read[2].rate is not None:
        harm, asked, advice = read
        of_flips = flips_to_try(advice, harm, asked.costs, ranges)
        known = proof_of(kept, advice)
        sampling = _Sampling(measurement, harm, advice, trials, () if known is None else known.several)
        several = tuple(sampling.several(of_flips, begin))
        comparisons.insert(0, of_flips)
    elif not comparisons:
        raise HwfaultError("trials need a rate: give --rate, or hardening: {rate: ...} in the study")
    count = sum(len(one.every) for one in comparisons)
    advance = begin("trying measures", count * -(-trials // _TOGETHER))
    proofs = try_all(folder, study, trust, comparisons, trials, advance)
    if several:
        proofs[0] = proofs[0]._replace(several=several)
    return Verified(tuple(comparisons), tuple(proofs))


class _Sampling(NamedTuple):
    """How words with several flips are sampled, and what is known of them already."""

    measurement: Measurement
    harm: Harm
    advice: Advice
    trials: int
    known: tuple[Several, ...]

    def several(self, comparison: Comparison, begin: Begin) -> list[Several]:
        """Words with several flips under each measure with check bits among the candidates, each once."""
        groups: dict[tuple[Measure, ...], str] = {}
        for candidate in comparison.others:
            coded: dict[str, list[Measure]] = {}
            for one in candidate.measures:
                if one.protection is not None:
                    coded.setdefault(one.name, []).append(one)
            for same in coded.values():
                groups.setdefault(tuple(same), candidate.told)
        advance = begin("several flips in a word", len(groups))
        found = []
        for measures, told in groups.items():
            found += self._of(measures, told if len(measures) > 1 else measures[0].site)
            advance()
        return found

    def _of(self, measures: Sequence[Measure], on: str) -> list[Several]:
        what = measures[0].name, tuple(one.site for one in measures), self.trials
        known = [one._replace(on=on) for one in self.known if (one.measure, one.sites, one.trials) == what]
        if known:
            return known
        return sample_several(self.measurement, self.harm, measures, on, self.advice.rate_of_each, self.trials)


def proof_of(proofs: Sequence[Proof], advice: Advice) -> Proof | None:
    """What was tried of the flips that advice is on, at its rates; None where nothing was."""
    found = [one for one in proofs if one.is_of(advice.question, advice.rate, advice.rates)]
    return found[-1] if found else None


def tried_kinds(proofs: Sequence[Proof]) -> set[str]:
    """The names of the candidates that were tried."""
    return {one.name for proof in proofs for one in proof.tried if one.name != BASELINE}
