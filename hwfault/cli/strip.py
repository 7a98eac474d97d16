"""`hwfault strip`: the faults taken out of a graph again."""

from pathlib import Path

import click

from hwfault.cli.paths import Command, OutputFile


@click.command("strip", cls=Command)
@click.argument("graph", type=click.Path(path_type=Path))
@click.option("--out", "-o", required=True, type=OutputFile(), help="The graph to write (.onnx).")
def command(graph: Path, out: Path) -> None:
    """Take the faults out of GRAPH: what is written is the graph before they were put in, the same in every byte.

    A graph that was transformed since is refused.
    """
    from hwfault.files import write_atomically
    from hwfault.graph.edit.strip import strip_faults
    from hwfault.graph.run.session import load_model

    write_atomically(out, strip_faults(load_model(graph)).SerializeToString())
    click.echo(f"{out}: clean")
