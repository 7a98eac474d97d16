"""A float network for the digits, quantized by onnxruntime to a QDQ graph: its accuracy under faults.

Run as `python -m tests.experiments.qdq`; it writes docs/qdq.md.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torch import nn

from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.stream.native import onnxruntime_library
from hwfault.train import TrainConfig, train
from hwfault.train.data import digits
from tests.experiments.undervolting import DOCS

RATES = "0,0.0001,0.0003,0.001,0.003,0.01"
SEEDS = "0-29"
STRUCK = {"weights": ("--select", "*weight"), "all sites": ()}
BER = 0.001
COMPARED = range(10)
LEVELS: tuple[Any, ...] = ("none", "all")
Array = NDArray[Any]


class Outputs(NamedTuple):
    """How many outputs there are, and how far two sessions differ in them."""

    total: int
    differing: int
    largest: float
    classes: int


class Counts(NamedTuple):
    """What onnxruntime's optimisation changes under the same faults, added up over the seeds."""

    struck: str
    sites: int
    words: int
    flips: int
    moved: int
    outputs: Outputs


def main() -> None:
    """Trains, quantizes, measures and writes the page."""
    torch.set_num_threads(1)  # a small network
    data = digits()
    x, labels = data.test_x.numpy(), data.test_y.numpy()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        network = train_network()
        quantize(network, data.train_x[:256].numpy(), folder)
        np.savez(folder / "digits.npz", x=x, y=labels)
        with torch.no_grad():
            of_float = float((network(data.test_x).argmax(1) == data.test_y).float().mean())
        rows = {what: evaluate(folder, *options) for what, options in STRUCK.items()}
        graph = onnx.load(folder / "int8.onnx")
        kinds = {"all sites": "*", "all but biases": [{"kind": "weight"}, {"kind": "activation"}]}
        counts = [compare(graph, x, folder, what, selected) for what, selected in kinds.items()]
        clean = differing_outputs(*(session(graph, threads=1, graph_optimization=level) for level in LEVELS), x, 0)
    write(of_float, rows, counts, clean)


def train_network() -> nn.Module:
    """The demo's layers on float numbers, with biases."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 16, 1), (16, 32, 2), (32, 64, 2)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1), nn.ReLU()]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 2 * 2, 10))
    train(network, digits(), TrainConfig())
    return network.eval()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Array) -> None:
        self._batches = iter([{"x": x}])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)


def quantize(network: nn.Module, x: Array, folder: Path) -> None:
    """Writes float.onnx, and int8.onnx as onnxruntime quantizes it, calibrated on x."""
    torch.onnx.export(
        network,
        (torch.from_numpy(x[:1]),),
        folder / "float.onnx",
        input_names=["x"],
        output_names=["y"],
        dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        _Calibration(x),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
    )


def evaluate(folder: Path, *options: str) -> list[dict[str, Any]]:
    """`hwfault evaluate` on the graph, as an engineer calls it."""
    asked = ["evaluate", "int8.onnx", "--data", "digits.npz", "--rates", RATES, "--seeds", SEEDS, *options, "--json"]
    command = [sys.executable, "-m", "hwfault", *asked]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def compare(clean: ModelProto, x: Array, folder: Path, what: str, selected: Any) -> Counts:
    """The same faults in the graph as it was written, and in what onnxruntime makes of it."""
    plan = resolve(sites(clean), [BitFlips(probability=BER, sites=selected)])
    faulted = insert_faults(clean, plan)
    # onnxruntime keeps the names of tensors, not the metadata of nodes
    tensors = {entry.site: (entry.before, entry.after) for entry in fault_nodes(faulted)}
    written, optimized = (Observed.of(graph, tensors) for graph in (faulted, optimize(faulted, folder)))
    plain, fused = (session(faulted, threads=1, graph_optimization=level) for level in LEVELS)
    words = flips = moved = 0
    outputs = []
    for seed in COMPARED:
        before, after = written.flips(x, seed), optimized.flips(x, seed)
        for site, flipped in before.items():
            words += flipped.size
            flips += count_bits(flipped)
            moved += count_bits(flipped ^ after[site])
        outputs.append(differing_outputs(plain, fused, x, seed))
    total, differing, largest, classes = zip(*outputs, strict=True)
    summed = Outputs(sum(total), sum(differing), max(largest), sum(classes))
    return Counts(what, len(tensors), words, flips, moved, summed)


def differing_outputs(
    one: onnxruntime.InferenceSession, other: onnxruntime.InferenceSession, x: Array, seed: int
) -> Outputs:
    """Two sessions on the same samples under the faults of one seed."""
    (y,), (again,) = (run(made, x, seed=seed) for made in (one, other))
    classes = int((y.argmax(1) != again.argmax(1)).sum())
    return Outputs(y.size, int((y != again).sum()), float(np.abs(y - again).max()), classes)


def count_bits(codes: Array) -> int:
    """The bits that are set in all of them."""
    unsigned = np.dtype(f"u{codes.dtype.itemsize}")
    return int(np.bitwise_count(codes.view(unsigned)).sum())


def optimize(graph: ModelProto, folder: Path) -> ModelProto:
    """The graph as onnxruntime runs it, with all of its optimisations."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_library())
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the file suits this processor only
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


class Observed(NamedTuple):
    """A session whose outputs are the codes before and after the faults of each site."""

    session: onnxruntime.InferenceSession
    tensors: dict[str, tuple[str, str]]

    @classmethod
    def of(cls, graph: ModelProto, tensors: dict[str, tuple[str, str]]) -> "Observed":
        """One of a graph as it stands, without further optimisation."""
        out = ModelProto()
        out.CopyFrom(graph)
        del out.metadata_props[:]  # its plan names nodes by their metadata
        present = {info.name for info in out.graph.output}
        for pair in tensors.values():
            out.graph.output.extend(ValueInfoProto(name=name) for name in pair if name not in present)
        return cls(session(out, threads=1, graph_optimization="none"), tensors)

    def flips(self, x: Array, seed: int) -> dict[str, Array]:
        """The bits that flip in each word of each site."""
        found = {}
        for site, (before, after) in self.tensors.items():
            one, other = run(self.session, x, seed=seed, outputs=[before, after])
            found[site] = one ^ other
        return found


PAGE = """\
# A float network, quantized by onnxruntime, under faults

A convolutional network for the digits (the demo's layers, with biases) was trained on float numbers in PyTorch,
exported to ONNX, and quantized by onnxruntime to QDQ, calibrated on 256 of the training images:

    quantize_static("float.onnx", "int8.onnx", calibration, quant_format=QuantFormat.QDQ,
                    activation_type=QuantType.QInt8, weight_type=QuantType.QInt8)

On the 360 held-out digits {of_float:.2%} of its answers are right before and {golden:.2%} after. This page is
made by `make experiments`.

## Accuracy

    hwfault evaluate int8.onnx --data digits.npz --rates {rates} \\
        --seeds {seeds} --select '*weight'

Nothing but the graph and the samples is read, and no PyTorch is needed. Mean over {count} fault seeds, its 95 %
interval, and in how many of them faults changed the number of right answers:

| faults in | bit error rate | accuracy | from | to | by | changed |
|---|---|---|---|---|---|---|
{accuracy}

A bound is told where too few trials came to anything else for Student's t; it holds whatever those not run come to.
All sites are weights, biases and what quantizers make. Biases have 32 bits: one flip in the highest outweighs all
that a layer adds up.

## The same faults before and after onnxruntime's optimisation

BER {ber:g}, {compared} seeds, 360 images each. onnxruntime makes QLinearConv and QGemm of the layers around the fault
ops. The file that it writes of the optimised graph was run beside the graph as hwfault wrote it, and at each site the
bits that flip in each word were compared; then the outputs of a session without any optimisation and of one with all:

| faults in | sites | words | flipped bits | that differ | outputs | that differ | by at most | other classes |
|---|---|---|---|---|---|---|---|---|
{flips}

Which bits flip is the same everywhere. Outputs differ where a fused layer rounds a sum otherwise than the float layer
does, and where a struck bias takes it past 32 bits
([what differs, uint8 on older processors above all](onnx-integers.md#what-is-not-struck-or-differs)).
"""


INTERVALS = {"same": "no spread", "t": "Student's t", "bound": "bound"}


def write(of_float: float, rows: dict[str, list[dict[str, Any]]], counts: list[Counts], clean: Outputs) -> None:
    """The page."""
    accuracy = []
    for what, of_it in rows.items():
        for row in of_it:
            low, high = row["interval"] or (row["mean"], row["mean"])
            cells = (what, f"{row['ber']:g}", *(f"{share:.2%}" for share in (row["mean"], low, high)))
            accuracy.append(f"| {' | '.join(cells)} | {INTERVALS[row['interval_by']]} | {row['events']} |")
    flips = [f"| none | | | | | {_outputs(clean)} |"]
    for entry in counts:
        before = (f"{number:,}" for number in (entry.sites, entry.words, entry.flips, entry.moved))
        flips.append(f"| {entry.struck} | {' | '.join(before)} | {_outputs(entry.outputs)} |")
    text = PAGE.format(
        of_float=of_float,
        golden=next(iter(rows.values()))[0]["golden_accuracy"],
        rates=RATES,
        seeds=SEEDS,
        count=len(next(iter(rows.values()))[0]["correct"]),
        accuracy="\n".join(accuracy),
        ber=BER,
        compared=len(COMPARED),
        flips="\n".join(flips),
    )
    (DOCS / "qdq.md").write_text(text, encoding="utf-8")


def _outputs(told: Outputs) -> str:
    return f"{told.total:,} | {told.differing:,} | {told.largest:.3g} | {told.classes:,}"


if __name__ == "__main__":
    main()
