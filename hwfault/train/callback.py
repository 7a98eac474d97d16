"""Faults in a Lightning Trainer of one's own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from hwfault.errors import HwfaultError, nearest
from hwfault.network.inputs import Axes, Example
from hwfault.network.sites import quantizers
from hwfault.stream.check import check_seed
from hwfault.torch_ops.gradient import Gradient, passes_straight_through
from hwfault.train.driver import FaultDriver, evaluation_seed
from hwfault.train.schedule import GivenSchedules, schedule_faults

if TYPE_CHECKING:
    from hwfault.injection.statistics import Statistics

__all__ = ["FaultDriver", "FaultInjection", "network_of"]


class FaultInjection(Callback):
    """Faults with schedules while a Trainer fits, validates, tests or predicts, on one device or with DDP.

        trainer = Trainer(callbacks=[FaultInjection([BitFlips(probability=0.01)], seed=1)])

    They strike the module named `network` within the LightningModule: unless given the child that holds all
    quantizers, or else the LightningModule itself. Each batch of training sees other faults, each rank too, and
    batches whose gradients are accumulated. Validation, tests and predictions have the faults of evaluation, drawn
    from `eval_seed` (hwfault.train.driver.evaluation_seed(seed) unless given) with the index in the data set as
    sample number, the same in each epoch; outside of `fit` those that are left when all schedules have come to their
    end. (DDP gives samples a second time where the ranks would have batches of unequal numbers; these have numbers
    beyond the data set's.) Other arguments are those of FaultDriver; `example` is the LightningModule's
    `example_input_array` unless given.

    While attached `driver` is the FaultDriver. Its counters go into checkpoints. With `statistics` what the faults do
    is counted in `statistics` (hwfault.injection.statistics), in training and evaluation together. At the end, or when
    an exception ends it, the network is as it was. Raises HwfaultError for a strategy that splits the network up.
    """

    def __init__(
        self,
        faults: GivenSchedules,
        *,
        seed: int = 0,
        eval_seed: int | None = None,
        gradient: Gradient = "zero",
        network: str | None = None,
        device: int | None = None,
        example: Example | None = None,
        batch_axis: Axes = 0,
        statistics: bool = False,
    ) -> None:
        passes_straight_through(gradient)
        self.faults = schedule_faults(faults)
        self.seed = check_seed(seed)
        self.eval_seed = evaluation_seed(seed) if eval_seed is None else check_seed(eval_seed)
        self.network = network
        self.driver: FaultDriver | None = None
        self.statistics: Statistics | None = None
        self._counts = statistics
        self._example = example
        self._rules: dict[str, Any] = {"eval_seed": self.eval_seed, "gradient": gradient, "device": device}
        self._rules["batch_axis"] = batch_axis
        self._state: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        """Tells several of these apart in a checkpoint."""
        return self._generate_state_key(seed=self.seed, network=self.network)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._attached.train_step(trainer.current_epoch + 1, batch_idx)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluate(trainer, trainer.val_dataloaders, batch_idx, dataloader_idx)

    def on_test_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluate(trainer, trainer.test_dataloaders, batch_idx, dataloader_idx)

    def on_predict_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self._evaluate(trainer, trainer.predict_dataloaders, batch_idx, dataloader_idx)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._attach(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._detach()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        return self.driver.state_dict() if self.driver is not None else dict(self._state or {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = dict(state_dict) or None
        if self.driver is not None and self._state is not None:
            self.driver.load_state_dict(self._state)

    @property
    def _attached(self) -> FaultDriver:
        assert self.driver is not None
        return self.driver

    def _attach(self, trainer: Trainer, module: LightningModule) -> None:
        if self.driver is not None:
            return
        _check_strategy(trainer)
        network = network_of(module, self.network)
        example = module.example_input_array if self._example is None else self._example
        if example is not None and not isinstance(example, Tensor | tuple | list | Mapping):
            raise HwfaultError(
                f"example_input_array is a {type(example).__name__}, expected a tensor, or a tuple or dict of them; "
                "give FaultInjection an example"
            )
        placed: dict[str, Any] = {"rank": trainer.global_rank, "world": trainer.world_size, "example": example}
        observe = self._observe if self._counts else None
        self.driver = FaultDriver(network, self.faults, seed=self.seed, observe=observe, **placed, **self._rules)
        for injection in self.driver.injections:
            injection.clock.no_forward = redirected if network is module else None
        if self._state is not None:
            self.driver.load_state_dict(self._state)
        if self._counts and self.statistics is None:
            from hwfault.injection.statistics import Statistics

            self.statistics = Statistics(self.driver.plan)

    def _observe(
        self,
        name: str,
        before: Tensor,
        after: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        codes_before: Tensor,
        codes_after: Tensor,
    ) -> None:
        if self.statistics is not None:
            self.statistics(name, before, after, scale, zero_point, codes_before, codes_after)

    def _detach(self) -> None:
        if self.driver is not None:
            self._state = self.driver.state_dict()
            self.driver.remove()
            self.driver = None

    def _evaluate(self, trainer: Trainer, loaders: Any, batch_idx: int, dataloader_idx: int) -> None:
        """Begins the evaluation of a data set with its first batch."""
        if batch_idx > 0:
            return
        fitting = trainer.state.fn == TrainerFn.FITTING
        listed = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
        loader = listed[dataloader_idx] if isinstance(listed, list | tuple) else listed
        self._attached.evaluate(trainer.current_epoch + 1 if fitting else None, shared_out=_shared_out(loader))


def network_of(module: nn.Module, name: str | None = None) -> nn.Module:
    """The network within a module: the submodule `name`, or the child that holds all quantizers, else the module.

    Raises HwfaultError for a name that there is not, or a module without quantizers.
    """
    if name is not None:
        modules = dict(module.named_modules())
        if name not in modules:
            raise HwfaultError(f"the LightningModule has no module {name!r}: {nearest(name, modules)}")
        found: nn.Module = modules[name]
        return found
    everything = {id(proxy) for _, proxy in quantizers(module)}
    if not everything:
        raise HwfaultError(f"the {type(module).__name__} holds no Brevitas quantizer, so there is nothing to strike")
    children = (child for child in module.children() if {id(p) for _, p in quantizers(child)} == everything)
    return next(children, module)


def redirected(model: nn.Module) -> bool:
    """Whether a call of a LightningModule is DDP's for one of its steps, which calls the network in its turn."""
    forward = vars(model).get("forward")
    return str(getattr(forward, "__qualname__", "")).startswith("_ForwardRedirection.")


def _shared_out(loader: Any) -> bool:
    """Whether the ranks have every world-th sample each."""
    sampler = getattr(loader, "sampler", None)
    return any(getattr(sampler, name, 1) > 1 for name in ("num_replicas", "world"))


def _check_strategy(trainer: Trainer) -> None:
    strategy = trainer.strategy
    if isinstance(strategy, DeepSpeedStrategy) or not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise HwfaultError(
            f"faults under the strategy {type(strategy).__name__}, expected one device or DDP, where each process has "
            "the whole network"
        )
