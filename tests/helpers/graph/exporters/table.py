"""The graphs of the set, by name."""

from collections.abc import Callable
from functools import cache, partial

import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType

from tests.helpers.graph import networks
from tests.helpers.graph.exporters import by_brevitas, by_onnxruntime, by_qkeras, by_qonnx, by_torch
from tests.helpers.graph.exporters.by_onnxruntime import QDQ, QOPERATOR, SHAPES, UINT8
from tests.helpers.graph.exporters.case import Case

IMAGE = by_brevitas.SHAPE


def _of_brevitas(form: by_brevitas.Format, dynamo: bool, *names: str) -> dict[str, Case]:
    """Brevitas' export of these networks."""
    exporter = f"Brevitas, {form}, {'dynamo' if dynamo else 'TorchScript'}"
    make = partial(by_brevitas.export, form=form, dynamo=dynamo)
    exact = networks.NETWORKS
    return {f"{exporter}: {name}": Case(exporter, partial(make, name), IMAGE, name in exact) for name in names}


def _of_onnxruntime(kind: str, what: str, make: Callable[[], ModelProto], dynamic: bool = False) -> dict[str, Case]:
    """One graph of onnxruntime's quantizer."""
    exporter = f"onnxruntime.quantization, {kind}"
    return {f"{exporter}: {what}": Case(exporter, make, SHAPES[what], batch_scales=dynamic)}


def _static(kind: str, what: str, **given: object) -> dict[str, Case]:
    return _of_onnxruntime(f"static, {kind}", what, partial(by_onnxruntime.static, what, **given))


def _dynamic(kind: str, what: str, **given: object) -> dict[str, Case]:
    return _of_onnxruntime(f"dynamic, {kind}", what, partial(by_onnxruntime.dynamic, what, **given), dynamic=True)


def _by(exporter: str, shape: tuple[int, ...], *, exact: bool, **made: Callable[[], ModelProto]) -> dict[str, Case]:
    return {f"{exporter}: {name.replace('_', ' ')}": Case(exporter, make, shape, exact) for name, make in made.items()}


def _shuffled(seed: int, name: str) -> dict[str, Case]:
    """A network's export after passes in the order that a seed draws."""
    exporter = "qonnx, passes in random order"
    make = partial(by_qonnx.shuffled, name, seed)
    return {f"{exporter}: {name} {seed}": Case(exporter, make, IMAGE, name in networks.NETWORKS)}


_DOUBLE = {"scale": "float64", "zeropt": "float64", "bits": "float64"}
_HALF = {"scale": "float16", "zeropt": "float16"}
_WHOLE = {"scale": "int64", "zeropt": "int32", "bits": "int32"}
_BEHIND = {"scale": "attribute", "zeropt": "identity", "bits": "cast"}

CASES: dict[str, Case] = {
    # Brevitas
    **_of_brevitas("QONNX", False, "biased", "residual", "twice", "tied", "per_channel", "binary", "formats"),
    **_of_brevitas("QONNX", False, "convolutions", "ordinary", "asymmetric", "normalized"),
    **_of_brevitas("QONNX", True, "mlp", "binary", "ordinary", "asymmetric", "normalized"),
    **_of_brevitas("QCDQ", False, "mlp", "per_channel", "ordinary", "asymmetric", "normalized"),
    **_of_brevitas("QCDQ", True, "mlp", "ordinary without bias", "normalized"),
    # onnxruntime's quantizer
    **_static("QDQ, int8", "chain", **QDQ),
    **_static("QDQ, uint8", "block", **QDQ, **UINT8),
    **_static("QDQ, int8 per channel", "block", **QDQ, per_channel=True),
    **_static("QDQ, uint16", "chain", **QDQ, activation_type=QuantType.QUInt16),
    **_static("QDQ, int16", "block", **QDQ, activation_type=QuantType.QInt16),
    **_static("QDQ, int4 weights", "chain", **QDQ, weight_type=QuantType.QInt4),
    **_static("QDQ, uint4 activations", "chain", **QDQ, activation_type=QuantType.QUInt4),
    **_static("QDQ, int8", "tokens", **QDQ),
    **_static("QDQ, weights quantized in the graph", "block", **QDQ, extra_options={"AddQDQPairToWeight": True}),
    **_static("QDQ, a pair for each reader", "block", **QDQ, extra_options={"DedicatedQDQPair": True}),
    **_static("QOperator, int8", "chain", **QOPERATOR),
    **_static("QOperator, uint8", "block", **QOPERATOR, **UINT8),
    **_static("QOperator, int8 per channel", "block", **QOPERATOR, per_channel=True),
    **_static("QOperator, uint8", "tokens", **QOPERATOR, **UINT8),
    **_dynamic("uint8", "chain"),
    # without reduce_range onnxruntime's sums of 16 bits saturate on processors that have AVX2 and no VNNI
    **_dynamic("int8 per channel", "block", per_channel=True, reduce_range=True),
    **_dynamic("int8", "tokens", reduce_range=True),
    **_of_onnxruntime(
        "weights alone, QDQ, blocks of 4 bits", "tokens", partial(by_onnxruntime.blocks_of_4_bits, "tokens")
    ),
    # qonnx's transformations
    **_shuffled(1, "biased"),
    **_shuffled(2, "residual"),
    **_shuffled(2, "per_channel"),
    **_shuffled(20, "normalized"),
    **_shuffled(5, "ordinary"),
    **_shuffled(6, "binary"),
    **_by("qonnx, QuantToQCDQ", IMAGE, exact=False, ordinary=partial(by_qonnx.as_qcdq, "ordinary")),
    **_by("qonnx, QCDQToQuant", IMAGE, exact=True, mlp=partial(by_qonnx.from_qcdq, "mlp")),
    # QKeras' converter
    **_by(
        "as QKeras' converter",
        by_qkeras.SHAPE,
        exact=True,
        dense=partial(by_qkeras.dense, {}, {}),
        dense_of_doubles=partial(by_qkeras.dense, _DOUBLE, {"scale": "constant"}),
        dense_of_halves=partial(by_qkeras.dense, _HALF, {"zeropt": "identity"}),
        dense_of_integers=partial(by_qkeras.dense, _WHOLE, {}),
        dense_behind_nodes=partial(by_qkeras.dense, {"bits": "int32"}, _BEHIND),
        convolutional=partial(by_qkeras.convolutional, {}, {}),
        convolutional_of_doubles=partial(by_qkeras.convolutional, _DOUBLE, {"bits": "constant"}),
    ),
    # PyTorch's own, and opset 10
    **_by(
        "PyTorch, torch.ao.quantization",
        by_torch.SHAPE,
        exact=False,
        fake_quantized=partial(by_torch.fake_quantized, 17),
        decomposed=partial(by_torch.decomposed, 21),
        converted=partial(by_torch.converted, 17),
    ),
    **_by("opset 10", by_torch.SHAPE, exact=False, by_hand=partial(by_torch.by_hand, 10)),
}


@cache
def _written(name: str) -> bytes:
    return CASES[name].make().SerializeToString()


def graph(name: str) -> ModelProto:
    """A graph of the set, written once in a session and to be changed at will."""
    return onnx.load_from_string(_written(name))
