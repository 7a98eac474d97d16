"""Networks as Brevitas' own export writes them: QONNX and QCDQ, by both of PyTorch's exporters."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import brevitas.nn as qnn
import onnx
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)
from onnx import ModelProto
from torch import nn

from tests.helpers.graph import networks
from tests.helpers.graph.exporters.case import quietly, samples

SHAPE = networks.INPUT
Format = Literal["QONNX", "QCDQ"]


def ordinary(bias: bool = True) -> nn.Module:
    """Brevitas' usual quantizers, whose scales are any numbers."""
    own = {"weight_bit_width": 4, "bias": bias, "bias_quant": Int32Bias if bias else None}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=8, return_quant_tensor=True),
        qnn.QuantConv2d(2, 4, 3, weight_quant=Int8WeightPerChannelFloat, **own),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, **own),
    )


def asymmetric() -> nn.Module:
    """Zero points other than 0."""
    act = {"act_quant": ShiftedUint8ActPerTensorFloat, "return_quant_tensor": True}
    weight = {"weight_quant": ShiftedUint8WeightPerTensorFloat, "bias": False}
    return nn.Sequential(
        qnn.QuantIdentity(**act),
        qnn.QuantConv2d(2, 4, 3, **weight),
        qnn.QuantIdentity(**act),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, **weight),
    )


def normalized() -> nn.Module:
    """BatchNormalization, pooling, and a depthwise convolution."""
    own = {"weight_bit_width": 5, "bias": False}
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=6),
        qnn.QuantConv2d(2, 4, 3, padding=1, **own),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(bit_width=3),
        qnn.QuantConv2d(4, 4, 3, padding=1, groups=4, **own),
        nn.BatchNorm2d(4),
        qnn.QuantReLU(bit_width=3),
        nn.MaxPool2d(2),
        nn.Flatten(),
        qnn.QuantLinear(36, 5, **own),
        qnn.QuantIdentity(bit_width=8),
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    **networks.NETWORKS,
    "ordinary": ordinary,
    "ordinary without bias": lambda: ordinary(bias=False),
    "asymmetric": asymmetric,
    "normalized": normalized,
}


def calibrated(name: str) -> nn.Module:
    """A network after one batch in training mode, which gives its quantizers their scales."""
    if name in networks.NETWORKS:
        return networks.fresh(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = NETWORKS[name]()
        network.train()
        network(torch.from_numpy(samples(SHAPE, 16)))
    return network.eval()


def export(name: str, form: Format = "QONNX", *, dynamo: bool = False) -> ModelProto:
    """The network as Brevitas writes it, for batches of any size."""
    write = export_qonnx if form == "QONNX" else export_onnx_qcdq
    given = {"input_names": ["x"], "output_names": ["y"], "dynamo": dynamo}
    if dynamo:
        given |= {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=64)},), "optimize": True}
        given |= {"external_data": False, "verbose": False}
    else:
        given |= {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}, "opset_version": 17}
    with quietly(), TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        write(calibrated(name), args=torch.from_numpy(samples(SHAPE, 4)), export_path=str(path), **given)
        return onnx.load(path)
