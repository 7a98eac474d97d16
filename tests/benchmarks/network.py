"""Networks under faults against the same without: forward, training step, memory kept for the backward, peak memory.

Beside them the usual way, a random mask over each tensor of activations (see masks.py), which leaves the weights alone.
"""

from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.train import networks
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.masks import random_masks
from tests.benchmarks.side_by_side import ratios, show

_BER, _BITS = 1e-3, 4
_FAULTY, _MASKS = f"BER {_BER:g}, all activations and weights", "random masks, all activations"
_TO_REACH = {_FAULTY: 1.05}


def resnet20() -> nn.Module:
    return networks.build("resnet20", weight_bits=_BITS, act_bits=_BITS)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"CNV": cnv, "ResNet-20": resnet20}


def main(rounds: int = 21) -> None:
    for name, build in NETWORKS.items():
        compare(name, build, rounds)


def compare(name: str, build: Callable[[], nn.Module], rounds: int) -> None:
    """Prints a network's ratios and bytes."""
    x = batch()
    target = torch.arange(len(x)) % 10
    models = {"clean": build(), _FAULTY: build(), _MASKS: build()}
    for model in models.values():
        model(x)  # Brevitas' scales are made in the first forward
    print(f"{name}, batch {tuple(x.shape)}, {_BITS} bits")
    with ExitStack() as attached:
        attached.enter_context(inject(models[_FAULTY], [BitFlips(probability=_BER)], seed=1))
        attached.enter_context(random_masks(models[_MASKS], 1 - (1 - _BER) ** _BITS))
        forwards = {key: lambda model=model: forward(model, x) for key, model in models.items()}
        show("forward", ratios(forwards, rounds), _TO_REACH)
        steps = {key: lambda model=model: step(model, x, target) for key, model in models.items()}
        show("training step (forward and backward)", ratios(steps, rounds), _TO_REACH)
        kept = {key: kept_for_backward(model, x) for key, model in models.items()}
        _show_bytes("kept for the backward pass", kept)
        _show_bytes("peak of a step", {key: peak(run) for key, run in steps.items()})


def _show_bytes(title: str, found: dict[str, int]) -> None:
    clean = found.pop("clean")
    print(f"{title}: clean {clean:,} bytes")
    for name, n in found.items():
        print(f"    {name:<44} {n - clean:+,} bytes")


def forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


def step(model: nn.Module, x: Tensor, target: Tensor) -> None:
    model.zero_grad()
    nn.functional.cross_entropy(model(x), target).backward()


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


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
