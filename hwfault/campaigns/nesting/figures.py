"""What first turns come to: the share of answers that have turned by each point, and how many turn back."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hwfault.campaigns.database import Row
from hwfault.campaigns.figures import Trials, decide, rule_of
from hwfault.campaigns.labels import Label
from hwfault.campaigns.nesting.turns import CHECKED_SHARE, Bools, Numbers
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.proportions import exact_at_least, exact_ends
from hwfault.campaigns.statistics.stopping import Decision
from hwfault.campaigns.study.records import Claim, Stop

MOST_BACK = 0.01
"""Where a larger share of the checked answers turns back, the grid runs."""
CHECKED_TOLD = f"{CHECKED_SHARE:.0%} of all, drawn at random"
COVERS = "the answers of this campaign, of which these were drawn at random"
_OF = "the share of answers that have turned"


class Turned(NamedTuple):
    """The trials of a sweep in columns, those that failed left out; what `Trials` is to a task at one point.

    `by_point` (points, trials, samples) says which answers have turned by each point, `checked` and `back` (trials,
    samples) which of them ran at all points, and which of these turned back.
    """

    keys: np.ndarray
    by_point: Bools
    checked: Bools
    back: Bools
    failed: int
    silent: int | None

    @property
    def number(self) -> int:
        """How many trials there are."""
        return len(self.keys)

    def take(self, places: Numbers) -> "Turned":
        """Those at some places, each as often as it is named."""
        return self._replace(
            keys=self.keys[places],
            by_point=self.by_point[:, places],
            checked=self.checked[places],
            back=self.back[places],
        )

    def at(self, point: int) -> Trials:
        """The same at one point, as a rate is told of it: `wrong` are the answers that have turned by then."""
        wrong = self.by_point[point]
        return Trials(self.keys, wrong, np.zeros_like(wrong), None, self.failed, self.silent)


def turned_of(rows: Iterable[Row], points: int, samples: int, among: Sequence[int]) -> Turned:
    """The rows whose keys are `among` those, in columns."""
    wanted = among if isinstance(among, range) else frozenset(among)
    kept: list[Row] = []
    failed = 0
    for row in rows:
        if row.key not in wanted:
            continue
        if row.answers is None:
            failed += 1
        else:
            kept.append(row)
    masks = np.zeros((points + 2, len(kept), samples), np.bool_)
    for place, row in enumerate(kept):
        masks[:, place] = row.answers
    faults = [row.faults for row in kept]
    silent = None if None in faults else sum(count == 0 for count in faults)
    keys = np.array([row.key for row in kept], np.uint64)
    return Turned(keys, masks[:points], masks[points], masks[points + 1], failed, silent)


class Check(NamedTuple):
    """How many of the answers that ran at all points turned at one of them, and turned `back` at a later one.

    `share` is that of those that turned back, with Clopper and Pearson's interval: the pairs are a random part of all
    (seed, sample) of the campaign, of which it is told, and of no others. It is true at all looks at once.
    """

    pairs: int
    turned: int
    back: int
    share: Estimate | None

    @property
    def is_too_much(self) -> bool:
        """Whether more turn back than may."""
        return self.back > MOST_BACK * self.pairs


def check_of(seen: Turned, stop: Stop) -> Check:
    """What the check of some trials came to."""
    pairs, back = int(seen.checked.sum()), int(seen.back.sum())
    turned = int((seen.checked & seen.by_point[-1]).sum())
    if not pairs:
        return Check(0, 0, 0, None)
    low, high = exact_ends(back, pairs, 1 - rule_of(stop).looks.alpha)
    ends = float(low), float(high)
    share = Estimate(back / pairs, ends, stop.confidence, "clopper-pearson", COVERS, "the share that turns back")
    return Check(pairs, turned, back, share)


def decide_turns(seen: Turned, stop: Stop, claim: Claim, minutes: float, total: int | None) -> Decision:
    """Whether a sweep has enough trials: as soon as it is sure that too many turn back, or when each point has enough.

    The estimate is that of the last point. `total` is 1 where every seed has the same faults.
    """
    points = [decide(seen.at(place), stop, "seeds", claim, minutes, total) for place in range(len(seen.by_point))]
    last = points[-1]._replace(estimate=points[-1].estimate._replace(of=_OF))
    check = check_of(seen, stop)
    told = _told(check)
    if check.is_too_much and float(exact_at_least(check.back, check.pairs, 1 - rule_of(stop).looks.alpha)) > MOST_BACK:
        return last._replace(stop=True, why=f"{told}: surely above {MOST_BACK:.0%}, so that the grid runs")
    going_on = [one for one in points if not one.stop]
    if going_on:
        return last._replace(stop=False, why=f"{going_on[0].why}; {told}", next_look=going_on[0].next_look)
    # the point that was the hardest to tell says why it is enough
    why = next((one.why for one in points if one.estimate.value == 0), points[0].why)
    end = f"; above {MOST_BACK:.0%}, so that the grid runs" if check.is_too_much else ""
    return last._replace(stop=True, why=f"{why}; {told}{end}")


def _told(check: Check) -> str:
    if check.share is None:
        return "no answer was drawn to run at all points"
    low, high = check.share.ends or (0.0, 1.0)
    share = f"{check.share.value:.3g}, {low:.3g} to {high:.3g}"
    return f"{check.back:,} of {check.pairs:,} answers that ran at all points turned back ({share})"


class TurnPoint(NamedTuple):
    """A point of a sweep: the share of answers that have `turned` by it, and the share that turns right there."""

    labels: Mapping[str, Label]
    turned: Estimate
    here: float


class TurnFigure(NamedTuple):
    """First turns in numbers, never to be taken for SDC at the same points.

    `points` go from mild to harsh. With `runs_grid` too many answers turn back, and the points were run one by one.
    `earliest` are (sample, share of seeds under which it has turned by the last point) of those that turn most often.
    """

    question: str
    name: str
    points: tuple[TurnPoint, ...]
    trials: int
    samples: int
    check: Check
    failed: int
    silent: int | None
    earliest: tuple[tuple[int, float], ...]
    why: str
    stopped: bool

    @property
    def runs_grid(self) -> bool:
        """Whether the points were run one by one in its place."""
        return self.stopped and self.check.is_too_much


_EARLIEST = 3


def figure_of_turns(
    question: str,
    name: str,
    labels: Sequence[Mapping[str, Label]],
    seen: Turned,
    stop: Stop,
    claim: Claim,
    total: int | None,
    decision: Decision,
) -> TurnFigure:
    """First turns in numbers, after the decision on their trials."""
    points = []
    before = 0.0
    for place, told in enumerate(labels):
        estimate = decide(seen.at(place), stop, "seeds", claim, 0.0, total).estimate._replace(of=_OF)
        points.append(TurnPoint(told, estimate, estimate.value - before))
        before = estimate.value
    # the mean over points ranks images that turn under as many seeds by how early they do
    share = seen.by_point.mean(axis=(0, 1))
    order = np.argsort(-share, kind="stable")[:_EARLIEST].tolist()
    last = seen.by_point[-1].mean(0)
    return TurnFigure(
        question=question,
        name=name,
        points=tuple(points),
        trials=seen.number,
        samples=seen.by_point.shape[2],
        check=check_of(seen, stop),
        failed=seen.failed,
        silent=seen.silent,
        earliest=tuple((sample, float(last[sample])) for sample in order if last[sample] > 0),
        why=decision.why,
        stopped=decision.stop,
    )
