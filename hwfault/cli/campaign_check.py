"""`hwfault campaign verify` and `explain`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.campaign_run import trust_options
from hwfault.cli.common import json_option, print_json, print_table, progress
from hwfault.cli.paths import Command

if TYPE_CHECKING:
    from hwfault.campaigns.measurement import Trust

_DIFFERS = 3


@click.command("verify", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--fraction",
    type=click.FloatRange(min=0, max=1, min_open=True),
    default=0.01,
    show_default=True,
    help="The share of each task's trials to run anew; at least one.",
)
@trust_options
@json_option
def verify(folder: Path, fraction: float, trust: "Trust", as_json: bool) -> None:
    """Run a part of a campaign's trials anew, the slow way, and say which answers differ (then the exit code is 3)."""
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.measurement import Measurement
    from hwfault.campaigns.study.records import kept_study
    from hwfault.campaigns.verify import verify as run

    with Database(folder / FILE, readonly=True) as database, progress() as begin:
        study = kept_study(database.said("study"), str(folder))
        measurement = Measurement(study, trust)
        advance = begin("verifying", len(measurement.tasks))
        found = run(measurement, database, fraction, lambda _name, done, of: advance() if done == of else None)
    if as_json:
        print_json([one._asdict() for one in found])
    else:
        rows = [[one.name, f"{one.trials:,}", f"{one.again:,}", f"{len(one.differ):,}"] for one in found]
        print_table(["task", "trials", "run anew", "differ"], rows)
        for one in found:
            if one.differ:
                click.echo(f"{one.name}: other answers under the keys {', '.join(map(str, one.differ[:8]))}")
    if any(one.differ for one in found):
        click.get_current_context().exit(_DIFFERS)
