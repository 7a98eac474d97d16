"""What a training run is made of, as one record that can be written down."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hwfault.files import write_atomically
from hwfault.profiles.models import FaultModel
from hwfault.profiles.records import Record, read_yaml


class TrainConfig(Record):
    """A training run; the defaults are the demo's, without faults. Raises ModelError for a wrong or unknown key.

    `network` is "digits_cnn" or module:function, called with `network_args`; `data` is "digits", an .npz file or
    module:function. `faults` reach their full probability linearly over the first `ramp` (0 to 1) of the epochs and
    then stay; `gradient` is what flows back through a faulty word. The learning rate falls to 0 as a half cosine.
    Faults that belong to a device are those of `device`, or of the seed's number.
    The default rate suits digits_cnn, whose weights lie on a grid of 1/8; other networks want 1e-3 or so.
    """

    network: str = "digits_cnn"
    network_args: dict[str, Any] = Field(default_factory=dict)
    data: str = "digits"
    faults: tuple[FaultModel, ...] = ()
    ramp: float = Field(default=1 / 3, ge=0, le=1)
    gradient: Literal["zero", "straight_through"] = "zero"
    epochs: int = Field(default=40, ge=1, le=1_000_000)
    batch_size: int = Field(default=64, ge=1)
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=0.02, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.01, ge=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=1 << 64)
    device: int | None = Field(default=None, ge=0, lt=1 << 64)

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
