"""Running trials for a command: progress on stderr, finished trials kept, and what a stopped run says."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hwfault.campaign import Campaign, Point, Trials

Begin = Callable[[str, int], Callable[[], object]]


def measured(
    campaign: "Campaign",
    points: "Sequence[Point]",
    seeds: Sequence[int],
    *,
    what: str,
    begin: Begin,
    kept: Path | None,
    question: dict[str, Any],
) -> "list[Trials]":
    """The trials of each point; with `kept`, the file of finished trials, only those are run that it does not have.

    Raises FileError for a file that holds other trials or cannot be written; what Ctrl-C leaves is told.
    """
    from hwfault.campaign.store import Store

    every = len(points) * len(seeds)
    with nullcontext() if kept is None else Store(kept, question) as store:
        advance = begin(what, every)
        try:
            return [campaign.run(point, seeds, keeper=store, progress=advance) for point in points]
        except KeyboardInterrupt:
            if store is not None:
                click.echo(f"stopped: {len(store)} trials are in {kept}, and the same command goes on there", err=True)
            raise


def warn_of_one_seed(seeds: Sequence[int]) -> None:
    """Says that a single trial has no interval."""
    if len(seeds) == 1:
        click.echo(
            "one fault seed tells nothing about the spread: give several (--seeds 0-19) for an interval", err=True
        )


def statistics_tables(points: "Sequence[Trials]") -> None:
    """Prints the statistics of each point that has some."""
    from hwfault.cli.common import print_table
    from hwfault.inject.statistics import table

    for point in points:
        if point.statistics:
            named = [f"{key} {value}" for key, value in point.labels.items()]
            rate = [] if point.ber is None else [f"BER {point.ber:g}"]
            click.echo(f"\nat each site, over {len(point.seeds)} trials: {', '.join([*named, *rate])}")
            print_table(*table(point.statistics))
