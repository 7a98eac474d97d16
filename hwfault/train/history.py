"""What the epochs of a run came to: one record each, and all of them as a table."""

import csv
import io
from collections.abc import Iterable, Sequence

from hwfault.errors import ModelError
from hwfault.records import Record
from hwfault.train.config import TrainConfig
from hwfault.train.schedule import ScheduledFault


class Epoch(Record):
    """What one epoch (counted from 1 to `epochs` over all phases, which count from 1) came to.

    `loss` and `accuracy` are means over the training data, under the faults that struck in training. `ramp` is the
    largest factor on a fault's probability there, 0 where none was due. The others are of the validation data, without
    and with the faults of evaluation, None where there is none. `learning_rate` is that of the last step.
    `extends` names the run whose weights this one began with, if it did.
    """

    epoch: int
    epochs: int
    phase: int = 1
    ramp: float = 0.0
    learning_rate: float = 0.0
    loss: float
    accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None
    faulty_loss: float | None = None
    faulty_accuracy: float | None = None
    extends: str | None = None


def table(history: Iterable[Epoch]) -> str:
    """The epochs as CSV with a header; what there is none of is empty."""
    text = io.StringIO()
    rows = csv.DictWriter(text, Epoch.model_fields, lineterminator="\n")
    rows.writeheader()
    rows.writerows(epoch.model_dump() for epoch in history)
    return text.getvalue()


def ramp_factor(faults: Sequence[ScheduledFault], epoch: int) -> float:
    """The largest factor that the ramps of the faults which strike in training give an epoch; 0 if none strikes."""
    largest = 0.0
    for fault in faults:
        schedule = fault.schedule
        begun = schedule.from_epoch <= epoch
        ended = schedule.until_epoch is not None and epoch > schedule.until_epoch
        if schedule.during != "eval" and begun and not ended:
            largest = max(largest, schedule.ramp_factor(epoch))
    return largest


def monitored(config: TrainConfig, columns: Iterable[str]) -> str | None:
    """The column that decides which epoch is best: the configured one, or that of the validation data, if any."""
    if config.monitor is not None:
        return config.monitor
    known = set(columns)
    return next((name for name in ("faulty_accuracy", "validation_accuracy") if name in known), None)


def strikes_in_evaluation(config: TrainConfig) -> bool:
    """Whether any of the faults strike in evaluation."""
    return any(fault.schedule.during != "train" for fault in config.faults)


def columns(config: TrainConfig, *, validation: bool) -> tuple[str, ...]:
    """The figures that an epoch comes to, with or without validation data."""
    found = ["loss", "accuracy"]
    if validation:
        found += ["validation_loss", "validation_accuracy"]
        if strikes_in_evaluation(config):
            found += ["faulty_loss", "faulty_accuracy"]
    return tuple(found)


def check_monitor(config: TrainConfig, *, validation: bool) -> None:
    """Raises ModelError if the monitored figure is none that there will be."""
    if config.monitor is not None and config.monitor not in columns(config, validation=validation):
        faults = "" if validation or config.monitor.startswith("validation") else " and faults"
        needs = "faults that strike in evaluation" if validation else f"`validation`{faults}"
        raise ModelError(f"monitor is {config.monitor!r}, but there will be no such figure; give {needs}")


def smaller_is_better(column: str) -> bool:
    """Whether a column is a loss."""
    return column.endswith("loss")
