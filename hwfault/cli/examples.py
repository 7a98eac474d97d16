"""What a command is shown of a network's or graph's inputs: an example of them, and the axis of their samples."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.errors import HwfaultError

if TYPE_CHECKING:
    from torch import nn

    from hwfault.program.processes import SiteList

batch_axis_option = click.option(
    "--batch-axis",
    type=int,
    help="The axis of the inputs that holds the samples.  [default: 0; of a graph the symbolic one]",
)
_EXAMPLE = click.option(
    "--example",
    type=click.Path(path_type=Path),
    help="A batch of a network's inputs: an .npy file, or an .npz with one array for each by its name.",
)


@dataclass(frozen=True)
class Shown:
    """What --example and --batch-axis say."""

    example: Path | None = None
    batch_axis: int | None = None

    def sites(self, network: "nn.Module", beside: Any = None) -> "SiteList":
        """The sites of a network, with what the example shows of them; without one, `beside`, where there is any.

        Raises UsageError for an axis without an example, HwfaultError for an example that the network does not take.
        """
        from hwfault.network.sites import sites

        if self.example is None:
            if self.batch_axis is not None:
                raise click.UsageError("--batch-axis goes with a graph, or with an --example of a network's inputs")
            return sites(network, beside)
        given = _inputs(self.example)
        try:
            return sites(network, given, self.batch_axis or 0)
        except HwfaultError:
            raise
        except Exception as error:  # whatever a network raises for inputs that it does not take
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise HwfaultError(
                f"{self.example}: the network does not run on this example ({reason}); expected a batch of its inputs"
            ) from None

    def check_unused(self, source: str) -> None:
        """Raises UsageError if the options say anything: the source has its plan already."""
        if self != Shown():
            raise click.UsageError(
                f"--example and --batch-axis go with a network, run or graph without a plan of its own, given {source}"
            )


def _inputs(path: Path) -> Any:
    """The tensor in a file, or tensors by the names of a forward's arguments."""
    import numpy as np
    import torch

    from hwfault.npz import read_arrays

    arrays = read_arrays(path)
    # an example shows where samples lie, for which float32 is as good as what NumPy makes
    single = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in arrays.items()}
    try:
        tensors = {name: torch.from_numpy(array) for name, array in single.items()}
    except TypeError as error:
        raise HwfaultError(f"{path}: holds an array that is no tensor ({error}); expected numbers") from None
    return tensors[""] if set(tensors) == {""} else tensors


def example_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --example and --batch-axis; the command is called with them as one argument `shown`."""

    @wraps(command)
    def with_shown(example: Path | None, batch_axis: int | None, **rest: Any) -> Any:
        return command(shown=Shown(example, batch_axis), **rest)

    return _EXAMPLE(batch_axis_option(with_shown))
