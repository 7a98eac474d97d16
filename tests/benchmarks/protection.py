"""Faults in a memory with check bits on 32 Mi floats of 4 bits against a plain copy: the cost grows with the faults."""

import torch

from hwfault.stream.protection import Memory
from hwfault.stream.tables import ALWAYS
from tests.benchmarks.side_by_side import ratios, show
from tests.helpers.torch_ops.operators import protected

_WORDS = 32 << 20


def main(rounds: int = 15) -> None:
    x = torch.randint(0, 16, (_WORDS,)).float() * 0.5
    variants = {"copy (clone)": lambda: x.clone()}
    for rate in (1e-6, 1e-5, 1e-4, 1e-3):
        variants[f"SECDED, cell rate {rate:g}"] = _applied(x, Memory("secded", 64, 4), rate)
    variants["TMR, cell rate 0.0001"] = _applied(x, Memory("tmr", 64, 4), 1e-4)
    targets = {"SECDED, cell rate 1e-05": 1.10}
    show(f"protected memories on {_WORDS >> 20} Mi floats, against a copy", ratios(variants, rounds), targets)


def _applied(x: torch.Tensor, memory: Memory, rate: float) -> object:
    zero, one, none = torch.tensor(0), torch.tensor([0]), torch.empty(0, dtype=torch.int64)
    drawn = (one, one, zero, torch.tensor(memory.program(1, rate, rate)))
    no_map = (none, torch.empty((2, 0), dtype=torch.int32), none, none.reshape(0, memory.data_bits))
    grid = torch.tensor(0.5), torch.tensor(0.0)
    numbers = (4, False, 0, memory.kind, memory.data_bits, memory.slot, memory.due, ALWAYS, 0, False)
    return lambda: protected(x, *drawn, *no_map, *grid, *numbers)


if __name__ == "__main__":
    main()
