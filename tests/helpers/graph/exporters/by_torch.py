"""What PyTorch's own quantization can export to ONNX, and QDQ of opset 10 as onnx.helper writes it.

`torch.ao.quantization` is what PyTorch comes with; pt2e is in torchao since 2.10 and is no part of it.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig_mapping, get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import (
    _convert_to_reference_decomposed_fx,
    convert_fx,
    prepare_fx,
    prepare_qat_fx,
)

from tests.helpers.graph.exporters.case import quietly, samples

SHAPE = (2, 6, 6)


def _network() -> nn.Module:
    """A convolution and two linear layers on float numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 5))


def _calibrated(prepared: nn.Module) -> nn.Module:
    prepared(torch.from_numpy(samples(SHAPE, 16)))
    return prepared


def _export(network: nn.Module, **given: Any) -> ModelProto:
    axes = {"dynamic_axes": {"x": {0: "batch"}, "y": {0: "batch"}}, "dynamo": False}
    if given.get("dynamo"):
        axes = {
            "dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=64)},),
            "external_data": False,
            "verbose": False,
        }
    with quietly(), TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        x = torch.from_numpy(samples(SHAPE, 4))
        torch.onnx.export(network, (x,), path, input_names=["x"], output_names=["y"], **axes | given)
        return onnx.load(path)


def fake_quantized(opset: int, backend: str = "fbgemm") -> ModelProto:
    """A network prepared for training with FakeQuantize, as it stands after one batch; fused ones have no export."""
    with quietly():
        mapping = get_default_qat_qconfig_mapping(backend, version=0)
        prepared = _calibrated(prepare_qat_fx(_network().train(), mapping, (torch.zeros(1, *SHAPE),)))
        prepared.eval()
        prepared.apply(torch.ao.quantization.disable_observer)
    return _export(prepared, opset_version=opset)


def converted(opset: int) -> ModelProto:
    """A network on PyTorch's own quantized tensors."""
    with quietly():
        mapping = get_default_qconfig_mapping("x86")
        prepared = _calibrated(prepare_fx(_network().eval(), mapping, (torch.zeros(1, *SHAPE),)))
        network = convert_fx(prepared)
    return _export(network, opset_version=opset)


def decomposed(opset: int) -> ModelProto:
    """A network of quantize, dequantize and float layers, which PyTorch calls its reference, by the dynamo exporter."""
    with quietly():
        mapping = get_default_qconfig_mapping("x86")
        prepared = _calibrated(prepare_fx(_network().eval(), mapping, (torch.zeros(1, *SHAPE),)))
        network = _convert_to_reference_decomposed_fx(prepared)
    return _export(network, opset_version=opset, dynamo=True)


def by_hand(opset: int) -> ModelProto:
    """QDQ as opset 10 has it: one scale a tensor, weights as integers, int32 biases."""
    rng = np.random.default_rng(6)
    node = helper.make_node
    held = {
        "x_scale": np.float32(0.01),
        "x_zero": np.uint8(128),
        "conv_scale": np.float32(0.02),
        "h_scale": np.float32(0.015),
        "h_zero": np.uint8(100),
        "fc_scale": np.float32(0.03),
        "w_zero": np.int8(0),
        "b_scale": np.float32(0.01 * 0.02),
        "b_zero": np.int32(0),
        "conv.weight": rng.integers(-127, 128, (4, 2, 3, 3)).astype(np.int8),
        "conv.bias": rng.integers(-500, 500, 4).astype(np.int32),
        "fc.weight": rng.integers(-127, 128, (64, 5)).astype(np.int8),
    }
    window = {"kernel_shape": [3, 3], "strides": [1, 1], "pads": [0] * 4, "dilations": [1, 1], "group": 1}
    nodes = [
        node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_int"], "x_q"),
        node("DequantizeLinear", ["x_int", "x_scale", "x_zero"], ["x_float"], "x_dq"),
        node("DequantizeLinear", ["conv.weight", "conv_scale", "w_zero"], ["conv_w"], "conv_w_dq"),
        node("DequantizeLinear", ["conv.bias", "b_scale", "b_zero"], ["conv_b"], "conv_b_dq"),
        node("Conv", ["x_float", "conv_w", "conv_b"], ["conv"], "conv", **window),
        node("Relu", ["conv"], ["relu"], "relu"),
        node("QuantizeLinear", ["relu", "h_scale", "h_zero"], ["h_int"], "h_q"),
        node("DequantizeLinear", ["h_int", "h_scale", "h_zero"], ["h_float"], "h_dq"),
        node("Flatten", ["h_float"], ["flat"], "flat"),
        node("DequantizeLinear", ["fc.weight", "fc_scale", "w_zero"], ["fc_w"], "fc_w_dq"),
        node("MatMul", ["flat", "fc_w"], ["y"], "fc"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *SHAPE])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    tensors = [numpy_helper.from_array(np.asarray(values), name) for name, values in held.items()]
    graph = helper.make_graph(nodes, "opset10", [x], [y], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=5)
