"""Processes that train together."""

from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn

from hwfault.errors import HwfaultError
from hwfault.train.telling import on_all_ranks


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


def number() -> int:
    """This process's number among them."""
    return torch.distributed.get_rank() if several() else 0


def of_all(values: Tensor) -> Tensor:
    """The values (...) of all ranks, (ranks, ...); on every rank."""
    if not several():
        return values.clone().unsqueeze(0)
    found = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(found, values)
    return torch.stack(found)


def share_problem(problem: HwfaultError | None, device: torch.device) -> None:
    """Raises the problem of one rank on all of them, so that none waits for another in vain."""
    if over_ranks(torch.tensor(float(problem is not None), device=device)) > 0:
        raise on_all_ranks(problem or HwfaultError("another rank could not go on"))


def from_first_rank(network: nn.Module) -> None:
    """Gives every rank the buffers (as of batch normalisation) of the first, which is the one that is kept."""
    if several():
        for buffer in network.buffers():
            torch.distributed.broadcast(buffer, src=0)


def end() -> None:
    """Leaves the group of processes, if there is one."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
