"""A training network under faults against the same network without: time, and memory kept for the backward pass."""

import torch
from torch import Tensor, nn

from hwfault.inject import inject
from hwfault.profiles.models import BitFlips
from tests.benchmarks.cnv import batch, cnv
from tests.benchmarks.side_by_side import ratios, show

_BER = 1e-3


def main(rounds: int = 15) -> None:
    clean, faulty, x = cnv(), cnv(), batch()
    clean(x), faulty(x)
    target = torch.arange(len(x)) % 10
    name, to_reach = f"BER {_BER}", {f"BER {_BER}": 1.10}
    with inject(faulty, [BitFlips(probability=_BER)], seed=1):
        print(f"CNV, batch {tuple(x.shape)}, 4 bit, all activations and weights at BER {_BER}")
        forwards = {"clean": lambda: _forward(clean, x), name: lambda: _forward(faulty, x)}
        show("forward", ratios(forwards, rounds), to_reach)
        steps = {"clean": lambda: _step(clean, x, target), name: lambda: _step(faulty, x, target)}
        show("training step (forward and backward)", ratios(steps, rounds), to_reach)
        kept = kept_for_backward(clean, x), kept_for_backward(faulty, x)
    print(f"kept for backward: clean {kept[0]} bytes, with faults {kept[1] - kept[0]:+d} bytes")


def _forward(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        out: Tensor = model(x)
    return out


def _step(model: nn.Module, x: Tensor, target: Tensor) -> None:
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


if __name__ == "__main__":
    main()
