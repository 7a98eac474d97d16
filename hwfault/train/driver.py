"""Faults with schedules on a network that is trained: which are active when, at which rate, and under which numbers."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, Self

from torch import nn

from hwfault.errors import HwfaultError, ModelError
from hwfault.injection.attach import Injection, inject_at
from hwfault.injection.observer import Observer
from hwfault.laws.files import Files
from hwfault.network.inputs import Axes, Example
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.stream.check import check_seed
from hwfault.torch_ops.gradient import Gradient
from hwfault.train.schedule import GivenSchedules, last_epoch, schedule_faults

_KEPT_PLANS = 64
_OTHER_SEED = 0x9E3779B97F4A7C15


def evaluation_seed(seed: int) -> int:
    """The seed of evaluation where none is given: the training's, XORed with a constant (2^64 / golden ratio)."""
    return check_seed(seed) ^ _OTHER_SEED


class _Moment(NamedTuple):
    """What a group's injection was last set to: its seed, the held number, and the epoch as a refresh period."""

    seed: int
    hold: int | None
    epoch: int


class FaultDriver:
    """Attaches faults to a network and follows their schedules; in a training loop of your own:

        driver = FaultDriver(network, faults, seed=1, example=inputs[:1])
        for epoch in range(1, epochs + 1):
            for step, (x, y) in enumerate(batches):
                driver.train_step(epoch, step)  # then forward, backward and optimizer as ever
            driver.evaluate(epoch)  # then forwards of the network in evaluation mode
        driver.remove()

    `faults` may be bare fault models, which strike always. Training draws from `seed`, evaluation from `eval_seed`
    (evaluation_seed(seed) unless given), with the same faults in each epoch; `device` is the device that permanent
    faults are drawn for (the seed's number unless given). Process `rank` of `world` has other faults than the others
    in training; evaluation takes it that process r has samples r, r + world, ... of the data set. An `example` batch
    is needed for faults of accumulators, for activations at addresses of a memory, and where the samples of any site
    do not lie along axis 0; it and its `batch_axis` are as for `hwfault.network.sites`.

    `injections` are those attached, one for each `refresh_epochs` among the schedules; `plan` is that of all faults
    at their full rate. Raises what `resolve` and `inject` raise; the network is then left as it was.
    """

    def __init__(
        self,
        network: nn.Module,
        faults: GivenSchedules,
        *,
        seed: int,
        eval_seed: int | None = None,
        gradient: Gradient = "zero",
        device: int | None = None,
        observe: Observer | None = None,
        rank: int = 0,
        world: int = 1,
        example: Example | None = None,
        batch_axis: Axes = 0,
    ) -> None:
        if not 0 <= rank < world:
            raise HwfaultError(f"rank {rank} of {world} processes, expected 0 to {world - 1}")
        self.faults = schedule_faults(faults)
        self.seed = check_seed(seed)
        self.eval_seed = evaluation_seed(seed) if eval_seed is None else check_seed(eval_seed)
        self._rank, self._world = rank, world
        self._device = seed if device is None else device
        self._sites = sites(network, example, batch_axis)
        known = None if example is None else self._sites
        self._files = Files()  # so that all plans are of the same profiles and maps, whatever happens to the files
        self._plans: OrderedDict[tuple[float, ...], FaultPlan] = OrderedDict()
        self.plan = self._planned((1.0,) * len(self.faults))
        self._injections: dict[int | None, Injection] = {}
        self._moments: dict[int | None, _Moment] = {}
        try:
            for refresh in dict.fromkeys(fault.schedule.refresh_epochs for fault in self.faults):
                plan = self._checked(self._planned(self._of(refresh, (1.0,) * len(self.faults))))
                rules = {"seed": seed, "gradient": gradient, "observe": observe, "batch_axis": batch_axis}
                self._injections[refresh] = inject_at(network, plan, known, **rules)
                self._moments[refresh] = _Moment(seed, None, 0)
        except BaseException:
            self.remove()
            raise

    @property
    def injections(self) -> tuple[Injection, ...]:
        return tuple(self._injections.values())

    def train_step(self, epoch: int, step: int) -> None:
        """Sets what is active in a training step: epochs count from 1, steps (batches) from 0 in each epoch."""
        factors = [fault.schedule.factor(epoch, step, self.seed, k) for k, fault in enumerate(self.faults)]
        for refresh, injection in self._injections.items():
            hold = None
            if refresh is not None:
                # held faults differ from rank to rank as all others do
                hold = (epoch - 1) // refresh * self._world + self._rank
            self._set(refresh, factors, _Moment(self.seed, hold, epoch))
            injection.clock.rank = self._rank
            injection.clock.world = self._world

    def evaluate(self, epoch: int | None = None, *, shared_out: bool = True) -> None:
        """Sets what is active in the evaluation after an epoch (None: after all training), which begins at sample 0.

        `shared_out` false says that each process has all of the data set, not every world-th sample.
        """
        at = last_epoch(self.faults) if epoch is None else epoch
        factors = [fault.schedule.eval_factor(at) for fault in self.faults]
        rank, world = (self._rank, self._world) if shared_out else (0, 1)
        for refresh, injection in self._injections.items():
            hold = None if refresh is None else 0  # the same faults after each epoch
            self._set(refresh, factors, _Moment(self.eval_seed, hold, 0))
            injection.clock.rank = rank
            injection.clock.world = world
            injection.clock.restart_evaluation()

    @contextmanager
    def clean(self) -> Iterator[None]:
        """No faults inside, and forwards inside do not count: faults afterwards are as if they had not been.

        What is recomputed in a backward pass (gradient checkpointing) is clean only if that pass is inside as well.
        """
        before = [injection.enabled for injection in self.injections]
        try:
            with ExitStack() as stack:
                for injection in self.injections:
                    injection.enabled = False
                    stack.enter_context(injection.clock.paused())
                yield
        finally:
            for injection, enabled in zip(self.injections, before, strict=True):
                injection.enabled = enabled

    def state_dict(self) -> dict[str, int]:
        """The counters of training, for a checkpoint: forwards and samples so far (reading them waits for the device).

        They are the same on all ranks where all have batches of the same sizes.
        """
        if not self.injections:
            return {"steps": 0, "samples": 0}
        clock = self.injections[0].clock  # which all follow
        return {"steps": clock.steps, "samples": clock.next_sample(True)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken; raises HwfaultError for anything else."""
        if not isinstance(state, dict) or state.keys() != {"steps", "samples"}:
            raise HwfaultError(f"the faults' state is {state!r}, expected the counters `steps` and `samples`")
        for injection in self.injections:
            injection.clock.resume(**state)

    def remove(self) -> None:
        """Takes everything away from the network again, which is as it was. Harmless when called twice."""
        for injection in self.injections:
            injection.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def _of(self, refresh: int | None, factors: Sequence[float]) -> tuple[float, ...]:
        """The factors of one group's faults, 0 for the others."""
        pairs = zip(self.faults, factors, strict=True)
        return tuple(factor if fault.schedule.refresh_epochs == refresh else 0.0 for fault, factor in pairs)

    def _planned(self, factors: tuple[float, ...]) -> FaultPlan:
        """The plan of the faults at their factors; resolving takes time, so the latest are kept."""
        if factors not in self._plans:
            faults = [fault.fault for fault in self.faults]
            self._plans[factors] = resolve(self._sites, faults, device=self._device, factors=factors, files=self._files)
        self._plans.move_to_end(factors)
        if len(self._plans) > _KEPT_PLANS:
            self._plans.popitem(last=False)
        return self._plans[factors]

    def _checked(self, plan: FaultPlan) -> FaultPlan:
        """A group's plan; raises ModelError if a fault of another group makes its accumulators narrower or wider."""
        for entry in plan.sites:
            width = self.plan.at(entry.site.name).site.bit_width
            if entry.site.bit_width != width:
                raise ModelError(
                    f"faults of the accumulator {entry.site.name!r} are held by refresh_epochs, and others, which make "
                    f"it {width} bits wide, are not; expected one refresh_epochs (or none) for all faults of it"
                )
        return plan

    def _set(self, refresh: int | None, factors: Sequence[float], now: _Moment) -> None:
        """Sets plan and numbers of a group, each only where it changed."""
        injection = self._injections[refresh]
        before = self._moments[refresh]
        plan = self._planned(self._of(refresh, factors))
        if plan is not injection.plan:
            injection.plan = plan
        if now.seed != before.seed:
            injection.seed = now.seed
        if now.hold != before.hold:
            injection.hold = now.hold
        if now.epoch != before.epoch:
            injection.clock.epoch = now.epoch
        self._moments[refresh] = now
