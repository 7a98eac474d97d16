"""`hwfault campaign harden`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.campaign_run import trust_options
from hwfault.cli.common import json_option, print_json, print_table, progress
from hwfault.cli.paths import Command

if TYPE_CHECKING:
    from hwfault.campaigns.hardening.advice import Advice, Plan
    from hwfault.campaigns.hardening.proof import Tried
    from hwfault.campaigns.measurement import Trust

_MOST = 12


@click.command("harden", cls=Command)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--question", help="The question of single flips to read.  [default: the first of them]")
@click.option("--rate", type=float, help="Flips for each bit in a trial.  [default: the rate of the study's hardening]")
@click.option("--require", multiple=True, help='What is required, e.g. "sdc < 1e-5".  [default: the study\'s]')
@click.option("--verify", is_flag=True, help="Try the plan and the first three measures by trials, seed by seed.")
@click.option("--trials", type=click.IntRange(1), default=100, show_default=True, help="How many trials for --verify.")
@trust_options
@json_option
def harden(
    folder: Path,
    question: str | None,
    rate: float | None,
    require: tuple[str, ...],
    verify: bool,
    trials: int,
    trust: "Trust",
    as_json: bool,
) -> None:
    """Say what to protect in the network of the campaign in FOLDER, from its single flips, and what it costs.

    Leaves hardening.json, hardening.yaml (the cheapest plan's faults, as --faults takes them) and a picture there.
    """
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.hardening.written import advise_from, write_advice
    from hwfault.campaigns.kept import kept_tasks

    with Database(folder / FILE, readonly=True) as database:
        tasks = kept_tasks(database)
        harm, asked, advice = advise_from(database, tasks, question, rate, require)
        tried: list[Tried] = []
        if verify:
            tried = _try(folder, tasks[0].study, trust, harm, asked, advice, trials)
        names = write_advice(folder, database, harm, advice, tried)
    if as_json:
        print_json(advice.to_data() | {"tried": [one.to_data() for one in tried], "files": names})
        return
    _print(advice)
    if tried:
        _print_tried(tried)
    click.echo(f"in {folder}: {', '.join(names)}")


def _try(
    folder: Path, study: Any, trust: "Trust", harm: Any, asked: Any, advice: "Advice", trials: int
) -> "list[Tried]":
    from hwfault.campaigns.hardening.proof import plans_to_try, try_plans
    from hwfault.errors import HwfaultError

    if asked.rate is None:
        raise HwfaultError("trials need a rate: give --rate, or hardening: {rate: ...} in the study")
    plans = plans_to_try(advice, harm, asked.costs)
    widths = {site.name: site.width for site in harm.sites}
    with progress() as begin:
        advance = begin("trying measures", len(plans) * -(-trials // 16))
        return try_plans(folder, study, trust, plans, widths, asked.rate, trials, advance)


def _print(advice: "Advice") -> None:
    from hwfault.campaigns.hardening.advice import NOT_ASSESSED

    click.echo(f"{advice.question}: {advice.basis}")
    columns = ["measure", "on", "SDC removed, one flip", "of all", "DUE added", "extra bytes", "energy"]
    rows = []
    for one in advice.worth[:_MOST]:
        share = "-" if one.share_removed is None else f"{one.share_removed:.1%}"
        numbers = [f"{one.removed:.3g}", share, f"{one.due:.3g}", f"{one.extra_bytes:,.6g}", f"{one.energy:+.2%}"]
        rows.append([one.measure, one.site, *numbers])
    print_table(columns, rows)
    click.echo(_told("without measures", advice.baseline))
    if advice.best is not None:
        click.echo(_told("the cheapest plan", advice.best))
        for measure in advice.best.measures:
            if measure.kind != "none":
                click.echo(f"  {measure.site}: {measure.name}")
        click.echo(f"  price {advice.price:,.6g}, no plan below {advice.bound:,.6g}")
    click.echo(advice.why)
    for note in advice.notes:
        click.echo(note)
    for name, why in NOT_ASSESSED:
        click.echo(f"not told here: {name}: {why}")


def _told(what: str, plan: "Plan") -> str:
    from hwfault.campaigns.words import cell

    at = "" if plan.expected_sdc is None else f", {plan.expected_sdc:.3g} at the rate"
    price = f"{plan.memory - 1:.2%} more memory, {plan.energy - 1:.2%} more energy"
    return f"{what}: SDC of one flip {cell(plan.sdc)}{at}; DUE {plan.due:.3g}; {price}"


def _print_tried(tried: "list[Tried]") -> None:
    from hwfault.campaigns.words import cell

    rows = [[one.told, f"{one.trials:,}", cell(one.sdc), cell(one.due), cell(one.removed)] for one in tried]
    print_table(["tried", "trials", "SDC", "DUE", "SDC removed, by seed"], rows)
