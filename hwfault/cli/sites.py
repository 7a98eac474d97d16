"""`hwfault sites`: where a network or graph holds integers that faults can strike."""

from typing import TYPE_CHECKING

import click

from hwfault.cli.command import Command
from hwfault.cli.common import json_option, print_json, print_table
from hwfault.cli.examples import Shown, example_options
from hwfault.cli.runs import Trusted, run_options

if TYPE_CHECKING:
    from hwfault.program.processes import Site


@click.command("sites", cls=Command, examples=["sites run", "sites g.onnx", "sites mycode:Network --example x.npy"])
@click.argument("source")
@run_options
@example_options
@json_option
def command(source: str, trusted: Trusted, shown: Shown, as_json: bool) -> None:
    """List the injection sites of SOURCE: a network (digits_cnn, module:function), a run or checkpoint, or a graph.

    Shapes are those of one sample; an activation's is known where data, --example or the graph tells it. A graph may be
    anybody's: QONNX of Brevitas or QKeras, what qonnx's and FINN's transformations made of it, or QDQ and QOperator
    graphs. Where the samples do not lie along axis 0, a column says where: along which axis, with how many rows for
    each, and how many of these lie together.

    Quantizers and accumulators that cannot be struck follow with the reason, and what is worth knowing of the sites.
    """
    from hwfault.program.notes import EXACT, notes_on

    found = trusted.sites(source, shown)
    notes = dict(found.notes)
    for name, note in notes_on(found).items():
        if EXACT not in notes.get(name, ""):
            notes[name] = f"{notes[name]}; {note}" if name in notes else note
    if as_json:
        records = [site.model_dump(mode="json", exclude=_unsaid(site)) for site in found]
        for record in records:
            if record["name"] in notes:
                record["note"] = notes[record["name"]]
        print_json({"sites": records, "obstacles": found.obstacles, "notes": notes})
        return
    rows = [
        [s.name, s.kind, s.bit_width, "signed" if s.signed else "unsigned", s.layer, _shape(s.shape)] for s in found
    ]
    columns = ["site", "kind", "bits", "codes", "layer", "shape"]
    if any(site.batch is not None for site in found):  # a column that few networks need
        columns.append("batch")
        rows = [[*row, _batch(site)] for row, site in zip(rows, found, strict=True)]
    print_table(columns, rows)
    for site in found:
        for alias in site.aliases or ():
            click.echo(f"{alias}: the same memory as {site.name}")
    for name, note in notes.items():
        click.echo(f"{name}: {note}")
    if found.obstacles:
        click.echo(f"\n{len(found.obstacles)} no sites, which no fault strikes:")
    for name, why in found.obstacles.items():
        click.echo(f"  {name}: {why}")


def _unsaid(site: "Site") -> set[str]:
    """The fields that say nothing of a site."""
    return {key for key in _RARE if getattr(site, key) is None} | (set() if site.weights else _OF_SUMS)


_RARE = {"batch", "runs", "aliases"}
"""What few sites have."""
_OF_SUMS = {"source", "weights", "worst_case"}
"""What only accumulators have."""


def _shape(shape: tuple[int, ...] | None) -> str:
    return "?" if shape is None else " x ".join(map(str, shape)) or "scalar"


def _batch(site: "Site") -> str:
    """Where the samples lie, in few words; nothing for axis 0 with one row each."""
    if site.batch is None:
        return ""
    axis, inner, rows = site.batch.axis, site.batch.inner, site.batch.rows
    together = "" if inner == rows else f" by {inner}"
    return f"axis {axis}" + (f", {rows} rows{together}" if rows > 1 else "")
