"""The integer accumulators of a Brevitas network: which layers have one, how wide it is, whose integers feed it."""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from brevitas import nn as qnn
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from hwfault.errors import PlanError
from hwfault.network.inputs import Inputs
from hwfault.network.mode import evaluation
from hwfault.network.readers import parameter_of
from hwfault.program.accumulators import (
    NoAccumulatorError,
    check_one_scale,
    check_whole,
    largest_magnitude,
    make_accumulator_site,
)
from hwfault.program.names import first_run, run_name
from hwfault.program.processes import Site
from hwfault.torch_ops.inside_torch import written

LAYERS = (qnn.QuantConv1d, qnn.QuantConv2d, qnn.QuantConv3d, qnn.QuantLinear)

_RESHAPE = (
    *("flatten", "unflatten", "reshape", "view", "view_as", "permute", "transpose", "swapaxes", "movedim", "t"),
    *("squeeze", "unsqueeze", "expand", "expand_as", "repeat", "roll", "flip", "pixel_shuffle", "pixel_unshuffle"),
    *("narrow", "select", "chunk", "split", "unbind", "__getitem__", "channel_shuffle"),
)
# `rename` is there up to torch 2.12, and Brevitas calls it on what each quantizer answers
_SAME = ("contiguous", "clone", "detach", "float", "double", "to", "cpu", "rename", "rename_")
_LARGEST = (*(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)), "amax", "amin", "relu", "relu_")
_SPACES = (torch, Tensor, functional)
_KEEPS_GRID = {getattr(s, n) for n in (*_RESHAPE, *_SAME, *_LARGEST) for s in _SPACES if hasattr(s, n)}
_KEEPS_GRID |= {getattr(Tensor, name).__get__ for name in ("T", "mT")}
DROPOUTS = {getattr(functional, name) for name in dir(functional) if "dropout" in name and name.islower()}


class Quantizer(NamedTuple):
    """A quantizer's site and its proxy; `layer` is the one whose parameter it reads there, as far as one has it."""

    site: Site
    proxy: Any
    layer: Any = None

    @property
    def parameter(self) -> Tensor | None:
        """The parameter that the site is; None for activations."""
        return parameter_of(self.proxy, self.layer)


Quantizers = Mapping[str, Quantizer]
T = TypeVar("T")


class OffGrid:
    """In place of a grid: what comes from a quantizer, but is none of its integers."""


OFF_GRID = OffGrid()


def accumulator_layers(model: nn.Module) -> dict[str, Any]:
    """Every layer that adds up products, by the name of its accumulator; a shared one comes once."""
    layers = (QuantWeightBiasInputOutputLayer,)
    return {f"{name}.accumulator".lstrip("."): m for name, m in model.named_modules() if isinstance(m, layers)}


def accumulators(model: nn.Module, example: Inputs, quantizers: Quantizers) -> tuple[list[Site], dict[str, str]]:
    """The accumulators' sites, and why the other layers' are none, as a forward of the example shows them.

    Shapes are those of all samples, and nothing is said of their axis, which the caller knows.

    The model runs once in evaluation mode. Which quantizer's integers reach a layer is followed through everything
    that keeps a tensor on its grid: reshaping, slicing, padding with 0, rectifying, max pooling.
    """
    layers = accumulator_layers(model)
    seen = _look(model, example, layers, quantizers)
    sites, obstacles = [], {}
    for name, layer in layers.items():
        calls = seen.calls.get(name, [])
        for run in range(max(len(calls), 1)):
            own = run_name(name, run)
            try:
                call = calls[run : run + 1]
                sites.append(_seen_site(own, layer, call, len(calls), quantizers, seen))
            except NoAccumulatorError as obstacle:
                obstacles[own] = str(obstacle)
    return sites, obstacles


def accumulator_site(name: str, layer: Any, planned: Site, quantizers: Quantizers) -> Site:
    """The site that a planned accumulator is in this network; raises PlanError if its layer has none."""
    try:
        _check_layer(layer, quantizers)
        if planned.source is None:
            return planned
        source = quantizers.get(first_run(planned.source))
        if source is None:
            raise NoAccumulatorError(
                f"the network has no quantizer {planned.source!r}, from which its inputs are said to come"
            )
        found = _site(name, layer, largest_integer(source), planned.source, planned.shape, quantizers)
        return found.model_copy(update={"batch": planned.batch})
    except NoAccumulatorError as obstacle:
        raise PlanError(f"the plan strikes the site {name!r}, which is none here: {obstacle}") from None


class _Call(NamedTuple):
    """What one run of a layer was given and gave."""

    source: str | None
    largest: int | None
    scales: int
    whole: bool
    shape: tuple[int, ...]
    batched: bool


class _Seen(NamedTuple):
    """What a forward showed: the runs of each layer, and the quantizers whose zero points are no integers."""

    calls: dict[str, list[_Call]]
    fractional: set[str]
    scaled: set[str]
    """Quantizers of activations that have several scales."""


def whole(zero_point: Tensor) -> bool:
    """Whether zero points are integers, and so what layers add up (it waits for the device)."""
    return torch.equal(zero_point, zero_point.round())


def _seen_site(name: str, layer: Any, calls: list[_Call], runs: int, quantizers: Quantizers, seen: _Seen) -> Site:
    """The site of one run of a layer, of `runs` in all; `calls` is empty where it did not run."""
    _check_layer(layer, quantizers)
    weights = weights_of(layer, quantizers)
    check_whole("weights", whole=weights is None or weights.site.name not in seen.fractional)
    if not calls:
        raise NoAccumulatorError("the layer did not run on the example")
    (call,) = calls
    if call.largest is None:
        raise NoAccumulatorError(
            "its inputs are on no known grid: no quantizer lies right before it (a batch normalisation, average "
            "pooling, an addition or a dropout between the two leaves the grid)"
        )
    check_whole("inputs", whole=call.whole and first_run(call.source or "") not in seen.fractional)
    # what a layer is given may be bare values, which do not tell the scales of the quantizer that they come from
    check_one_scale(2 if first_run(call.source or "") in seen.scaled else call.scales)
    if not call.batched:
        raise NoAccumulatorError("its input has no batch axis")
    site = _site(name, layer, call.largest, call.source, call.shape, quantizers)
    return site.model_copy(update={"runs": runs}) if runs > 1 else site


def _check_layer(layer: Any, quantizers: Quantizers) -> None:
    kind = type(layer).__name__
    if not isinstance(layer, LAYERS):
        raise NoAccumulatorError(
            f"a {kind} does not add up products output by output; expected a convolution or linear layer"
        )
    if weights_of(layer, quantizers) is None:
        raise NoAccumulatorError("its weights are not quantized")


def weights_of(layer: Any, quantizers: Quantizers) -> Quantizer | None:
    """The quantizer of a layer's weights, if it has one."""
    return next((q for q in quantizers.values() if q.proxy is layer.weight_quant), None)


def _site(name: str, layer: Any, largest_input: int, source: str | None, shape: Any, quantizers: Quantizers) -> Site:
    """The site of a layer whose inputs are integers of at most `largest_input` in magnitude."""
    weights = weights_of(layer, quantizers)
    assert weights is not None
    return make_accumulator_site(
        name,
        type(layer).__name__,
        layer.weight.shape,
        largest_input=largest_input,
        largest_weight=largest_integer(weights),
        shape=shape,
        source=source,
    )


def largest_integer(quantizer: Quantizer) -> int:
    """The largest magnitude of the integers, zero point taken off, that the quantizer's bit width allows.

    All codes count, also those that only a fault makes; with a zero point of its own any one within the codes.
    """
    return largest_of(quantizer.proxy, quantizer.site.bit_width, quantizer.site.signed)


def largest_of(proxy: Any, bits: int, signed: bool) -> int:
    """The same of a quantizer of so many bits."""
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    zero_point = getattr((proxy if fused is None else fused).tensor_quant, "zero_point_impl", None)
    symmetric = zero_point is None or isinstance(zero_point, ZeroZeroPoint)
    return largest_magnitude(bits, signed=signed, symmetric=symmetric)


def largest_magnitude_of(x: IntQuantTensor) -> int:
    """The same of the integers that a quantized tensor says it has."""
    return largest_magnitude(int(x.bit_width), signed=bool(x.signed), symmetric=not bool(x.zero_point.any()))


class Notes(Generic[T]):
    """What is known of tensors, as long as they live and nobody writes into them."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[weakref.ref[Tensor], int, T]] = {}

    def note(self, tensor: Any, what: T | None) -> None:
        value = bare(tensor)
        key = id(value)
        if what is not None and isinstance(value, Tensor):
            # another tensor may get the number of one that is gone
            gone = weakref.ref(value, lambda _: self._noted.pop(key, None))
            self._noted[key] = (gone, _version(value), what)

    def of(self, tensor: Any) -> T | None:
        value = bare(tensor)
        entry = self._noted.get(id(value))
        if entry is None:
            return None
        noted, version, what = entry
        if version != _version(value) or noted() is not value:
            return None
        return what


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; those made in inference mode do not say."""
    return 0 if tensor.is_inference() else written(tensor)


class Grids(TorchFunctionMode, Generic[T]):
    """Which grid a tensor is on, passed on by the functions that keep it."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = Notes[T | OffGrid]()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        grid = self.notes.of(args[0]) if args else None
        out = func(*args, **kwargs)
        if grid is None:
            return out
        if func in DROPOUTS:  # in training it leaves the grid; in evaluation it may answer with what it was given
            value = bare(out).clone()
            out = out._replace(value=value) if isinstance(out, IntQuantTensor) else value
            self.notes.note(out, OFF_GRID)
            return out
        if func in _KEEPS_GRID or (func is functional.pad and _pads_with_zero(*args, **kwargs)):
            several = isinstance(out, tuple | list) and not isinstance(out, IntQuantTensor)  # which is a tuple, too
            for part in out if several else [out]:
                self.notes.note(part, grid)
        return out


def bare(tensor: Any) -> Any:
    """The values of a QuantTensor, or the tensor itself."""
    return tensor.value if isinstance(tensor, IntQuantTensor) else tensor


def _pads_with_zero(_x: Tensor, _pad: Any, mode: str = "constant", value: float | None = None) -> bool:
    return mode != "constant" or not value


@torch.no_grad()
def _look(model: nn.Module, example: Inputs, layers: Mapping[str, Any], quantizers: Quantizers) -> _Seen:
    """What each layer was given in a forward of the example, run by run."""
    grids = Grids[str]()
    calls: dict[str, list[_Call]] = {name: [] for name in layers}
    fractional: set[str] = set()
    scaled: set[str] = set()
    runs: Counter[str] = Counter()

    def made(name: str, out: Any) -> None:
        """Notes which run of a quantizer a tensor comes from, and scales and zero points that do not add up."""
        if not bare(out).dim():  # Brevitas probes quantizers with a scalar to learn their scale
            return
        if isinstance(out, IntQuantTensor) and not whole(out.zero_point):
            fractional.add(name)
        if quantizers[name].site.batched:
            if isinstance(out, IntQuantTensor) and out.scale.numel() > 1:
                scaled.add(name)
            grids.notes.note(out, run_name(name, runs[name]))
            runs[name] += 1

    handles = []
    for name, quantizer in quantizers.items():
        hook = quantizer.proxy.register_forward_hook(lambda _m, _a, out, name=name: made(name, out))
        handles.append(hook)

    def note(name: str, x: Any, out: Any) -> None:
        calls[name].append(_call(x, out, grids.notes.of(x), layers[name], quantizers))

    try:
        with torch.inference_mode(False), evaluation(model), watched(layers, note), grids:
            example.run(model)
    finally:
        for handle in handles:
            handle.remove()
    return _Seen(calls, fractional, scaled)


def _call(x: Any, out: Any, source: str | OffGrid | None, layer: Any, quantizers: Quantizers) -> _Call:
    largest = None
    scales = 1
    integers = True
    if isinstance(source, OffGrid):
        source = None
    elif source is not None:
        largest = largest_integer(quantizers[first_run(source)])
    elif isinstance(x, IntQuantTensor):
        largest = largest_magnitude_of(x)
    if isinstance(x, IntQuantTensor):
        scales = x.scale.numel()
        integers = whole(x.zero_point)
    value = bare(out)
    rank = layer.weight.dim() if isinstance(layer, LAYERS) else value.dim()
    batched = value.dim() >= 2 if rank == 2 else value.dim() == rank
    return _Call(source, largest, scales, integers, tuple(value.shape), batched)


@contextmanager
def watched(layers: Mapping[str, Any], note: Callable[[str, Any, Any], None]) -> Iterator[None]:
    """Shows `note(name, inputs, sums)` of each layer for as long as the block lasts, sums with the bias."""

    def seeing(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def inner_forward_impl(x: Any, *rest: Any) -> Any:
            out = plain(x, *rest)
            note(name, x, out)
            return out

        return inner_forward_impl

    before = {name: vars(layer).get("inner_forward_impl") for name, layer in layers.items()}
    try:
        for name, layer in layers.items():
            layer.inner_forward_impl = seeing(name, layer.inner_forward_impl)
        yield
    finally:
        for name, layer in layers.items():
            del layer.inner_forward_impl
            if before[name] is not None:
                layer.inner_forward_impl = before[name]
