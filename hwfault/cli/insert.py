"""`hwfault insert`: faults put into a QONNX graph, whoever wrote it."""

from pathlib import Path

import click

from hwfault.cli.common import given_plan, json_option, print_json
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import Command, OutputFile


@click.command("insert", cls=Command)
@click.argument("graph", type=click.Path(path_type=Path))
@fault_options
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan saved as JSON, instead of faults.")
@click.option("--out", "-o", required=True, type=OutputFile(), help="The graph to write (.onnx).")
@json_option
def command(graph: Path, given: Given, plan_file: Path | None, out: Path, as_json: bool) -> None:
    """Put faults into GRAPH, a QONNX graph (.onnx) of any origin; `hwfault sites GRAPH` lists where they can strike.

    The faulted graph has two more inputs, hwfault_seed and hwfault_first_sample (int64), which choose the faults.
    """
    from hwfault.files import write_atomically
    from hwfault.graph.insert import insert_faults
    from hwfault.graph.session import load_model
    from hwfault.graph.sites import sites

    faults, model = given.faults, load_model(graph)
    plan = given_plan(sites(model), plan_file, faults, given.device or 0)
    if plan is None:
        raise click.UsageError("no faults were given, expected --faults, --ber or --plan")
    write_atomically(out, insert_faults(model, plan).SerializeToString())
    if as_json:
        print_json({"graph": str(out), "sites": list(plan.names), "plan": plan.digest})
    else:
        click.echo(f"{out}: faults at {len(plan.names)} sites, plan {plan.digest[:12]}")
