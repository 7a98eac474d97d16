"""Processes that train together."""

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn


class Ranks(DDPStrategy):
    """DDP, which evaluates a rank's batches without the others: they may have fewer."""

    def validation_step(self, *args: Any, **options: Any) -> Any:
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **options)


def several() -> bool:
    """Whether other processes train with this one."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def over_ranks(values: Tensor, *, smallest: bool = False) -> Tensor:
    """The sums, or smallest, of the values of all ranks, in place; the values themselves where there is one rank."""
    if several():
        operation = torch.distributed.ReduceOp.MIN if smallest else torch.distributed.ReduceOp.SUM
        torch.distributed.all_reduce(values, op=operation)
    return values


def from_first_rank(network: nn.Module) -> None:
    """Gives every rank the buffers (as of batch normalisation) of the first, which is the one that is kept."""
    if several():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def end() -> None:
    """Leaves the group of processes, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
