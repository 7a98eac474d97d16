"""The injection sites of a Brevitas network: every quantizer proxy that yields integers."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from brevitas.core.quant.binary import BinaryQuant, ClampedBinaryQuant
from brevitas.nn.mixin.base import QuantRecurrentLayerMixin
from brevitas.nn.quant_rnn import QuantRecurrentStackBase
from brevitas.proxy.float_runtime_quant import DynamicActFloatQuantProxyFromInjector
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjectorBase, WeightQuantProxyFromInjectorBase
from brevitas.proxy.runtime_quant import (
    ActQuantProxyFromInjectorBase,
    ClampQuantProxyFromInjector,
    DynamicActQuantProxyFromInjector,
    TruncQuantProxyFromInjector,
)
from torch import Tensor, nn

from hwfault.errors import HwfaultError, PlanError, expect_kind
from hwfault.network.accumulators import Quantizer, accumulator_layers, accumulators, bare, watched
from hwfault.network.batch_axes import batch_axes
from hwfault.network.inputs import Axes, Example, Inputs
from hwfault.network.marks import Runs
from hwfault.network.readers import Reads, parameter_of, paths, readers, unknown_reader
from hwfault.network.tied import tied
from hwfault.network.undisturbed import undisturbed
from hwfault.network.widths import width_of
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.memories import Memories
from hwfault.program.names import MARK, run_name, split_run
from hwfault.program.processes import Site, SiteList
from hwfault.program.selectors import SiteKind
from hwfault.torch_ops.inside_torch import compiled

_PROXIES = (
    WeightQuantProxyFromInjectorBase,
    BiasQuantProxyFromInjectorBase,
    ActQuantProxyFromInjectorBase,
    TruncQuantProxyFromInjector,
    ClampQuantProxyFromInjector,
)


def sites(model: nn.Module, example: Example | None = None, batch_axis: Axes = 0) -> SiteList:
    """Every place where the network holds quantized integers, in the order of its modules.

    A site is named after its quantizer's module path (`features.0.weight_quant`). With an `example` of its inputs (a
    batch, of any size; a tuple or dict where the model takes several) the model is run in evaluation mode, without
    gradients: shapes of activations, those of one sample, are known then, and along which axis the samples of each
    site lie, with how many rows for each. `batch_axis` is that of the inputs: one for all, or one for each tensor
    (None: it holds no batch). What does not fit the rule is no site but among the `obstacles`. So is known how often
    the quantizer of an activation runs, each run a site of its own (`relu.act_quant`, `relu.act_quant#1`, ...). Then
    the accumulators (`features.0.accumulator`) follow, for only a forward shows whose integers a layer adds up.
    Layers that share a quantizer, but not the parameter, have a site each, named after the path in their own layer.
    Layers that read one parameter as the same integers have one site, under the first of their names, with the others
    as `aliases`; where they read it otherwise the list's `notes` say so.
    Obstacles are, too, quantizers that are no integer quantizers with one scale a tensor or channel known beforehand,
    truncations, and all that a recurrent layer has. Raises PlanError for a module whose path holds "#".
    """
    network = unwrap(model)
    found = known_quantizers(model)
    if example is None:
        shared = tied(network, found)
        return SiteList(_memories(found, shared), find_left_out(model), shared.notes)
    on = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    inputs = Inputs.of(example, batch_axis).to(on)
    with undisturbed(network):
        shapes, axes = _runs_of(network, inputs, found)
        sums, without = accumulators(network, inputs, found)
        shared = tied(network, found, inputs)
    obstacles = find_left_out(model)
    listed: list[Site] = []
    for memory in _memories(found, shared):
        for site in _runs(memory, len(axes.get(memory.name, []))):
            _add(site, shapes, axes, listed, obstacles)
    for site in sums:
        _add(site, shapes, axes, listed, obstacles)
    return SiteList(listed, obstacles | without, shared.notes)


def _memories(found: Mapping[str, Quantizer], shared: Memories) -> list[Site]:
    """The sites of quantizers; those that read one memory are one, under the first of their names."""
    listed = []
    for name, quantizer in found.items():
        if name not in shared.first:
            listed.append(quantizer.site.model_copy(update={"aliases": shared.aliases(name)}))
    return listed


def _add(
    site: Site,
    shapes: Mapping[str, Sequence[tuple[int, ...]]],
    axes: Mapping[str, Sequence[BatchAxis | str]],
    listed: list[Site],
    obstacles: dict[str, str],
) -> None:
    """Adds a site with the shape and the batch axis that it has in its run, or notes why it is none."""
    first, run = split_run(site.name)
    if first not in axes:  # a parameter, or what did not run on the example
        listed.append(site)
        return
    placed = _on_its_axis(site, shapes[first][run], axes[first][run])
    if isinstance(placed, str):
        obstacles[site.name] = placed
    else:
        listed.append(placed)


def _runs(site: Site, runs: int) -> list[Site]:
    """The sites that the runs of a quantizer are; a parameter is one however often it is read."""
    if runs < 2 or not site.batched:
        return [site]
    return [site.model_copy(update={"name": run_name(site.name, run), "runs": runs}) for run in range(runs)]


def _runs_of(
    network: nn.Module, inputs: Inputs, found: Mapping[str, Quantizer]
) -> tuple[dict[str, list[tuple[int, ...]]], dict[str, list[BatchAxis | str]]]:
    """The shapes of each run of each activation and each layer's sums, and where the samples lie in them."""

    layers = accumulator_layers(network)

    @contextmanager
    def watch(note: Callable[[str, Tensor], None]) -> Iterator[None]:
        handles = []
        for name, quantizer in found.items():
            if quantizer.site.batched:
                handles.append(quantizer.proxy.register_forward_hook(functools.partial(_show, note, name)))
        try:
            with watched(layers, lambda name, _x, out: note(name, bare(out))):
                yield
        finally:
            for handle in handles:
                handle.remove()

    shapes = Runs(network, watch).see(inputs, lambda _name, _run, value: tuple(value.shape))
    try:
        return shapes, batch_axes(network, inputs, watch, {name: len(runs) for name, runs in shapes.items()})
    except HwfaultError:
        raise
    except Exception as error:  # whatever a network raises for a batch that it does not take
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        why = f"where its samples lie is not known, as the network does not run on batches of other sizes: {said}"
        return shapes, {name: [why] * len(runs) for name, runs in shapes.items()}


def _show(note: Callable[[str, Tensor], None], name: str, _proxy: nn.Module, _args: Any, output: Any) -> None:
    value = bare(output)
    if value.dim():  # Brevitas probes quantizers with a scalar to learn their scale
        note(name, value)


def _on_its_axis(site: Site, shape: tuple[int, ...], axis: BatchAxis | str) -> Site | str:
    """The site with the shape of one sample and its batch axis, or why it is none."""
    if isinstance(axis, str):
        return f"the samples of {site.name!r} cannot be told apart: {axis}"
    return site.model_copy(update={"shape": axis.sample_shape(shape), "batch": None if axis.plain else axis})


def known_quantizers(model: nn.Module) -> dict[str, Quantizer]:
    """Every quantizer that yields integers, with its site, by the site's name.

    One that layers with different parameters share comes once for each of these.
    """
    layers = readers(unwrap(model))
    found: dict[str, Quantizer] = {}
    for name, proxy, why in _enabled(model, layers):
        if why is None:
            _check_path(name)
            layer = layers.get(name)
            found[name] = Quantizer(_site(name, proxy, layer), proxy, layer)
    return found


def reads_of(known: Mapping[str, Quantizer]) -> dict[str, Reads | None]:
    """What tells which parameter a quantizer reads that layers share, by each of the site's names; None elsewhere."""
    layers: dict[int, dict[str, nn.Module]] = {}
    for name, quantizer in known.items():
        if quantizer.layer is not None:
            layers.setdefault(id(quantizer.proxy), {})[name] = quantizer.layer
    return {name: Reads.of(q.proxy, layers.get(id(q.proxy), {})) for name, q in known.items()}


def check_known(plan: FaultPlan, known: SiteList | None) -> None:
    """Raises PlanError for a plan that strikes what an example has shown to be no site, or along another axis."""
    if known is None:
        return
    names = {site.name for site in known}
    for name in plan.names:
        if name in known.obstacles and name not in names:
            raise PlanError(f"the plan strikes the site {name!r}, which is none here: {known.obstacles[name]}")
    plan.check_batch_axes(known, "the network")


def quantizers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(site name, quantizer proxy) of each quantizer; one that several layers share comes once, by its first name."""
    seen: set[int] = set()
    for name, module, why in _enabled(model, readers(unwrap(model))):
        if why is None and id(module) not in seen:
            seen.add(id(module))
            _check_path(name)
            yield name, module


def find_left_out(model: nn.Module) -> dict[str, str]:
    """Why the other quantizers of a network are no sites, by the names that they would have."""
    return {name: why for name, _, why in _enabled(model, readers(unwrap(model))) if why is not None}


def _enabled(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Each quantizer that is switched on: its name, its proxy, and why it is no site, or None.

    One that comes again in another layer is left out, unless `layers` has a site of that name.
    """
    recurrent: dict[int, str] = {}
    seen: set[int] = set()
    for name, module, _ in paths(unwrap(model)):
        again = id(module) in seen
        seen.add(id(module))
        if again and name not in layers:
            continue
        role = _role(type(module))  # type: ignore[arg-type]  # mypy takes its instances' hash for the class's
        if role == "recurrent":
            # a stack has layers in it, and gates that share their quantizers: what comes first names them
            recurrent = {id(inner): f"{name!r} ({type(module).__name__})" for inner in module.modules()} | recurrent
        if role != "proxy" or not module.is_quant_enabled:
            continue
        layer = recurrent.get(id(module))
        why = _why_none(name, module, name in layers) if layer is None else _in_recurrence(layer)
        yield name, module, why


@functools.lru_cache(maxsize=1024)  # as in `readers`: protocols take long to say what is none of theirs
def _role(module: type[nn.Module]) -> str | None:
    """What a module of this class is to those who look for sites; None: nothing."""
    if issubclass(module, QuantRecurrentStackBase | QuantRecurrentLayerMixin):
        return "recurrent"
    return "proxy" if issubclass(module, _PROXIES) else None


def _in_recurrence(layer: str) -> str:
    return (
        f"the recurrent layer {layer} runs its quantizers where no hook sees them, so their integers cannot be struck; "
        "build it from layers without recurrence"
    )


def _why_none(name: str, proxy: Any, has_reader: bool) -> str | None:
    """Why a quantizer is no site; None for one that is."""
    if isinstance(proxy, TruncQuantProxyFromInjector | ClampQuantProxyFromInjector):
        return (
            f"the quantizer {name!r} ({type(proxy).__name__}) cuts integers of another one short, and is struck in the "
            "exported graph only; put a QuantIdentity behind it to strike what it yields"
        )
    if isinstance(proxy, DynamicActQuantProxyFromInjector | DynamicActFloatQuantProxyFromInjector):
        return (
            f"the quantizer {name!r} ({type(proxy).__name__}) computes its scale anew for each input, so that its "
            "integers are on no grid known before; calibrate a constant scale"
        )
    try:
        _bit_width(name, proxy)
    except PlanError as error:
        return str(error)
    return None if has_reader else unknown_reader(name, proxy)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside what torch.compile or data parallelism wrapped around it.

    Raises HwfaultError for what is no module.
    """
    expect_kind(model, nn.Module, "the network", "a torch.nn.Module with Brevitas quantizers")
    while True:
        inner = compiled(model)
        if inner is None and isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _check_path(name: str) -> None:
    """Raises PlanError for a name that would be that of a run of another site."""
    if MARK in name:
        raise PlanError(
            f"the path of the quantizer {name!r} holds {MARK!r}, which stands before the number of a run "
            f"(`q{MARK}1` is the second run of `q`); expected another name: rename the module"
        )


def _kind(name: str, module: nn.Module) -> SiteKind | None:
    if isinstance(module, WeightQuantProxyFromInjectorBase):
        return "weight"
    if isinstance(module, BiasQuantProxyFromInjectorBase):
        return "bias"
    if isinstance(module, ActQuantProxyFromInjectorBase):
        return "input" if name.rpartition(".")[2] == "input_quant" else "activation"
    return None


def _site(name: str, proxy: Any, reader: nn.Module | None) -> Site:
    """The site of a quantizer; `reader` is the layer whose parameter it is, None for activations."""
    kind = _kind(name, proxy)
    assert kind is not None
    parameter = parameter_of(proxy, reader)
    shape = None if parameter is None else tuple(parameter.shape)
    layer = type(proxy.tracked_module_list[0] if reader is None else reader).__name__
    width = _bit_width(name, proxy)
    return Site(name=name, kind=kind, bit_width=width, signed=bool(proxy.is_signed), layer=layer, shape=shape)


def _bit_width(name: str, proxy: Any) -> int:
    fused = getattr(proxy, "fused_activation_quant_proxy", None)
    quantizer = proxy.tensor_quant if fused is None else fused.tensor_quant
    width = width_of(proxy)
    if width is None or proxy.is_groupwise:
        raise PlanError(
            f"the quantizer {name!r} ({type(quantizer).__name__}) does not yield integers with one scale for each "
            "tensor or channel; hwfault handles Brevitas' integer quantizers only"
        )
    if int(width()) == 1 and proxy.is_signed and not isinstance(quantizer, BinaryQuant | ClampedBinaryQuant):
        raise PlanError(
            f"the quantizer {name!r} yields signed integers of one bit, -1 and 0; one signed bit means -1 and +1 to "
            "QONNX and to the fault stream: use a binary quantizer, or an unsigned one"
        )
    return int(width())
