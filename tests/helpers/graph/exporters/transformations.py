"""What others do to a graph that carries faults: passes of qonnx, onnx, onnxoptimizer, onnxscript and onnxruntime."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxoptimizer
import onnxruntime
import onnxscript.optimizer
from onnx import ModelProto, version_converter
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.extract_quant_scale_zeropt import ExtractQuantScaleZeroPt
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.general import (
    GiveReadableTensorNames,
    GiveUniqueNodeNames,
    RemoveUnusedTensors,
    SortGraph,
)
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
from qonnx.util.cleanup import cleanup_model

from hwfault.stream.native import onnxruntime_library
from tests.helpers.graph.exporters.case import quietly
from tests.helpers.graph.running import copied

Transformation = Callable[[ModelProto], ModelProto]
KEPT = ["Quant", "BipolarQuant", "QuantizeLinear", "DequantizeLinear"]
OPSET = 21


def by_qonnx(*passes: Callable[[], object]) -> Transformation:
    """Passes of qonnx one after the other, on a graph whose shapes were inferred."""

    def transform(model: ModelProto) -> ModelProto:
        wrapper = ModelWrapper(copied(model))
        with quietly():
            for make in passes:
                wrapper = wrapper.transform(make())
        made: ModelProto = wrapper.model
        return made

    return transform


def clean_up(model: ModelProto) -> ModelProto:
    """What FINN's users do first."""
    with quietly():
        made: ModelProto = cleanup_model(ModelWrapper(copied(model))).model
    return made


def put_channels_last(model: ModelProto) -> ModelProto:
    """qonnx's channels last, which wants extents for all axes."""
    with quietly():
        wrapper = cleanup_model(ModelWrapper(copied(model)), override_inpsize=3)
        made: ModelProto = wrapper.transform(ConvertToChannelsLastAndClean(make_input_channels_last=False)).model
    return made


def simplify(model: ModelProto) -> ModelProto:
    """onnxoptimizer's passes that leave the meaning, as Brevitas' and others' exports run them."""
    made: ModelProto = onnxoptimizer.optimize(copied(model), onnxoptimizer.get_fuse_and_elimination_passes())
    return made


def fold_by_onnxscript(model: ModelProto) -> ModelProto:
    """PyTorch's own way behind its dynamo export."""
    with quietly():
        made: ModelProto = onnxscript.optimizer.optimize(copied(model))
    return made


def raise_opset(model: ModelProto) -> ModelProto:
    """onnx' own converter."""
    made: ModelProto = version_converter.convert_version(copied(model), OPSET)
    return made


def optimize_offline(model: ModelProto) -> ModelProto:
    """The file that onnxruntime writes of a graph it has optimised, layers fused but not laid out for a processor."""
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(onnxruntime_library())
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    with TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


TRANSFORMATIONS: dict[str, Transformation] = {
    "qonnx InferShapes": by_qonnx(InferShapes),
    "qonnx FoldConstants": by_qonnx(InferShapes, lambda: FoldConstants(exclude_op_types=KEPT)),
    "qonnx GiveUniqueNodeNames": by_qonnx(GiveUniqueNodeNames),
    "qonnx GiveReadableTensorNames": by_qonnx(InferShapes, GiveUniqueNodeNames, GiveReadableTensorNames),
    "qonnx RemoveUnusedTensors, SortGraph": by_qonnx(RemoveUnusedTensors, SortGraph),
    "qonnx cleanup": clean_up,
    "qonnx channels last": put_channels_last,
    "qonnx QuantToQCDQ": by_qonnx(InferShapes, QuantToQCDQ),
    "qonnx ExtractQuantScaleZeroPt": by_qonnx(InferShapes, ExtractQuantScaleZeroPt),
    "onnxoptimizer": simplify,
    "onnxscript optimizer": fold_by_onnxscript,
    "onnx opset 21": raise_opset,
    "onnxruntime, written optimised": optimize_offline,
}
