"""Options and output that several commands share."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import QUIET, loudness
from hwfault.cli.door import escaped_streams, unescaped
from hwfault.cli.fault_options import Given
from hwfault.errors import HwfaultError
from hwfault.stream.check import SAMPLES, check_seed
from hwfault.terminal import shown

SAMPLE_NUMBER = click.IntRange(0, SAMPLES - 1)

if TYPE_CHECKING:
    from hwfault.plan.fault_plan import FaultPlan
    from hwfault.program.processes import Site

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
        if len(set(seeds)) < len(seeds):
            self.fail(f"{value!r} names a seed twice, expected each once: equal seeds give equal trials", param, ctx)
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


def seeds_option(default: str, each: str) -> Callable[..., Any]:
    """The option --seeds, whose help says what there is of each."""
    return click.option("--seeds", type=Seeds(), default=default, show_default=True, help=f"Fault seeds: {each}.")


def batch_size_option(default: int) -> Callable[..., Any]:
    """The option --batch-size."""
    return click.option("--batch-size", type=click.IntRange(min=1), default=default, show_default=True)


def given_plan(sites: "Sequence[Site]", plan_file: Path | None, given: Given, device: int = 0) -> "FaultPlan | None":
    """The plan of --plan, or of the faults given, of a device, resolved against the sites; None if neither is given."""
    from hwfault.plan.fault_plan import FaultPlan, resolve

    faults = given.faults
    if plan_file is not None and faults:
        raise click.UsageError("a plan and faults were both given, expected one of them")
    if plan_file is not None:
        return FaultPlan.load(plan_file)
    return resolve(sites, faults, device=device, files=given.files) if faults else None


def check_obstacles(sites: "Sequence[Site]", given: Given, *, allowed: bool) -> None:
    """Raises HwfaultError where some of what the faults select are no sites, unless that is allowed.

    Where all of it is none, nothing is raised here: resolving the faults tells why.
    """
    from hwfault.laws.models import bind
    from hwfault.laws.obstacles import describe_obstacles, selected_obstacles
    from hwfault.program.selectors import chosen

    bound = bind(given.faults, given.files)
    obstacles = selected_obstacles(sites, bound)
    if not allowed and obstacles and any(chosen(sites, one.selectors) for one in bound):
        named = describe_obstacles(obstacles)
        raise HwfaultError(
            f"{len(obstacles)} of what the faults select are no sites: {named}. Strike the others only with "
            "--allow-obstacles, or select what you mean (--select)"
        )


def struck_sites(plan: "FaultPlan") -> str:
    """At how many sites a plan's faults can strike, and how many of them are expected; for people."""
    from hwfault.plan.expected import expected_faults

    found = expected_faults(plan)
    if not plan.sites:
        return f"no faults, plan {plan.digest[:12]}"
    if found.nothing:
        return f"NO faults, plan {plan.digest[:12]}: {found}"
    idle = f" of {len(plan.sites)}" if found.idle else ""
    return f"faults at {len(plan.sites) - len(found.idle)}{idle} sites, plan {plan.digest[:12]}; {found}"


def print_json(data: Any) -> None:
    """Prints data as JSON on stdout."""
    print_json_text(json.dumps(data, indent=1))


def print_json_text(text: str) -> None:
    """Prints JSON that is ASCII; the one control character that JSON leaves as it is is written in JSON's own way."""
    click.echo(text.rstrip("\n").replace("\x7f", "\\u007f"))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints rows under their columns, as wide as they need to be, also where stdout is not a terminal."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    titles = [Text(shown(column, one_line=True)) for column in columns]
    table = Table(*map(Column, titles), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(shown(str(cell), one_line=True)) for cell in row))
    stream = unescaped(sys.stdout)
    console = Console(file=stream)
    width = max(console.width, 160) if not console.is_terminal else None
    Console(file=stream, width=width, markup=False).print(table)


@contextmanager
def progress(*, visible: bool = True) -> Iterator[Callable[[str, int], Callable[[], object]]]:
    """A display on stderr, if it is to be shown and --quiet was not given.

    `begin(what, steps)` adds a line and answers with the function to call after each step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(file=unescaped(sys.stderr))
    shown_at_all = visible and loudness() != QUIET
    # the display has streams of its own in their place, into which others may write meanwhile
    with Progress(*columns, console=console, disable=not shown_at_all) as display, escaped_streams():

        def begin(what: str, steps: int) -> Callable[[], object]:
            task = display.add_task(shown(what, one_line=True), total=steps)
            return lambda: display.advance(task)

        yield begin
