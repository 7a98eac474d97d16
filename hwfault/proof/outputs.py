"""The outputs and predictions of one run beside those that were recorded."""

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import PlanError
from hwfault.proof.answer import OUTPUT, PREDICTION
from hwfault.proof.expected import Batch, Expected
from hwfault.proof.report import Difference, Kind
from hwfault.proof.sides import Mask, bits_of, predictions

Array = NDArray[Any]


class Outputs:
    """Counts what differs in one run, batch by batch; `to_the_bit` tells 0 from -0.

    Engines that compute on integers cannot tell these.
    """

    def __init__(self, *, to_the_bit: bool) -> None:
        self._to_the_bit = to_the_bit
        self._counts: Counter[str] = Counter()
        self._largest = self._max_difference = self._max_rounding = 0.0
        self._recorded: tuple[Array, Array] = (np.zeros(0), np.zeros(0))
        self._labels: Array | None = None
        self._first_sample, self._classified = 0, False
        self.first: Difference | None = None

    def begin(self, expected: Expected, batch: Batch, labels: Array | None = None) -> None:
        """Begins a batch; `labels` are those of all samples of the record."""
        self._recorded = expected.output[batch.samples], expected.prediction[batch.samples]
        self._labels = None if labels is None else labels[batch.samples]
        self._first_sample = batch.first_sample
        self._classified = labels is not None and expected.prediction.dtype.kind in "iu"
        output, prediction = self._recorded
        self._counts.update(outputs_recorded=output.size, predictions_recorded=prediction.size)
        self._largest = max(self._largest, float(np.abs(output[np.isfinite(output)]).max(initial=0.0)))

    def add(self, output: Array, excused: Mask, *, with_prediction: bool = True) -> None:
        """Compares the outputs of a batch, and what they predict; raises PlanError for another shape than recorded.

        `excused` (samples,) are the samples in which codes differ, so that no rounding alone accounts for the outputs.
        """
        recorded, _ = self._recorded
        if output.shape != recorded.shape:
            raise PlanError(
                f"the output has the shape {list(output.shape)}, recorded was {list(recorded.shape)}; expected the "
                "graph of the recorded network, and answers for every sample of a batch"
            )
        with np.errstate(over="ignore"):
            found = output.astype(np.float32)
        differ = _differing(found, recorded, self._to_the_bit)
        self._counts.update(outputs=differ.size, outputs_differ=int(np.count_nonzero(differ)))
        differences = _largest_differences(found, recorded)
        self._max_difference = max(self._max_difference, float(differences.max(initial=0.0)))
        rounding = np.where(excused, 0.0, differences)
        self._max_rounding = max(self._max_rounding, float(rounding.max(initial=0.0)))
        self._note(OUTPUT, differ.reshape(len(differ), -1), recorded, found)
        if with_prediction:
            self._predicted(predictions(found))

    def add_answer(self, answer: dict[str, Array], excused: Mask) -> None:
        """The same for what a runner answered: outputs, predictions, or both, which may say different things."""
        if OUTPUT in answer:
            self.add(answer[OUTPUT], excused, with_prediction=PREDICTION not in answer)
        if PREDICTION in answer:
            self._predicted(answer[PREDICTION])

    def observed(self, plain: Array, output: Array) -> None:
        """Counts the numbers of the output that change when the sites are looked at."""
        self._counts["outputs_changed_by_observation"] += int(np.count_nonzero(bits_of(plain) != bits_of(output)))

    def _predicted(self, found: Array) -> None:
        _, recorded = self._recorded
        if found.shape != recorded.shape:
            raise PlanError(f"predictions of the shape {list(found.shape)}, recorded were {list(recorded.shape)}")
        differ = _differing(found, recorded, to_the_bit=False)
        self._counts.update(predictions=differ.size, predictions_differ=int(np.count_nonzero(differ)))
        self._note(PREDICTION, differ.reshape(len(differ), -1), recorded, found)
        if self._classified and found.ndim == 1:
            self._counts["correct_recorded"] += int(np.count_nonzero(recorded == self._labels))
            self._counts["correct_found"] += int(np.count_nonzero(found == self._labels))

    def _note(self, kind: Kind, differ: Array, recorded: Array, found: Array) -> None:
        """Notes the first number that differs."""
        if self.first is None and differ.any():
            element, word = divmod(int(differ.argmax()), differ.shape[1])
            values = [float(side.reshape(differ.shape)[element, word]) for side in (recorded, found)]
            place = {"site": "", "sample": self._first_sample + element, "word": word}
            self.first = Difference(kind=kind, recorded=values[0], found=values[1], **place)

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of a RunRecord."""
        counted = {key: self._counts[key] for key in _COUNTED}
        labelled = {key: self._counts[key] for key in ("correct_recorded", "correct_found") if self._classified}
        largest = {
            "outputs_max_difference": self._max_difference,
            "outputs_max_rounding": self._max_rounding,
            "outputs_largest": self._largest,
        }
        return counted | labelled | largest


_COUNTED = (
    *("predictions", "predictions_recorded", "predictions_differ"),
    *("outputs", "outputs_recorded", "outputs_differ", "outputs_changed_by_observation"),
)


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
