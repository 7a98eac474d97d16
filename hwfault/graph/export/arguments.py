"""What a network is exported with: an example of its inputs, what a graph calls them, and a forward of these."""

from collections.abc import Callable, Mapping, Sequence

import torch
from brevitas.quant_tensor import QuantTensor
from onnx import ModelProto, helper
from torch import Tensor, nn

from hwfault.errors import GraphError, PlanError, describe_kind
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.network.inputs import Example, Inputs, mapped

OUTPUT = "output"
_TYPES = (torch.float32, torch.int64, torch.int32)
_TAKEN = {OUTPUT: "the output is called so", SEED: "faults are drawn by it", FIRST_SAMPLE: "faults are drawn by it"}


def read_example(example: Example) -> Inputs:
    """The inputs that an export is shown, on the CPU; raises GraphError for what it cannot be.

    Tensors of float32, int64 or int32, of which those hold samples, along axis 0, that have as many rows as the first.
    """
    if not isinstance(example, Tensor | tuple | list | Mapping):
        raise GraphError(
            f"the example is {describe_kind(example)}, expected a batch that the network accepts: a tensor, or a tuple "
            "or dict of tensors where it takes several"
        )
    parts = list(example.values()) if isinstance(example, Mapping) else [example]
    parts += example if isinstance(example, tuple | list) else []
    if any(isinstance(part, QuantTensor) for part in parts):
        raise GraphError("the example holds a QuantTensor, expected plain tensors: a graph's inputs are on no grid")
    try:
        inputs = Inputs.of(example)
    except PlanError as error:
        raise GraphError(str(error)) from None
    for tensor in inputs.tensors:
        if tensor.dtype not in _TYPES:
            raise GraphError(
                f"the example holds {tensor.dtype} of shape {list(tensor.shape)}, expected float32, int64 or int32; "
                "convert it in the network"
            )
    return inputs.to(torch.device("cpu"))


def name_inputs(network: nn.Module, inputs: Inputs) -> list[str]:
    """What a graph calls its inputs; raises GraphError for a name that it has for something else."""
    names = inputs.names(network)
    for name in names:
        if name in _TAKEN:
            raise GraphError(
                f"an argument of the network's forward is called {name!r}, as nothing in its graph may be "
                f"({_TAKEN[name]}); rename the argument"
            )
    return names


def take_tensors(network: nn.Module, inputs: Inputs, begin: Callable[[Sequence[Tensor]], object]) -> tuple[Tensor, ...]:
    """Has a network's forward take the tensors of its inputs alone, by position, and returns these.

    What is no tensor stays as the example has it. `begin` is shown the tensors of each forward. The network is a copy,
    so that this stays.
    """
    plain = network.forward

    def forward(*tensors: Tensor) -> object:
        begin(tensors)
        waiting = iter(tensors)
        args, kwargs = mapped((inputs.args, inputs.kwargs), lambda _: next(waiting))
        return plain(*args, **kwargs)

    network.forward = forward
    return tuple(inputs.tensors)


def keep_inputs(graph: ModelProto, names: Sequence[str], inputs: Inputs) -> None:
    """Gives a graph those of its inputs again that nothing reads, which Brevitas' export takes out."""
    found = {info.name: info for info in graph.graph.input}
    del graph.graph.input[:]
    for name, tensor, axis in zip(names, inputs.tensors, inputs.axes, strict=True):
        kind = helper.np_dtype_to_tensor_dtype(tensor.detach().numpy().dtype)
        shape: list[int | str] = list(tensor.shape)
        if axis is not None:
            shape[0] = "batch"
        graph.graph.input.append(found.get(name) or helper.make_tensor_value_info(name, kind, shape))


def dynamic_axes(names: list[str], inputs: Inputs) -> dict[str, dict[int, str]]:
    """The axes of a graph's inputs and output that may have any extent: those of the samples."""
    batched = [name for name, axis in zip(names, inputs.axes, strict=True) if axis is not None]
    return {name: {0: "batch"} for name in (*batched, OUTPUT)}
