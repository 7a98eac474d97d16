"""What trials came to: how many samples were right under each fault seed, and the numbers that sum it up."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Literal

from pydantic import Field

from hwfault.campaigns.database import Row
from hwfault.campaigns.labels import Label
from hwfault.campaigns.merging import count_correct
from hwfault.campaigns.statistics.means import MEAN_COVERS, Basis, Interval, mean_interval, spread
from hwfault.campaigns.statistics.proportions import share_at_most
from hwfault.errors import HwfaultError
from hwfault.injection.site_statistics import ProtectionCounts, SiteStatistics, merged
from hwfault.records import Record


class Trial(Record):
    """How many samples were classified correctly under one fault seed, and what else was seen on the way.

    Where samples have no labels `correct` are those whose answer is the golden run's.
    """

    seed: int
    correct: int
    protection: ProtectionCounts | None = None
    due: bool = False
    statistics: tuple[SiteStatistics, ...] = ()

    @classmethod
    def of_row(cls, row: Row, masks: Sequence[str]) -> "Trial":
        """The trial that a store keeps; raises HwfaultError for one without an answer, ModelError for a damaged one."""
        correct = count_correct(row, masks) if "correct" in masks else _count_agreeing(row, masks)
        if row.failed is not None or correct is None:
            raise HwfaultError(
                f"the trial of seed {row.key} has no answer ({row.failed}); choose another folder with --out"
            )
        seen = row.seen or {}
        counts = seen.get("protection")
        statistics = tuple(SiteStatistics.from_data(site) for site in seen.get("statistics", ()))
        protection = None if counts is None else ProtectionCounts(**counts)
        return cls(seed=row.key, correct=correct, protection=protection, due=row.detected, statistics=statistics)

    def to_row(self) -> Row:
        """What a store keeps of a trial of which no more is known than this."""
        seen: dict[str, Any] = {"correct": self.correct}
        if self.protection is not None:
            seen["protection"] = self.protection._asdict()
        if self.statistics:
            seen["statistics"] = [record.to_data() for record in self.statistics]
        return Row(self.seed, None, detected=self.due, seen=seen)


def _count_agreeing(row: Row, masks: Sequence[str]) -> int | None:
    """How many answers of a trial are the golden run's; None where it does not say."""
    if row.answers is None or "top1" not in masks:
        return None
    differ = row.answers[list(masks).index("top1")]
    return int(differ.size - differ.sum())


class Trials(Record):
    """How many of `samples` were classified correctly in each trial, one trial a fault seed; `ber` where one is set."""

    seeds: tuple[int, ...]
    correct: tuple[int, ...]
    samples: int
    ber: float | None = None
    protection: tuple[ProtectionCounts, ...] = ()
    """What the decoders of protected memories did in each trial, at all sites; () where nothing is protected."""
    due: tuple[bool, ...] = ()
    """Whether each trial counts as DUE: a word was detected where the protection says so."""
    golden: int | None = None
    """How many the golden run classified correctly, on the same samples; None where it was not run."""
    labels: dict[str, Label] = Field(default_factory=dict)
    """What tells these trials from others of a campaign: their faults, an axis, a site or a bit."""
    statistics: tuple[SiteStatistics, ...] = ()
    """What the faults did at each site, over all trials; () where it was not asked for."""
    notes: tuple[str, ...] = ()
    """What the plan says must be said wherever it is used."""
    same_faults: bool = False
    """Whether every seed has the same faults (none, or those of one device), so that nothing varies over seeds."""
    measures: Literal["accuracy", "agreement"] = "accuracy"
    """What is told: right answers, or where samples have no labels those that are the golden run's."""

    @classmethod
    def of(cls, trials: Sequence[Trial], *, samples: int, golden: int | None, **rest: Any) -> "Trials":
        """Single trials, in their order, put together."""
        protection = tuple(trial.protection for trial in trials if trial.protection is not None)
        due = tuple(trial.due for trial in trials) if protection else ()
        return cls(
            seeds=tuple(trial.seed for trial in trials),
            correct=tuple(trial.correct for trial in trials),
            samples=samples,
            golden=golden,
            statistics=merged(*(trial.statistics for trial in trials)),
            protection=protection,
            due=due,
            **rest,
        )

    @property
    def accuracies(self) -> tuple[float, ...]:
        return tuple(correct / self.samples for correct in self.correct)

    @property
    def mean(self) -> float:
        return sum(self.correct) / (self.samples * len(self.correct))

    @property
    def std(self) -> float | None:
        """The sample standard deviation of the accuracies over fault seeds; None for one trial."""
        return spread(self.accuracies)

    @property
    def told(self) -> Interval:
        """The 95 % interval of the mean over fault seeds on these samples, and how it was found (`mean_interval`)."""
        if self.same_faults:
            return Interval("same", None)
        return mean_interval(self.accuracies, 0.0, 1.0)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval's ends; None where every seed has the same faults. One trial tells nothing: (0, 1)."""
        return self.told.ends

    @property
    def events(self) -> int | None:
        """In how many trials the number of right answers is not the golden run's; None where that is not known."""
        golden = self.samples if self.measures == "agreement" else self.golden
        if golden is None:
            return None
        return sum(correct != golden for correct in self.correct)

    @property
    def event_share_at_most(self) -> float | None:
        """The 95 % upper bound on the share of fault seeds with such an event (Clopper and Pearson)."""
        if self.events is None or self.same_faults:
            return None
        return share_at_most(self.events, len(self.seeds))

    @property
    def worst(self) -> tuple[float, int]:
        """The lowest accuracy of a trial, and the seed (the first, where several are as low) that gives it."""
        lowest = min(self.correct)
        return lowest / self.samples, self.seeds[self.correct.index(lowest)]

    @property
    def golden_accuracy(self) -> float | None:
        return None if self.golden is None else self.golden / self.samples

    @property
    def reference(self) -> float | None:
        """What a trial without faults has: the golden accuracy, or full agreement with the golden run."""
        return 1.0 if self.measures == "agreement" else self.golden_accuracy

    @property
    def degradation(self) -> float | None:
        """The accuracy that the faults cost in the mean: golden less faulty, negative where faults helped."""
        return None if self.golden is None else self.golden / self.samples - self.mean

    @property
    def relative_degradation(self) -> float | None:
        """The share of the golden accuracy that the faults cost in the mean; None where there is none to lose."""
        if self.degradation is None or not self.golden:
            return None
        return self.degradation * self.samples / self.golden

    def summary(self) -> dict[str, Label | None]:
        """The numbers people want, as one line of a table: rate, trials, samples, mean accuracy, its interval, ..."""
        by, ends = self.told
        low, high = ends or (None, None)
        worst, seed = self.worst
        numbers: dict[str, Label | None] = {
            **self.labels,
            "ber": self.ber,
            "trials": len(self.seeds),
            "samples": self.samples,
            self.measures: self.mean,
            "low": low,
            "high": high,
            "interval_by": by,
            "events": self.events,
            "event_share_at_most": self.event_share_at_most,
            "std": self.std,
            "worst": worst,
            "worst_seed": seed,
            "golden": self.golden_accuracy,
            "degradation": self.degradation,
            "relative_degradation": self.relative_degradation,
        }
        if self.protection:
            totals = [sum(each) for each in zip(*self.protection, strict=True)]
            numbers |= dict(zip(ProtectionCounts._fields, totals, strict=True))
        if self.due:
            numbers["due"] = sum(self.due)
        return numbers

    def to_data(self) -> dict[str, Any]:
        """Everything as JSON tells it: the fields that have something to say, and what follows from them."""
        silent = {
            key
            for key in ("protection", "due", "labels", "statistics", "notes", "same_faults")
            if not getattr(self, key)
        }
        silent |= {"measures"} if self.measures == "accuracy" else set()
        data = self.model_dump(mode="json", exclude=silent)
        if self.protection:
            data["protection"] = [counts._asdict() for counts in self.protection]
        if self.statistics:
            data["statistics"] = [record.to_data() for record in self.statistics]
        worst, seed = self.worst
        return data | {
            "mean": self.mean,
            "std": self.std,
            "interval": self.interval,
            "interval_by": self.told.by,
            "interval_covers": MEAN_COVERS,
            "events": self.events,
            "event_share_at_most": self.event_share_at_most,
            "worst": {"accuracy": worst, "seed": seed},
            "golden_accuracy": self.golden_accuracy,
            "degradation": self.degradation,
            "relative_degradation": self.relative_degradation,
        }


class Difference(Record):
    """The mean difference of accuracies under the same fault seeds, and its 95 % interval (see `mean_interval`).

    `by` says how the interval was found; None where neither network's faults depend on the seed.
    """

    mean: float
    interval: tuple[float, float] | None
    by: Basis

    @property
    def told(self) -> Interval:
        return Interval(self.by, self.interval)


def paired(trials: Trials, first: Trials) -> Difference:
    """How much more accurate `trials` are than `first`, seed by seed; raises HwfaultError for other seeds."""
    if trials.seeds != first.seeds:
        raise HwfaultError("the trials have other fault seeds than the first ones, expected the same to compare them")
    # one division, so that equal differences are equal
    whole = trials.samples * first.samples
    differences = []
    for mine, its in zip(trials.correct, first.correct, strict=True):
        differences.append((mine * first.samples - its * trials.samples) / whole)
    if trials.same_faults and first.same_faults:
        found = Interval("same", None)
    else:
        found = mean_interval(differences, -1.0, 1.0)
    return Difference(mean=fmean(differences), interval=found.ends, by=found.by)
