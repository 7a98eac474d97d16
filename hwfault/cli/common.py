"""Options and output that several commands share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hwfault.errors import HwfaultError
from hwfault.profiles.models import BitFlips, FaultModel, load_faults
from hwfault.stream.check import check_seed

if TYPE_CHECKING:
    from hwfault.plan import FaultPlan, Site

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of a table.")


class Seeds(click.ParamType[Any]):
    """Fault seeds as `0-19`, `1,2,5`, or one number."""

    name = "seeds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            seeds = tuple(seed for part in str(value).split(",") for seed in _span(part))
        except (ValueError, HwfaultError) as error:
            self.fail(f"{value!r} names no seeds: {error}; expected e.g. 7, 0-19 or 1,2,5", param, ctx)
        return seeds


def _span(part: str) -> range:
    first, _, last = part.partition("-")
    span = range(check_seed(int(first)), check_seed(int(last or first)) + 1)
    if not 0 < len(span) <= 1_000_000:
        raise ValueError("a range holds 1 to 1000000 seeds")
    return span


class Rates(click.ParamType[Any]):
    """Bit error rates as `0,0.001,0.03`."""

    name = "rates"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of rates, expected e.g. 0,0.001,0.03", param, ctx)


def fault_options(command: F) -> F:
    """Adds --faults, --ber and --select, which `given_faults` reads."""
    options = [
        click.option("--faults", "faults_file", type=click.Path(path_type=Path), help="YAML file, a `faults:` list."),
        click.option("--ber", type=float, help="Symmetric bit errors with this probability (0.03 is 3 %)."),
        click.option("--select", default=None, help="With --ber: the sites it strikes, a glob on names.  [default: *]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def given_faults(faults_file: Path | None, ber: float | None, select: str | None) -> tuple[FaultModel, ...]:
    """The faults that the options name; empty if none does."""
    if faults_file is not None and ber is not None:
        raise click.UsageError("--faults and --ber were both given, expected one of them")
    if select is not None and ber is None:
        raise click.UsageError("--select goes with --ber; in a YAML file each fault has its `sites:`")
    if faults_file is not None:
        return load_faults(faults_file)
    return () if ber is None else (BitFlips(probability=ber, sites=select or "*"),)


def given_plan(sites: "Sequence[Site]", plan_file: Path | None, faults: Sequence[FaultModel]) -> "FaultPlan | None":
    """The plan of --plan, or of the faults resolved against the sites; None if neither is given."""
    from hwfault.plan import FaultPlan, resolve

    if plan_file is not None and faults:
        raise click.UsageError("a plan and faults were both given, expected one of them")
    if plan_file is not None:
        return FaultPlan.load(plan_file)
    return resolve(sites, faults) if faults else None


def print_json(data: Any) -> None:
    """Prints data as JSON on stdout."""
    click.echo(json.dumps(data, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their columns, as wide as they need to be, also where stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    Console(width=max(console.width, 160) if not console.is_terminal else None, markup=False).print(table)
