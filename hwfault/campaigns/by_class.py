"""Silent wrong answers by the class of the sample: whose answers faults change most, with intervals true at once."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.classes import Labels
from hwfault.campaigns.database import Database
from hwfault.campaigns.figures import Asked, Figure, Trials, decide, rule_of
from hwfault.campaigns.statistics.classes import rank_classes
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.statistics.looks import Looks
from hwfault.campaigns.statistics.means import estimate_mean
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.statistics.strata import estimate_drawn_strata
from hwfault.campaigns.statistics.two_way import Sums, estimate_population
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.campaigns.study.tasks import has_one_sample, is_exhaustive
from hwfault.errors import FileError

_KEY = "labels"
_MOST_CLASSES = 1 << 20
_OF = "the rate of silent wrong answers of a class"


def keep_labels(database: Database, labels: Labels | None) -> None:
    """Keeps the samples' labels in a store, which tells rates by class without the data; nothing without labels."""
    if labels is not None:
        told: dict[str, Any] = {"classes": labels.classes, "labels": labels.of.tolist()}
        if labels.right is not None:
            told["right"] = labels.right.astype(int).tolist()
        database.say(_KEY, json.dumps(told))


def kept_labels(database: Database) -> Labels | None:
    """The labels that a store keeps; None where there are none. Raises FileError for damaged ones."""
    text = database.said(_KEY)
    if text is None:
        return None
    try:
        told = json.loads(text)
        of = np.array(told["labels"], np.int64)
        right = np.array(told["right"], np.int64) == 1 if "right" in told else None
        found = Labels(of, int(told["classes"]), right)
        whole = of.ndim == 1 and 0 <= found.classes <= _MOST_CLASSES and (right is None or right.shape == of.shape)
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise FileError(f"{database.path}: its labels cannot be read ({error}); the file is damaged") from None
    if not whole:
        raise FileError(f"{database.path}: its labels are none; the file is damaged")
    return found


def with_classes(figure: Figure, asked: Asked, seen: Trials, labels: Labels | None) -> Figure:
    """The figure with the rate of each class; as it is without labels, and for trials that do not fit them."""
    if labels is None or not seen.number:
        return figure
    one_sample = has_one_sample(asked.draw)
    if not one_sample and seen.wrong.shape[1] != len(labels.of):
        return figure
    counts = labels.counts
    each = 1 - (1 - asked.stop.confidence) / max(1, sum(count > 0 for count in counts.values()))
    samples = _samples_drawn(asked, seen, labels) if one_sample else None
    rates: dict[int, Estimate | None] = {}
    for label, count in counts.items():
        mine = labels.of == label
        found = None
        if count and samples is not None:
            found = _of_drawn(asked, _only(seen, mine[samples]), each)
        elif count:
            found = _of_all(asked, seen._replace(wrong=seen.wrong[:, mine], due=seen.due[:, mine], correct=None), each)
        # what is promised is that of all classes
        rates[label] = None if found is None else _promised(found, asked.stop.confidence)
    return figure._replace(classes=rank_classes(counts, rates))


def _promised(found: Estimate, confidence: float) -> Estimate:
    return found._replace(of=_OF, confidence=None if found.confidence is None else confidence)


def _samples_drawn(asked: Asked, seen: Trials, labels: Labels) -> NDArray[np.int64]:
    """The sample that each trial of a single flip was seen on."""
    if asked.strata is not None:
        pairs = [asked.strata.pair(key) for key in seen.keys.tolist()]
    else:
        assert asked.ends is not None
        drawing = FaultSpace((), asked.ends)
        pairs = [draw_pair(drawing, len(labels.of), key) for key in seen.keys.tolist()]
    return np.array([sample for _, sample in pairs], np.int64)


def _only(seen: Trials, chosen: NDArray[np.bool_]) -> Trials:
    return seen._replace(keys=seen.keys[chosen], wrong=seen.wrong[chosen], due=seen.due[chosen], correct=None)


def _of_drawn(asked: Asked, mine: Trials, each: float) -> Estimate | None:
    """The rate among trials whose sample is of one class, which every stratum has the same part of, or None."""
    if not mine.number:
        return None
    events = mine.wrong[:, 0]
    if asked.strata is None:
        return estimate_rate(int(events.sum()), mine.number, each, sequential=True)
    strata = asked.strata
    looks = Looks.plan(asked.stop.max_trials, each, strata.first_look)
    where = strata.of_keys(mine.keys)
    count = len(strata.weights)
    trials = np.bincount(where, minlength=count)
    wrong = np.bincount(where, weights=events, minlength=count)
    return estimate_drawn_strata(wrong, trials, strata.sizes, 1 - looks.alpha)


def _of_all(asked: Asked, mine: Trials, each: float) -> Estimate:
    """The rate over the samples of one class, all of which every trial has seen."""
    stop = asked.stop.model_copy(update={"confidence": each, "require": None})
    if asked.total is not None and (is_exhaustive(asked.draw) or asked.total == 1):
        return decide(mine, stop, asked.draw, asked.claim, 0.0, asked.total).estimate
    looks = rule_of(stop).looks
    if asked.claim == "population" and min(mine.wrong.shape) > 1:
        until = looks.last_until(mine.number)
        if until is not None:
            return estimate_population(Sums.of(mine.wrong[:until]), looks)
    return estimate_mean(mine.wrong.mean(1), looks)


def most_harmed(figure: Figure, tell: Callable[[float], str] = "{:.3g}".format) -> str | None:
    """Which class has the most silent wrong answers, in one line; None where no class is known to have any.

    `tell` writes the rate.
    """
    known = [one for one in figure.classes if one.rate is not None]
    if not known or not any(one.rate.value for one in known if one.rate is not None):
        return None
    worst = known[0]
    assert worst.rate is not None
    empty = [str(one.label) for one in figure.classes if not one.samples]
    tied = f", not told apart from {', '.join(map(str, worst.tied))}" if worst.tied else ""
    none = f"; no sample is of class {', '.join(empty)}" if empty else ""
    return f"most silent wrong answers in class {worst.label} ({tell(worst.rate.value)}){tied}{none}"


def lines_of(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Each class of each task as a line of a table for other programs."""
    lines: list[dict[str, Any]] = []
    for figure in figures:
        for one in figure.classes:
            line: dict[str, Any] = {"question": figure.question, **figure.labels, "class": one.label}
            line["samples"] = one.samples
            if one.rate is not None:
                low, high = one.rate.ends or (None, None)
                line |= {"sdc": one.rate.value, "sdc_low": low, "sdc_high": high, "sdc_by": one.rate.by}
                line |= {"rank_first": one.first, "rank_last": one.last, "tied": " ".join(map(str, one.tied))}
            lines.append(line)
    return lines
