"""`hwfault compare`: trained networks side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.command import Command
from hwfault.cli.common import Rates, json_option, print_json, print_table, progress
from hwfault.cli.measuring import Begin, Measuring, measure, measuring_options, print_legend, warn_of_one_seed
from hwfault.cli.runs import Trusted, run_options

if TYPE_CHECKING:
    from hwfault.campaigns.campaign import Campaign
    from hwfault.campaigns.compare import Compared
    from hwfault.campaigns.points import Point
    from hwfault.campaigns.trials import Trials
    from hwfault.train import TrainConfig


@click.command("compare", cls=Command, examples=["compare runs/clean runs/faulty --rates 0,0.01,0.03 --out comparison"])
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@run_options
@click.option("--rates", type=Rates(), default="0,0.001,0.003,0.01,0.03", show_default=True, help="Bit error rates.")
@click.option("--select", default="*", show_default=True, help="The sites that bit errors strike, a glob on names.")
@measuring_options
@json_option
def command(
    runs: tuple[Path, ...], trusted: Trusted, rates: tuple[float, ...], select: str, how: Measuring, as_json: bool
) -> None:
    """Accuracy of each RUN (a folder of `hwfault train`, or a checkpoint) against the bit error rate.

    Every run sees the same fault seeds. The difference to the first run is that of the same seeds, in percentage
    points, with its 95 % interval: Student's t of the differences, or with few of them that differ a bound. --network
    and --transform are used for those runs that need code of one's own.
    """
    from hwfault.campaigns.campaign import Campaign
    from hwfault.campaigns.compare import compared, names_of, otherwise
    from hwfault.campaigns.points import at_rates

    folder = how.folder()
    points = at_rates(rates, select)
    configs: dict[str, TrainConfig] = {}
    campaigns: dict[str, Campaign] = {}
    for name, run in zip(names_of(runs), runs, strict=True):
        model, configs[name], loaded = trusted.needed_by(run).load(run)
        on = how.split_of(loaded, configs[name])
        said = {"network": str(run), "samples": {"split": how.split}}
        campaigns[name] = Campaign(model, on, batch_size=how.batch_size, workers=how.workers, said=said)
        for point in points:
            campaigns[name].plan(point)  # what does not fit one of the runs is told before the first trial
    seen = {name: f"{trusted.data or config.data} {how.split}" for name, config in configs.items()}
    with progress() as begin:
        trials = {name: _trials(name, c, points, how.seeds, begin, folder) for name, c in campaigns.items()}
    table = compared({name: (seen[name], points) for name, points in trials.items()})
    changed = otherwise(configs)
    if folder is not None:
        _write(folder, table, changed)
    if as_json:
        print_json({"runs": [run.to_data() for run in table], "configurations": changed})
    else:
        _print(table, changed)
    warn_of_one_seed(how.seeds)


def _trials(
    name: str,
    campaign: "Campaign",
    points: "Sequence[Point]",
    seeds: Sequence[int],
    begin: Begin,
    folder: Path | None,
) -> "list[Trials]":
    from hwfault.campaigns.one_question import Kept

    kept = None
    if folder is not None:
        of = name.replace("/", "-")
        kept = Kept(folder / f"campaign-{of}.sqlite", folder / f"trials-{of}.jsonl")
    return measure(campaign, points, seeds, what=name, begin=begin, kept=kept)


def _write(folder: Path, table: "Sequence[Compared]", changed: dict[str, tuple[str, ...]]) -> None:
    from hwfault.campaigns.picture import draw_accuracy
    from hwfault.campaigns.report import write_json
    from hwfault.campaigns.tables import write_table

    write_table(folder / "results.csv", [row for run in table for row in run.rows()])
    write_json(folder / "results.json", {"runs": [run.to_data() for run in table], "configurations": changed})
    data = {run.data for run in table}
    curves = {run.name if len(data) == 1 else f"{run.name} ({run.data})": run.points for run in table}
    draw_accuracy(folder / "accuracy.png", curves, title=", ".join(data) if len(data) == 1 else "")


def _print(table: "Sequence[Compared]", changed: dict[str, tuple[str, ...]]) -> None:
    from hwfault.campaigns.words import accuracy, difference, percent

    first, *others = table
    rates = [f"{point.ber:g}" for point in first.points]
    facts = [["data", *(run.data for run in table)], ["no faults", *(percent(run.golden_accuracy) for run in table)]]
    columns = [[accuracy(point.mean, point.told) for point in run.points] for run in table]
    print_table(
        ["accuracy at BER", *(run.name for run in table)], [*facts, *map(list, zip(rates, *columns, strict=True))]
    )
    if others:
        click.echo(f"\nmore accurate than {first.name}, seed by seed, in percentage points, with 95 % interval:")
        columns = [[difference(d.mean, d.told) for d in run.beyond] for run in others]
        print_table(["BER", *(run.name for run in others)], list(map(list, zip(rates, *columns, strict=True))))
    told = [point.told for run in table for point in run.points] + [d.told for run in others for d in run.beyond]
    print_legend(told)
    if changed:
        click.echo("\nwhat the runs' configurations have otherwise:")
        rows = [[key, *map(_cut, values)] for key, values in changed.items()]
        print_table(["key", *(run.name for run in table)], rows)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
