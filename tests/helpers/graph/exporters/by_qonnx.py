"""Graphs of Brevitas as qonnx's own transformations leave them, applied in a random order that a seed tells."""

import random

from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.batchnorm_to_affine import BatchNormToAffine
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.transformation.double_to_single_float import DoubleToSingleFloat
from qonnx.transformation.extract_conv_bias import ExtractBiasFromConv
from qonnx.transformation.fold_constants import FoldConstants
from qonnx.transformation.gemm_to_matmul import GemmToMatMul
from qonnx.transformation.general import (
    ConvertDivToMul,
    ConvertSubToAdd,
    GiveReadableTensorNames,
    GiveUniqueNodeNames,
    GiveUniqueParameterTensors,
    MovePadAttributeToTensor,
    RemoveUnusedTensors,
    SortCommutativeInputsInitializerLast,
    SortGraph,
)
from qonnx.transformation.infer_data_layouts import InferDataLayouts
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant
from qonnx.transformation.qonnx_to_qcdq import QuantToQCDQ
from qonnx.transformation.quant_constant_folding import FoldTransposeIntoQuantInit
from qonnx.transformation.remove import RemoveIdentityOps
from qonnx.util.cleanup import cleanup_model

from tests.helpers.graph.exporters import by_brevitas
from tests.helpers.graph.exporters.case import quietly

KEPT = ["Quant", "BipolarQuant", "QuantizeLinear", "DequantizeLinear"]
PASSES = (
    InferShapes,
    lambda: FoldConstants(exclude_op_types=KEPT),
    GiveUniqueNodeNames,
    GiveUniqueParameterTensors,
    GiveReadableTensorNames,
    RemoveUnusedTensors,
    SortGraph,
    SortCommutativeInputsInitializerLast,
    BatchNormToAffine,
    ExtractBiasFromConv,
    GemmToMatMul,
    InferDataTypes,
    InferDataLayouts,
    FoldTransposeIntoQuantInit,
    DoubleToSingleFloat,
    RemoveIdentityOps,
    ConvertSubToAdd,
    ConvertDivToMul,
    MovePadAttributeToTensor,
)


def shuffled(name: str, seed: int) -> ModelProto:
    """A network's export after 12 passes; shapes are inferred first, as most of them ask for."""
    chosen = random.Random(seed).sample(PASSES, 12)
    wrapper = ModelWrapper(by_brevitas.export(name))
    with quietly():
        for make in (InferShapes, *chosen):
            wrapper = wrapper.transform(make())
    made: ModelProto = wrapper.model
    return made


def cleaned(name: str) -> ModelProto:
    """A network's export after qonnx's cleanup."""
    with quietly():
        made: ModelProto = cleanup_model(ModelWrapper(by_brevitas.export(name))).model
    return made


def channels_last(name: str) -> ModelProto:
    """The same with its channels last."""
    with quietly():
        wrapper = cleanup_model(ModelWrapper(by_brevitas.export(name)), override_inpsize=1)
        made: ModelProto = wrapper.transform(ConvertToChannelsLastAndClean(make_input_channels_last=False)).model
    return made


def as_qcdq(name: str) -> ModelProto:
    """The same with QuantizeLinear, Clip and DequantizeLinear in place of Quant."""
    with quietly():
        made: ModelProto = ModelWrapper(cleaned(name)).transform(QuantToQCDQ()).model
    return made


def from_qcdq(name: str) -> ModelProto:
    """Brevitas' QCDQ with Quant in place of QuantizeLinear, Clip and DequantizeLinear."""
    with quietly():
        wrapper = cleanup_model(ModelWrapper(by_brevitas.export(name, "QCDQ")))
        made: ModelProto = wrapper.transform(QCDQToQuant()).model
    return made
