"""`hwfault compare`: trained networks side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.common import (
    Rates,
    batch_size_option,
    data_folder_option,
    data_option,
    json_option,
    load_run,
    network_option,
    print_json,
    print_table,
    progress,
    seeds_option,
    split_of,
    split_option,
    transform_option,
    workers_option,
)
from hwfault.cli.measuring import Begin, measured, warn_of_one_seed

if TYPE_CHECKING:
    from hwfault.campaign import Campaign, Point, Trials
    from hwfault.campaign.compare import Compared
    from hwfault.campaign.trials import Difference
    from hwfault.train import TrainConfig


@click.command("compare")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@network_option
@data_option
@data_folder_option
@transform_option
@split_option
@click.option("--rates", type=Rates(), default="0,0.001,0.003,0.01,0.03", show_default=True, help="Bit error rates.")
@click.option("--select", default="*", show_default=True, help="The sites that bit errors strike, a glob on names.")
@seeds_option
@batch_size_option
@workers_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder for results, picture, and trials to go on from.")
@json_option
def command(
    runs: tuple[Path, ...],
    network: str | None,
    data: str | None,
    data_folder: Path | None,
    transform: str | None,
    split: str,
    rates: tuple[float, ...],
    select: str,
    seeds: tuple[int, ...],
    batch_size: int,
    workers: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Accuracy of each RUN (a folder of `hwfault train`, or a checkpoint) against the bit error rate.

    Every run sees the same fault seeds. The difference to the first run is that of the same seeds, with its 95 %
    interval (paired t). --network and --transform are used for those runs that need code of one's own.
    """
    from hwfault.campaign import Campaign
    from hwfault.campaign.compare import compared, names_of, otherwise
    from hwfault.campaign.points import at_rates
    from hwfault.files import output_folder

    folder = None if out is None else output_folder(out)
    points = at_rates(rates, select)
    configs: dict[str, TrainConfig] = {}
    campaigns: dict[str, Campaign] = {}
    for name, run in zip(names_of(runs), runs, strict=True):
        own = _own_code(run, network=network, transform=transform)
        model, configs[name], loaded = load_run(
            run, own["network"], data, folder=data_folder, transform=own["transform"]
        )
        on = split_of(loaded, configs[name], split)
        campaigns[name] = Campaign(model, on, batch_size=batch_size, workers=workers)
        for point in points:
            campaigns[name].plan(point)  # what does not fit one of the runs is told before the first trial
    seen = {name: f"{data or config.data} {split}" for name, config in configs.items()}
    with progress() as begin:
        found = {name: (seen[name], _trials(name, c, points, seeds, begin, folder)) for name, c in campaigns.items()}
    table, changed = compared(found), otherwise(configs)
    if folder is not None:
        _write(folder, table, changed)
    if as_json:
        print_json({"runs": [run.to_data() for run in table], "configurations": changed})
    else:
        _print(table, changed)
    warn_of_one_seed(seeds)


def _own_code(run: Path, **given: str | None) -> dict[str, str | None]:
    """Those of the code that the user named that the run needs."""
    from hwfault.train import checkpoint
    from hwfault.train.folder import CHECKPOINT
    from hwfault.train.spec import is_code

    config = checkpoint.configuration(run / CHECKPOINT if run.is_dir() else run)
    return {key: spec if is_code(getattr(config, key) or "") else None for key, spec in given.items()}


def _trials(
    name: str,
    campaign: "Campaign",
    points: "Sequence[Point]",
    seeds: Sequence[int],
    begin: Begin,
    folder: Path | None,
) -> "list[Trials]":
    from hwfault.campaign.store import question

    kept = None if folder is None else folder / f"trials-{name.replace('/', '-')}.jsonl"
    why = {} if kept is None else question(campaign, points)
    return measured(campaign, points, seeds, what=name, begin=begin, kept=kept, question=why)


def _write(folder: Path, table: "Sequence[Compared]", changed: dict[str, tuple[str, ...]]) -> None:
    from hwfault.campaign import draw_accuracy
    from hwfault.campaign.evaluate import write_table
    from hwfault.campaign.report import write_json

    write_table(folder / "results.csv", [row for run in table for row in run.rows()])
    write_json(folder / "results.json", {"runs": [run.to_data() for run in table], "configurations": changed})
    data = {run.data for run in table}
    curves = {run.name if len(data) == 1 else f"{run.name} ({run.data})": run.points for run in table}
    draw_accuracy(folder / "accuracy.png", curves, title=", ".join(data) if len(data) == 1 else "")


def _print(table: "Sequence[Compared]", changed: dict[str, tuple[str, ...]]) -> None:
    from hwfault.campaign.report import percent

    first, *others = table
    rates = [f"{point.ber:g}" for point in first.points]
    facts = [["data", *(run.data for run in table)], ["no faults", *(percent(run.golden_accuracy) for run in table)]]
    columns = [[_accuracy(point) for point in run.points] for run in table]
    print_table(
        ["accuracy at BER", *(run.name for run in table)], [*facts, *map(list, zip(rates, *columns, strict=True))]
    )
    if others:
        click.echo(f"\nmore accurate than {first.name}, seed by seed, with 95 % interval:")
        columns = [[_difference(difference) for difference in run.beyond] for run in others]
        print_table(["BER", *(run.name for run in others)], list(map(list, zip(rates, *columns, strict=True))))
    if changed:
        click.echo("\nwhat the runs' configurations have otherwise:")
        rows = [[key, *map(_cut, values)] for key, values in changed.items()]
        print_table(["key", *(run.name for run in table)], rows)


def _accuracy(trials: "Trials") -> str:
    low, high = trials.interval
    return f"{trials.mean:.2%}" + (f" ({low:.2%} to {high:.2%})" if len(trials.seeds) > 1 else "")


def _difference(difference: "Difference") -> str:
    interval = "" if difference.interval is None else " ({:+.2%} to {:+.2%})".format(*difference.interval)
    return f"{difference.mean:+.2%}{interval}"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
