"""Graphs whose inputs say that a batch may hold samples of several trials."""

from onnx import ModelProto, TensorProto, helper

from hwfault.graph.edit.editing import Edit, copy_model
from hwfault.graph.read.nodes import drawn_inputs
from hwfault.graph.read.struck import fault_nodes


def stack_rows(model: ModelProto, rows: int | str) -> Edit:
    """The same graph whose inputs for the seed and the first sample number are one number for each row of a batch.

    `rows` is how many a batch has, or the name of that axis. onnxruntime takes one number and many alike for inputs of
    either type; this is for hosts and executors that hold to the types of inputs, such as qonnx's. A graph without
    faults that are drawn comes back as a copy.
    """
    out = copy_model(model)
    drawn = {name for entry in fault_nodes(model) for node in entry.nodes for name in drawn_inputs(node).values()}
    changes = []
    for info in out.graph.input:
        if info.name in drawn:
            info.CopyFrom(helper.make_tensor_value_info(info.name, TensorProto.INT64, [rows]))
            changes.append(f"the input {info.name} is one number for each row of a batch")
    return Edit(out, changes)
