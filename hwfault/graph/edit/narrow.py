"""Constants of 4 bits held in 8, where fault ops have operands of: DequantizeLinear makes the same values of both."""

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, numpy_helper

from hwfault.graph.edit.editing import FreshNames
from hwfault.graph.read.own_integers import NARROW
from hwfault.graph.read.qonnxgraph import Constants
from hwfault.graph.read.site_tensor import SiteTensor


def hold_narrow(model: ModelProto, places: Sequence[SiteTensor], fresh: FreshNames) -> Mapping[str, SiteTensor]:
    """Has what reads constants of 4 bits read constants of 8 with the same integers, in place.

    The places that are such constants, by their tensors, with the new ones. The old ones stay in the graph, unread, so
    that stripping the faults gives them back.
    """
    narrow = {tensor.name for tensor in model.graph.initializer if tensor.data_type in NARROW}
    held = {place.tensor: place for place in places if place.tensor in narrow}
    if not held:
        return {}
    constants = Constants(model)
    wider: dict[str, str] = {}

    def widen(name: str) -> str:
        """The constant of 8 bits for one of 4."""
        if name not in wider:
            wider[name] = fresh.take(f"{name}_held")
            _, signed = NARROW[constants.type_of(name)]
            values = np.asarray(constants.get(name)).astype(np.int8 if signed else np.uint8)
            model.graph.initializer.append(numpy_helper.from_array(values, wider[name]))
        return wider[name]

    for node in model.graph.node:
        if node.input and node.input[0] in held:
            node.input[0] = widen(node.input[0])
            if len(node.input) > 2 and node.input[2]:
                node.input[2] = widen(node.input[2])
    return {name: place._replace(tensor=widen(name)) for name, place in held.items()}
