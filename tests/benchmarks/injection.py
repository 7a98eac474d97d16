"""The native injection of 32 Mi floats against a plain copy of them, at word rates from 1e-4 to 1e-2."""

import torch

from hwfault.laws.models import WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from tests.benchmarks.side_by_side import ratios, show
from tests.helpers.torch_ops import operators

_WORDS = 32 << 20


def main(rounds: int = 15) -> None:
    x = torch.randint(0, 16, (_WORDS,)).float() * 0.5
    out = torch.empty_like(x)
    variants = {"copy (into a kept buffer)": lambda: out.copy_(x), "copy (clone)": lambda: x.clone()}
    for rate in (1e-4, 1e-3, 1e-2):
        variants[f"inject, word rate {rate:g}"] = _injector(x, rate)
    targets = {"inject, word rate 0.001": 1.10}
    medians = ratios({name: variants[name] for name in ["copy (clone)", *variants] if name in variants}, rounds)
    show(f"native injection of {_WORDS >> 20} Mi floats, against a copy", medians, targets)


def _injector(x: torch.Tensor, rate: float) -> object:
    site = Site(name="x", kind="activation", bit_width=4, signed=False)
    plan = resolve([site], [WordFaults(probability=rate, effect="msb")])
    program, zero, one = torch.tensor(plan.program("x")), torch.tensor(0), torch.tensor([0])
    scale, zero_point = torch.tensor(0.5), torch.tensor(0.0)
    return lambda: operators.inject(x, one, zero, program, scale, zero_point, 4, False, False, False)


if __name__ == "__main__":
    main()
