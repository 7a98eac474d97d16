"""Applying a fault map to 32 Mi floats against a plain copy of them, permanent and intermittent cells."""

import numpy as np
import torch

from hwfault.stream.tables import ALWAYS
from tests.benchmarks.side_by_side import ratios, show
from tests.helpers.torch_ops.operators import fault_map

_WORDS = 32 << 20


def main(rounds: int = 15) -> None:
    x = torch.randint(0, 16, (_WORDS,)).float() * 0.5
    variants = {"copy (clone)": lambda: x.clone()}
    for share in (1e-4, 1e-3, 1e-2):
        variants[f"permanent map, {share:g} of the words"] = _applied(x, share, ALWAYS)
    variants["intermittent map, 0.001 of the words, p = 0.5"] = _applied(x, 1e-3, ALWAYS // 2)
    targets = {"permanent map, 0.001 of the words": 1.10}
    show(f"a fault map on {_WORDS >> 20} Mi floats, against a copy", ratios(variants, rounds), targets)


def _applied(x: torch.Tensor, share: float, threshold: int) -> object:
    rng = np.random.default_rng(1)
    word = np.unique(rng.integers(0, _WORDS, int(share * _WORDS)))
    bit = np.uint32(1) << rng.integers(0, 4, len(word)).astype(np.uint32)
    rows = torch.from_numpy(word), torch.from_numpy(np.stack([~bit, np.zeros_like(bit)]).view(np.int32))
    zero, one = torch.tensor(0), torch.tensor([0])
    grid = torch.tensor(0.5), torch.tensor(0.0)
    return lambda: fault_map(x, one, zero, *rows, *grid, 4, False, 0, threshold, 1, False, True)


if __name__ == "__main__":
    main()
