"""`hwfault campaign verify` and `explain`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwfault.cli.campaign_run import trust_options
from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from hwfault.campaigns.explain import Explanation, SiteStory
    from hwfault.campaigns.measurement import Trust

_DIFFERS = 3
_TOLD = 4
"""How many faults of a site are told one by one."""


@click.command("verify", cls=Command, examples=["campaign verify study --fraction 0.01"])
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
    from hwfault.campaigns.kept import study_of
    from hwfault.campaigns.measurement import Measurement
    from hwfault.campaigns.verify import verify as run

    with Database(folder / FILE, readonly=True) as database, progress() as begin:
        study = study_of(database)
        measurement = Measurement(study, trust)
        measurement.weighing.recall(database)
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


@click.command("explain", cls=Command, examples=["campaign explain study critical 17 42"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("task")
@click.argument("seed", type=click.IntRange(0, (1 << 64) - 1))
@click.argument("sample", type=click.IntRange(0), required=False)
@trust_options
@json_option
def explain(folder: Path, task: str, seed: int, sample: int | None, trust: "Trust", as_json: bool) -> None:
    """Replay one trial of the campaign in FOLDER on one sample, told site by site.

    TASK is a task's name as `status` prints it, or its number there. SEED is the trial's seed; of single flips that are
    all tried the cell's number, and of drawn ones the trial's, which has a SAMPLE of its own, so that it is left out.
    Where the answer is not the one in the store, the exit code is 3.
    """
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.explain import explain as run
    from hwfault.campaigns.kept import study_of
    from hwfault.campaigns.measurement import Measurement

    with Database(folder / FILE, readonly=True) as database:
        study = study_of(database)
        measurement = Measurement(study, trust)
        measurement.weighing.recall(database)
        found = run(measurement, database, task, seed, sample)
    if as_json:
        print_json(found.to_data())
    else:
        _print_explanation(found)
    if not found.agrees:
        stored = _outcomes(found.stored or {})
        click.echo(f"the store has another answer: {stored}; `hwfault campaign verify` looks for more", err=True)
        click.get_current_context().exit(_DIFFERS)


def _print_explanation(found: "Explanation") -> None:
    label = "" if found.label is None else f" (label {found.label})"
    click.echo(f"{found.task}, trial {found.key}, sample {found.sample}{label}: {found.verdict}")
    if found.golden is not None:
        click.echo(f"top-1: {found.golden} golden, {found.answer} under faults")
    click.echo(_outcomes(found.answers))
    if found.note is not None:
        click.echo(found.note)
    columns = ["site", "faults", "differ before", "changed here", "differ after", "of words", "largest change", ""]
    print_table(columns, [_row_of(site) for site in found.sites])
    for site in found.sites:
        for hit in site.faults[:_TOLD]:
            place = f"word {hit.word}" if hit.bit is None else f"word {hit.word} bit {hit.bit}"
            address = "" if hit.address is None else f" at {hit.address}"
            click.echo(f"{site.name}: {place}{address}: {hit.effect}")
        if len(site.faults) > _TOLD:
            click.echo(f"{site.name}: and {len(site.faults) - _TOLD:,} faults more (--json lists all)")
    click.echo(_ending(found))


def _row_of(site: "SiteStory") -> list[str]:
    numbers = (len(site.faults), site.arrived, site.own, site.left, site.words, site.largest)
    return [site.name, *("-" if number is None else f"{number:,}" for number in numbers), site.state]


def _ending(found: "Explanation") -> str:
    """Where it began, and what became of it."""
    if found.began is None and not found.reached:
        return "no code and no output differs from the golden run"
    began = "the outputs differ" if found.began is None else f"began at {found.began}"
    if not found.reached:
        return f"{began}; masked at {found.masked}: from there on everything is golden again"
    if found.largest_output_change is None:
        return f"{began}; reached the outputs, one of which is no number any more"
    return f"{began}; reached the outputs, which differ by at most {found.largest_output_change:.4g}"


def _outcomes(answers: Mapping[str, bool | float]) -> str:
    """The outcomes of one sample, in a few words."""
    told = []
    for name, value in answers.items():
        if isinstance(value, bool):
            told.append(f"{name}: {'yes' if value else 'no'}")
        else:
            told.append(f"{name}: {value:.6g}")
    return ", ".join(told)
