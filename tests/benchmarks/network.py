"""The forward and the training step of a network, the memory kept for its backward pass, and peaks."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hwfault.train import networks

_BITS = 4


def resnet20() -> nn.Module:
    return networks.build("resnet20", weight_bits=_BITS, act_bits=_BITS)


def forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


def training_step(model: nn.Module, x: Tensor, target: Tensor) -> Callable[[], None]:
    """What sets the gradients to None, as training loops do, and runs forward, cross entropy and backward."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)  # model.zero_grad() would look for parameters each time

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), target).backward()

    return step


def kept_for_backward(model: nn.Module, x: Tensor) -> int:
    """Bytes of the distinct storages that autograd keeps after a forward in training mode, parameters apart."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return t

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        output = model(x)
    del output
    return sum(kept.values())


def peak(run: Callable[[], object]) -> int:
    """The most bytes of tensors that are there at once, beyond those before the run; as torch's profiler sees them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        run()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most
