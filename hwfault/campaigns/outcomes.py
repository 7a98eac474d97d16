"""What a trial comes to, sample by sample, against the golden run: masked, silently wrong (SDC), or detected (DUE).

| outcome | true of a sample where |
|---|---|
| correct | the class with the largest output is the label (kept wherever there are labels) |
| top1 | that class is not the golden run's |
| top5 | the golden run's class is not among the five with the largest outputs |
| confidence10, confidence20 | the probability of the golden run's class is off by more than 10 or 20 % of what it was |
| due | an output is not finite, or beyond `due: {range: factor}` times the golden run's largest magnitude |
| module:function | the user's criterion(golden, outputs, labels) says so: (n,) booleans, or (n,) numbers, a metric |

The first four are the criteria of Li et al. (SC'17). Of equal outputs the first is the largest. What a memory's
protection detects makes all samples of a trial DUE; no sample that is DUE counts as SDC.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import HwfaultError
from hwfault.own_code import errors_of, is_code, named

Bools = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Criterion = Callable[[Floats, Floats, Any], Any]

_NUMBERS = 5
"""Of how many classes top5 tells."""


class CriterionError(HwfaultError):
    """What the user's own criterion raised, or returned in the place of an answer for each sample."""


@dataclass(frozen=True)
class Answers:
    """What one trial came to: `masks` (n,) by outcome, and `metrics` (n,) float32 by the user's own name."""

    masks: Mapping[str, Bools]
    metrics: Mapping[str, Floats]


class Judge:
    """Tells of each sample of a trial what it came to, against the golden run's outputs (n, ...).

    `labels` are (n,), or None; `names` as a study gives them; `due_range` the factor of its due limits. Raises
    HwfaultError for golden outputs that are not finite where answers are compared with them, and for outcomes of
    classes where outputs are no (n, classes).
    """

    def __init__(
        self, names: Sequence[str], golden: Floats, labels: NDArray[Any] | None, due_range: float | None = None
    ) -> None:
        # a detected error is one by itself, whatever the golden run came to
        if set(names) != {"due"} and not np.isfinite(golden).all():
            raise HwfaultError("the golden run's outputs hold NaN or infinities, so no trial can be told from it")
        self.names = tuple(names)
        self.golden = golden
        self.labels = labels
        self._classes = golden.ndim == 2 and golden.shape[1] > 1
        self._own: dict[str, Criterion] = {name: named("criterion", name) for name in names if is_code(name)}
        self._limit = None if due_range is None else due_range * float(np.abs(golden).max(initial=0.0))
        self._top = golden.argmax(1) if self._classes else None
        of_classes = [name for name in names if name not in ("due", *self._own)]
        if of_classes and not self._classes:
            raise HwfaultError(
                f"the outcome {of_classes[0]!r} is one of classes, but the outputs of a sample are of the shape "
                f"{golden.shape[1:]}; expected (classes,), or a criterion of your own: module:function"
            )

    @property
    def keeps_correct(self) -> bool:
        """Whether it can be told which answers are right."""
        return self._classes and self.labels is not None

    def judge(self, outputs: Floats, images: NDArray[np.int64] | None = None, *, detected: bool = False) -> Answers:
        """What outputs (k, ...) of the samples `images` (None: all of them) came to.

        `detected` says that a protected memory has told of an error. Raises CriterionError.
        """
        chosen = slice(None) if images is None else images
        golden = self.golden[chosen]
        labels = None if self.labels is None else self.labels[chosen]
        masks: dict[str, Bools] = {}
        metrics: dict[str, Floats] = {}
        if self.keeps_correct:
            masks["correct"] = outputs.argmax(1) == labels
        for name in self.names:
            if name in self._own:
                found = self._ask(name, golden, outputs, labels)
                (masks if found.dtype == np.bool_ else metrics)[name] = found
            elif name == "due":
                masks[name] = np.ones(len(outputs), np.bool_) if detected else self._is_due(outputs)
            else:
                assert self._top is not None
                masks[name] = _of_classes(name, golden, outputs, self._top[chosen])
        return Answers(masks, metrics)

    def _is_due(self, outputs: Floats) -> Bools:
        within = tuple(range(1, outputs.ndim))  # there may be no rows, whose length could not be found out
        due: Bools = np.asarray(~np.isfinite(outputs).all(axis=within))
        if self._limit is not None:
            # NaN compares false, and is DUE already
            due |= (np.abs(outputs) > self._limit).any(axis=within)
        return due

    def _ask(self, name: str, golden: Floats, outputs: Floats, labels: NDArray[Any] | None) -> Any:
        try:
            with errors_of(f"the criterion {name}"):
                found = np.asarray(self._own[name](golden, outputs, labels))
        except HwfaultError as error:
            raise CriterionError(str(error)) from error
        if found.shape != (len(outputs),) or found.dtype.kind not in "bf":
            raise CriterionError(
                f"the criterion {name} returned {found.dtype} of shape {found.shape}, expected an array "
                f"({len(outputs)},) of booleans (is the answer wrong?) or of floating-point numbers (a metric)"
            )
        if found.dtype.kind == "f":
            if np.isnan(found).any():
                raise CriterionError(f"the criterion {name} returned NaN, expected a number for each sample")
            return found.astype(np.float32)
        return found


def _of_classes(name: str, golden: Floats, outputs: Floats, top: NDArray[np.intp]) -> Bools:
    """One of the outcomes of classes; outputs that are not finite differ from the golden run's in each of them."""
    broken: Bools = np.asarray(~np.isfinite(outputs).all(axis=1))
    rows = np.arange(len(outputs))
    if name == "top1":
        found: Bools = outputs.argmax(1) != top
        return np.asarray(found | broken)
    if name == "top5":
        # how many classes are ahead: larger, or as large and before it
        own = outputs[rows, top][:, np.newaxis]
        before = np.arange(outputs.shape[1]) < top[:, np.newaxis]
        ahead = (outputs > own) | ((outputs == own) & before)
        return np.asarray((ahead.sum(1) >= _NUMBERS) | broken)
    share = int(name.removeprefix("confidence")) / 100
    was, now = _probability(golden, rows, top), _probability(outputs, rows, top)
    return np.asarray((np.abs(now - was) > share * was) | broken)


def _probability(outputs: Floats, rows: NDArray[np.intp], top: NDArray[np.intp]) -> NDArray[np.float64]:
    """The softmax probability of a class of each row, in float64; NaN where an output is not finite."""
    with np.errstate(invalid="ignore", over="ignore"):
        wide = outputs.astype(np.float64)
        raised = np.exp(wide - wide.max(1, keepdims=True))
        found: NDArray[np.float64] = raised[rows, top] / raised.sum(1)
    return found
