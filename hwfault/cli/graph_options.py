"""The options of commands that take a run or a graph alone: which of them go with a graph, and its samples."""

from pathlib import Path

import click
from click.core import ParameterSource

from hwfault.cli.runs import Trusted

_OF_NETWORKS = {
    "network": "--network",
    "data_folder": "--data-folder",
    "transform": "--transform",
    "arithmetic": "--arithmetic",
    "as_traced": "--as-traced",
    "split": "--split",
    "workers": "--workers",
    "statistics": "--statistics",
}
"""Options that say something of a run alone, by their parameters."""


def was_given(parameter: str) -> bool:
    """Whether an option of the command that runs now stands on the command line."""
    return click.get_current_context().get_parameter_source(parameter) not in (None, ParameterSource.DEFAULT)


def check_options_of_graph(trusted: Trusted) -> None:
    """Raises UsageError for options that go with a run, given a graph, and where its samples are not named."""
    wrong = [option for parameter, option in _OF_NETWORKS.items() if was_given(parameter)]
    if wrong:
        raise click.UsageError(f"{wrong[0]} goes with a run or checkpoint, given was a graph")
    data_of_graph(trusted)


def data_of_graph(trusted: Trusted) -> Path:
    """Where the samples of a graph lie; raises UsageError where --data does not say it."""
    if trusted.data is None:
        raise click.UsageError(
            "a graph holds no data; give --data, an .npz file with the arrays x (inputs, or several by the names that "
            "the graph has for them) and y (labels), or a folder of images"
        )
    return Path(trusted.data)


def tell_of_images(data: Path) -> None:
    """Says on stderr how a graph sees the images of a folder, as one that expects others has no use for them."""
    if data.is_dir():
        click.echo(f"{data}: images go into the graph as pixels from 0 to 255; it has to prepare them itself", err=True)
