"""What torch has no public name for: all of its private names that the package uses stand here.

Those that count references are missing where a build of torch does not have them; whoever counts asks first.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.compiler import is_compiling
from torch.nn.modules import batchnorm
from torch.nn.modules import module as modules
from torch.utils.hooks import RemovableHandle

# looked up once: torch._C is a large table, and every site of a forward asks for these
_operators_watched = torch._C._len_torch_dispatch_stack
_functions_watched = torch._C._len_torch_function_stack
_transforms = torch._C._functorch.peek_interpreter_stack
_tracing_state = torch._C._get_tracing_state
_backward_pass = torch._C._current_graph_task_id
_keys = torch._C._dispatch_keys
_memory_uses: Any = getattr(torch._C, "_storage_Use_Count", None)
_saving_hooks = torch._C._autograd._top_saved_tensors_default_hooks
_NO_PASS = -1
_EXPORTER_PRINTS = "_jit_onnx_log"

COUNTS_USES = _memory_uses is not None and hasattr(Tensor, "_use_count")
"""Whether tensors and their memory tell how often they are held."""

BatchNorm = batchnorm._BatchNorm
"""What all batch normalisations are."""


class Moment(NamedTuple):
    """What goes on while a hook runs."""

    followed: bool
    """Whether somebody follows the operators that are called; see `traced`."""
    compiling: bool
    """Whether that is a compiler."""
    recomputing: bool
    """Whether autograd runs a backward pass in this thread."""


_PLAIN, _RECOMPUTING = Moment(False, False, False), Moment(False, False, True)


def moment() -> Moment:
    """What goes on now; to be asked once by each hook."""
    if traced():
        return Moment(True, is_compiling(), in_backward())
    return _PLAIN if _backward_pass() == _NO_PASS else _RECOMPUTING


def traced() -> bool:
    """Whether somebody follows the operators that are called, or computes more than their values."""
    return bool(
        is_compiling()
        or _operators_watched()
        or _transforms() is not None
        or _tracing_state() is not None
        or forward_ad._current_level >= 0
    )


def functions_watched() -> bool:
    """Whether a mode sees the functions of torch that are called, but not what autograd runs for them."""
    return bool(_functions_watched())


def is_exporting() -> bool:
    """Whether torch.export runs; in torch 2.11 `torch.compiler.is_exporting()` is true in all that is compiled."""
    return bool(torch.compiler._is_exporting_flag)


def traced_for_onnx() -> bool:
    """Whether torch traces the operators that are called, for an export."""
    return _tracing_state() is not None


def traced_value(x: Tensor) -> Any:
    """What a tensor is in the trace that goes on: a value of its graph, with the node that makes it."""
    return torch._C._get_value_trace(x)  # type: ignore[attr-defined]


def in_forward_mode() -> bool:
    """Whether derivatives are computed along with the values."""
    return forward_ad._current_level >= 0


def in_backward() -> bool:
    """Whether autograd is running a backward pass in this thread, as it is while a checkpoint is recomputed."""
    return not is_compiling() and _backward_pass() != _NO_PASS


def backward_pass() -> int:
    """The number of the backward pass that runs in this thread, -1 for none."""
    return _backward_pass()


def is_plain(x: Any) -> bool:
    """Whether x is a tensor on the CPU of which only its memory counts: no subclass, wrapper or lazy negation."""
    return type(x) is Tensor and _keys(x).raw_repr() in _plain_keys()


def is_memory(x: Any) -> bool:
    """The same of tensors and parameters, on the CPU or a CUDA device."""
    if not (type(x) is Tensor or type(x) is nn.Parameter):
        return False
    kind = x.device.type
    return kind in ("cpu", "cuda") and _keys(x).raw_repr() in _plain_keys(kind)


@cache
def _plain_keys(kind: str = "cpu") -> frozenset[int]:
    """Which implementations of an operator plain tensors of a kind of device take, as bits."""
    made = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            made.append(torch.empty(0, device=kind))
    return frozenset(_keys(x).raw_repr() for x in made)


def uses(x: Any) -> tuple[int, ...]:
    """How often a plain tensor is used, how often its memory is, and whether that is torch's and this process' own.

    Nothing for what is not plain. Only where COUNTS_USES.
    """
    if type(x) is not Tensor or _keys(x).raw_repr() not in _plain_keys():
        return ()
    tensor: Any = x
    storage = tensor.untyped_storage()
    own = storage.resizable() and not storage.is_shared()
    return tensor._use_count(), _memory_uses(storage._cdata), own


def has_gradient_hooks(x: Tensor) -> bool:
    """Whether somebody is to be shown the gradient of a tensor."""
    return x._backward_hooks is not None


def saving_is_watched() -> bool:
    """Whether somebody is shown what autograd keeps for a backward pass, as checkpoints are."""
    return _saving_hooks(False) is not None


def written(x: Tensor) -> int:
    """How often a tensor was written to; one that was made in inference mode does not say."""
    return x._version


def viewed(x: Tensor) -> Tensor | None:
    """The tensor that this one is a view of, as autograd knows it."""
    return x._base


def assert_there(condition: Tensor, sentence: str = "") -> None:
    """Stops what runs next on a device unless the condition, one bool there, holds."""
    torch._assert_async(condition, sentence)


def keep_address(counter: Tensor) -> None:
    """What torch._dynamo.mark_static_address does: compilers may capture a graph that writes to the tensor."""
    counter._dynamo_static_input_type = "unguarded"  # type: ignore[attr-defined]


def compiler() -> ModuleType | None:
    """torch._dynamo, None as long as it is not loaded, and so nothing is compiled."""
    return sys.modules.get("torch._dynamo")


def compiled(module: nn.Module) -> nn.Module | None:
    """The module that torch.compile made this one of, None for any other."""
    return getattr(module, "_orig_mod", None)


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made this module, or was told to compile it in place."""
    return compiled(module) is not None or module._compiled_call_impl is not None


def forward_hooks(module: nn.Module) -> Any:
    """The forward hooks of a module in their order, by the id of their handle: an OrderedDict, which may be sorted."""
    return module._forward_hooks


def hooks_of(module: nn.Module) -> tuple[Any, ...]:
    """The dicts of all hooks that a call of a module may run; they stay the same as hooks come and go."""
    return module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks


def has_global_hooks() -> bool:
    """Whether there are hooks that are called for every module."""
    return bool(modules._has_any_global_hook())  # type: ignore[no-untyped-call]


def hooks_made() -> int:
    """How many hooks were ever attached to anything: as long as it stays the same, no module has got another."""
    return RemovableHandle.next_id


def named_children(module: nn.Module) -> Mapping[str, nn.Module | None]:
    """The modules below a module by the names that it has them under, several names of one included."""
    return module._modules


def parameters_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The parameters of a module itself by their names: the dict that it has them in."""
    return module._parameters  # type: ignore[return-value]


def buffers_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The same of buffers."""
    return module._buffers


def registered(module: nn.Module, name: str) -> Tensor | None:
    """The parameter that is registered under a name, None where it is computed, or not there."""
    return module._parameters.get(name)


def padding_of(layer: Any) -> list[int]:
    """How many zeros a convolution puts in front and behind, from its last axis to the first, as functional.pad has
    it."""
    return list(layer._reversed_padding_repeated_twice)


def clamp_all(tensors: Sequence[Tensor], limit: float) -> None:
    """Clips tensors to +-limit in place."""
    torch._foreach_clamp_max_(list(tensors), limit)
    torch._foreach_clamp_min_(list(tensors), -limit)


@contextmanager
def exporter_prints_to(keep: Callable[..., None]) -> Iterator[None]:
    """Hands to `keep`, within the block, what PyTorch's exporter would print, its graph included."""
    printed: Callable[..., None] | None = getattr(torch._C, _EXPORTER_PRINTS, None)
    if printed is not None:
        setattr(torch._C, _EXPORTER_PRINTS, keep)
    try:
        yield
    finally:
        if printed is not None:
            setattr(torch._C, _EXPORTER_PRINTS, printed)
