"""What trials came to: how many samples were right under each fault seed, and the numbers that sum it up."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any

from pydantic import Field

from hwfault.errors import HwfaultError
from hwfault.inject import ProtectionCounts
from hwfault.inject.statistics import SiteStatistics, merged
from hwfault.profiles.records import Record

Label = str | int | float


class Trial(Record):
    """How many samples were classified correctly under one fault seed, and what else was seen on the way."""

    seed: int
    correct: int
    protection: ProtectionCounts | None = None
    due: bool = False
    statistics: tuple[SiteStatistics, ...] = ()


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

    @classmethod
    def of(cls, trials: Sequence[Trial], *, samples: int, golden: int | None, **rest: Any) -> "Trials":
        """Single trials, in their order, put together."""
        decoded = tuple(trial.protection for trial in trials if trial.protection is not None)
        read = {"protection": decoded, "due": tuple(trial.due for trial in trials)} if decoded else {}
        return cls(
            seeds=tuple(trial.seed for trial in trials),
            correct=tuple(trial.correct for trial in trials),
            samples=samples,
            golden=golden,
            statistics=merged(*(trial.statistics for trial in trials)),
            **read,
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
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean over fault seeds (Student's t), cut to [0, 1]; one trial tells nothing."""
        if (half := half_interval(self.accuracies)) is None:
            return 0.0, 1.0
        return max(0.0, self.mean - half), min(1.0, self.mean + half)

    @property
    def worst(self) -> tuple[float, int]:
        """The lowest accuracy of a trial, and the seed (the first, where several are as low) that gives it."""
        lowest = min(self.correct)
        return lowest / self.samples, self.seeds[self.correct.index(lowest)]

    @property
    def golden_accuracy(self) -> float | None:
        return None if self.golden is None else self.golden / self.samples

    @property
    def degradation(self) -> float | None:
        """The accuracy that the faults cost in the mean: golden less faulty, negative where faults helped."""
        return None if self.golden is None else self.golden / self.samples - self.mean

    @property
    def relative_degradation(self) -> float | None:
        """The share of the golden accuracy that the faults cost in the mean; None where there is none to lose."""
        return self.degradation * self.samples / self.golden if self.degradation is not None and self.golden else None

    def summary(self) -> dict[str, Label | None]:
        """The numbers people want, as one line of a table: rate, trials, samples, mean accuracy, its interval, ..."""
        low, high = self.interval
        worst, seed = self.worst
        numbers: dict[str, Label | None] = {
            **self.labels,
            "ber": self.ber,
            "trials": len(self.seeds),
            "samples": self.samples,
            "accuracy": self.mean,
            "low": low,
            "high": high,
            "std": self.std,
            "worst": worst,
            "worst_seed": seed,
            "golden": self.golden_accuracy,
            "degradation": self.degradation,
            "relative_degradation": self.relative_degradation,
        }
        names = ProtectionCounts._fields if self.protection else ()
        read = {k: sum(getattr(c, k) for c in self.protection) for k in names}
        return numbers | read | ({"due": sum(self.due)} if self.due else {})

    def to_data(self) -> dict[str, Any]:
        """Everything as JSON tells it: the fields that have something to say, and what follows from them."""
        silent = {key for key in ("protection", "due", "labels", "statistics", "notes") if not getattr(self, key)}
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
            "worst": {"accuracy": worst, "seed": seed},
            "golden_accuracy": self.golden_accuracy,
            "degradation": self.degradation,
            "relative_degradation": self.relative_degradation,
        }


class Difference(Record):
    """The mean difference of accuracies under the same fault seeds, and its 95 % interval (paired t; None for one)."""

    mean: float
    interval: tuple[float, float] | None


def paired(trials: Trials, first: Trials) -> Difference:
    """How much more accurate `trials` are than `first`, seed by seed; raises HwfaultError for other seeds."""
    if trials.seeds != first.seeds:
        raise HwfaultError("the trials have other fault seeds than the first ones, expected the same to compare them")
    differences = [a - b for a, b in zip(trials.accuracies, first.accuracies, strict=True)]
    mean, half = fmean(differences), half_interval(differences)
    return Difference(mean=mean, interval=None if half is None else (mean - half, mean + half))


def spread(values: Sequence[float]) -> float | None:
    """The sample standard deviation; None for one value."""
    return stdev(values) if len(values) > 1 else None  # in exact fractions: that of equal values is 0


def half_interval(values: Sequence[float]) -> float | None:
    """Half the 95 % interval of the mean (Student's t); None for one value."""
    from scipy.special import stdtrit

    deviation = spread(values)
    if deviation is None:
        return None
    return float(stdtrit(len(values) - 1, 0.975)) * deviation / math.sqrt(len(values))
