"""`hwfault strip`: the faults taken out of a graph again."""

from pathlib import Path

import click

from hwfault.cli.command import Command
from hwfault.cli.paths import OutputFile


@click.command("strip", cls=Command, examples=["strip faulted.onnx -o g.onnx"])
@click.argument("graph", type=click.Path(path_type=Path))
@click.option(
    "--out", "-o", required=True, type=OutputFile(".onnx", what="the graph"), help="The graph to write (.onnx)."
)
def command(graph: Path, out: Path) -> None:
    """Take the faults out of GRAPH: what is written is the graph before they were put in, the same in every byte.

    Where its tensors lay in other files, OUT has to lie beside these, or holds the tensors itself, which is said. A
    graph that was transformed since is refused.
    """
    from hwfault.errors import GraphError
    from hwfault.files import write_atomically
    from hwfault.graph.edit.strip import find_stored, strip_faults
    from hwfault.graph.run.session import load_model

    faulted = load_model(graph)
    clean, note = strip_faults(faulted), ""
    try:
        stored = find_stored(faulted, clean, out)
    except GraphError as error:
        stored, note = None, f"; all of its tensors are in it now: {error}"
    write_atomically(out, (clean if stored is None else stored).SerializeToString())
    click.echo(f"{out}: clean{note}")
