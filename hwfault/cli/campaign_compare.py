"""`hwfault campaign compare`."""

from pathlib import Path

import click

from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table
from hwfault.cli.paths import OutputFolder

_OUT = OutputFolder("comparison.json", "comparison.csv", "comparison.html", "comparison.svg", "comparison.png")


@click.command("compare", cls=Command, examples=["campaign compare study/clean study/hardened --out study/both"])
@click.argument("first", type=click.Path(path_type=Path, file_okay=False))
@click.argument("second", type=click.Path(path_type=Path, file_okay=False))
@click.option("--out", type=_OUT, help="Folder for the comparison as JSON, CSV, a page and a picture.")
@json_option
def compare(first: Path, second: Path, out: Path | None, as_json: bool) -> None:
    """Say how much more the campaign in SECOND has than that in FIRST, trial by trial under the same faults.

    Both are of one study, of two networks or checkpoints for example: the same questions about the same samples.
    """
    from hwfault.campaigns.compare import names_of
    from hwfault.campaigns.comparison import compare_campaigns
    from hwfault.campaigns.comparison_told import comparison_data, comparison_table, write_comparison
    from hwfault.campaigns.database import FILE, Database
    from hwfault.files import output_folder

    one, two = names_of([first, second])
    with Database(first / FILE, readonly=True) as mine, Database(second / FILE, readonly=True) as theirs:
        found = compare_campaigns(mine, theirs, (one, two))
    names = [] if out is None else write_comparison(output_folder(out), found)
    if as_json:
        print_json(comparison_data(found))
        return
    for name, subject in zip(found.names, found.subjects, strict=True):
        click.echo(f"{name}: {subject}")
    print_table(*comparison_table(found))
    for task, why in found.left_out:
        click.echo(f"{task}: not compared, {why}")
    for covers in sorted({each.sdc_difference.covers for each in found.compared}):
        click.echo(f"differences are {two} less {one}; each interval by itself; {covers}")
    if names:
        click.echo(f"in {out}: {', '.join(names)}")
