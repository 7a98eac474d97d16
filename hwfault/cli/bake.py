"""`hwfault bake`: permanent faults of parameters made part of a graph's constants."""

from pathlib import Path

import click

from hwfault.cli.command import Command
from hwfault.cli.common import check_obstacles, given_plan, json_option, print_json
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.paths import OutputFile
from hwfault.stream.check import check_seed


@click.command(
    "bake",
    cls=Command,
    examples=[
        "bake g.onnx --faults map:device.safetensors -o baked.onnx",
        "bake g.onnx --ber 0.001 --seed 3 -o baked.onnx",
    ],
)
@click.argument("graph", type=click.Path(path_type=Path))
@fault_options
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan saved as JSON, instead of faults.")
@click.option("--seed", type=int, help="The seed of faults that are drawn; permanent ones need none.")
@click.option(
    "--allow-obstacles", is_flag=True, help="Strike the sites that there are, where other quantizers are none."
)
@click.option(
    "--out", "-o", required=True, type=OutputFile(".onnx", what="the graph"), help="The graph to write (.onnx)."
)
@json_option
def command(
    graph: Path,
    given: Given,
    plan_file: Path | None,
    seed: int | None,
    allow_obstacles: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write GRAPH with the faults of its parameters in its constants: a plain graph, without any op of hwfault.

    The faults are those that GRAPH carries, or that are given here. Outputs are those of the faulted graph, to the last
    bit; whatever reads QONNX (FINN, hls4ml, qonnx) takes it as any other graph. Faults of activations and accumulators
    cannot be baked; drawn ones are those of one --seed.
    """
    from hwfault.errors import GraphError
    from hwfault.files import write_atomically
    from hwfault.graph.edit.bake import bake
    from hwfault.graph.edit.insert import insert_faults
    from hwfault.graph.read.sites import sites
    from hwfault.graph.read.struck import fault_nodes
    from hwfault.graph.run.session import load_model, run_without_inputs

    if seed is not None:
        check_seed(seed)
    model = load_model(graph)
    if given.anything or plan_file is not None:
        if fault_nodes(model):
            raise GraphError(f"{graph}: carries faults already, and others were given; expected one of both")
        listed = sites(model)
        if plan_file is None:
            check_obstacles(listed, given, allowed=allow_obstacles)
        plan = given_plan(listed, plan_file, given, given.device or 0)
        assert plan is not None
        model = insert_faults(model, plan)
    baked = bake(model, run_without_inputs, seed)
    write_atomically(out, baked.model.SerializeToString())
    if as_json:
        print_json({"graph": str(out), "sites": sorted({entry.site for entry in fault_nodes(model)}), "seed": seed})
    else:
        click.echo(f"{out}: {'; '.join(baked.changes)}")
