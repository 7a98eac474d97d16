"""`hwfault campaign plan`, `run` and `resume`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.campaign_progress import shown_progress
from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table
from hwfault.cli.door import Stopped
from hwfault.cli.paths import OutputFolder
from hwfault.cli.runs import Trusted, run_options

if TYPE_CHECKING:
    from hwfault.campaigns.figures import Figure
    from hwfault.campaigns.measurement import Measurement, Trust
    from hwfault.campaigns.nesting.figures import TurnFigure
    from hwfault.campaigns.study.records import Study

_FOLDER = OutputFolder("campaign.sqlite", "results.csv", "results.json", "report.html")


class Workers(click.ParamType[Any]):
    """A number of processes, `ray`, or the address of a cluster, ray://..."""

    name = "workers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text == "ray" or text.startswith("ray://"):
            return text
        if not text.isdecimal() or not int(text):
            self.fail(f"{value!r} is no number of processes, expected e.g. 2, ray or ray://host:10001", param, ctx)
        return int(text)


class Shard(click.ParamType[Any]):
    """A part of all trials, as `3/8`."""

    name = "part/of"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        part, _, of = str(value).partition("/")
        if not (part.isdecimal() and of.isdecimal() and 1 <= int(part) <= int(of)):
            self.fail(f"{value!r} is no part, expected e.g. 3/8: the third of eight", param, ctx)
        return int(part) - 1, int(of)


_OPTIONS = (
    click.option("--workers", type=Workers(), help="Processes, ray, or ray://HOST:PORT.  [default: the study's]"),
    click.option(
        "--criterion", "criteria", multiple=True, help="An outcome of the study that is code which you trust."
    ),
)


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say what the user vouches for; the command is called with them as `trust`."""

    @run_options
    @wraps(command)
    def with_trust(trusted: Trusted, criteria: tuple[str, ...], **rest: Any) -> Any:
        from hwfault.campaigns.measurement import Trust

        return command(trust=Trust(trusted, criteria), **rest)

    return _OPTIONS[1](with_trust)


@click.command("run", cls=Command, examples=["campaign run study.yaml --out study"])
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--out", type=_FOLDER, required=True, help="Folder for the trials, to go on from, and the results.")
@_OPTIONS[0]
@click.option("--shard", type=Shard(), help="Only this part of the trials, e.g. 3/8; see `hwfault campaign merge`.")
@trust_options
@json_option
def run(
    study: Path, out: Path, workers: int | str | None, shard: tuple[int, int] | None, trust: "Trust", as_json: bool
) -> None:
    """Answer the questions of STUDY, a YAML file; every trial is kept in the folder of --out.

    The same command goes on where it was stopped, and a study that has grown runs only what is new.

    Machines without a cluster share a study by --shard 1/3, 2/3 and 3/3, each in a folder of its own. Each part takes
    its own trials for a picture of all, and ends where as many of all parts would be enough. `hwfault campaign merge`
    puts the folders together; `hwfault campaign resume` then decides as one run would, and runs what may be missing.
    """
    from hwfault.campaigns.study.records import read_study

    _run(read_study(study), out, workers, shard, trust, as_json)


@click.command("resume", cls=Command, examples=["campaign resume study"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@_OPTIONS[0]
@click.option("--shard", type=Shard(), help="Only this part of the trials, e.g. 3/8.")
@trust_options
@json_option
def resume(
    folder: Path, workers: int | str | None, shard: tuple[int, int] | None, trust: "Trust", as_json: bool
) -> None:
    """Go on with the campaign in FOLDER, as it was begun."""
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.kept import study_of

    with Database(folder / FILE, readonly=True) as database:
        study = study_of(database)
    _run(study, folder, workers, shard, trust, as_json)


def _run(
    study: "Study",
    out: Path,
    workers: int | str | None,
    shard: tuple[int, int] | None,
    trust: "Trust",
    as_json: bool,
) -> None:
    from hwfault.campaigns.chosen_workers import make_workers
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.driver import Driver, check_rules
    from hwfault.campaigns.measurement import Measurement
    from hwfault.campaigns.nesting.kept import kept_turns
    from hwfault.campaigns.page.page import REPORT, write_page
    from hwfault.campaigns.report_table import whole_data, write_results
    from hwfault.campaigns.workers import one_thread
    from hwfault.files import output_folder
    from hwfault.locks import locked_folder

    folder = output_folder(out)
    with locked_folder(folder), Database(folder / FILE) as database:
        measurement = Measurement(study, trust)
        measurement.weighing.recall(database)
        # one thread here as in every worker: sums of floats depend on how many there are
        with one_thread(), _told_how_to_go_on(folder / FILE, out):
            check_rules(measurement.tasks)
            measurement.claim(database)
            hands = make_workers(study, trust, measurement, study.workers if workers is None else workers)
            try:
                with shown_progress() as progress:
                    figures = Driver(measurement, database, hands, progress, shard or (0, 1)).run()
            finally:
                hands.close()
        turns = kept_turns(database)
        write_results(folder, figures, turns)
        write_page(folder, database)
    if as_json:
        print_json(whole_data(figures, turns))
    else:
        print_figures(figures, turns, measurement.not_nested)
        click.echo(f"the page: {folder / REPORT}")


def print_figures(figures: "Sequence[Figure]", turns: "Sequence[TurnFigure]", not_nested: Mapping[str, str]) -> None:
    """Prints what a campaign found, and why each task ended."""
    from hwfault.campaigns.by_class import most_harmed
    from hwfault.campaigns.nesting.told import not_nested_told, turns_table
    from hwfault.campaigns.report_table import table

    if figures or not turns:
        print_table(*table(figures))
    if turns:
        print_table(*turns_table(turns))
    told = [(figure.name, figure.why) for figure in figures] + [(figure.name, figure.why) for figure in turns]
    for name, why in told:
        click.echo(f"{name}: {why}")
    for figure in figures:
        harmed = most_harmed(figure)
        if harmed is not None:
            click.echo(f"{figure.name}: {harmed}")
    for line in not_nested_told(not_nested):
        click.echo(line)


@contextmanager
def _told_how_to_go_on(file: Path, out: Path) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, Stopped):
        click.echo(f"stopped: every trial so far is in {file}; `hwfault campaign resume {out}` goes on", err=True)
        raise


@click.command("plan", cls=Command, examples=["campaign plan study.yaml"])
@click.argument("study", type=click.Path(path_type=Path))
@trust_options
@json_option
def plan(study: Path, trust: "Trust", as_json: bool) -> None:
    """Say what STUDY, a YAML file, would take, before anything is kept: a few trials are timed for it."""
    from hwfault.campaigns.forecast import forecast
    from hwfault.campaigns.measurement import Measurement
    from hwfault.campaigns.study.records import read_study

    measurement = Measurement(read_study(study), trust)
    found = forecast(measurement)
    if as_json:
        print_json([one.to_data() for one in found])
        return
    _print_plan(measurement, found)


def _print_plan(measurement: "Measurement", found: Any) -> None:
    from hwfault.campaigns.nesting.told import not_nested_told

    subject = measurement.subject
    kind = "exact" if subject.exact else "not exact to the bit between engines"
    click.echo(f"engine {measurement.engine.name} {measurement.engine.version}; {kind}: {subject.note}")
    columns = ["task", "trials are", "fault space", "trials", "minutes", "MiB on disk"]
    rows = []
    for one in found:
        space = "-" if one.space is None else f"{one.space:,} bits"
        rows.append(
            [one.name, one.way, space, f"{one.least:,} to {one.most:,}", one.minutes_told, f"{one.mebibytes:.2g}"]
        )
    print_table(columns, rows)
    for one in found:
        click.echo(f"{one.name}: {one.why}")
    for line in not_nested_told(measurement.not_nested):
        click.echo(line)
