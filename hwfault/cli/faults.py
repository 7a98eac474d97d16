"""`hwfault faults`: the faults of a plan at a site, one by one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.command import Command
from hwfault.cli.common import (
    SAMPLE_NUMBER,
    given_plan,
    json_option,
    print_json,
    print_json_text,
    print_table,
)
from hwfault.cli.examples import Shown, example_options
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import OutputFile
from hwfault.cli.runs import Trusted, run_options
from hwfault.errors import FileError, HwfaultError

if TYPE_CHECKING:
    from hwfault.plan.fault_plan import FaultPlan
    from hwfault.plan.listing import Hit
    from hwfault.program.processes import SitePlan


_HEADER = 1 << 16
"""Bytes that the header of an array may take."""


@dataclass(frozen=True)
class Draw:
    """Which hits are asked for: at a site (None: the plan itself), under a seed, when, and on which codes."""

    name: str | None
    seed: int
    sample: int
    first_sample: int
    step: int
    epoch: int
    words: int | None
    codes: Path | None

    def hits(self, plan: "FaultPlan") -> "list[Hit]":
        """The hits at the site; raises UsageError for a sample of a parameter or a step of anything else."""
        from hwfault.plan.listing import check_when, faults_at

        if self.name is None:
            if self.codes is not None:
                raise click.UsageError("--codes are those of a site; name it with --site")
            return []
        entry = plan.at(self.name)
        try:
            check_when(entry.site, sample=self.sample, step=self.step)
        except HwfaultError as error:
            raise click.UsageError(f"--site {self.name}: {error}") from None
        when = {"sample": self.sample, "first_sample": self.first_sample, "step": self.step, "epoch": self.epoch}
        return faults_at(plan, self.name, seed=self.seed, words=self.words, codes=self._read(entry), **when)

    def _read(self, entry: "SitePlan") -> Any:
        """The site's codes in the file of --codes, None without one."""
        from hwfault.npz import read_arrays
        from hwfault.program.selectors import names_of

        if self.codes is None:
            return None
        names = ("", *names_of(entry.site))  # the array of an .npy file has no name
        words = self.words if entry.site.words is None else entry.site.words
        found = read_arrays(self.codes, names, **({} if words is None else {"largest": 8 * words + _HEADER}))
        if not found:
            raise FileError(
                f"{self.codes}: holds no array named {entry.site.name!r}; expected the codes of the site under its "
                "name, or an .npy file"
            )
        return next(iter(found.values()))

    def describe(self, plan: "FaultPlan") -> str:
        """Which draw it is, for people."""
        from hwfault.program.striking import changes_with

        assert self.name is not None
        entry = plan.at(self.name)
        changes = {changes_with(process, entry.site) for process in entry.processes}
        parts = [f"seed {self.seed}", f"sample {self.sample}"]
        parts += [f"in the batch that begins with sample {self.first_sample}"] if "batch" in changes else []
        parts += [f"step {self.step}"] if self.step else []
        parts += [f"epoch {self.epoch}"] if "epoch" in changes else []
        return ", ".join(parts)


def draw_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which hits are asked for, which the command gets as a `Draw`."""

    @click.option("--site", "name", help="The site's name.  [default: print the plan itself]")
    @click.option("--seed", type=int, default=0, show_default=True)
    @click.option("--sample", type=SAMPLE_NUMBER, default=0, show_default=True, help="Of an activation or input.")
    @click.option(
        "--first-sample",
        type=SAMPLE_NUMBER,
        default=0,
        show_default=True,
        help="Number of the batch's first sample, for faults that change with batches.",
    )
    @click.option(
        "--step",
        type=SAMPLE_NUMBER,
        default=0,
        show_default=True,
        help="A training step, of which weights and biases have faults of their own; 0 in evaluation.",
    )
    @click.option("--epoch", type=SAMPLE_NUMBER, default=0, show_default=True, help="0 in evaluation.")
    @click.option("--words", type=click.IntRange(min=0), help="Words of a sample, where the shape is not known.")
    @click.option(
        "--codes",
        type=click.Path(path_type=Path),
        help="The codes that the site holds before its faults, in an .npy file, or in an .npz file under its name: "
        "only hits that change one are listed.",
    )
    @wraps(command)
    def with_draw(**given: Any) -> Any:
        own = {field.name: given.pop(field.name) for field in fields(Draw)}
        return command(draw=Draw(**own), **given)

    return with_draw


@click.command(
    "faults",
    cls=Command,
    examples=["faults run --ber 0.01", "faults run --ber 0.01 --site features.0.weight_quant --seed 3"],
)
@click.argument("source")
@run_options
@example_options
@fault_options
@draw_options
@click.option("--address", is_flag=True, help="The physical place of each cell beside its word and bit.")
@click.option("--save", type=OutputFile(), help="Write the plan to this JSON file.")
@json_option
def command(
    source: str,
    trusted: Trusted,
    shown: Shown,
    given: Given,
    draw: Draw,
    address: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    """Print the faults that strike one sample of a site, in the order of the fault stream.

    SOURCE is a plan (.json), or a network, run or graph with the faults of --faults or --ber; a graph may carry a plan
    of its own. `effect` says what a hit does. Whether the code is another one then depends for some on what is stored:
    `changes` says so, and --codes tells. Sample I is that of a batch which begins with sample 0, unless --first-sample
    says otherwise.
    """
    from hwfault.plan.listing import with_addresses

    plan = _plan_of(source, trusted, shown, given, draw.seed)
    hits = draw.hits(plan)
    if address and draw.name is not None:
        hits = with_addresses(plan, draw.name, hits)
    if save is not None:
        plan.save(save)
    if draw.name is not None:
        _print_hits(plan, draw, hits, address, as_json)
    elif as_json:
        print_json_text(plan.to_json())
    else:
        click.echo(str(plan))


def _plan_of(source: str, trusted: Trusted, shown: Shown, given: Given, seed: int) -> "FaultPlan":
    """The plan that SOURCE is or carries, or that of the faults on its sites."""
    plan: FaultPlan | None
    if source.endswith(".json"):
        trusted.check_unused(source)
        shown.check_unused(source)
        plan = given_plan([], Path(source), given)
    elif source.endswith(".onnx") and not given.faults:
        from hwfault.graph.edit.carried import plan_of
        from hwfault.graph.run.session import load_model

        trusted.check_unused(source)
        shown.check_unused(source)
        plan = plan_of(load_model(source))
    else:
        plan = given_plan(trusted.sites(source, shown), None, given, seed if given.device is None else given.device)
    if plan is None:
        raise HwfaultError("no faults were named; give --faults FILE, --ber RATE, a plan (.json) or a faulted graph")
    return plan


def _print_hits(plan: "FaultPlan", draw: Draw, hits: "Sequence[Hit]", address: bool, as_json: bool) -> None:
    """Prints the hits at a site as a table with a line below it, or as JSON."""
    from hwfault.plan.expected import expected_faults

    if as_json:
        kept = ("process", "word", "bit", "aux", "effect", *(["address"] if address else []))
        print_json([{key: getattr(hit, key) for key in kept} | _condition(hit) for hit in hits])
        return
    columns = {"fault": "process", "word": "word", "bit": "bit", "aux": "aux", "effect": "effect"}
    columns |= {"address": "address"} if address else {}
    rows = [[_cell(getattr(hit, key)) for key in columns.values()] for hit in hits]
    if any(hit.conditional for hit in hits):
        columns["changes"] = "conditional"
        rows = [
            [*row, "if stored otherwise" if hit.conditional else "yes"] for row, hit in zip(rows, hits, strict=True)
        ]
    print_table(list(columns), rows)
    array = plan.at(draw.name or "").array
    added_up = f"; {array.told}" if array is not None else ""  # which strikes sums on their way, not words
    click.echo(
        f"{len(hits)} faults at {draw.name}, {draw.describe(plan)}{added_up}; {expected_faults(plan, draw.name)}"
    )


def _condition(hit: "Hit") -> dict[str, bool]:
    """That a hit depends on what is stored, as JSON says it of those that do."""
    return {"conditional": True} if hit.conditional else {}


def _cell(value: object) -> object:
    return "-" if value is None else value
