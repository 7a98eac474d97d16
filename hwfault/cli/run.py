"""`hwfault run`: a graph in onnxruntime, on arrays from files."""

from pathlib import Path

import click

from hwfault.cli.command import Command
from hwfault.cli.common import SAMPLE_NUMBER, json_option, print_json, print_table
from hwfault.cli.paths import OutputFile


@click.command("run", cls=Command, examples=["run g.onnx --input x.npy --output y.npy"])
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--input", "sources", multiple=True, required=True, metavar="[NAME=]FILE", help="An .npy or .npz file; repeatable."
)
@click.option(
    "--output",
    type=OutputFile(".npy", ".npz", what="the outputs"),
    help="Write the outputs to this .npy (one) or .npz file.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the faults, where the graph has any.")
@click.option(
    "--first-sample",
    type=SAMPLE_NUMBER,
    default=0,
    show_default=True,
    help="Number of its sample 0.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads to run on.  [default: onnxruntime's choice]")
@click.option(
    "--fast", is_flag=True, help="Quantize weights beforehand and fold BatchNormalization: other rounding, same faults."
)
@json_option
def command(
    model: Path,
    sources: tuple[str, ...],
    output: Path | None,
    seed: int,
    first_sample: int,
    threads: int | None,
    fast: bool,
    as_json: bool,
) -> None:
    """Run MODEL, any QONNX graph with or without faults, in onnxruntime, and print what its outputs hold.

    The first axis of the arrays is the batch. What had to be upgraded to run is said on stderr.
    """
    from hwfault.graph.run.feeds import read_feeds
    from hwfault.graph.run.session import run, session
    from hwfault.npz import check_target, write_arrays

    loaded = session(model, threads=threads, fast=fast, seed=seed if fast else None)
    names = [entry.name for entry in loaded.get_outputs()]
    if output is not None:
        check_target(output, len(names))
    feeds = read_feeds(loaded, sources)
    outputs = dict(zip(names, run(loaded, feeds, seed=seed, first_sample=first_sample), strict=True))
    if output is not None:
        write_arrays(output, outputs)
    ends = {name: (y.min().item(), y.max().item()) if y.size else (None, None) for name, y in outputs.items()}
    if as_json:
        described = [{"output": name, "shape": list(y.shape), "type": str(y.dtype)} for name, y in outputs.items()]
        print_json([entry | dict(zip(("min", "max"), ends[entry["output"]], strict=True)) for entry in described])
        return
    rows = [
        [name, " x ".join(map(str, y.shape)) or "scalar", y.dtype, *map(_text, ends[name])]
        for name, y in outputs.items()
    ]
    print_table(["output", "shape", "type", "min", "max"], rows)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.9g}"
