"""Layers that compute on their integers while an injection strikes their accumulators.

x_int = round(x / s_x)    w_int = round(w / s_w)    acc = conv(x_int, w_int)
y = faults(acc) * (s_x * s_w) + bias
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from brevitas.function.ops_ste import round_ste
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn
from torch.nn import functional

from hwfault.arithmetic.adds import Adds
from hwfault.errors import PlanError
from hwfault.network.accumulators import largest_of, whole
from hwfault.network.exporting import refuse_export
from hwfault.network.hooks import NeverCopied, OwnHook, StandIn
from hwfault.network.override import refuse_copy
from hwfault.network.widths import InputWidth, Width
from hwfault.program.accumulators import fractional
from hwfault.program.names import first_run
from hwfault.torch_ops.arranged import unnamed
from hwfault.torch_ops.inside_torch import Moment, compiler, moment, padding_of

CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


KnownScale = Callable[[nn.Module], tuple[Tensor, Tensor]]


class Striker(Protocol):
    """What an injection does to the accumulators of a layer, as long as it is active there.

    `run` counts the runs of a layer, and tells the name of the site that the present one is.
    """

    def run(self, first: str, now: Moment) -> str: ...
    def active(self, name: str) -> bool: ...
    def adds(self, name: str) -> Adds: ...
    def add_up(self, name: str, acc: Tensor, x: Tensor, w: Tensor, walk: list[int], groups: int) -> Tensor: ...


class Arithmetic(Protocol):
    """What computes layers in exact steps."""

    def computed(self, layer: "IntegerLayer", x: Any, weight: Any, bias: Any) -> Tensor | None:
        """The layer's values with its bias, None if it cannot compute them."""


class Scale(NeverCopied):
    """The scale and zero point of a quantizer's latest output; a forward hook."""

    def __init__(self, name: str, proxy: nn.Module, known_scale: KnownScale) -> None:
        self.proxy = proxy
        self.latest: Tensor | None = None
        self.zero_point: Tensor | None = None
        self._known_scale = known_scale
        self._width = Width.of(name, proxy)

    def __call__(self, proxy: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if getattr(proxy, "is_quant_enabled", True) and getattr(output, "value", output).dim():
            is_quant_tensor = isinstance(output, IntQuantTensor)
            grid = (output.scale, output.zero_point) if is_quant_tensor else self._known_scale(proxy)
            scale, self.zero_point = grid
            if self._width is not None:  # sums that may be larger would have other words
                scale = self._width.checked(output.bit_width if is_quant_tensor else None, scale)
            self.latest = scale


class Entry(NamedTuple):
    """What strikes one run of a layer, the name of that site, and the quantizer that its inputs come from there.

    Without one they bring a scale along, and a width that `inputs` watches.
    """

    striker: Striker
    name: str
    scale: Scale | None
    inputs: InputWidth | None


class IntegerLayer(NeverCopied):
    """Stands in for a layer's `inner_forward_impl`, for as long as anything strikes its accumulators."""

    def __init__(self, name: str, layer: Any, known_scale: KnownScale) -> None:
        self.name = name
        self.layer = layer
        self._weights = Scale(name, layer.weight_quant, known_scale)
        self.strikers: list[Entry] = []
        self._present: list[Entry] = []
        """Those of the run that the layer is in."""
        self._checked = False
        self._arithmetic: Arithmetic | None = None
        self._handles = (
            OwnHook.after_forward(layer.weight_quant, self._weights),
            StandIn(layer, "inner_forward_impl", self, self._check_copying),
        )

    @classmethod
    def of(cls, name: str, layer: Any, known_scale: KnownScale) -> "IntegerLayer":
        """The one that stands in for a layer already, or a new one."""
        present = vars(layer).get("inner_forward_impl")
        return present if isinstance(present, cls) else cls(name, layer, known_scale)

    def add(self, entry: "Entry") -> None:
        """Begins to strike."""
        self.strikers.append(entry)

    def drop(self, entry: "Entry") -> None:
        """Ends it; without anything that strikes, the layer is its own again."""
        self.strikers.remove(entry)
        self._withdraw()

    @property
    def arithmetic(self) -> "Arithmetic | None":
        """What computes the layer in exact steps, whether anything strikes or not."""
        return self._arithmetic

    @arithmetic.setter
    def arithmetic(self, arithmetic: "Arithmetic | None") -> None:
        self._arithmetic = arithmetic
        self._withdraw()

    def _withdraw(self) -> None:
        if not self.strikers and self._arithmetic is None:
            for handle in self._handles:
                handle.remove()

    def _check_copying(self) -> None:
        """A copy without faults is the network; one without its arithmetic would be another network."""
        if self._arithmetic is not None:
            refuse_copy()

    def __call__(self, x: Any, weight: Any, bias: Any = None) -> Any:
        now = moment()
        runs = {id(entry.striker): entry.striker.run(self.name, now) for entry in self._each_striker()}
        self._present = [entry for entry in self.strikers if runs[id(entry.striker)] == entry.name]
        switched_off = not all(
            scale.proxy.is_quant_enabled for scale in self._scales()
        )  # as Brevitas' calibration does
        out = None
        if self._arithmetic is None:
            refuse_export()
        elif not switched_off:
            self._inputs_checked(x, getattr(weight, "value", weight))
            out = self._arithmetic.computed(self, x, weight, bias)
        if out is None:
            if switched_off or not self._active():
                return self.plain(x, weight, bias)
            out = self._struck(x, weight, bias)
        if self.layer.return_quant_tensor and not self.layer.output_quant.is_quant_enabled:
            return self.plain(x, weight, bias)._replace(value=out)
        return out

    def _struck(self, x: Any, weight: Any, bias: Any) -> Tensor:
        """What the layer computes on its integers, as Brevitas computes it but for its accumulators."""
        value = unnamed(x.value if isinstance(x, IntQuantTensor) else x)
        self._check_zero_points(x)
        with torch.autocast(value.device.type, enabled=False):
            out = self._integer(value, self._input_scale(x), getattr(weight, "value", weight))
        if bias is None:
            return out
        added: Tensor = getattr(bias, "value", bias)
        return out + (added if self.linear else added.reshape(-1, *[1] * (out.dim() - 2)))

    def _each_striker(self) -> list[Entry]:
        """One entry of each striker."""
        return list({id(entry.striker): entry for entry in self.strikers}.values())

    def _active(self) -> list[Entry]:
        """What strikes the present run."""
        return [entry for entry in self._present if entry.striker.active(entry.name)]

    def _scales(self) -> list[Scale]:
        return [self._weights, *(entry.scale for entry in self._present if entry.scale is not None)]

    @property
    def struck(self) -> bool:
        """Whether anything strikes the layer's accumulators."""
        return bool(self.strikers)

    @property
    def linear(self) -> bool:
        return isinstance(self.layer, nn.Linear)

    def plain(self, x: Any, weight: Any, bias: Any) -> Any:
        """What the layer computes on its own."""
        return type(self.layer).inner_forward_impl(self.layer, x, weight, bias)

    def _input_scale(self, x: Any) -> Tensor:
        source = self._active()[0].scale
        scale = x.scale if isinstance(x, IntQuantTensor) else source.latest if source else None
        if scale is None or scale.numel() != 1:
            raise PlanError(
                f"the inputs of {self.name!r} are not on the grid that they were on when the sites were listed "
                f"({'no scale is known' if scale is None else 'they have a scale for each channel'}); list the sites "
                "again with an example batch"
            )
        return self._inputs_checked(x, scale).detach().reshape(())

    def _inputs_checked(self, x: Any, scale: Tensor) -> Tensor:
        """The scale, once it is sure that inputs which no site brings have the width that was planned for."""
        for entry in self._active():
            if entry.inputs is not None and isinstance(x, IntQuantTensor):
                scale = entry.inputs.checked(x, scale)
        return scale

    def _integer(self, x: Tensor, scale: Tensor, weight: Tensor) -> Tensor:
        """The layer's output before the bias."""
        weight_scale = self.scale_of_weights(weight)
        single = torch.float64 if x.dtype == torch.float64 else torch.float32
        x_int = round_ste(x.to(single) / scale)
        w_int = round_ste(weight.to(single) / weight_scale)
        self._check_grid(x, x_int, scale)
        acc_type = torch.float64 if self.adds_in_double() else single
        acc, x_int, walk = self.sums(x_int.to(acc_type), w_int.to(acc_type))
        acc = self.struck_sums(acc, x_int, w_int, walk)
        value = scale.to(acc_type) * weight_scale.to(acc_type).reshape(self.along_channels(weight, weight_scale))
        return (acc * value).to(x.dtype)

    def adds_in_double(self) -> bool:
        """Whether what strikes asks for sums in float64."""
        return any(entry.striker.adds(entry.name).array.arithmetic == "float64" for entry in self._active())

    def struck_sums(self, acc: Tensor, x: Tensor, w: Tensor, walk: list[int]) -> Tensor:
        """The accumulators as what strikes leaves them; x and w are the layer's integers."""
        for entry in self._active():
            acc = entry.striker.add_up(entry.name, acc, x, w, walk, getattr(self.layer, "groups", 1))
        return acc

    def scale_of_weights(self, weight: Tensor) -> Tensor:
        """One value, or one for each channel; raises PlanError for anything else."""
        scale = self._weights.latest
        assert scale is not None
        channels = (weight.shape[0],) + (1,) * (weight.dim() - 1)
        if scale.numel() != 1 and tuple(scale.shape) != channels:
            raise PlanError(
                f"the weights of {self.name!r} have scales of shape {tuple(scale.shape)}, expected one, or one for "
                f"each of the {weight.shape[0]} output channels"
            )
        return scale.detach()

    def weights_are_whole(self) -> bool:
        """Whether the zero points of the weights are integers (it waits for the device)."""
        return self._weights.zero_point is None or whole(self._weights.zero_point)

    def along_channels(self, weight: Tensor, scale: Tensor) -> tuple[int, ...]:
        """The shape in which the weights' scale lies along the accumulators."""
        if scale.numel() == 1:
            return ()
        return (scale.numel(),) if self.linear else (scale.numel(), *[1] * (weight.dim() - 2))

    def _check_zero_points(self, x: Any) -> None:
        """Raises PlanError for zero points that are no integers; looks once on devices, as it waits."""
        value = getattr(x, "value", x)
        if torch.compiler.is_compiling() or (value.device.type != "cpu" and self._checked):
            return
        source = self._active()[0].scale
        inputs = x.zero_point if isinstance(x, IntQuantTensor) else source.zero_point if source else None
        for what, zero_point in (("inputs", inputs), ("weights", self._weights.zero_point)):
            if zero_point is not None and not whole(zero_point):
                raise PlanError(
                    f"the accumulator {self.name!r} has no bits to strike: {fractional(what)}; leave it out of the plan"
                )

    def _check_grid(self, x: Tensor, x_int: Tensor, scale: Tensor) -> None:
        """Raises PlanError for inputs that are not the integers times the scale; looks once on devices, as it waits."""
        if torch.compiler.is_compiling() or x.dtype not in (torch.float32, torch.float64):
            return
        if x.device.type != "cpu":
            if self._checked:
                return
            self._checked = True
        again, given = x_int.detach() * scale, x.detach()
        if not torch.equal(again, given) and not ((again == given) | given.isnan()).all():  # what is no number stays
            raise PlanError(
                f"the inputs of {self.name!r} are not multiples of their quantizer's scale: something between that "
                "quantizer and the layer changes them now that did not when the sites were listed; list them again"
            )

    def sums(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """The accumulators, the inputs as the convolution walks over them (padded), and how it walks."""
        if self.linear:
            return functional.linear(x, w), x, []
        x, pads = self.padded(x, w)
        return self.convolved(x, w, pads), x, self.walk(pads)

    def walk(self, pads: tuple[int, ...]) -> list[int]:
        """Stride, padding and dilation of each spatial axis, one after the other."""
        steps = zip(self.layer.stride, pads, self.layer.dilation, strict=True)
        return [n for step in steps for n in step]

    def padded(self, x: Tensor, w: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The inputs with all padding that is not the same zeros in front and behind, and what is left to pad."""
        return _padded(self.layer, x, w)

    def convolved(self, x: Tensor, w: Tensor, pads: tuple[int, ...]) -> Tensor:
        """The sums of a convolution."""
        layer = self.layer
        return CONVOLUTIONS[w.dim() - 2](x, w, None, layer.stride, pads, layer.dilation, layer.groups)


def _padded(layer: Any, x: Tensor, w: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    rank = w.dim() - 2
    if layer.is_same_padded_strided:
        pads: list[int] = []
        for axis in reversed(range(rank)):
            length, kernel, stride = x.shape[2 + axis], w.shape[2 + axis], layer.stride[axis]
            needed = (-(-length // stride) - 1) * stride + (kernel - 1) * layer.dilation[axis] + 1 - length
            pads += [max(needed, 0) // 2, max(needed, 0) - max(needed, 0) // 2]
        return functional.pad(x, pads), (0,) * rank
    if layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
        return x, tuple(layer.padding)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(x, padding_of(layer), mode=mode), (0,) * rank


class Attached:
    """One injection's strike on a run of a layer; `remove` takes it away again."""

    def __init__(
        self,
        name: str,
        layer: Any,
        striker: Striker,
        source: nn.Module | None,
        known_scale: KnownScale,
    ) -> None:
        self._integer = IntegerLayer.of(first_run(name), layer, known_scale)
        scale = None if source is None else Scale(name, source, known_scale)
        self._handle = None if scale is None else OwnHook.after_forward(scale.proxy, scale)
        inputs = _input_width(name, layer, striker) if source is None else None
        self._entry = Entry(striker, name, scale, inputs)
        self._integer.add(self._entry)
        _forget_compiled()

    def remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._integer.drop(self._entry)
        _forget_compiled()


def _input_width(name: str, layer: Any, striker: Striker) -> InputWidth | None:
    """What the inputs of a layer may be for the words that its sums have in the plan; None where it does not say."""
    bits, width = striker.adds(name).worst_case, Width.of(name, layer.weight_quant)
    if bits is None or width is None:
        return None
    weight = largest_of(layer.weight_quant, width.bits, bool(layer.weight_quant.is_signed))
    return InputWidth(name, bits, math.prod(layer.weight.shape[1:]) * weight)


def computes_on_integers(module: nn.Module) -> bool:
    """Whether an injection stands in for the module's sums."""
    present = vars(module).get("inner_forward_impl")
    return isinstance(present, IntegerLayer) and present.struck


def _forget_compiled() -> None:
    """Graphs compiled before do not look whether a layer's method was replaced."""
    if compiler() is not None:
        torch.compiler.reset()
