"""`hwfault campaign harden`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.campaign_run import trust_options
from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from hwfault.campaigns.database import Database
    from hwfault.campaigns.hardening.advice import Advice
    from hwfault.campaigns.hardening.proof import Proof
    from hwfault.campaigns.hardening.verifying import Verified
    from hwfault.campaigns.measurement import Trust

_MOST = 12


@click.command("harden", cls=Command, examples=["campaign harden study --require 'sdc < 1e-4'"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--question", help="The question of single flips to read.  [default: the first of them]")
@click.option("--rate", type=float, help="Flips for each bit in a trial.  [default: the rate of the study's hardening]")
@click.option("--rates-of", metavar="TASK", help="Rates of each site: those of this task's faults, not one for all.")
@click.option("--require", multiple=True, help='What is required, e.g. "sdc < 1e-5".  [default: the study\'s]')
@click.option("--verify", is_flag=True, help="Try plan and measures by trials, seed by seed; kept in the store.")
@click.option("--trials", type=click.IntRange(1), default=100, show_default=True, help="How many trials for --verify.")
@trust_options
@json_option
def harden(
    folder: Path,
    question: str | None,
    rate: float | None,
    rates_of: str | None,
    require: tuple[str, ...],
    verify: bool,
    trials: int,
    trust: "Trust",
    as_json: bool,
) -> None:
    """Say what to protect in the network of the campaign in FOLDER, from its single flips, and what it costs.

    Leaves hardening.json, hardening.yaml (the cheapest plan's faults, as --faults takes them) and a picture there.
    --verify tries the plan, the first measures, activations clipped to the golden run's ranges, and faulty elements
    bypassed, each beside no measure under the same seeds, and words with several flips under check bits.
    """
    from hwfault.campaigns.hardening.kept_proof import keep_proofs, read_proofs
    from hwfault.campaigns.hardening.verifying import proof_of
    from hwfault.campaigns.hardening.written import advise_from, has_flips_to_read, write_advice
    from hwfault.campaigns.kept import kept_tasks

    with _opened(folder, writes=verify) as database:
        tasks = kept_tasks(database)
        read = None
        if has_flips_to_read(tasks) or not verify:
            read = advise_from(database, tasks, question, rate, require, rates_of)
        verified = None
        if verify:
            verified = _verify(folder, tasks[0].study, trust, read, trials, read_proofs(database))
            keep_proofs(database, verified.proofs)
            if read is not None:  # the plan may take what was measured
                read = advise_from(database, tasks, question, rate, require, rates_of)
        names = write_advice(folder, database, read, () if verified is None else verified.comparisons)
        proofs = read_proofs(database)
    now = () if verified is None else verified.proofs
    if as_json:
        own = None if read is None else proof_of(now, read[2])
        data = {} if read is None else read[2].to_data()
        tried = [] if own is None else [one.to_data() for one in own.tried]
        print_json(data | {"tried": tried, "proofs": [one.to_data() for one in proofs], "files": names})
        return
    if read is not None:
        _print(read[2], proofs)
    for proof in now:
        _print_proof(proof)
    click.echo(f"in {folder}: {', '.join(names)}")


@contextmanager
def _opened(folder: Path, *, writes: bool) -> "Iterator[Database]":
    """The store in a folder; to write it takes the lock that a driver has, so that there is one at a time."""
    from hwfault.campaigns.database import FILE, Database
    from hwfault.locks import locked_folder

    with Database(folder / FILE, readonly=True) as database:
        if not writes:
            yield database
            return
    with locked_folder(folder), Database(folder / FILE) as database:
        yield database


def _verify(folder: Path, study: Any, trust: "Trust", read: Any, trials: int, kept: "Sequence[Proof]") -> "Verified":
    from hwfault.campaigns.hardening.verifying import verify

    with progress() as begin:
        return verify(folder, study, trust, read, trials, begin, kept)


def _print(advice: "Advice", proofs: "Sequence[Proof]") -> None:
    from hwfault.campaigns.hardening.section import MEASURE_COLUMNS, measure_row, not_tried, plan_told, prices_told

    click.echo(f"{advice.question}: {advice.basis}")
    print_table([*MEASURE_COLUMNS], [list(measure_row(one)) for one in advice.worth[:_MOST]])
    click.echo(f"without measures: {plan_told(advice.baseline)}")
    if advice.best is not None:
        click.echo(f"the cheapest plan: {plan_told(advice.best)}")
        for one in advice.best.taken:
            click.echo(f"  {one.site}: {one.measure}, {one.gain}")
        for what, told in prices_told(advice):
            click.echo(f"  {what}: {told}")
    click.echo(advice.why)
    for note in advice.notes:
        click.echo(note)
    for name, why in not_tried(proofs):
        click.echo(f"not told here: {name}: {why}")


def _print_proof(proof: "Proof") -> None:
    from hwfault.campaigns.hardening.section import proof_told

    told = proof_told(proof)
    click.echo(f"tried: {told['title']}")
    print_table([*told["tried_columns"]], [list(row) for row in told["tried"]])
    for note in told["notes"]:
        click.echo(note)
    if told["several"]:
        print_table([*told["several_columns"]], [list(row) for row in told["several"]])
