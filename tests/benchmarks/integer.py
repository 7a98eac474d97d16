"""The graph in integer arithmetic against the one that computes as Brevitas does, in onnxruntime; and the networks."""

import torch
from torch import Tensor, nn

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.side_by_side import ratios, show


def main(rounds: int = 15) -> None:
    for bits in (4, 8):  # with 8 bits the larger convolutions are added up in two parts
        compare(bits, batch(), rounds)


def compare(bits: int, x: Tensor, rounds: int) -> None:
    """Prints the ratios of a CNV of so many bits."""
    model = cnv(bits)
    model(x)
    model.eval()
    graphs = {name: export(model, x[:1], arithmetic=name) for name in ("float", "integer")}
    for threads in (1, 2):
        sessions = {name: session(graph, threads=threads) for name, graph in graphs.items()}
        runs = {name: lambda s=s: run(s, x.numpy()) for name, s in sessions.items()}
        show(f"CNV, {bits} bits, in onnxruntime, batch {len(x)}, {threads} threads", ratios(runs, rounds))
    with torch.no_grad():
        times = ratios({"float": lambda: model(x), "integer": lambda: _exactly(model, x)}, rounds)
    show(f"CNV, {bits} bits, in PyTorch, batch {len(x)}", times)


def _exactly(model: nn.Module, x: Tensor) -> Tensor:
    with integer_arithmetic(model):
        out: Tensor = model(x)
    return out


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
