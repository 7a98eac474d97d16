"""The outputs and predictions of one run beside those that were recorded."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import PlanError
from hwfault.proof.answer import OUTPUT, PREDICTION
from hwfault.proof.expected import Expected
from hwfault.proof.report import Difference
from hwfault.proof.sides import Mask, bits_of, predictions

Array = NDArray[Any]


class Outputs:
    """Counts what differs; `to_the_bit` tells 0 from -0, which engines that compute on integers cannot."""

    def __init__(self, expected: Expected, labels: Array | None, *, to_the_bit: bool) -> None:
        self._expected, self._labels, self._to_the_bit = expected, labels, to_the_bit
        self._counts: Counter[str] = Counter()
        self._max_difference = self._max_rounding = 0.0
        self._classified = labels is not None and expected.prediction.dtype.kind in "iu"
        self.first: Difference | None = None

    def add(self, output: Array, batch: slice, excused: Mask, *, with_prediction: bool = True) -> None:
        """Compares the outputs of a batch, and what they predict; raises PlanError for another shape than recorded.

        `excused` (samples,) are the samples in which codes differ, so that no rounding alone accounts for the outputs.
        """
        recorded = self._expected.output[batch]
        if output.shape != recorded.shape:
            raise PlanError(
                f"the output has the shape {list(output.shape)}, recorded was {list(recorded.shape)}; expected the "
                "graph of the bundle's network, and answers for every sample of a batch"
            )
        with np.errstate(over="ignore"):
            found = output.astype(np.float32)
        differ = _differing(found, recorded, self._to_the_bit)
        self._counts.update(outputs=differ.size, outputs_differ=int(np.count_nonzero(differ)))
        differences = _largest_differences(found, recorded)
        self._max_difference = max(self._max_difference, float(differences.max(initial=0.0)))
        rounding = np.where(excused, 0.0, differences)
        self._max_rounding = max(self._max_rounding, float(rounding.max(initial=0.0)))
        self._note(OUTPUT, differ.reshape(len(differ), -1), recorded, found, batch)
        if with_prediction:
            self._predicted(predictions(found), batch)

    def add_answer(self, answer: dict[str, Array], batch: slice, excused: Mask) -> None:
        """The same for what a runner answered: outputs, predictions, or both, which may say different things."""
        if OUTPUT in answer:
            self.add(answer[OUTPUT], batch, excused, with_prediction=PREDICTION not in answer)
        if PREDICTION in answer:
            self._predicted(answer[PREDICTION], batch)

    def observed(self, plain: Array, output: Array) -> None:
        """Counts the numbers of the output that change when the sites are looked at."""
        self._counts["outputs_changed_by_observation"] += int(np.count_nonzero(bits_of(plain) != bits_of(output)))

    def _predicted(self, found: Array, batch: slice) -> None:
        recorded = self._expected.prediction[batch]
        if found.shape != recorded.shape:
            raise PlanError(f"predictions of the shape {list(found.shape)}, recorded were {list(recorded.shape)}")
        differ = _differing(found, recorded, to_the_bit=False)
        self._counts.update(predictions=differ.size, predictions_differ=int(np.count_nonzero(differ)))
        self._note(PREDICTION, differ.reshape(len(differ), -1), recorded, found, batch)
        if self._classified and found.ndim == 1:
            assert self._labels is not None
            label = self._labels[batch]
            self._counts["correct_recorded"] += int(np.count_nonzero(recorded == label))
            self._counts["correct_found"] += int(np.count_nonzero(found == label))

    def _note(self, kind: Any, differ: Array, recorded: Array, found: Array, batch: slice) -> None:
        if self.first is None and differ.any():
            element, word = divmod(int(differ.argmax()), differ.shape[1])
            values = (float(side.reshape(differ.shape)[element, word]) for side in (recorded, found))
            numbers = dict(zip(("recorded", "found"), values, strict=True))
            self.first = Difference(kind=kind, site="", sample=batch.start + element, word=word, **numbers)

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of a RunRecord."""
        keys = ("predictions", "predictions_differ", "outputs", "outputs_differ", "outputs_changed_by_observation")
        labelled = {key: self._counts[key] for key in ("correct_recorded", "correct_found") if self._classified}
        recorded = {
            "outputs_recorded": self._expected.output.size,
            "predictions_recorded": self._expected.prediction.size,
        }
        counted = {key: self._counts[key] for key in keys} | labelled
        output = np.abs(self._expected.output[np.isfinite(self._expected.output)])
        largest = {
            "outputs_max_difference": self._max_difference,
            "outputs_max_rounding": self._max_rounding,
            "outputs_largest": float(output.max(initial=0.0)),
        }
        return counted | recorded | largest


def _differing(found: Array, recorded: Array, to_the_bit: bool) -> NDArray[np.bool_]:
    """Where numbers differ; NaN, of whatever bits, is the recorded one where NaN was recorded, and nowhere else."""
    numbers = found.dtype.kind == "f" and recorded.dtype.kind == "f"
    differ = bits_of(found) != bits_of(recorded) if to_the_bit and numbers else found != recorded
    both = np.isnan(found) & np.isnan(recorded) if numbers else False
    return np.asarray(differ & ~np.asarray(both))


def _largest_differences(found: Array, recorded: Array) -> NDArray[np.float64]:
    """The largest difference of each sample; infinite where one of two numbers is not finite and not the other one."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(found.astype(np.float64) - recorded)
    differences[~_differing(found, recorded, to_the_bit=False)] = 0.0  # two equal infinities have none
    differences[np.isnan(differences)] = np.inf
    largest: NDArray[np.float64] = differences.reshape(len(differences), -1).max(axis=1, initial=0.0)
    return largest
