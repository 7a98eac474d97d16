"""Single flips as sparse changes of integers: whole censuses in seconds (hwfault.campaigns.sparse)."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.campaigns.engines.engine import Numbers, Outputs
from hwfault.campaigns.sparse.describe import Network
from hwfault.campaigns.sparse.engine import SparseEngine
from hwfault.campaigns.sparse.flips import Flips
from hwfault.campaigns.study.space import FaultSpace
from hwfault.errors import GraphError

_OF_VALUES, _OF_BIASES = 8, 32
"""How long flips take, in those of weights: others seldom die where they strike, and a bias is in a whole channel."""


class Reached(NamedTuple):
    """Runs whose outputs differ from the golden ones: of the cell in place `cell[i]` of those asked, on `image[i]`."""

    cell: NDArray[np.int64]
    image: NDArray[np.int64]
    outputs: Outputs


class SparseFlips:
    """Runs single flips of a network's weights, biases and activations on its samples; made on first use.

    Raises GraphError for a network that cannot be carried.
    """

    def __init__(self, network: Network, inputs: Outputs) -> None:
        self._engine = SparseEngine(network, inputs)

    def why_not(self, space: FaultSpace) -> str | None:
        """Why the flips of a space cannot be carried; None where they all can."""
        known = self._engine.description
        refused = known.refused | known.refused_others
        for site in space.sites:
            if site.name in refused:
                return f"{site.name}: {refused[site.name]}"
            if site.name in known.sites or site.name in known.biases:
                continue
            if site.name not in known.values:
                return f"{site.name} is no site of weights, biases or activations"
            if site.words != known.values[site.name].words:
                return f"{site.name} has other words in the graph of integer arithmetic"
        return None

    def cost(self, space: FaultSpace) -> int:
        """About how long every flip of a space takes on one sample, in flips of weights."""
        known, total = self._engine.description, 0
        for site, bits in zip(space.sites, np.diff([0, *space.ends]).tolist(), strict=True):
            if site.name in known.biases:
                total += _OF_BIASES * bits
            elif site.name in known.values:
                total += _OF_VALUES * bits
            else:
                total += bits
        return total

    @property
    def golden(self) -> Outputs:
        """The golden outputs (n, outputs)."""
        return self._engine.golden

    def reached(self, space: FaultSpace, cells: Sequence[int]) -> Iterator[Reached]:
        """All runs of the cells on all samples that reach the outputs, in parts; the others are masked."""
        yield from (Reached(*part) for part in self._engine.survivors(_flips_of(space, cells)))

    def run_pairs(self, space: FaultSpace, cells: Sequence[int], images: Numbers) -> Outputs:
        """The outputs (k, outputs) of cell i on sample images[i]."""
        return self._engine.run(_flips_of(space, cells), images)


def make_sparse(network: Network, inputs: Outputs, golden: Outputs) -> tuple[SparseFlips | None, str | None]:
    """The sparse engine of a network; or None, and why it cannot be had or does not have the golden outputs."""
    if inputs.dtype.kind != "f":
        return None, f"its input is {inputs.dtype}, and single flips are carried from floating-point inputs"
    try:
        made = SparseFlips(network, inputs)
    except GraphError as error:
        return None, str(error)
    if not np.array_equal(made.golden, golden):
        return None, "its golden outputs are others than the engine's, as sums are rounded there"
    return made, None


def _flips_of(space: FaultSpace, cells: Sequence[int]) -> Flips:
    """Cells of a fault space as the sparse engine takes them."""
    numbers = np.asarray(cells, np.int64)
    ends = np.array(space.ends)
    site = np.searchsorted(ends, numbers, side="right")
    begins = np.concatenate([[0], ends[:-1]])
    widths = np.array([one.bit_width for one in space.sites])[site]
    word, bit = np.divmod(numbers - begins[site], widths)
    names = tuple(one.name for one in space.sites)
    return Flips(names, site.astype(np.int32), word, bit.astype(np.int32))
