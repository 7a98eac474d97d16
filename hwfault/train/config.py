"""What a training run is made of, as one record that can be written down."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hwfault.differences import MISSING, differences
from hwfault.errors import ModelError
from hwfault.files import write_atomically
from hwfault.records import Record, read_yaml
from hwfault.train.learning import Cosine, RateSchedule
from hwfault.train.schedule import ScheduledFault


def _precision(value: Any) -> Any:
    return "32" if value == 32 else value


Seed = Annotated[int, Field(strict=True, ge=0, lt=1 << 64)]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]
Whole = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Precision = Annotated[
    Literal["32", "16-mixed", "bf16-mixed"],
    BeforeValidator(_precision, json_schema_input_type=Literal["32", "16-mixed", "bf16-mixed", 32]),
]
Faults = tuple[ScheduledFault, ...]
Gradient = Literal["zero", "straight_through"]
Loss = Literal["cross_entropy", "squared_hinge"]
LossOn = Literal["faulty", "clean", "average"]
OptimizerName = Literal["sgd", "adam", "adamw"]
Monitor = Literal["loss", "accuracy", "validation_loss", "validation_accuracy", "faulty_loss", "faulty_accuracy"]


class Phase(Record):
    """A part of a training run: the keys that differ from the run's own; its optimiser begins afresh.

    Epochs in the schedules of `faults` that are given here count from the beginning of the phase.
    """

    epochs: Count | None = None
    batch_size: Count | None = None
    accumulate: Count | None = None
    faults: Faults | None = None
    gradient: Gradient | None = None
    loss: Loss | None = None
    label_smoothing: Share | None = None
    loss_on: LossOn | None = None
    draws: Count | None = None
    optimizer: OptimizerName | None = None
    learning_rate: Positive | None = None
    momentum: Share | None = None
    weight_decay: NotNegative | None = None
    schedule: RateSchedule | None = None
    warmup_epochs: Whole | None = None
    freeze_schedule: bool | None = None
    freeze: tuple[str, ...] | None = None
    clip_weights: NotNegative | None = None
    clip_gradient: NotNegative | None = None
    early_stopping: Whole | None = None
    monitor: Monitor | None = None


class TrainConfig(Record):
    """A training run; the defaults are the demo's, without faults. Raises ModelError for a wrong or unknown key.

    Network and data: `network` is a name of `hwfault.train.networks` or module:function, called with `network_args`,
    and begins with the weights in the file `initial`, if given: its float twin's, or its own. `extends` is what
    `hwfault train --extend` notes of the run that these are of, and history.csv repeats it. `data` is a data set's
    name (its files in `data_folder`), an .npz file or module:function; `validation` of it (a share below 1, or a
    number of samples) is kept from training to be measured after each epoch. `augment` is "crop_flip", "resized_crop"
    or module:function, `transform` a torchvision transform as module:function, `image_size` the side of images of a
    folder in pixels, `workers` the processes that read them; `normalise` false leaves pixels in [0, 1].

    Faults and loss: `faults` strike by their schedules; `gradient` is what flows back through a faulty word. `loss` is
    "cross_entropy" (with `label_smoothing`) or "squared_hinge": of the network with faults (`loss_on` "faulty"),
    without ("clean"), or the mean of both ("average"), and the mean over `draws` forwards under faults of their own.
    Faults that belong to a device are those of `device`, or of the seed's number.

    Optimisation: `epochs` of batches of `batch_size`, by the `optimizer` with `learning_rate` and `weight_decay` (and
    `momentum` for sgd). The rate follows the `schedule` after a linear rise over `warmup_epochs`; with
    `freeze_schedule` the schedule waits until every fault's ramp has ended. `freeze` are globs over the names of
    parameters, or of modules around them, that stay as they are. Before each step gradients are clipped to the norm
    `clip_gradient`, after it weights to +-`clip_weights`; 0 clips nothing. A step takes the gradients of `accumulate`
    batches. Training stops after `early_stopping` epochs (0: never) in which `monitor` did not get better: one of the
    figures in history.csv; where left out, the accuracy on the validation data, under faults if any strike in
    evaluation, and without validation data the loss. `phases` follow one another, each this configuration with some
    keys changed.

    The rest: `precision` of the arithmetic; `devices` (ranks) of the `accelerator` that train together on batches of
    `batch_size` each. With `fused` Brevitas' integer quantizers run as one operator each (see hwfault.fused), in
    training and validation: the same values and gradients in less time, but for the scales', which are sums in another
    order; the log says which quantizers do not. Every `checkpoint_every` epochs a checkpoint is kept (0: only the
    latest and the best); the state to resume from is written after each epoch, and every `checkpoint_every_steps`
    optimiser steps. Everything random follows from `seed`.

    The default rate suits digits_cnn, whose weights lie on a grid of 1/8; other networks want 1e-3 or so.
    """

    network: str = "digits_cnn"
    network_args: dict[str, Any] = Field(default_factory=dict)
    initial: str | None = None
    extends: str | None = None

    data: str = "digits"
    data_folder: str | None = None
    validation: NotNegative = 0.0
    augment: str | None = None
    transform: str | None = None
    image_size: Count | None = None
    normalise: bool = True
    workers: Whole = 0
    batch_size: Count = 64

    faults: Faults = ()
    gradient: Gradient = "zero"
    loss: Loss = "cross_entropy"
    label_smoothing: Share = 0.0
    loss_on: LossOn = "faulty"
    draws: Count = 1

    epochs: Count = 40
    optimizer: OptimizerName = "adamw"
    learning_rate: Positive = 0.02
    momentum: Share = 0.9
    weight_decay: NotNegative = 0.01
    schedule: RateSchedule = Cosine()
    warmup_epochs: Whole = 0
    freeze_schedule: bool = False
    freeze: tuple[str, ...] = ()
    clip_weights: NotNegative = 0.0
    clip_gradient: NotNegative = 0.0
    accumulate: Count = 1
    early_stopping: Whole = 0
    monitor: Monitor | None = None
    phases: tuple[Phase, ...] = ()

    fused: bool = True
    precision: Precision = "32"
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: Count | None = None
    checkpoint_every: Whole = 0
    checkpoint_every_steps: Whole = 0
    seed: Seed = 0
    device: Seed | None = None

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.validation > 1 and self.validation != int(self.validation):
            raise ValueError(
                f"validation is {self.validation:g}, expected a share of the training data below 1, or a whole number "
                "of samples"
            )
        if taken := {"seed", "spec"} & self.network_args.keys():
            raise ValueError(f"network_args has the key {min(taken)!r}, expected others: `seed` and `network` say that")
        for number, part in enumerate(self.parts):
            if problem := part._contradiction():
                raise ValueError(f"phases.{number}: {problem}" if self.phases else problem)
        return self

    @property
    def parts(self) -> "tuple[TrainConfig, ...]":
        """The configuration of each phase, with no phases in it; this one's own if it has none."""
        return tuple(self._part(number, phase) for number, phase in enumerate(self.phases)) or (self,)

    def _part(self, number: int, phase: Phase) -> "TrainConfig":
        changed = {key: value for key in Phase.model_fields if (value := getattr(phase, key)) is not None}
        return self.model_copy(update={"phases": (), **changed})  # each value was checked where it was given

    @property
    def total_epochs(self) -> int:
        """The epochs of all phases."""
        return sum(part.epochs for part in self.parts)

    def _contradiction(self) -> str:
        """What of this part excludes one another; empty if nothing does."""
        if self.label_smoothing and self.loss != "cross_entropy":
            return f"label_smoothing is {self.label_smoothing:g} with the loss {self.loss}; it goes with cross_entropy"
        if self.warmup_epochs >= self.epochs and self.warmup_epochs:
            return f"warmup_epochs is {self.warmup_epochs}, expected fewer than epochs ({self.epochs})"
        if self.loss_on == "average" and not self.faults:
            return "loss_on is 'average', but there are no faults; name some in `faults`, or leave it out"
        if self.draws > 1 and (self.loss_on == "clean" or not self.faults):
            return f"draws is {self.draws}, but no faults are in the loss; leave it out"
        return ""

    @classmethod
    def load(cls, path: Path | str) -> "TrainConfig":
        """The configuration in a YAML (or JSON) file; raises FileError or ModelError."""
        return cls.parse(read_yaml(path), str(path))

    def to_json(self) -> str:
        """The configuration as JSON text, which `load` reads back."""
        return self.model_dump_json(indent=2, exclude_none=True) + "\n"

    def save(self, path: Path | str) -> None:
        """Writes the configuration as JSON, atomically; raises FileError."""
        write_atomically(path, self.to_json().encode())


def changes(old: TrainConfig, new: TrainConfig) -> list[str]:
    """What two configurations have otherwise, as "key: old -> new"; nested keys are joined by dots."""
    found = differences(old.model_dump(mode="json"), new.model_dump(mode="json"))
    return [f"{key}: {_short(before)} -> {_short(after)}" for key, (before, after) in found.items()]


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_short(part)}' for key, part in value.items() if part is not None)}}}"
    return "none" if value in (None, MISSING) else str(value)


def merge_settings(given: Any, changed: dict[str, Any], source: str) -> TrainConfig:
    """The configuration that `given` (what a file holds) describes with some keys changed.

    A key may name one of a nested mapping (network_args.bits). Raises ModelError that names `source`.
    """
    if not isinstance(given, dict):
        return TrainConfig.parse(given, source)
    whole = dict(given)
    for key, value in changed.items():
        _put(whole, key.split("."), value, key)
    return TrainConfig.parse(whole, source)


def _put(whole: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    first, *rest = path
    if not rest:
        whole[first] = value
        return
    inner = whole.get(first, {})
    inner = {"name": inner} if first == "schedule" and isinstance(inner, str) else inner
    if not isinstance(inner, dict):
        raise ModelError(f"{key}: {first} is {inner!r}, which has no keys")
    whole[first] = dict(inner)
    _put(whole[first], rest, value, key)
