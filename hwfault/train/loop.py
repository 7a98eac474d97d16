"""Training as one function: clean, or under faults by their schedules."""

from collections.abc import Callable

from torch import nn

from hwfault.train.config import TrainConfig
from hwfault.train.data import Data
from hwfault.train.history import Epoch
from hwfault.train.randomness import seeded

__all__ = ["Epoch", "train"]


def train(
    network: nn.Module, data: Data, config: TrainConfig, *, progress: Callable[[Epoch], object] | None = None
) -> tuple[Epoch, ...]:
    """Trains the network in place, on its own device, and leaves it in evaluation mode.

    Equal seeds give equal weights on equal hardware with as many threads (torch.get_num_threads) and ranks: gradients
    are float sums. `progress` is called after each epoch. Torch's random state is left as it was. Nothing is written:
    see hwfault.train.run. Raises HwfaultError when the loss is no longer finite or the network's outputs do not fit
    the classes, ModelError for faults that do not fit its sites.
    """
    from hwfault.train.trainer import Run, Watch  # Lightning takes seconds to import

    with seeded(config.seed, network):
        run = Run(network, with_validation(data, config), config, watch=Watch(epoch=progress or _nothing))
        run.fit()
    return tuple(run.history)


def with_validation(data: Data, config: TrainConfig) -> Data:
    """The data with what `validation` keeps from training; raises HwfaultError if that is not possible."""
    return data.split_off(config.validation, config.seed) if config.validation else data


def _nothing(_epoch: Epoch) -> None:
    """Tells nobody."""
