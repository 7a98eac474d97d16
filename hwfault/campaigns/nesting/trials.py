"""Trials along a sweep: each seed's answers run at the points that a bisection asks for."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from hwfault.campaigns.database import Row
from hwfault.campaigns.engines.engine import Engine, Numbers, Trial
from hwfault.campaigns.falls import any_fault_fell
from hwfault.campaigns.figures import counted_outcome
from hwfault.campaigns.nesting.bisection import find_turns
from hwfault.campaigns.nesting.turns import CHECKED_SHARE, Bools, have_turned
from hwfault.campaigns.outcomes import Judge
from hwfault.campaigns.plans import Plans
from hwfault.campaigns.study.tasks import Task
from hwfault.errors import HwfaultError, PlanError
from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.nesting import why_not_nested


class Sweep(NamedTuple):
    """A sweep that runs: `plan` makes the plan of a point (its place, from mild to harsh) under a seed.

    With `by_seed` each seed has a specimen of its own. `counted` is the outcome that counts; where sums are not `exact`
    each seed runs alone, so that its answers do not depend on those that happen to run beside it.
    """

    points: int
    plan: Callable[[int, int], FaultPlan]
    by_seed: bool
    engine: Engine
    judge: Judge
    counted: str
    exact: bool

    @classmethod
    def of(
        cls, task: Task, masks: Sequence[str], plans: Plans, engine: Engine, judge: Judge, *, exact: bool
    ) -> "Sweep":
        """The sweep of a task; raises HwfaultError as `counted_in`."""
        points = [point for _, point in task.sweep]
        return cls(
            points=len(points),
            plan=lambda place, seed: plans.of(points[place], seed),
            by_seed=any(plans.by_seed(point) for point in points),
            engine=engine,
            judge=judge,
            counted=counted_in(masks, task.name),
            exact=exact,
        )


def identity_of(task: Task, masks: Sequence[str], plans: Plans, seed: int) -> dict[str, Any]:
    """What a sweep's answers depend on beside what those of all tasks do; `seed` is the first."""
    return {
        "plans": [plans.of(point, seed).digest for _, point in task.sweep],
        "first turn": {"counted": counted_in(masks, task.name), "checked": CHECKED_SHARE},
    }


def counted_in(masks: Sequence[str], name: str) -> str:
    """The outcome by which answers turn; raises HwfaultError where no outcome is yes or no of a sample."""
    if all(mask == "correct" for mask in masks):
        raise HwfaultError(
            f"{name}: no outcome of the study is yes or no of a sample, so that no answer turns; name one, such as "
            "top1 or due, or ask without `first_turn`"
        )
    return counted_outcome(masks)


def run_sweep(sweep: Sweep, seeds: Sequence[int]) -> Iterator[Row]:
    """One row for each seed, in their order; raises PlanError for a specimen whose faults are not nested."""
    samples = sweep.engine.samples
    plans = {seed: _nested_plans(sweep, seed) for seed in (seeds if sweep.by_seed else seeds[:1])}

    def plan(point: int, seed: int) -> FaultPlan:
        return plans[seed if sweep.by_seed else seeds[0]][point]

    def run(point: int, those: Sequence[int], images: Sequence[Numbers]) -> Iterator[Bools]:
        trials = [Trial(plan(point, seed), seed) for seed in those]
        yield from _turned(sweep, trials, images)

    for seed, found in zip(seeds, find_turns(sweep.points, seeds, samples, run), strict=True):
        fell = any_fault_fell(plan(sweep.points - 1, seed), seed, samples)
        yield Row(seed, found.masks(sweep.points), faults=None if fell is None else int(fell))


def _nested_plans(sweep: Sweep, seed: int) -> list[FaultPlan]:
    plans = [sweep.plan(point, seed) for point in range(sweep.points)]
    why = why_not_nested(plans)
    if why is not None:
        raise PlanError(f"the faults of the specimen of seed {seed} are not nested: {why}")
    return plans


def _turned(sweep: Sweep, trials: Sequence[Trial], images: Sequence[Numbers]) -> Iterator[Bools]:
    """Which answers of each trial, on images of its own, have turned."""
    groups = [slice(0, len(trials))] if sweep.exact else [slice(place, place + 1) for place in range(len(trials))]
    for group in groups:
        chosen = images[group]
        for ran, own in zip(sweep.engine.run_each(trials[group], chosen), chosen, strict=True):
            yield have_turned(sweep.judge.judge(ran.outputs, own, detected=ran.detected), sweep.counted)
