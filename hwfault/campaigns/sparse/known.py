"""What one image shows of a graph: the shapes of its tensors, and the values that do not depend on the image."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from hwfault.graph.run.session import run, session


class Known(NamedTuple):
    """Shapes by name, those of images with a batch of one, and constants by name."""

    shapes: dict[str, tuple[int, ...]]
    constants: dict[str, NDArray[Any]]


def know(model: ModelProto, image: NDArray[np.float32]) -> Known:
    """Runs a graph of one input and one output on a batch of one image, and looks at every tensor of it.

    Raises GraphError where onnxruntime cannot run it.
    """
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    shown = _with_all_outputs(model)
    names = [info.name for info in shown.graph.output]
    values = dict(zip(names, run(session(shown, threads=1, graph_optimization="none"), image), strict=True))
    shapes = {name: array.shape for name, array in (constants | values).items()}
    dynamic = {info.name for info in model.graph.input} - constants.keys()
    shapes |= dict.fromkeys(dynamic, image.shape)
    for node in model.graph.node:
        # the shape of a tensor is known even where its values are not
        if node.op_type != "Shape" and dynamic.intersection(node.input):
            dynamic.update(node.output)
    constants |= {name: values[name] for name in names if name not in dynamic}
    return Known(shapes, constants)


def _with_all_outputs(model: ModelProto) -> ModelProto:
    shown = ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    for node in model.graph.node:
        for name in node.output:
            if name:
                shown.graph.output.append(helper.make_empty_tensor_value_info(name))
    return shown
