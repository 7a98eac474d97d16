"""`hwfault replay`: the same faults in PyTorch and in onnxruntime, compared word by word."""

import sys
from pathlib import Path

import click

from hwfault.cli.common import batch_size_option, json_option, print_json, print_table, progress, seeds_option, verdict
from hwfault.cli.runs import Trusted, run_options


@click.command("replay")
@click.argument("graph", type=click.Path(path_type=Path))
@click.argument("run", type=click.Path(path_type=Path))
@run_options
@seeds_option("0-4", "the graph is run under each")
@batch_size_option(128)
@click.option("--out", type=click.Path(path_type=Path), help="Write the report to this JSON file.")
@json_option
def command(
    graph: Path,
    run: Path,
    trusted: Trusted,
    seeds: tuple[int, ...],
    batch_size: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Run GRAPH (a faulted graph) in onnxruntime and RUN (its network) in PyTorch on the held-out data, and compare.

    Exit code 3 if a fault differs. Codes that differ because the engines add floating-point numbers in another order
    are counted apart.
    """
    import torch

    from hwfault.graph.replay import replay
    from hwfault.graph.session import load_model

    proto = load_model(graph)
    model, _, held_out = trusted.load(run)
    batches = [held_out.test.inputs(index) for index in torch.split(torch.arange(len(held_out.test)), batch_size)]
    with progress() as begin:
        advance = begin("replaying", len(batches))
        report = replay(model, proto, batches, seeds=seeds, progress=lambda _done, _total: advance())
    if out is not None:
        report.save(out)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        columns = ["site", "words", "faults expected", "seen", "differ", "other codes differ"]
        rows = [
            [s.name, s.words, s.faults_expected, s.faults_seen, s.faults_differ, s.codes_differ] for s in report.sites
        ]
        print_table(columns, rows)
        click.echo(verdict(report))
    sys.exit(report.exit_code)
