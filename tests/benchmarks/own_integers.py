"""What faults cost in a graph of ONNX' own integers, a small convolutional network that onnxruntime quantized (QDQ)."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.benchmarks.side_by_side import ratios, show

_BER = 1e-3
_CHANNELS = (32, 64, 64, 128)


def main(rounds: int = 15, threads: int = 1) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
    clean = _quantized(x)

    def struck(kind: str) -> ModelProto:
        return insert_faults(clean, resolve(sites(clean), [BitFlips(probability=_BER, sites={"kind": kind})]))

    made = {
        "clean": session(clean, threads=threads),
        "activations": session(struck("activation"), threads=threads),
        "weights of any seed": session(struck("weight"), threads=threads),
        "weights of one seed": session(struck("weight"), threads=threads, fast=True, seed=1),
    }
    variants: dict[str, Callable[[], object]] = {name: _runner(own, x) for name, own in made.items()}
    print(f"QDQ, {len(_CHANNELS)} convolutions, uint8 x int8, batch {len(x)}, BER {_BER:g}, {threads} threads")
    show("    against the clean graph", ratios(variants, rounds))


def _runner(own: Any, x: NDArray[np.float32]) -> Callable[[], object]:
    return lambda: run(own, x, seed=1)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: NDArray[np.float32]) -> None:
        self._batches: Iterator[dict[str, NDArray[np.float32]]] = iter([{"x": x}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next(self._batches, None)


def _quantized(x: NDArray[np.float32]) -> ModelProto:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.onnx"
        quantize_static(_network(), path, _Calibration(x), activation_type=QuantType.QUInt8)
        return onnx.load(path)


def _network() -> ModelProto:
    """Convolutions with rectifiers, every second one with a stride, and a mean over positions."""
    rng = np.random.default_rng(0)
    nodes, tensors, source, before = [], [], "x", 3
    for i, after in enumerate(_CHANNELS):
        weight = rng.normal(size=(after, before, 3, 3)) / np.sqrt(9 * before)
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"conv{i}.weight"))
        tensors.append(numpy_helper.from_array(np.full(after, 0.01 * i, np.float32), f"conv{i}.bias"))
        inputs = [source, f"conv{i}.weight", f"conv{i}.bias"]
        nodes.append(helper.make_node("Conv", inputs, [f"conv{i}"], pads=[1] * 4, strides=[1 + i % 2] * 2))
        nodes.append(helper.make_node("Relu", [f"conv{i}"], [f"relu{i}"]))
        source, before = f"relu{i}", after
    nodes.append(helper.make_node("GlobalAveragePool", [source], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 32, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", before])
    graph = helper.make_graph(nodes, "net", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    main()
