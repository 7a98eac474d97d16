"""Drawing a device: which cells of a memory are faulty."""

from collections.abc import Sequence

import numpy as np

from hwfault.profiles.faultmap import FaultMap
from hwfault.profiles.spatial import Spatial


def draw_map(
    spatial: Spatial,
    probability: float,
    *,
    rows: int,
    row_bits: int,
    shares: tuple[float, float, float],
    device: int,
    name: str,
    bit_weights: Sequence[float] | None = None,
) -> FaultMap:
    """A stand-in: independent cells, whatever the pattern."""
    random = np.random.Generator(np.random.Philox(device))
    cells, bits = rows * row_bits, max(d for d in range(1, 33) if row_bits % d == 0)
    cell = random.integers(0, cells, random.binomial(cells, probability))
    kind = random.choice(3, len(cell), p=shares)
    return FaultMap.from_cells(cells // bits, bits, cell // bits, cell % bits, kind)
