"""The faulted graph in onnxruntime against the clean one, and the clean one against qonnx's own executor."""

import numpy as np
import torch
from onnxruntime import InferenceSession
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.util.cleanup import cleanup_model

from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.side_by_side import ratios, show

_BER = 1e-3


def main(rounds: int = 15) -> None:
    model, x = cnv(), batch()
    model(x)
    model.eval()
    plan = resolve(sites(model), [BitFlips(probability=_BER)])
    clean_graph = export(model, x[:1])
    data = x.numpy()
    faulty_graph = export(model, x[:1], plan=plan)
    for threads in (1, 2):
        _compare(session(clean_graph, threads=threads), session(faulty_graph, threads=threads), data, threads, rounds)
    clean = session(clean_graph, threads=2)
    show(
        "qonnx's executor against the clean graph in onnxruntime (2 threads), to reach: 2x or more",
        ratios({"onnxruntime": lambda: run(clean, data), "qonnx": _qonnx(clean_graph, data)}, 3),
    )


def _compare(clean: InferenceSession, faulty: InferenceSession, data: np.ndarray, threads: int, rounds: int) -> None:
    name = f"BER {_BER}"
    medians = ratios({"clean graph": lambda: run(clean, data), name: lambda: run(faulty, data, seed=1)}, rounds)
    show(f"CNV in onnxruntime, batch {len(data)}, {threads} threads", medians, {name: 1.10})


def _qonnx(graph: object, data: np.ndarray) -> object:
    wrapper = cleanup_model(ModelWrapper(graph).transform(ChangeBatchSize(len(data))))
    name = wrapper.graph.input[0].name
    return lambda: execute_onnx(wrapper, {name: data})


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
