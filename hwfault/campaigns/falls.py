"""Whether any fault fell in a trial at all: the library strikes words of zeros and of ones, and nothing is listed."""

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import Codes
from hwfault.graph.run.strike import strike_codes
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import Site
from hwfault.program.steps import Step, makes_faults
from hwfault.program.striking import changes_with

_SURELY = 50.0
"""Where so many faults are expected in a trial, none at all has a probability below 1e-21, and is not looked for."""
_AT_ONCE = 1 << 22
"""The words of as many samples as are struck together."""


def any_fault_fell(plan: FaultPlan, seed: int, samples: int) -> bool | None:
    """Whether some bit of some site was hit in a trial of samples 0, 1, ...; None where that is not to be told.

    It is not where sizes are not known, for protected memories (a fault may be corrected), sums, late bits, and faults
    that change with batches.
    """
    if expected_faults(plan).in_trial(samples).low > _SURELY:
        return True
    told = True
    for entry in plan.sites:
        if plan.idle(entry.site.name):
            continue
        found = _fell_at(plan, entry.site, seed, samples)
        if found:
            return True
        told = told and found is not None
    return False if told else None


def _fell_at(plan: FaultPlan, site: Site, seed: int, samples: int) -> bool | None:
    processes = plan.at(site.name).processes
    # late bits keep what the word before has, a decoder corrects: words that are all alike tell nothing of them
    by_others = any(process.row.reads == "others" for process in processes)
    by_batch = any(changes_with(process, site) == "batch" for process in processes)
    if site.words is None or site.kind == "accumulator" or by_others or by_batch:
        return None
    steps = [step for step in plan.steps(site.name) if makes_faults(step)]
    numbers = np.arange(samples) if site.batched else np.zeros(1, np.int64)
    rows = max(1, _AT_ONCE // max(site.words, 1))
    for first in range(0, len(numbers), rows):
        part = numbers[first : first + rows]
        if any(_changes(step, site, part, seed) for step in steps):
            return True
    return False


def _changes(step: Step, site: Site, numbers: NDArray[np.int64], seed: int) -> bool:
    """Whether a step changes words of zeros or of ones; what is hit changes one of the two."""
    mask = (1 << site.bit_width) - 1
    for word in (0, mask):
        codes: Codes = np.full((len(numbers), site.words or 0), word, np.uint32)
        if not np.array_equal(strike_codes(step, codes, seed, numbers, site.batched), codes):
            return True
    return False
