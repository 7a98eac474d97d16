"""Runs that commands are given: the options that say what a file may not say itself, and what is loaded with them."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.examples import Shown
from hwfault.train.loading import RunOptions

if TYPE_CHECKING:
    from hwfault.program.processes import SiteList

_OPTIONS = (
    click.option("--network", help="The network of a run, if it is your own code: module:function."),
    click.option(
        "--data",
        help="Other data than the run's: digits, an .npz file, or module:function. Of a graph (evaluate, export) its "
        "samples: an .npz file with the arrays x and y, or a folder of images.",
    ),
    click.option(
        "--data-folder", type=click.Path(path_type=Path), help="Where the files of a published data set or images lie."
    ),
    click.option("--transform", help="The transform of a run's images, which is code: module:function."),
)


class Trusted(RunOptions):
    """What --network, --data, --data-folder and --transform say: code that the user trusts, and where data lie."""

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
