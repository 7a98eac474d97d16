"""Every implementation of the fault stream behind one signature, so that one test body runs over all of them.

An engine maps (codes of one sample, program, seed, sample, bit_width) to new codes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

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
    return many_by_onnxruntime([(codes, program, seed, sample, bit_width)])[0]


def many_by_onnxruntime(draws: Sequence[tuple[Codes, Sequence[int], int, int, int]]) -> list[Codes]:
    """A graph with one node for each of several draws."""
    session = session_of(tuple((tuple(program), bit_width) for _, program, _, _, bit_width in draws))
    feeds = {}
    for k, (codes, _, seed, sample, _) in enumerate(draws):
        feeds |= {f"x{k}": codes[None].astype(np.float64), f"seed{k}": np.array(signed64(seed))}
        feeds[f"first_sample{k}"] = np.array(sample % 2**32)  # an op takes no others
    return [values[0].astype(np.uint32) for values in session.run(None, feeds)]


@lru_cache(maxsize=8)
def session_of(nodes: tuple[tuple[tuple[int, ...], int], ...]) -> onnxruntime.InferenceSession:
    """Nodes of (program, bit width), each with inputs of its own: x, seed and first_sample, numbered."""
    made = [fault_node(k, program, bit_width, signed=0, batched=1) for k, (program, bit_width) in enumerate(nodes)]
    inputs = []
    for k in range(len(nodes)):
        inputs.append(helper.make_tensor_value_info(f"x{k}", TensorProto.DOUBLE, [f"batch{k}", f"words{k}"]))
        inputs += [helper.make_tensor_value_info(f"{name}{k}", TensorProto.INT64, []) for name in NUMBERS]
    constants = {"scale": np.array(1.0), "zero_point": np.array(0.0)}
    return session(made, inputs, TensorProto.DOUBLE, constants)


NUMBERS = ("seed", "first_sample")


def fault_node(k: int, program: Sequence[int], bit_width: int, *, signed: int, batched: int) -> NodeProto:
    inputs = [f"x{k}", "scale", "zero_point", *(f"{name}{k}" for name in NUMBERS)]
    attributes = {"bit_width": bit_width, "signed": signed, "batched": batched}
    node = helper.make_node("TransientFaults", inputs, [f"y{k}"], name=f"node{k}", domain="hwfault", **attributes)
    node.attribute.append(AttributeProto(name="program", type=AttributeProto.INTS, ints=program))
    return node


def session(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    dtype: int,
    constants: Mapping[str, NDArray],
    threads: int = 1,
) -> onnxruntime.InferenceSession:
    """A session for nodes of hwfault's ops, whose first outputs are the graph's; constants are of the type `dtype`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    options.register_custom_ops_library(str(native.library_path()))
    outputs = [helper.make_tensor_value_info(node.output[0], dtype, None) for node in nodes]
    as_type = helper.tensor_dtype_to_np_dtype(dtype)
    held = [numpy_helper.from_array(np.asarray(value).astype(as_type), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "ops", inputs, outputs, held)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("hwfault", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


ENGINES: dict[str, Engine] = {"reference": by_reference, "native": by_native, "onnxruntime": by_onnxruntime}
