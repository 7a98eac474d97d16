"""Every implementation of the fault stream behind one signature, so that one test body runs over all of them.

An engine maps (codes of one sample, program, seed, sample, bit_width) to new codes.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import onnxruntime
from onnx import AttributeProto, ModelProto, TensorProto, helper

from hwfault.codes import Codes
from hwfault.stream import native, reference
from hwfault.stream.check import signed64

Engine = Callable[[Codes, Sequence[int], int, int, int], Codes]


def by_reference(codes: Codes, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    return reference.inject_codes(codes, program=program, seed=seed, sample=sample, bit_width=bit_width)


def by_native(codes: Codes, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    batch = native.inject_codes(codes[None], program=program, seed=seed, samples=[sample], bit_width=bit_width)
    return batch[0]


def by_onnxruntime(codes: Codes, program: Sequence[int], seed: int, sample: int, bit_width: int) -> Codes:
    """A graph of one TransientFaults node on float64, which holds every code of 32 bits."""
    feeds = {
        "x": codes[None].astype(np.float64),
        "seed": np.array(signed64(seed)),
        "first_sample": np.array(sample),
    }
    (values,) = one_node_session(tuple(program), bit_width).run(None, feeds)
    return values[0].astype(np.uint32)


@lru_cache(maxsize=64)
def one_node_session(program: tuple[int, ...], bit_width: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.register_custom_ops_library(str(native.library_path()))
    graph = one_node_graph(program, bit_width).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def one_node_graph(program: Sequence[int], bit_width: int) -> ModelProto:
    """Unsigned codes as float64 values of scale 1, a batch of samples, through TransientFaults."""
    inputs = ["x", "scale", "zero_point", "seed", "first_sample"]
    node = helper.make_node(
        "TransientFaults", inputs, ["y"], domain="hwfault", bit_width=bit_width, signed=0, batched=1
    )
    node.attribute.append(AttributeProto(name="program", type=AttributeProto.INTS, ints=program))
    shaped = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["batch", "words"]) for name in "xy"]
    scalars = [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in inputs[3:]]
    constants = [
        helper.make_tensor("scale", TensorProto.DOUBLE, [], [1.0]),
        helper.make_tensor("zero_point", TensorProto.DOUBLE, [], [0.0]),
    ]
    graph = helper.make_graph([node], "one", [shaped[0], *scalars], [shaped[1]], constants)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


ENGINES: dict[str, Engine] = {"reference": by_reference, "native": by_native, "onnxruntime": by_onnxruntime}
