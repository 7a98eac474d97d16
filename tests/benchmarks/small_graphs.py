"""Small networks of few bits in onnxruntime, without `fast`: beside their QCDQ export, and cleaned by qonnx.

At such sizes it is quantizers that take the time, those of the weights above all where each call runs them again.
"""

import os
import sys
from collections.abc import Callable

import brevitas.nn as qnn
import torch
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloat
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn

from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.benchmarks.fast_graph import session_of_qcdq
from tests.benchmarks.side_by_side import machine, ratios, show

_BER, _BITS = 1e-3, 3
_INPUTS, _CLASSES = 784, 10


def mlp(width: int) -> nn.Module:
    """Three hidden layers, weights and activations of 3 bits, a scale for each output."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=8)]
    before = _INPUTS
    for after in (width, width, width, _CLASSES):
        own = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": _BITS}
        layers += [qnn.QuantLinear(before, after, bias=False, **own), nn.BatchNorm1d(after)]
        layers.append(qnn.QuantReLU(bit_width=_BITS))
        before = after
    return nn.Sequential(*layers[:-1])


def main(rounds: int = 40, threads: int = 1) -> None:
    torch.set_num_threads(threads)
    for width in (64, 256, 1024):
        model = mlp(width)
        model(torch.randn(64, _INPUTS))
        for n in (1, 64):
            compare(f"MLP of {width}", model.eval(), torch.randn(n, _INPUTS), rounds, threads)


def compare(name: str, model: nn.Module, x: Tensor, rounds: int, threads: int) -> None:
    """Prints a network's ratios at one batch size."""
    data = x.numpy()
    clean = export(model, x[:1])
    tidy = cleanup_model(ModelWrapper(clean)).model
    struck = export(model, x[:1], plan=resolve(sites(model), [BitFlips(probability=_BER, sites={"kind": "weight"})]))
    theirs = session_of_qcdq(model, x, threads)
    usual, cleaned, faulty = (session(graph, threads=threads) for graph in (clean, tidy, struck))
    quick = session(clean, threads=threads, fast=True)
    entry = theirs.get_inputs()[0].name
    variants: dict[str, Callable[[], object]] = {
        "onnxruntime on QCDQ": lambda: theirs.run(None, {entry: data}),
        "hwfault": lambda: run(usual, data),
        "hwfault, cleaned by qonnx": lambda: run(cleaned, data),
        f"hwfault, weights of any seed, BER {_BER:g}": lambda: run(faulty, data, seed=1),
        "hwfault, fast": lambda: run(quick, data),
    }
    print(f"{name}, {_BITS} bits, batch {len(x)}, {threads} threads")
    show("    against onnxruntime on QCDQ", ratios(variants, rounds))
    pair = {key: variants[key] for key in ("hwfault", "hwfault, cleaned by qonnx")}
    show("    a cleaned graph against the original", ratios(pair, rounds), {"hwfault, cleaned by qonnx": 1.0})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(machine())
    main(*map(int, sys.argv[1:]))
