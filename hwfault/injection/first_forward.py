"""A first forward without an example is watched: does anything move or fold the samples before a struck site?

Without an example every site is taken to have its samples along axis 0. Here the functions that a forward calls are
followed (hwfault.injection.following). Only a forward of two samples and more tells anything; later ones cost nothing.
"""

from collections.abc import Mapping
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.injection.clock import Clock
from hwfault.injection.following import Following, Gone
from hwfault.injection.owners import refuse_two_forwards
from hwfault.injection.runs import in_segment
from hwfault.network.accumulators import accumulator_layers, bare
from hwfault.network.hooks import OwnHook, has_stand_in
from hwfault.network.inputs import samples_in, tensors_in
from hwfault.network.sites import quantizers
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.batch_axes import PLAIN
from hwfault.program.names import first_run
from hwfault.torch_ops.inside_torch import is_compiled, traced


def watch_first_forward(model: nn.Module, plan: FaultPlan, clock: Clock) -> list["FirstForward"]:
    """What watches the sites of a plan whose samples are taken to lie along axis 0; nothing where none are."""
    taken = [e.site.name for e in plan.sites if e.site.batched and e.site.batch is None]
    found = any(entry.site.batch is not None for entry in plan.sites)  # by an example
    if found or not taken:
        return []
    proxies, layers = dict(quantizers(model)), accumulator_layers(model)
    firsts = dict.fromkeys(map(first_run, taken))
    watched = {name: proxies[name] if name in proxies else layers[name] for name in firsts}
    return [FirstForward(model, watched, list(proxies.values()), clock)]


class FirstForward:
    """Watches forwards of a model until one of two samples and more is over.

    `sites` are the proxies and layers of the sites whose samples are taken to lie along axis 0, by the sites' names.
    """

    def __init__(self, model: nn.Module, sites: Mapping[str, nn.Module], others: list[nn.Module], clock: Clock) -> None:
        self._sites, self._others, self._clock = sites, others, clock
        self._following: Following | None = None
        self._thread = 0
        self._inside: list[Any] = []
        self._handles = [
            OwnHook.before_forward(model, self._begin, with_kwargs=True),
            OwnHook.after_forward(model, self._end, always_call=True),
        ]

    def remove(self) -> None:
        """Ends it."""
        self._end()
        for handle in [*self._inside, *self._handles]:  # also of a forward that another thread is in
            handle.remove()
        self._inside.clear()
        self._handles.clear()

    def _begin(self, model: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if self._following is not None and self._thread != get_ident():  # torch follows functions thread by thread
            refuse_two_forwards("a forward begins")
        self._end()
        samples = samples_in((args, kwargs), self._clock.batch_axis)
        if samples is None or samples < 2 or self._clock.is_paused or traced():
            return  # at once: a network that is given one sample at a time comes here in every forward
        if any(map(is_compiled, model.modules())):
            return
        following = Following(samples)
        following.note_inputs((args, kwargs), self._clock.batch_axis)
        names = {id(module): name for name, module in self._sites.items()}
        for module in [*self._sites.values(), *self._others]:
            # a struck layer has a stand-in of its own, which is the same when it is recomputed
            may_be_fused = any(module is proxy for proxy in self._others)
            see = _Seeing(following, names.get(id(module)), may_be_fused)
            self._inside.append(OwnHook.after_forward(module, see))
        following.__enter__()  # type: ignore[no-untyped-call]
        self._following, self._thread = following, get_ident()

    def _end(self, *_: Any) -> None:
        if self._following is not None and self._thread == get_ident():
            following, self._following = self._following, None
            following.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            for handle in [*self._inside, *self._handles]:
                handle.remove()
            self._inside.clear()
            self._handles.clear()


class _Seeing:
    """The forward hook of a quantizer or layer, behind those of injections: its values lie as its input does."""

    def __init__(self, following: "Following", name: str | None, may_be_fused: bool) -> None:
        self._following, self._name, self._may_be_fused = following, name, may_be_fused

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._may_be_fused:
            self._refuse_checkpointed(module)
        given = next(tensors_in(args), None)
        value = bare(output)
        if given is None or not isinstance(value, Tensor) or not value.dim():
            return
        lying = self._following.lying(given, value)
        self._following.notes.note(value, lying)
        if self._name is None or lying is None or lying == PLAIN:
            return
        where = "not along any axis that can be followed" if isinstance(lying, Gone) else str(lying)
        raise PlanError(
            f"before the site {self._name!r} the network moves or folds axis 0, which was taken for that of the "
            f"samples (values of the shape {tuple(value.shape)}, found were: {where}); give an example of the inputs, "
            "inject(..., example=inputs), and resolve plans with sites(model, example), so that the batch axis of each "
            "site is found"
        )

    def _refuse_checkpointed(self, module: nn.Module) -> None:
        """Raises PlanError where a backward pass would compute a quantizer again in another way than it runs now.

        What is followed runs as Brevitas' own, and as one operator when it is recomputed, which keeps other tensors.
        """
        if not has_stand_in(module) or not torch.is_grad_enabled() or not in_segment():
            return
        raise PlanError(
            f"the quantizer {self._name or type(module).__name__!r} is fused and lies in a part with gradient "
            "checkpointing of a first forward without an example, whose functions are followed to find the samples; "
            "give an example of the inputs, inject(..., example=inputs), or run a forward under torch.no_grad() first"
        )
