"""Runs that commands are given: the options that say what a file may not say itself, and what is loaded with them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.examples import Shown
from hwfault.errors import FileError

if TYPE_CHECKING:
    from torch import nn

    from hwfault.program.processes import SiteList
    from hwfault.train import TrainConfig
    from hwfault.train.data import Data

_OPTIONS = (
    click.option("--network", help="The network of a run, if it is your own code: module:function."),
    click.option("--data", help="Other data than the run's: digits, an .npz file, or module:function."),
    click.option(
        "--data-folder", type=click.Path(path_type=Path), help="Where the files of a published data set or images lie."
    ),
    click.option("--transform", help="The transform of a run's images, which is code: module:function."),
)


@dataclass(frozen=True)
class Trusted:
    """What --network, --data, --data-folder and --transform say: code that the user trusts, and where data lie."""

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

        model, config = checkpoint.load(_checkpoint(run), self.network)
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

    def needed_by(self, run: Path) -> "Trusted":
        """The same without the network and transform, where the run needs no code for them."""
        from hwfault.own_code import is_code
        from hwfault.train import checkpoint

        config = checkpoint.configuration(_checkpoint(run))
        return replace(
            self, **{key: None for key in ("network", "transform") if not is_code(getattr(config, key) or "")}
        )

    def sites(self, source: str, shown: Shown) -> "SiteList":
        """The sites of a network's name, of a run or checkpoint, or of a graph; a run's data are an example."""
        path = Path(source)
        if path.suffix == ".onnx":
            self.check_unused(source)
            return _of_graph(path, shown)
        if path.exists():
            return self._sites_of_run(path, shown)
        self.check_unused(source)
        from hwfault.train.networks import build

        return shown.sites(build(source))

    def _sites_of_run(self, run: Path, shown: Shown) -> "SiteList":
        """The sites of a run or checkpoint: those that its folder keeps, where the options say nothing of their own."""
        from hwfault.train.kept_sites import keep_sites, key_of, read_sites

        key = key_of(run) if run.is_dir() and self == Trusted() and shown == Shown() else None
        kept = None if key is None else read_sites(run, key)
        if kept is not None:
            return kept
        model, _, data = self.load(run)
        found = shown.sites(model, data.example)
        if key is not None and key == key_of(run):  # nobody has trained on meanwhile
            keep_sites(run, key, found)
        return found

    def check_unused(self, source: str) -> None:
        """Raises UsageError if the options say anything: the source is no run."""
        if self != Trusted():
            raise click.UsageError(
                f"--network, --data, --data-folder and --transform go with a run or checkpoint, given {source}"
            )

    def _refuse_code(self, run: Path, key: str, stored: str | None) -> None:
        from hwfault.own_code import is_code

        if getattr(self, key) is None and stored is not None and is_code(stored):
            raise FileError(
                f"{run}: was trained on the {key} {stored!r}; code that a file names is not run, so name it yourself "
                f"(--{key} {stored}) if you trust it"
            )


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how a run is loaded; the command is called with them as one argument `trusted`."""

    @wraps(command)
    def with_trusted(
        network: str | None, data: str | None, data_folder: Path | None, transform: str | None, **rest: Any
    ) -> Any:
        return command(trusted=Trusted(network, data, data_folder, transform), **rest)

    for option in reversed(_OPTIONS):
        with_trusted = option(with_trusted)
    return with_trusted


def _of_graph(path: Path, shown: Shown) -> "SiteList":
    from hwfault.graph.read.sites import sites
    from hwfault.graph.run.session import load_model

    if shown.example is not None:
        raise click.UsageError("--example goes with a network or run: a graph tells the shapes of its inputs itself")
    return sites(load_model(path), shown.batch_axis)


def _checkpoint(run: Path) -> Path:
    from hwfault.train.folder import CHECKPOINT

    return run / CHECKPOINT if run.is_dir() else run
