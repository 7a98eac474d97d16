"""The op ArrayFaults in a graph: its nodes, and what they compute, by the native library."""

import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, helper

from hwfault.graph.ops import ARRAY_OP, DOMAIN
from hwfault.graph.read.batch_axes import batch_axis_of
from hwfault.graph.read.nodes import BATCH_AXIS
from hwfault.graph.read.qonnxgraph import SITE, attribute, set_metadata
from hwfault.program.batch_axes import arrange, restore
from hwfault.program.processes import ArrayPlan, Site, SitePlan
from hwfault.stream import native
from hwfault.stream.array import Array, Axis, Layer

Values = NDArray[Any]

LISTS = ("strides", "pads", "dilations", "order", "events")
NUMBERS = {"group": 1, "channels_last": 0, "width": 0, "step": 1, "pass_steps": 0, "recompute": 0}
"""The attributes of ArrayFaults that are numbers, with their defaults; `overflow` is a text, "wrap" by default."""


def asks_for_double(entry: SitePlan) -> bool:
    """Whether the plan has a layer added up in float64."""
    return entry.array is not None and entry.array.arithmetic == "float64"


def value_scale(x: Values, w: Values, layer: NodeProto, site: Site, *, double: bool) -> Values:
    """What an accumulator's unit is worth, of the shape in which it lies along the accumulators of a site.

    `x` and `w` are the scales of inputs and weights, one value or, of weights, one for each output.
    """
    dtype = np.float64 if double else np.float32
    channels: tuple[int, ...] = ()
    if w.size > 1:
        channels = (w.size,)
        if layer.op_type == "Conv":  # whose positions lie behind its channels
            channels += (1,) * (len(site.weights or ()) - 2)
    of_inputs = x.astype(dtype).reshape(())
    of_weights = w.astype(dtype).reshape(channels)
    return np.asarray(np.multiply(of_inputs, of_weights))


def make_array_node(entry: SitePlan, layer: NodeProto, inputs: tuple[str, str, str], output: str) -> NodeProto:
    """The ArrayFaults node behind a layer: inputs are its accumulators, and the integers of inputs and weights."""
    array = entry.array or ArrayPlan()
    lists: dict[str, Any] = {"strides": [], "pads": [], "dilations": []}
    numbers: dict[str, Any] = {"group": 1, "channels_last": 1}
    if layer.op_type == "Conv":
        rank = len(entry.site.weights or ()) - 2
        lists = {
            "strides": attribute(layer, "strides", [1] * rank),
            "pads": attribute(layer, "pads", [0] * 2 * rank),
            "dilations": attribute(layer, "dilations", [1] * rank),
        }
        numbers = {"group": attribute(layer, "group", 1), "channels_last": 0}
    lists["order"] = array.order
    lists["events"] = list(chain.from_iterable(array.events))
    numbers["width"] = entry.site.bit_width
    numbers["overflow"] = array.overflow
    numbers["step"] = array.step
    numbers["pass_steps"] = array.pass_steps
    # sums in float64 are all computed anew: the layer itself has added up float32
    numbers["recompute"] = int(asks_for_double(entry))
    if entry.site.batch is not None and layer.op_type != "Conv":  # each row of a convolution is added up on its own
        for key in BATCH_AXIS:
            numbers[key] = getattr(entry.site.batch, key)
    node = helper.make_node(ARRAY_OP, list(inputs), [output], name=output, domain=DOMAIN, **numbers)
    for key, values in lists.items():  # also an empty one has to be a list of integers
        node.attribute.append(helper.make_attribute(key, list(values), attr_type=AttributeProto.INTS))
    set_metadata(node, {SITE: entry.site.name})
    return node


def add_up(node: NodeProto, sums: Values, x: Values, w: Values) -> Values:
    """What an ArrayFaults node makes of its inputs: a layer's accumulators, inputs and weights, all integers."""
    numbers = {key: attribute(node, key, default) for key, default in NUMBERS.items()}
    lists = {key: list(attribute(node, key, [])) for key in LISTS}
    array = Array(
        width=numbers["width"],
        saturate=attribute(node, "overflow", b"wrap") == b"saturate",
        step=numbers["step"],
        pass_steps=numbers["pass_steps"],
        order=np.array(lists["order"], np.int64),
        events=np.array(lists["events"], np.int64).reshape(-1, 8),
        recompute=bool(numbers["recompute"]),
    )
    if numbers["channels_last"]:
        # a linear layer: every position of a sample is multiplied by the same weights
        batch = batch_axis_of(node)
        sums_of = arrange(sums, batch)
        x_of = arrange(x, batch)
        positions = math.prod(sums_of.shape[1:-1])
        layer = Layer(len(sums_of), w.shape[0], 1, w.shape[1], (Axis(positions, positions),), True)
        struck = native.accumulate_arrays(sums_of, x_of, w, layer, array)
        return restore(struck, sums.shape, batch)
    # a convolution, whose pads in front of each axis come first in the list of all
    walk = [lists[key] for key in ("strides", "pads", "dilations")]
    lengths = zip(x.shape[2:], sums.shape[2:], w.shape[2:], *walk, strict=False)
    axes = tuple(Axis(*map(int, axis)) for axis in lengths)
    layer = Layer(sums.shape[0], w.shape[0], numbers["group"], w.shape[1], axes)
    return native.accumulate_arrays(sums, x, w, layer, array)
