"""`hwfault export`: a trained network as a QONNX graph, clean or with its faults inside."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hwfault.cli.arithmetic import arithmetic_option, tell_left
from hwfault.cli.bundles import Recording, recording_options, written
from hwfault.cli.command import Command
from hwfault.cli.common import given_plan, json_option, print_json, struck_sites
from hwfault.cli.fault_options import Given, fault_options
from hwfault.cli.graph_options import check_options_of_graph, data_of_graph, tell_of_images
from hwfault.cli.paths import OutputFolder
from hwfault.cli.runs import Trusted, run_options

if TYPE_CHECKING:
    from hwfault.graph.export.of_network import Arithmetic


@click.command(
    "export", cls=Command, examples=["export run --out g.onnx", "export run --bundle --ber 0.01 --out bundle.zip"]
)
@click.argument("run", type=click.Path(path_type=Path))
@run_options
@fault_options
@click.option("--plan", "plan_file", type=click.Path(path_type=Path), help="A plan saved as JSON, instead of faults.")
@arithmetic_option
@click.option(
    "--as-traced",
    is_flag=True,
    help="Take a network that decides by values of its inputs with the way that one sample takes.",
)
@click.option("--out", required=True, type=OutputFolder(), help="The graph to write (.onnx), or the bundle.")
@recording_options
@json_option
def command(
    run: Path,
    trusted: Trusted,
    given: Given,
    plan_file: Path | None,
    arithmetic: "Arithmetic",
    as_traced: bool,
    out: Path,
    recording: Recording,
    as_json: bool,
) -> None:
    """Write RUN (a folder of `hwfault train`, or a checkpoint) as a QONNX graph; with faults given, they are inside it.

    A faulted graph has two more inputs, hwfault_seed and hwfault_first_sample (int64), which choose the faults.

    With --bundle, OUT is a folder (or a .zip): graphs, plan, profiles, held-out samples, and what PyTorch makes of them
    at every site, clean and under seeds. `hwfault replay BUNDLE` checks it, anywhere, without PyTorch.

    With --bundle RUN may be a clean graph (.onnx), with its samples in --data: an .npz file with the arrays x (several
    inputs by the graph's names) and, where they are known, y (labels), or a folder of images. What becomes of them is
    recorded from onnxruntime, without PyTorch.
    """
    if run.suffix == ".onnx":
        check_options_of_graph(trusted)
        _bundle_of_graph(run, data_of_graph(trusted), given, plan_file, out, recording, as_json)
        return
    from hwfault.files import write_atomically
    from hwfault.graph.export.of_network import export
    from hwfault.graph.read.integer import left
    from hwfault.network.sites import sites
    from hwfault.plan.expected import expected_faults

    model, _, held_out = trusted.load(run)
    example = held_out.example
    plan = given_plan(sites(model, example), plan_file, given, given.device or 0)
    if recording.bundle:
        manifest = recording.write(out, model, held_out.test, plan, arithmetic, as_traced)
        written(out, manifest, as_json)
        return
    graph = export(model, example, plan=plan, arithmetic=arithmetic, as_traced=as_traced)
    write_atomically(out, graph.SerializeToString())
    exact: dict[str, Any] = {"arithmetic": arithmetic, "left": left(graph)} if arithmetic == "integer" else {}
    if as_json:
        said: dict[str, Any] = {"sites": list(plan.names) if plan else [], "plan": plan.digest if plan else None}
        said |= {"expected_faults": expected_faults(plan).to_data()} if plan else {}
        print_json({"graph": str(out), **said, **exact})
        return
    tell_left(exact.get("left", {}))
    sums = ", integer arithmetic" if exact else ""
    if plan is None:
        click.echo(f"{out}: clean{sums}")
    else:
        click.echo(f"{out}: {struck_sites(plan)}{sums}")
        click.echo(f"next: hwfault replay {shlex.quote(str(out))} {shlex.quote(str(run))}{trusted.words}")


def _bundle_of_graph(
    graph: Path, data: Path, given: Given, plan_file: Path | None, out: Path, recording: Recording, as_json: bool
) -> None:
    """Writes the bundle of a graph alone."""
    from hwfault.graph.read.sites import sites
    from hwfault.graph.run.session import load_model

    if not recording.bundle:
        raise click.UsageError("a graph is exported as a --bundle only; `hwfault insert` puts faults into it")
    tell_of_images(data)
    model = load_model(graph)
    plan = given_plan(sites(model), plan_file, given, given.device or 0)
    written(out, recording.write_graph(out, model, data, plan), as_json)
