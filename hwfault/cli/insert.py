"""`hwfault insert`: faults put into a QONNX graph, whoever wrote it."""

from pathlib import Path

import click

from hwfault.cli.command import Command
from hwfault.cli.common import check_obstacles, given_plan, json_option, print_json, struck_sites
from hwfault.cli.examples import batch_axis_option
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import OutputFile


@click.command("insert", cls=Command, examples=["insert g.onnx --ber 0.01 -o faulted.onnx"])
@click.argument("graph", type=click.Path(path_type=Path))
@fault_options
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan saved as JSON, instead of faults.")
@click.option(
    "--allow-obstacles", is_flag=True, help="Strike the sites that there are, where other quantizers are none."
)
@batch_axis_option
@click.option(
    "--out", "-o", required=True, type=OutputFile(".onnx", what="the graph"), help="The graph to write (.onnx)."
)
@json_option
def command(
    graph: Path,
    given: Given,
    plan_file: Path | None,
    allow_obstacles: bool,
    batch_axis: int | None,
    out: Path,
    as_json: bool,
) -> None:
    """Put faults into GRAPH, a QONNX graph (.onnx) of any origin; `hwfault sites GRAPH` lists where they can strike.

    The faulted graph has two more inputs, hwfault_seed and hwfault_first_sample (int64), which choose the faults.
    Quantizers that the faults select and that are no sites are an error, unless --allow-obstacles is given.
    """
    from hwfault.files import write_atomically
    from hwfault.graph.edit.insert import insert_faults
    from hwfault.graph.read.sites import sites
    from hwfault.graph.run.session import load_model, load_stored
    from hwfault.plan.expected import expected_faults

    model = load_model(graph)
    listed = sites(model, batch_axis)
    if plan_file is None:
        check_obstacles(listed, given, allowed=allow_obstacles)
    plan = given_plan(listed, plan_file, given, given.device or 0)
    if plan is None:
        raise click.UsageError("no faults were given, expected --faults, --ber or --plan")
    faulted = insert_faults(model, plan, batch_axis=batch_axis, stored=load_stored(graph))
    write_atomically(out, faulted.SerializeToString())
    if as_json:
        expected = expected_faults(plan).to_data()
        print_json({"graph": str(out), "sites": list(plan.names), "plan": plan.digest, "expected_faults": expected})
    else:
        click.echo(f"{out}: {struck_sites(plan)}")
