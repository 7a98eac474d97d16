"""What a campaign found, one sentence for each question, with what its interval covers."""

from collections.abc import Sequence

from hwfault.campaigns.figures import Figure
from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.words import at_most, confidence, number_of, share, told
from hwfault.campaigns.statistics.estimates import Estimate
from hwfault.campaigns.study.tasks import SCORED, has_one_sample

Answered = Sequence[tuple[KeptTask, Figure]]

MEANINGS = {
    "top1": "the class with the largest output is not the golden run's",
    "top5": "the golden run's class is not among the five with the largest outputs",
    "confidence10": "the probability of the golden run's class is off by more than 10 % of what it was",
    "confidence20": "the probability of the golden run's class is off by more than 20 % of what it was",
    "due": "an output is not finite or out of range, or a protected memory detected an error",
}


def answer(tasks: Answered) -> str:
    """The answer to one question from the figures of its tasks, in the order of its sweep."""
    axis = axis_of(tasks)
    if axis is None:
        return " ".join(_at_one_point(task, figure) for task, figure in tasks)
    return _along(axis, tasks)


def axis_of(tasks: Answered) -> str | None:
    """The label along which the tasks of a question differ, where it has numbers; None for a single point."""
    if len(tasks) <= 1:
        return None
    for key in tasks[0][0].labels:
        values = [task.labels.get(key) for task, _ in tasks]
        if all(isinstance(value, int | float) for value in values) and len(set(values)) > 1:
            return key
    return None


def _at_one_point(task: KeptTask, figure: Figure) -> str:
    sdc = figure.sdc
    assert sdc is not None
    so_far = "" if figure.stopped else "So far, "
    where = "".join(f", at {key} {_short(value)}" for key, value in task.labels.items())
    basis = _basis(task, figure)
    sentence = f"{so_far}{rate_sentence(sdc)}{where}, {basis} ({confidence(sdc)})."
    sentence = sentence[:1].upper() + sentence[1:]
    if figure.accuracy is not None and not has_one_sample(task.draw):
        sentence += f" The accuracy is {told(figure.accuracy)}{_golden(figure)}."
    if task.stop.require is not None or (task.draw == "all" and sdc.ends is not None):
        sentence += f" {figure.why[:1].upper()}{figure.why[1:]}."
    return sentence


def rate_sentence(rate: Estimate) -> str:
    """How many answers are silently wrong; where none was, the bound is what there is to say."""
    if rate.ends is None:
        return f"{share(rate.value)} of answers are silently wrong, exactly"
    if rate.value == 0:
        return f"no silent wrong answer was seen: at most {at_most(rate)} of answers are"
    return f"{told(rate)} of answers are silently wrong"


def _basis(task: KeptTask, figure: Figure) -> str:
    """From what it is known."""
    images = number_of(figure.samples, "image")
    if task.draw == "pairs":
        return f"in {number_of(figure.trials, 'trial')} of one flipped bit and one image each"
    if task.draw == "strata":
        return f"in {number_of(figure.trials, 'trial')} of one flipped bit and one image each, {SCORED}"
    if task.draw == "listed":
        return f"under each of {number_of(figure.trials, 'listed trial')} on {images}"
    if task.draw == "all":
        if task.total is not None and figure.trials < task.total:
            return f"under {figure.trials:,} of {task.total:,} single flips on {images}, and is not exact"
        return f"under each of {figure.trials:,} single flips on {images}"
    flips = task.stored.identity.get("faults", {}).get("flips")
    of = f" of exactly {number_of(flips, 'flipped bit')}" if isinstance(flips, int) else ""
    return f"in {number_of(figure.trials, 'trial')}{of} on {images}"


def _along(axis: str, tasks: Answered) -> str:
    """From one end of a sweep to the other."""
    ordered = sorted(tasks, key=lambda one: float(one[0].labels[axis]))
    rates = [figure.sdc for _, figure in ordered if figure.sdc is not None]
    low, high = (_short(ordered[place][0].labels[axis]) for place in (0, -1))
    if any(rate.value > 0 for rate in rates):
        sentence = (
            f"Silent wrong answers go from {_end(rates[0])} at {axis} {low} to {_end(rates[-1])} at {axis} {high}"
        )
    else:
        worst = max(rates, key=lambda rate: rate.ends[1] if rate.ends is not None else rate.value)
        sentence = f"No silent wrong answer was seen from {axis} {low} to {axis} {high}: at most {at_most(worst)} are"
    accuracies = [figure.accuracy for _, figure in ordered if figure.accuracy is not None]
    if len(accuracies) == len(ordered):
        sentence += f", the accuracy goes from {share(accuracies[0].value)} to {share(accuracies[-1].value)}"
        sentence += _golden(ordered[0][1])
    if not all(figure.stopped for _, figure in tasks):
        sentence += ", so far"
    return f"{sentence} ({confidence(rates[-1])})."


def _end(rate: Estimate) -> str:
    """A rate at the end of a sweep; where nothing was seen the bound is what there is to say."""
    return f"none seen (at most {at_most(rate)})" if rate.value == 0 and rate.ends is not None else told(rate)


def _golden(figure: Figure) -> str:
    return "" if figure.golden_accuracy is None else f", against {share(figure.golden_accuracy)} in the golden run"


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
