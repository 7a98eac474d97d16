"""What the ops ArrayFaults of a graph compute, by the native library."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto

from hwfault.graph.read.batch_axes import batch_axis_of
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.program.batch_axes import arrange, restore
from hwfault.stream import native
from hwfault.stream.array import Array, Axis, Layer

Values = NDArray[Any]

LISTS = ("strides", "pads", "dilations", "order", "events")
NUMBERS = {"group": 1, "channels_last": 0, "width": 0, "step": 1, "pass_steps": 0, "recompute": 0}
"""The attributes of ArrayFaults that are numbers, with their defaults; `overflow` is a text, "wrap" by default."""


def added_up(node: NodeProto, sums: Values, x: Values, w: Values) -> Values:
    """What an ArrayFaults node makes of its inputs: a layer's accumulators, inputs and weights, all integers."""
    get = {key: attribute(node, key, default) for key, default in NUMBERS.items()}
    lists = {key: list(attribute(node, key, [])) for key in LISTS}
    array = Array(
        width=get["width"],
        saturate=attribute(node, "overflow", b"wrap") == b"saturate",
        step=get["step"],
        pass_steps=get["pass_steps"],
        order=np.array(lists["order"], np.int64),
        events=np.array(lists["events"], np.int64).reshape(-1, 8),
        recompute=bool(get["recompute"]),
    )
    if get["channels_last"]:
        batch = batch_axis_of(node)
        sums_of, x_of = arrange(sums, batch), arrange(x, batch)
        positions = math.prod(sums_of.shape[1:-1])
        layer = Layer(len(sums_of), w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
        return restore(native.accumulate_arrays(sums_of, x_of, w, layer, array), sums.shape, batch)
    walk = [lists[key] for key in ("strides", "pads", "dilations")]
    lengths = zip(x.shape[2:], sums.shape[2:], w.shape[2:], *walk, strict=False)
    axes = tuple(Axis(*map(int, axis)) for axis in lengths)
    layer = Layer(sums.shape[0], w.shape[0], get["group"], w.shape[1], axes)
    return native.accumulate_arrays(sums, x, w, layer, array)
