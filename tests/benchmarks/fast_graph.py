"""Networks in onnxruntime as hwfault runs them fast, against their QCDQ export, qonnx's executor and Brevitas."""

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from brevitas.export import export_onnx_qcdq
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.util.cleanup import cleanup_model
from torch import Tensor, nn

from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train import networks
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.side_by_side import machine, ratios, show

_BER, _BITS = 1e-3, 4
_CLEAN, _FAULTY, _ANY_SEED = "hwfault, fast", f"hwfault, fast, BER {_BER:g}", f"the same for any seed, BER {_BER:g}"
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "CNV": cnv,
    "ResNet-20": lambda: networks.build("resnet20", weight_bits=_BITS, act_bits=_BITS),
    "MobileNetV1": lambda: networks.build("mobilenet_v1_cifar", weight_bits=_BITS, act_bits=_BITS),
}


def main(rounds: int = 15, threads: int = 1) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for name, build in NETWORKS.items():
        model = build()
        model(batch())  # Brevitas' scales are made in the first forward
        for n in (1, 64):
            compare(name, model.eval(), batch(n), rounds, threads)
    torch.set_num_threads(before)


def compare(name: str, model: nn.Module, x: Tensor, rounds: int, threads: int) -> None:
    """Prints a network's ratios at one batch size."""
    data = x.numpy()
    clean = export(model, x[:1])
    faulty = export(model, x[:1], plan=resolve(sites(model), [BitFlips(probability=_BER)]))
    usual, quick = (session(clean, threads=threads, fast=fast) for fast in (False, True))
    struck, one_seed = (session(faulty, threads=threads, fast=True, seed=seed) for seed in (None, 1))
    theirs = session_of_qcdq(model, x, threads)
    variants: dict[str, Callable[[], object]] = {
        "onnxruntime on QCDQ": lambda: theirs.run(None, {theirs.get_inputs()[0].name: data}),
        "hwfault": lambda: run(usual, data),
        _CLEAN: lambda: run(quick, data),
        _FAULTY: lambda: run(one_seed, data, seed=1),
        _ANY_SEED: lambda: run(struck, data, seed=1),
        "Brevitas": lambda: _brevitas(model, x),
    }
    print(f"{name}, batch {len(x)}, {_BITS} bits, {threads} threads")
    medians = ratios(variants, rounds)
    show("    against onnxruntime on QCDQ", medians, {_CLEAN: 0.9})
    pair = {key: variants[key] for key in (_CLEAN, _FAULTY, _ANY_SEED)}
    many = rounds * max(1, 20 // len(x))  # one image takes a millisecond: a single round says little
    show("    against the clean graph", ratios(pair, many), {_FAULTY: 1.05})
    every_core = session(clean, threads=os.cpu_count() or 1, fast=True)  # as qonnx's executor takes them
    executors = {_CLEAN: lambda: run(every_core, data), "qonnx": _qonnx(clean, x)}
    show("    qonnx's executor, both with every core, to reach: 5x", ratios(executors, 5))


def session_of_qcdq(model: nn.Module, x: Tensor, threads: int) -> onnxruntime.InferenceSession:
    """A session of Brevitas' own export with QuantizeLinear, Clip and DequantizeLinear."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "qcdq.onnx"
        export_onnx_qcdq(model, args=x, export_path=str(path), dynamo=False, opset_version=17)
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _qonnx(graph: object, x: Tensor) -> Callable[[], object]:
    wrapper = cleanup_model(ModelWrapper(graph).transform(ChangeBatchSize(len(x))))
    name = wrapper.graph.input[0].name
    return lambda: execute_onnx(wrapper, {name: x.numpy()})


def _brevitas(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


if __name__ == "__main__":
    print(machine())
    main(*map(int, sys.argv[1:]))
