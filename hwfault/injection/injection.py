"""A fault plan attached to a Brevitas network: hooks on its quantizers and sums, and what can be set meanwhile."""

from collections import OrderedDict
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from hwfault.arithmetic.adds import Adds
from hwfault.arithmetic.integer_layer import Attached
from hwfault.errors import HwfaultError, PlanError, nearest
from hwfault.injection.clock import Clock
from hwfault.injection.first_forward import watch_first_forward
from hwfault.injection.found import Found, no_example, too_often, with_site
from hwfault.injection.inside import FastForward, fast_runs
from hwfault.injection.lean_hook import fast_forward, lean_hook
from hwfault.injection.observer import Observer, Watcher
from hwfault.injection.owners import Claim
from hwfault.injection.planned import accumulators, further_runs, known_runs, names_of_runs
from hwfault.injection.ready import ProtectionCounts, Ready, protection_counts
from hwfault.injection.site_hook import SiteHook
from hwfault.injection.strike import FastStrike, Strike, kept
from hwfault.laws.models import FaultModel
from hwfault.network.accumulators import accumulator_layers
from hwfault.network.grids import known_scale
from hwfault.network.hooks import OwnHook, notice_hooks
from hwfault.network.inputs import Axes, check_axes
from hwfault.network.sites import check_known, known_quantizers, quantizers, reads_of, sites, unwrap
from hwfault.network.tied import StillTied, check_tied, tied
from hwfault.network.widths import Width
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.names import first_run, fits, run_name
from hwfault.program.processes import Site, SiteList
from hwfault.program.selectors import names_of
from hwfault.stream.check import SAMPLES, check_seed, signed64
from hwfault.torch_ops.arranged import samples_of
from hwfault.torch_ops.gradient import Gradient, passes_straight_through
from hwfault.torch_ops.held import NOT_THERE, check
from hwfault.torch_ops.inside_torch import Moment, moment

_KEPT_PLANS = 32


class Injection:
    """An attached plan; `seed`, `plan`, `enabled`, `hold`, `first_sample` and `samples` can be set while it is.

    `plan` may be any plan whose sites are among those of the first one. Sites that it leaves out, that are disabled
    or whose probabilities are all 0 cost nothing: their values pass through.

    Sample i of a batch has number `first_sample + i`; after each forward it runs on. How many there are the first
    tensor of the inputs says, along their batch axis. In evaluation the number is meant to be the index in the data
    set: it starts at 0, and again at 0 after each training forward; set it to evaluate from elsewhere. `samples`
    (int64, one number for each sample of the input) names them one by one until set to None. Weights and biases have
    sample 0 in evaluation and the number of the step in training.
    Where `clock.world` processes share the samples out in turn these numbers are interleaved: see Clock.
    Each run of an activation's quantizer in a forward of the whole model, and of a layer that adds up, is a site of its
    own (`q`, `q#1`, ...). Where neither an example nor a plan was given, the first forward that has such a run adds it
    to `plan`, unless what strikes the other sites depends on it. What is recomputed in a backward pass (gradient
    checkpointing) has the numbers of the last forward: more than one forward with gradients before it is an error.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: FaultPlan | Sequence[FaultModel],
        *,
        seed: int,
        device: int | None,
        gradient: Gradient,
        observe: Observer | None,
        known: SiteList | None = None,
        batch_axis: Axes = 0,
    ) -> None:
        self._model = unwrap(model)
        self._straight_through = passes_straight_through(gradient)
        self._watcher = None if observe is None else Watcher(observe)
        self._device = next((p.device for p in self._model.parameters()), torch.device("cpu"))
        self._handles: list[Any] = []
        self._claim: Claim | None = None
        self._attached: dict[str, Site] = {}
        self._prepared: OrderedDict[int, Ready] = OrderedDict()
        self._ready: Ready
        self._runs: dict[str, int | None] = {}
        """How often each attached site runs in a forward, by the name of its first run; None: not known."""
        self._several: set[str] = set()
        self._switched: list[tuple[bool, str]] = []
        self._enabled, self._disabled = True, frozenset[str]()
        self._live: dict[str, Strike | None] = {}
        self._version = object()  # another whenever other sites are struck, or by other faults
        self.clock = Clock(self._device)
        check_axes(batch_axis)
        self.clock.batch_axis = batch_axis
        self.seed = seed
        self._known = known
        listed = sites(self._model) if known is None else known
        self._sites, self._obstacles = {site.name: site for site in listed}, listed.obstacles
        self._shared = tied(self._model, known_quantizers(self._model))
        self._found: Found | None = None
        if not isinstance(plan, FaultPlan):
            self._found = Found(plan, self.seed if device is None else device, self._obstacles)
            plan = self._found.resolved(self._sites)
        self.plan = plan
        try:
            self._attach()
        except BaseException:
            self.remove()
            raise

    def _attach(self) -> None:
        known, layers = known_quantizers(self._model), accumulator_layers(self._model)
        reads = reads_of(known)
        self._claim = Claim([self._model, *(q.proxy for q in known.values()), *layers.values()])
        notice_hooks()
        self._attached = {entry.site.name: entry.site for entry in self.plan.sites}
        self._runs = known_runs(self.plan)
        self._several |= {first for first, runs in self._runs.items() if runs is not None and runs > 1}
        self._handles.append(OwnHook.before_forward(self._model, self.clock.tick, with_kwargs=True))
        self._handles.append(OwnHook.after_forward(self._model, self.clock.ended))
        fast = fast_forward(self.clock.runs) if self._device.type == "cpu" else None
        names = {alias: entry.site.name for entry in self.plan.sites for alias in entry.site.aliases or ()}
        self._tied = StillTied(self.plan, self._shared)
        for name, (_, proxy, _) in known.items():
            first = names.get(name, name)
            # also a quantizer that the plan leaves alone, if its memory may be one that it strikes
            if first in self._runs or self._tied.watches(name):
                site, width = self._sites[first], Width(name, proxy, self._sites[first].bit_width)
                hook = SiteHook(self, first, name, site.batched, width, self._tied.watches(name), reads[name])
                self._handles.append(OwnHook.after_forward(proxy, lean_hook(hook, proxy, fast)))
        self._attach_accumulators()
        if self._known is None:
            self._handles += watch_first_forward(self._model, self.plan, self.clock)

    def _attach_accumulators(self) -> None:
        layers, proxies = accumulator_layers(self._model), dict(quantizers(self._model))
        for name in self._ready.adds:
            source = proxies.get(first_run(self.plan.at(name).site.source or ""))
            self._handles.append(Attached(name, layers[first_run(name)], self, source, known_scale))

    @property
    def plan(self) -> FaultPlan:
        return self._ready.plan

    @plan.setter
    def plan(self, plan: FaultPlan) -> None:
        if id(plan) not in self._prepared:
            self._prepared[id(plan)] = self._prepare(plan)
        self._prepared.move_to_end(id(plan))
        if len(self._prepared) > _KEPT_PLANS:
            self._prepared.popitem(last=False)
        self._ready = self._prepared[id(plan)]
        self.reset_protection_counts()
        self._go_live()

    def _prepare(self, plan: FaultPlan) -> Ready:
        check_known(plan, self._known)
        check_tied(plan, self._shared)
        listed = [*self._sites.values(), *further_runs(plan, self._sites), *accumulators(plan, self._model)]
        plan.check_fits(SiteList(listed, self._obstacles), "the network")
        if self._handles and (others := [name for name in plan.names if name not in self._attached]):
            raise PlanError(
                f"the new plan strikes {len(others)} sites that the attached one does not, {others[0]!r} among them; "
                f"expected some of the {len(self._attached)} that are attached (a probability of 0 attaches one), or "
                "leave the block and inject anew"
            )
        return Ready.of(plan, self._device)

    def _go_live(self) -> None:
        """Notes what is struck from now on; None where nothing can ever change."""
        on = [name for name in self._ready.strikes if self._enabled and name not in self._disabled]
        live = {name: None if name in self._ready.idle else self._ready.strikes[name] for name in on}
        if live != self._live:
            self.clock.runs.set_anew("the plan, or what of it is enabled,")
        self._live, self._version = live, object()

    @property
    def enabled(self) -> bool:
        """Whether any site is struck; sample and step numbers run on while none is."""
        return self._enabled

    @enabled.setter
    def enabled(self, enabled: bool) -> None:
        self._enabled = bool(enabled)
        self._go_live()

    def disable(self, sites: str = "*") -> None:
        """Faults leave the attached sites whose names match a glob alone; raises PlanError if none does."""
        self._disabled |= self._matching(sites)
        self._switched.append((True, sites))
        self._go_live()

    def enable(self, sites: str = "*") -> None:
        """Faults strike the attached sites whose names match a glob again; raises PlanError if none does."""
        self._disabled -= self._matching(sites)
        self._switched.append((False, sites))
        self._go_live()

    def _matching(self, glob: str) -> frozenset[str]:
        found = frozenset(s.name for s in self._attached.values() if any(fits(glob, name) for name in names_of(s)))
        if not found:
            raise PlanError(f"no attached site matches {glob!r}: {nearest(glob, self._attached)}")
        return found

    @property
    def hold(self) -> int | None:
        """The number that every sample has, of activations and parameters, as long as it is not None: held faults, at
        the same words in all of a batch and all batches. (Reading it waits for the device.)"""
        return self.clock.hold

    @hold.setter
    def hold(self, number: int | None) -> None:
        self.clock.hold = number

    @property
    def seed(self) -> int:
        return self._seed

    @seed.setter
    def seed(self, seed: int) -> None:
        if check_seed(seed) != getattr(self, "_seed", seed):
            self.clock.runs.set_anew("the seed")
        self._seed = check_seed(seed)
        # a new tensor: graphs of earlier forwards may still hold the old one for their backward
        self._seed_tensor = kept(signed64(seed), self._device)

    @property
    def first_sample(self) -> int:
        """The sample number of the next batch's first element (reading it waits for the device)."""
        return self.clock.next_sample(self._model.training)

    @first_sample.setter
    def first_sample(self, number: int) -> None:
        self.clock.set_next_sample(number)

    @property
    def samples(self) -> Tensor | None:
        return self.clock.samples

    @samples.setter
    def samples(self, numbers: Tensor | None) -> None:
        given = None if numbers is None else torch.as_tensor(numbers)
        if given is not None and given.numel() and (given.dtype == torch.bool or given.dtype.is_floating_point):
            kind = "booleans" if given.dtype == torch.bool else "floating-point numbers"
            raise HwfaultError(f"`samples` are {kind}, expected integers, one for each element")
        if given is not None:
            given = given.to(torch.int64)
            check(given, 0, SAMPLES - 1, NOT_THERE)
        if not (given is None and self.clock.samples is None):
            self.clock.runs.set_anew("`samples`")
        self.clock.samples = None if given is None else given.to(self._device)

    def active(self, name: str) -> bool:
        """Whether the present plan acts on a site, and the site is not disabled."""
        return name in self._live

    def run(self, first: str, now: Moment) -> str:
        """The name of the site that the present run of a quantizer or layer is; `first` is that of the first run.

        Raises PlanError for a run that was not known when the faults were resolved.
        """
        self.clock.runs.check_unchanged(first, now)
        run = self.clock.runs.number(first, first in self._several, now)
        return first if run == 0 else self._further(first, run)

    def _further(self, first: str, run: int) -> str:
        """The name of a run but the first, which is made known if it is to be."""
        name = run_name(first, run)
        known = self._runs[first]
        if known is None:
            self._find(first, name)
        elif run >= known:
            raise too_often(first, run, known)
        return name

    def struck_run(self, first: str, value: Tensor, batched: bool, now: Moment) -> str | None:
        """The name of the site that the present run of a quantizer is, None if the plan does not act on it.

        Raises HwfaultError in another thread than the forward's, PlanError as `run` does.
        """
        self.clock.check_place(first, now)
        name = first
        if batched:
            run = self.clock.runs.number(first, first in self._several, now)
            if run:
                name = self._further(first, run)
            if self.clock.batch is None:
                self._saw(name, value)
        return name if name in self._live else None

    def fast_forward(self) -> FastForward | None:
        """What the extension's hooks need to know of the present forward; None where only those in Python know."""
        clock, seed = self.clock, (self._seed, self._straight_through, self._seed_tensor)
        if self._watcher or clock.batch is None or clock.thread is None or (self._several and clock.runs.checkpointed):
            return None
        return FastForward(self._version, clock.thread, clock.batch, clock.runs.with_gradients, *seed)

    def fast_strike(self, first: str) -> FastStrike | None:
        """What a site is struck with from now on that runs once in a forward; None where only the hook knows."""
        runs = None if first in self._several else self.fast_runs(first)
        return runs[0] if runs else None

    def fast_runs(self, first: str) -> list[FastStrike] | None:
        """The same of each run in a forward that is known, for the extension's hook."""
        return fast_runs(names_of_runs(first, self._runs[first], self._sites), self._live)

    def numbers(self, batch: int | None) -> Tensor:
        """The numbers of a batch's samples, or of a parameter, in this forward."""
        return self.clock.of(batch)

    def check_tied(self, name: str, parameter: Tensor, grid: tuple[Tensor, Tensor]) -> None:
        """Raises PlanError unless a quantizer still reads a shared parameter as the plan says."""
        self._tied.check(name, parameter, grid, self.clock.runs.begun)

    def _find(self, first: str, name: str) -> None:
        """Makes a run that no example has shown a site, where faults were given, which tell what strikes it."""
        if name in self._sites:
            return
        found, ready = self._found, self._ready
        if found is None or ready.plan is not found.plan:
            raise no_example(first)
        known = with_site(self._sites, first, name)
        plan = found.with_run(known, first, name)
        self._sites = known
        self._several.add(first)
        self.clock.runs.lost(first)
        if name in plan.names:
            entry = plan.at(name)
            ready.strikes[name] = Strike(plan, entry, self._device)
            self._attached[name] = entry.site
            for disabled, glob in self._switched:
                if fits(glob, name):
                    self._disabled = self._disabled | {name} if disabled else self._disabled - {name}
        idle = frozenset(name for name in plan.names if plan.idle(name))
        self._ready = self._prepared[id(plan)] = ready._replace(plan=plan, idle=idle)
        self._go_live()

    def strike(
        self,
        name: str,
        value: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        unheld: bool = False,
        now: Moment | None = None,
    ) -> Tensor:
        """The values of an active site with this forward's faults.

        That is the very same tensor where there can be none, or, overwritten, where `unheld` says that only the caller
        holds it. A caller that knows what goes on `now` spares the question.
        """
        if now is None or now.recomputing:
            self.clock.runs.check_recomputed(name, now or moment())
        strike = self._live[name]
        if self._watcher is not None:
            rules = (self.clock, self._seed_tensor, scale, zero_point, self._straight_through)
            return self._watcher(name, value, strike, self._ready.strikes[name], rules)
        if strike is None:
            return value
        return strike(value, self.clock, self._seed_tensor, scale, zero_point, self._straight_through, unheld)

    def protection_counts(self) -> dict[str, ProtectionCounts]:
        """What decoders did at each site since the plan was set or the counts were reset; waits for the device."""
        return protection_counts(self._ready.strikes)

    def reset_protection_counts(self) -> None:
        """Counts from zero again."""
        for counts in (counts for strike in self._ready.strikes.values() for counts in strike.counts):
            counts.zero_()

    def _saw(self, name: str, value: Tensor) -> None:
        """Notes how many samples a site has, for inputs that do not tell."""
        batch = self.plan.at(name).site.batch if name in self.plan.names else None
        self.clock.saw(samples_of(value, batch, name))

    def adds(self, name: str) -> Adds:
        """How a layer is added up."""
        return self._ready.adds[name]

    def add_up(self, name: str, acc: Tensor, x: Tensor, w: Tensor, walk: list[int], groups: int) -> Tensor:
        """The accumulators of a layer with this forward's faults: the array's, then those of the site's processes."""
        acc = self._ready.adds[name](acc, x, w, walk, groups, self._straight_through)
        one = torch.ones((), dtype=acc.dtype, device=acc.device)
        return self.strike(name, acc, one, torch.zeros_like(one))

    def remove(self) -> None:
        """Takes every hook away again; the model is as it was. Harmless when called twice."""
        while self._handles:
            self._handles.pop(0).remove()
        self.clock.runs.removed = True
        if self._claim is not None:
            self._claim.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()
