"""Running trials for a command: what to measure on, progress, finished trials kept, what a stopped run says."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.common import batch_size_option, print_table, seeds_option
from hwfault.cli.door import Stopped
from hwfault.cli.paths import OutputFolder

if TYPE_CHECKING:
    from hwfault.campaigns.one_question import Kept, OneQuestion
    from hwfault.campaigns.points import Point
    from hwfault.campaigns.statistics.means import Interval
    from hwfault.campaigns.trials import Trials
    from hwfault.train import TrainConfig
    from hwfault.train.data import Data, Split

Begin = Callable[[str, int], Callable[[], object]]
_FOLDER = OutputFolder("results.csv", "results.json", "accuracy.png", "campaign.sqlite")
_OPTIONS = (
    click.option(
        "--split",
        type=click.Choice(["test", "validation"]),
        default="test",
        show_default=True,
        help="What to measure on: the samples held out for tests, or those that the run split off for validation.",
    ),
    seeds_option("0-19", "one trial each"),
    batch_size_option(512),
    click.option(
        "--workers", type=click.IntRange(min=0), default=0, show_default=True, help="Processes that read images ahead."
    ),
    click.option("--out", type=_FOLDER, help="Folder for results, pictures, and trials to go on from."),
)


@dataclass(frozen=True)
class Measuring:
    """What --split, --seeds, --batch-size, --workers and --out say."""

    split: str
    seeds: tuple[int, ...]
    batch_size: int
    workers: int
    out: Path | None

    def folder(self) -> Path | None:
        """The folder of --out, made if need be, and locked until the command ends.

        Raises FileError unless files can be written in it, and where another process writes there.
        """
        from hwfault.files import output_folder
        from hwfault.locks import locked_folder

        if self.out is None:
            return None
        folder = output_folder(self.out)
        click.get_current_context().with_resource(locked_folder(folder))
        return folder

    def split_of(self, data: "Data", config: "TrainConfig") -> "Split":
        """The split that --split names; raises HwfaultError where a run has none for validation."""
        from hwfault.train.loading import split_of

        return split_of(self.split, data, config)


def measuring_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how to measure; the command is called with them as one argument `how`."""

    @wraps(command)
    def with_how(
        split: str, seeds: tuple[int, ...], batch_size: int, workers: int, out: Path | None, **rest: Any
    ) -> Any:
        return command(how=Measuring(split, seeds, batch_size, workers, out), **rest)

    for option in reversed(_OPTIONS):
        with_how = option(with_how)
    return with_how


def measure(
    campaign: "OneQuestion",
    points: "Sequence[Point]",
    seeds: Sequence[int],
    *,
    what: str,
    begin: Begin,
    kept: "Kept | None",
) -> "list[Trials]":
    """The trials of each point; where some are kept, only those are run that are not.

    Raises FileError for a store that holds other trials or cannot be written; what Ctrl-C leaves is told.
    """
    from hwfault.campaigns.database import Database

    advance = begin(what, len(points) * len(seeds))
    try:
        return campaign.measure(points, seeds, kept=kept, progress=advance)
    except (KeyboardInterrupt, Stopped):
        if kept is not None and kept.store.exists():
            with Database(kept.store, readonly=True) as database:
                count = sum(len(database.keys(task)) for task in database.tasks())
            click.echo(f"stopped: {count} trials are in {kept.store}, and the same command goes on there", err=True)
        raise


def warn_of_one_seed(seeds: Sequence[int]) -> None:
    """Says that a single trial has no interval."""
    if len(seeds) == 1:
        click.echo(
            "one fault seed tells nothing about the spread: give several (--seeds 0-19) for an interval", err=True
        )


def print_legend(told: "Iterable[Interval]") -> None:
    """Prints what the intervals of a table cover, and how they were found."""
    from hwfault.campaigns.report import legend

    for line in legend(told):
        click.echo(line)


def statistics_tables(points: "Sequence[Trials]") -> None:
    """Prints the statistics of each point that has some."""
    from hwfault.injection.site_statistics import table

    for point in points:
        if point.statistics:
            named = [f"{key} {value}" for key, value in point.labels.items()]
            rate = [] if point.ber is None else [f"BER {point.ber:g}"]
            click.echo(f"\nat each site, over {len(point.seeds)} trials: {', '.join([*named, *rate])}")
            print_table(*table(point.statistics))
