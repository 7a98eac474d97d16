"""`hwfault campaign status`, `report` and `merge`."""

from pathlib import Path

import click

from hwfault.cli.campaign_run import _FOLDER, print_figures
from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table
from hwfault.cli.paths import OutputFile


@click.command("status", cls=Command, examples=["campaign status study"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def status(folder: Path, as_json: bool) -> None:
    """Print how far the campaign in FOLDER is, also while it runs."""
    from hwfault.campaigns.by_class import most_harmed
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.kept import kept_tasks
    from hwfault.campaigns.nesting.kept import kept_turns
    from hwfault.campaigns.nesting.told import turns_table

    with Database(folder / FILE, readonly=True) as database:
        tasks = kept_tasks(database)
        found = [one.progress(database) for one in tasks]
        figures = [figure for one in tasks if (figure := one.figure(database)) is not None]
        turns = kept_turns(database)
    if as_json:
        print_json([one._asdict() for one in found])
        return
    columns = ["task", "trials", "failed", "looks", "state"]
    print_table(columns, [[one.name, f"{one.trials:,}", f"{one.failed:,}", one.looks, one.state] for one in found])
    for one in found:
        for why in one.failures:
            click.echo(f"{one.name}: {why}")
    if turns:
        print_table(*turns_table(turns))
    for figure in figures:
        told = most_harmed(figure)
        if told is not None:
            click.echo(f"{figure.name}: {told}")


@click.command("report", cls=Command, examples=["campaign report study"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Print what the campaign in FOLDER found, and write report.html, its pictures and tables there anew."""
    from hwfault.campaigns.about import read_about
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.hardening.written import advise_again
    from hwfault.campaigns.kept import kept_tasks
    from hwfault.campaigns.nesting.kept import kept_turns
    from hwfault.campaigns.page.page import write_page
    from hwfault.campaigns.report_table import whole_data, write_results

    with Database(folder / FILE, readonly=True) as database:
        figures = [figure for one in kept_tasks(database) if (figure := one.figure(database)) is not None]
        turns = kept_turns(database)
        about = read_about(database)
        write_results(folder, figures, turns)
        write_page(folder, database, advise_again(folder, database))
    if as_json:
        print_json(whole_data(figures, turns))
        return
    print_figures(figures, turns, {} if about is None else about.not_nested)


@click.command("merge", cls=Command, examples=["campaign merge study/1 study/2 --out study/all"])
@click.argument("folders", type=click.Path(path_type=Path, file_okay=False), nargs=-1, required=True)
@click.option("--out", type=_FOLDER, required=True, help="Folder for all trials; it may hold some already.")
def merge(folders: tuple[Path, ...], out: Path) -> None:
    """Put the trials of the campaigns in FOLDERS together in the folder of --out."""
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.kept import merge_into
    from hwfault.files import output_folder
    from hwfault.locks import locked_folder

    folder = output_folder(out)
    with locked_folder(folder), Database(folder / FILE) as into:
        for one in folders:
            with Database(one / FILE, readonly=True) as other:
                new = merge_into(into, other)
            click.echo(f"{one}: {new:,} trials that were new")


@click.command("export", cls=Command, examples=["campaign export study --out trials.csv"])
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--out",
    type=OutputFile(".csv", ".parquet", what="trials"),
    required=True,
    help="A .csv or .parquet file (which takes hwfault[parquet]).",
)
def export(folder: Path, out: Path) -> None:
    """Write every trial of the campaign in FOLDER as a line of a .csv or .parquet file."""
    from hwfault.campaigns.database import FILE, Database
    from hwfault.campaigns.tables_out import write_trials

    with Database(folder / FILE, readonly=True) as database:
        count = write_trials(database, out)
    click.echo(f"{out}: {count:,} trials")
