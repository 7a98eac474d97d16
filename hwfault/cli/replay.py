"""`hwfault replay`: the same faults in PyTorch and in onnxruntime, compared word by word, now or with a record."""

from pathlib import Path

import click

from hwfault.cli.bundles import Checking, checking_options, replay_bundle
from hwfault.cli.command import Command
from hwfault.cli.common import Seeds, json_option, progress
from hwfault.cli.paths import OutputFile
from hwfault.cli.reports import show_report
from hwfault.cli.runs import Trusted, run_options


@click.command("replay", cls=Command, examples=["replay bundle.zip --html report.html", "replay faulted.onnx run"])
@click.argument("graph", metavar="GRAPH|BUNDLE", type=click.Path(path_type=Path))
@click.argument("run", required=False, type=click.Path(path_type=Path))
@run_options
@click.option("--seeds", type=Seeds(), help="Fault seeds: the graph is run under each.  [default: 0-4; a bundle's own]")
@click.option("--batch-size", type=click.IntRange(min=1), help="Samples at a time.  [default: 128; a bundle's own]")
@click.option("--out", type=OutputFile(), help="Write the report to this JSON file.")
@checking_options
@json_option
def command(
    graph: Path,
    run: Path | None,
    trusted: Trusted,
    seeds: tuple[int, ...] | None,
    batch_size: int | None,
    out: Path | None,
    checking: Checking,
    as_json: bool,
) -> None:
    """Run GRAPH (a faulted graph) in onnxruntime and RUN (its network) in PyTorch on the held-out data, and compare.

    Of a BUNDLE (`hwfault export --bundle`) alone, the graphs, or a runner in their place, are compared with what
    PyTorch, or of a graph alone onnxruntime, recorded: without PyTorch.

    Exit code 3 if anything differs that --accept does not let pass.
    """
    if run is not None:
        if checking.of_bundles:
            raise click.UsageError("--graph, --only and --runner... go with a bundle, given were a graph and a run")
        _beside(graph, run, trusted, seeds or _SEEDS, batch_size or 128, out, checking, as_json)
    elif trusted != Trusted() or batch_size is not None:
        raise click.UsageError("--network, --data, --data-folder, --transform and --batch-size go with GRAPH and RUN")
    elif graph.suffix == ".onnx":
        raise click.UsageError("Missing argument 'RUN': a graph is compared with the network of a run")
    else:
        replay_bundle(graph, checking, seeds, out, as_json)


_SEEDS = (0, 1, 2, 3, 4)


def _beside(
    graph: Path,
    run: Path,
    trusted: Trusted,
    seeds: tuple[int, ...],
    batch_size: int,
    out: Path | None,
    checking: Checking,
    as_json: bool,
) -> None:
    """Both engines side by side."""
    import torch

    from hwfault.graph.run.session import load_model
    from hwfault.proof.replay import replay

    proto = load_model(graph)
    model, config, held_out = trusted.load(run)
    batches = [held_out.test.inputs(index) for index in torch.split(torch.arange(len(held_out.test)), batch_size)]
    with progress() as begin:
        advance = begin("replaying", len(batches))
        report = replay(model, proto, batches, seeds=seeds, progress=lambda _done, _total: advance())
    # which of them it was, as the user knows it
    named = {
        "network": f"{run} ({trusted.network or config.network}): {report.network}",
        "data": f"{trusted.data or config.data}: {report.data}",
    }
    report = report.model_copy(update=named)
    show_report(report, accept=checking.accept, out=out, html=checking.html, as_json=as_json)
