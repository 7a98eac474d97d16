"""How many faults a sample is expected to see, which says whether single flips speak for a question."""

from statistics import fmean

from hwfault.campaigns.measurement import Measurement
from hwfault.campaigns.study.tasks import Task
from hwfault.plan.expected import expected_faults

_SPECIMENS = 4
"""Where each seed has a specimen of its own, the faults of so many are counted."""


def expected_in_sample(measurement: Measurement, task: Task) -> float | None:
    """How many faults one sample is expected to see at most; None for flips, and for rates of bit errors."""
    if task.point is None or task.point.ber is not None:
        return None
    count = _SPECIMENS if measurement.has_specimens(task) else 1
    first = measurement.study.seed
    return fmean(expected_faults(measurement.plan(task, seed)).in_trial(1).high for seed in range(first, first + count))
