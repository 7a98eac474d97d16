"""When faults change: which refresh period each sample has, said once for every engine."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Refresh = Literal["inference", "batch", "epoch", "power_cycle"]
"""How long an intermittent cell stays as it is."""

Changes = Literal["sample", "batch", "step", "epoch", "never"]
"""With what the faults of one seed change: with each sample, each batch, each training step, each epoch, or never."""

Samples = NDArray[np.int64]

_CHANGES: dict[Refresh, tuple[Changes, Changes]] = {
    # of an activation's element, of a parameter, which all samples of a batch read at once
    "inference": ("sample", "batch"),
    "batch": ("batch", "batch"),
    "epoch": ("epoch", "epoch"),
    "power_cycle": ("never", "never"),
}

_IN_GRAPHS: dict[Refresh, str] = {"inference": "inference", "batch": "batch", "epoch": "held", "power_cycle": "held"}
"""How the nodes of a graph say it, which knows no epochs."""


def changes_of(refresh: Refresh, batched: bool) -> Changes:
    """With what the periods of a refresh change, where samples are `batched` or at a parameter."""
    activation, parameter = _CHANGES[refresh]
    return activation if batched else parameter


def periods(refresh: Refresh, numbers: Samples, batched: bool, *, first: int | None = None, epoch: int = 0) -> Samples:
    """The refresh period of each of the samples with these `numbers` (samples,); a parameter reads only the first.

    `first` is the number of the first sample of their batch (None: theirs); `epoch` is 0 in evaluation and in graphs.
    """
    changes = changes_of(refresh, batched)
    if changes == "sample":
        return numbers
    begins = np.asarray(numbers[:1] if first is None else [first])
    held = {"batch": begins, "epoch": np.array([epoch]), "never": np.zeros(1, np.int64)}
    return np.repeat(held[changes], len(numbers))[: len(numbers)].astype(np.int64)


def refresh_in_graph(refresh: Refresh) -> str:
    """The value of the attribute `refresh` of a graph's node."""
    return _IN_GRAPHS[refresh]


def refresh_of_node(attribute: str) -> Refresh:
    """The refresh that a node's attribute stands for; raises ValueError for any other word."""
    for refresh in ("inference", "batch", "power_cycle"):
        if _IN_GRAPHS[refresh] == attribute:
            return refresh
    raise ValueError(f"refresh is {attribute!r}, expected {', '.join(sorted(set(_IN_GRAPHS.values())))}")
