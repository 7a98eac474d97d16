"""The arithmetic of an accelerator: sums of integers, then one multiplication and one addition for each channel.

x_int = round(x / s_x)    w_int = round(w / s_w)    acc = conv(x_int, w_int)
y = float32(acc * multiplier + addend)

where multiplier and addend hold the scales, the bias and the normalisation behind the layer. All of it is exact, or
one rounding of what is the same everywhere: see docs/exactness.md.
"""

import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch
from brevitas.function.ops_ste import round_ste
from brevitas.quant_tensor import IntQuantTensor
from torch import Tensor, nn

from hwfault.arithmetic.affine import affine
from hwfault.arithmetic.integer_layer import IntegerLayer
from hwfault.arithmetic.integer_parts import Parts, parts_of
from hwfault.arithmetic.integer_pools import MEANS, POOLS, Pool, Window, pool_of
from hwfault.arithmetic.tape import Tape
from hwfault.errors import GraphError, HwfaultError
from hwfault.network.accumulators import (
    DROPOUTS,
    LAYERS,
    Grids,
    Notes,
    OffGrid,
    accumulator_layers,
    bare,
    largest_integer,
    largest_magnitude_of,
    weights_of,
    whole,
)
from hwfault.network.grids import known_scale
from hwfault.network.override import Override
from hwfault.network.sites import known_quantizers, unwrap
from hwfault.program.accumulators import EXACT_SUM, fractional
from hwfault.torch_ops.inside_torch import BatchNorm, forward_hooks, traced_for_onnx

_NO_GRID = (
    "its inputs are on no known grid: no quantizer with one scale lies right before it, or something between the two "
    "leaves the grid"
)
_CATENATIONS = (torch.cat, torch.concat, torch.concatenate)

Mark = Callable[[str, Tensor, bool], Tensor]


def integer_arithmetic(model: nn.Module) -> "IntegerArithmetic":
    """Computes the model's layers, normalisations and means in exact steps until the block is left.

    Use it as `with integer_arithmetic(model):`, alone or together with `inject`, or call `.remove()` on what it
    returns. It is the arithmetic of a graph from `export(model, example, arithmetic="integer")`, bit for bit. Nothing
    of the model is written; normalisations are computed so in evaluation mode only. Raises HwfaultError if it is
    attached already, or the model is none.
    """
    unwrap(model)
    return IntegerArithmetic(model)


class Grid(NamedTuple):
    """A tensor's values are integers of at most `largest` in magnitude times the scale (float32, one value).

    Not `whole` ones, where the zero point is no integer.
    """

    scale: Tensor
    largest: int
    whole: bool = True


class _Layer(NamedTuple):
    """The constants of one run of a layer."""

    input_scale: Tensor
    weight_scale: Tensor
    unit: Tensor
    """What a sum is worth, in float64, along the accumulators; the multiplier is it in float32."""
    multiplier: Tensor
    addend: Tensor
    parts: Parts


class _Norm(NamedTuple):
    """The constants of one run of a normalisation: of what comes from a layer's sums, of its bias, or of any values."""

    multiplier: Tensor
    gain: Tensor
    shift: Tensor


class _Pool(NamedTuple):
    pool: Pool
    scale: Tensor
    multiplier: Tensor
    addend: Tensor
    ones: Tensor
    double: bool


class _Sums(NamedTuple):
    """What a layer's values were computed from."""

    acc: Tensor
    unit: Tensor
    bias: Tensor | None
    channels: tuple[int, ...]


class IntegerArithmetic:
    """Integer arithmetic attached to a model.

    `left` says which layers and means the last forward computed as the network does, and why: their sums may differ
    from engine to engine.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = unwrap(model)
        if uses_integer_arithmetic(self._model):
            raise HwfaultError(
                "the model computes in integer arithmetic already; leave that `with integer_arithmetic(...)` block (or "
                "call .remove() on it) first"
            )
        self.left: dict[str, str] = {}
        self._never: dict[str, str] = {}
        self._tape, self._sums = Tape(), Notes[_Sums]()
        self._grids = _PooledGrids(self)
        self._mark: Mark = lambda _site, value, _integers: value
        self._quantizers = known_quantizers(self._model)
        self._handles: list[Any] = []
        self._attach()

    def _attach(self) -> None:
        self._hooks = []
        for name, quantizer in self._quantizers.items():
            if quantizer.site.kind in ("activation", "input"):
                tag = functools.partial(self._tag, largest_integer(self._quantizers[name]))
                self._hooks.append((quantizer.proxy, quantizer.proxy.register_forward_hook(tag)))
        self._handles += [handle for _, handle in self._hooks]
        for name, layer in accumulator_layers(self._model).items():
            if not isinstance(layer, LAYERS):
                self._never[_layer_name(name)] = f"a {type(layer).__name__} is not computed on integers"
            elif weights_of(layer, self._quantizers) is None:
                self._never[_layer_name(name)] = "its weights are not quantized"
            else:
                self._handles.append(_OnLayer(IntegerLayer.of(name, layer, self._known_scale), self))
        for module in self._model.modules():
            if isinstance(module, BatchNorm):
                self._handles.append(Override(module, functools.partial(self._normalised, module)))
        self._handles.append(Override(self._model, self._forward))

    def _known_scale(self, proxy: nn.Module) -> tuple[Tensor, Tensor]:
        nothing = torch.empty(0)
        return (nothing, nothing) if self._tape.frozen else known_scale(proxy)

    def freeze(self, mark: Mark) -> None:
        """Takes the last forward's constants for those of every later one, to be traced for an export.

        `mark(site, sums, integers)` then sees what each layer adds up, under its site's name, and ("") every other sum
        of integers; `integers` is false where a layer is left as it is.
        """
        self._tape.frozen, self._mark = True, mark

    def _forward(self, plain: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A forward of the whole model, in which grids are followed."""
        followed = traced_for_onnx() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
        if followed and not self._tape.frozen:
            raise GraphError(
                "the model is compiled or exported while it computes in integer arithmetic; leave the block (or call "
                ".remove() on it), and export it with export(model, example, arithmetic='integer')"
            )
        self._tape.begin()
        if not self._tape.frozen:
            self.left = dict(self._never)
        for proxy, handle in self._hooks:  # behind the hooks of injections, which come later
            forward_hooks(proxy).move_to_end(handle.id)
        with torch.backends.nnpack.flags(enabled=False), self._grids:  # it has fast convolutions that are not exact
            return plain(*args, **kwargs)

    def _tag(self, largest: int, proxy: Any, _args: Any, output: Any) -> None:
        value = bare(output)
        if proxy.is_quant_enabled and value.dim():

            def grid() -> Grid | None:
                quantized = isinstance(output, IntQuantTensor)
                scale, zero_point = (output.scale, output.zero_point) if quantized else known_scale(proxy)
                if scale.numel() != 1:
                    return None
                return Grid(scale.detach().reshape(()), largest, whole(zero_point))

            self._grids.notes.note(value, self._tape.constants(grid))

    def grid_of(self, x: Any) -> Grid:
        """The grid that a tensor is on; raises HwfaultError, with the reason alone, if it is on none."""
        grid = self._grids.notes.of(x)
        if grid is None and isinstance(x, IntQuantTensor) and x.scale.numel() == 1:
            largest = largest_magnitude_of(x)
            grid = Grid(x.scale.detach().reshape(()), largest, whole(x.zero_point))
        if not isinstance(grid, Grid):
            raise HwfaultError(_NO_GRID)
        if not grid.whole:
            raise HwfaultError(fractional("inputs"))
        if bare(x).dtype != torch.float32:
            raise HwfaultError(f"its inputs are {bare(x).dtype}, expected torch.float32")
        return grid

    # ---- layers

    def computed(self, layer: IntegerLayer, x: Any, weight: Any, bias: Any) -> Tensor | None:
        """A layer's values from its integers, with its bias; None if it has no integers."""
        made: _Layer | None = self._tape.constants(lambda: self._layer(layer, x, bare(weight)))
        if made is None:
            return self._mark(layer.name, bare(layer.plain(x, weight, bias)), False) if self._tape.frozen else None
        value, b = bare(x), None if bias is None else bare(bias)
        with torch.autocast(value.device.type, enabled=False):
            x_int, w_int = _rounded(value / made.input_scale), _rounded(bare(weight) / made.weight_scale)
            acc, padded, walk = self._added_up(layer, made.parts, x_int, w_int)
            if layer.struck:
                acc = layer.struck_sums(acc.double() if layer.adds_in_double() else acc, padded, w_int, walk)
            channels = (-1,) if layer.linear else (-1, *[1] * (acc.dim() - 2))
            b = None if b is None else _along(b, channels)
            out = affine(acc, made.multiplier, made.addend if b is None else b)
        if not layer.linear or acc.dim() == 2:
            self._sums.note(out, _Sums(acc, made.unit, b, channels))
        return out

    def _layer(self, layer: IntegerLayer, x: Any, weight: Tensor) -> _Layer | None:
        name = _layer_name(layer.name)
        try:
            grid = self.grid_of(x)
            weights = weights_of(layer.layer, self._quantizers)
            assert weights is not None
            if not layer.weights_are_whole():
                raise HwfaultError(fractional("weights"))
            parts = parts_of(layer.layer, grid.largest * largest_integer(weights), weight)
        except HwfaultError as reason:
            self.left[name] = str(reason)
            return None
        scale = layer.scale_of_weights(weight)
        unit = grid.scale.double() * scale.double().reshape(layer.along_channels(weight, scale))
        zero = torch.zeros((), device=weight.device)
        return _Layer(grid.scale, scale, unit, unit.float(), zero, parts)

    def _added_up(self, layer: IntegerLayer, parts: Parts, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, list[int]]:
        """The accumulators, exactly; the inputs as the layer walks over them, and how it walks."""
        if parts.double:
            return self._mark(layer.name, layer.sums(x.double(), w.double())[0], True), x, []
        if len(parts.channels) <= 1:
            acc, padded, walk = layer.sums(x, w)
            return self._mark(layer.name, acc, True), padded, walk
        padded, pads = layer.padded(x, w)
        sums = [
            self._mark("" if i else layer.name, layer.convolved(*parts.taken(i, padded, w), pads), True).double()
            for i in range(len(parts.channels))
        ]
        return functools.reduce(torch.add, sums), padded, layer.walk(pads)

    # ---- normalisations and means

    def _normalised(self, bn: Any, plain: Callable[[Any], Any], x: Any) -> Any:
        """A normalisation's values: from the sums of the layer right before it, or in one step of its own."""
        value = bare(x)
        if bn.training or bn.running_mean is None or value.dtype != torch.float32:
            return plain(x)
        sums = self._sums.of(value)
        channels = sums.channels if sums is not None else (-1, *[1] * (value.dim() - 2))
        made: _Norm = self._tape.constants(lambda: _norm(bn, None if sums is None else sums.unit, channels))
        if sums is None:
            return affine(value, made.gain, made.shift)
        addend = made.shift if sums.bias is None else affine(sums.bias, made.gain, made.shift)
        return affine(sums.acc, made.multiplier, addend)

    def mean(self, func: Callable[..., Any], x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A mean of integers; None if it is none of integers."""
        value, noted = bare(x), self._grids.notes.of(x)
        grid = noted if isinstance(noted, Grid) else None
        if grid is None and func not in MEANS:  # weights' quantizers take means, too
            self.left[f"{func.__name__} of {list(value.shape[1:])}"] = _NO_GRID
        made: _Pool | None = grid and self._tape.constants(lambda: self._pool(func, value, grid, args, kwargs))
        if grid is None or made is None:
            return None
        integers = _rounded(value / made.scale)
        sums = self._mark("", made.pool.sums(integers.double() if made.double else integers, made.ones), True)
        out = affine(sums, made.multiplier, made.addend)
        self._grids.notes.note(out, Grid(made.multiplier, grid.largest * made.pool.added))
        return func(x, *args, **kwargs)._replace(value=out) if isinstance(x, IntQuantTensor) else out

    def _pool(
        self, func: Any, value: Tensor, grid: Grid, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> _Pool | None:
        try:
            if not grid.whole:
                raise HwfaultError(fractional("values"))
            pool = pool_of(func, value.shape, args, kwargs)
            double = grid.largest * pool.added > EXACT_SUM
            if double and isinstance(pool, Window):
                raise HwfaultError(f"the largest sum of its {pool.added} values is beyond 2^24")
        except HwfaultError as reason:
            self.left[f"{func.__name__} of {list(value.shape[1:])}"] = str(reason)
            return None
        multiplier = (grid.scale.double() / pool.counted).float()
        ones = torch.ones(value.shape[1], 1, *pool.kernel) if isinstance(pool, Window) else torch.ones(())
        return _Pool(pool, grid.scale, multiplier, torch.zeros_like(multiplier), ones.to(value.device), double)

    def remove(self) -> None:
        """Takes everything away again; the model is as it was. Harmless when called twice."""
        while self._handles:
            self._handles.pop().remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def _along(bias: Tensor, channels: tuple[int, ...]) -> Tensor:
    """The bias as it lies along the channels; no reshape, whose first number qonnx takes for that of a batch."""
    for _ in channels[1:]:
        bias = bias.unsqueeze(-1)
    return bias


def _rounded(x: Tensor) -> Tensor:
    rounded: Tensor = round_ste(x) if x.requires_grad and not traced_for_onnx() else torch.round(x)
    return rounded


def _norm(bn: Any, unit: Tensor | None, channels: tuple[int, ...]) -> _Norm:
    gain = 1 / torch.sqrt(bn.running_var.double() + bn.eps)
    gain = gain if bn.weight is None else bn.weight.double() * gain
    shift = -bn.running_mean.double() * gain
    shift = shift if bn.bias is None else bn.bias.double() + shift
    gain, shift = gain.reshape(channels), shift.reshape(channels).float()
    return _Norm((gain if unit is None else unit * gain).float(), gain.float(), shift)


def _layer_name(accumulator: str) -> str:
    return accumulator.removesuffix("accumulator").rstrip(".")


class _PooledGrids(Grids[Grid]):
    """Follows grids through a forward, and takes means of integers."""

    def __init__(self, arithmetic: IntegerArithmetic) -> None:
        super().__init__()
        self._arithmetic = arithmetic

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in POOLS and args:
            mean = self._arithmetic.mean(func, args[0], args[1:], kwargs)
            return func(*args, **kwargs) if mean is None else mean
        if func in DROPOUTS and args and not (args[2:3] or (kwargs.get("training", True),))[0]:
            return args[0]
        out = super().__torch_function__(func, types, args, kwargs)
        if func in _CATENATIONS:
            self.notes.note(out, _common([self.notes.of(part) for part in args[0]]))
        return out


def _common(grids: list[Grid | OffGrid | None]) -> Grid | None:
    """The grid of tensors that are put side by side."""
    known = [grid for grid in grids if isinstance(grid, Grid)]
    if len(known) < len(grids) or not all(torch.equal(grid.scale, known[0].scale) for grid in known):
        return None
    return Grid(known[0].scale, max(grid.largest for grid in known), all(grid.whole for grid in known))


class _OnLayer:
    """Integer arithmetic on one layer."""

    def __init__(self, layer: IntegerLayer, arithmetic: IntegerArithmetic) -> None:
        self._layer = layer
        layer.arithmetic = arithmetic

    def remove(self) -> None:
        self._layer.arithmetic = None


def uses_integer_arithmetic(model: nn.Module) -> bool:
    """Whether integer arithmetic is attached to the model."""
    instead = Override.of(unwrap(model))
    return isinstance(getattr(instead, "__self__", None), IntegerArithmetic)
