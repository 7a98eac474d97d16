"""Loading what was trained, with the code and data that the user vouches for: a file may not say these itself."""

from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Self

from hwfault.errors import FileError, HwfaultError
from hwfault.inputs import refuse_bundle
from hwfault.own_code import is_code
from hwfault.train.folder import CHECKPOINT

if TYPE_CHECKING:
    from torch import nn

    from hwfault.train.config import TrainConfig
    from hwfault.train.data import Data, Split


@dataclass(frozen=True)
class RunOptions:
    """Code that the user trusts (`network`, `data`, `transform`: module:function), other data, and where data lie."""

    network: str | None = None
    data: str | None = None
    data_folder: Path | None = None
    transform: str | None = None

    def load(self, run: Path) -> "tuple[nn.Module, TrainConfig, Data]":
        """The network of a run's folder or checkpoint in evaluation mode, its configuration, and its data or the given.

        The configuration is the run's own; the data's folder and transform take the place of its own, where given.
        Raises FileError for a run that cannot be read, and for code that it names and the user does not.
        """
        from hwfault.train import checkpoint
        from hwfault.train.run import check_runs, load_data

        if self.network is not None and self.data is None and not checkpoint.is_own(checkpoint_of(run)):
            raise FileError(
                f"{run}: holds weights alone, not what the network was trained on; name the data as well (--data "
                "digits, an .npz file, or module:function)"
            )
        model, config = checkpoint.load(checkpoint_of(run), self.network)
        wanted = config
        if self.data not in (None, config.data):  # whose files the run's folder does not hold
            wanted = wanted.model_copy(update={"data_folder": None, "image_size": None, "transform": None})
        for key in ("data", "transform"):
            self._refuse_code(run, key, getattr(wanted, key))
        folder = None if self.data_folder is None else str(self.data_folder)
        given = {"data": self.data, "data_folder": folder, "transform": self.transform}
        loaded = load_data(wanted.model_copy(update={key: value for key, value in given.items() if value is not None}))
        check_runs(model, loaded)
        return model, config, loaded

    @property
    def words(self) -> str:
        """The options as a command line has them, each with a space before it."""
        given = {
            "network": self.network,
            "data": self.data,
            "data-folder": self.data_folder,
            "transform": self.transform,
        }
        return "".join(f" --{key} {quote(str(value))}" for key, value in given.items() if value is not None)

    def needed_by(self, run: Path) -> Self:
        """The same without the network and transform, where the run needs no code for them."""
        from hwfault.train import checkpoint

        if not checkpoint.is_own(checkpoint_of(run)):
            return self
        config = checkpoint.configuration(checkpoint_of(run))
        return replace(
            self, **{key: None for key in ("network", "transform") if not is_code(getattr(config, key) or "")}
        )

    def _refuse_code(self, run: Path, key: str, stored: str | None) -> None:
        if getattr(self, key) is None and stored is not None and is_code(stored):
            raise FileError(
                f"{run}: was trained on the {key} {stored!r}; code that a file names is not run, so name it yourself "
                f"(--{key} {stored}) if you trust it"
            )


def checkpoint_of(run: Path) -> Path:
    """The checkpoint of a run's folder, or the file itself."""
    refuse_bundle(run, "a run's folder or its checkpoint (.safetensors)")
    return run / CHECKPOINT if run.is_dir() else run


def split_of(name: str, data: "Data", config: "TrainConfig") -> "Split":
    """The split "test" or "validation" of a run's data; raises HwfaultError where it has none for validation."""
    from hwfault.train.loop import with_validation

    if name == "test":
        return data.test
    held = data.validation if data.validation is not None else with_validation(data, config).validation
    if held is None:
        raise HwfaultError(
            "--split validation: the run split no samples off for validation; expected one that was trained with "
            "--validation, or measure on its test samples (--split test)"
        )
    return held
