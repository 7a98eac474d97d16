"""When faults change: which refresh period each sample has, said once for every engine."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Refresh = Literal["inference", "batch", "epoch", "power_cycle"]
"""How long an intermittent cell stays as it is."""

Period = Refresh | Literal["number"]
"""By what a sample finds its faults: by a refresh period, or by the number under which the stream draws for it, which
is its own, and of a parameter the training step."""

Changes = Literal["sample", "batch", "step", "epoch", "never"]
"""With what the faults of one seed change: with each sample, each batch, each training step, each epoch, or never."""

Samples = NDArray[np.int64]

_CHANGES: dict[Period, tuple[Changes, Changes]] = {
    # of an activation's element, of a parameter, which all samples of a batch read at once
    "inference": ("sample", "batch"),
    "batch": ("batch", "batch"),
    "epoch": ("epoch", "epoch"),
    "power_cycle": ("never", "never"),
    "number": ("sample", "step"),
}

_IN_GRAPHS: dict[Refresh, str] = {"inference": "inference", "batch": "batch", "epoch": "held", "power_cycle": "held"}
"""How the nodes of a graph say it, which knows no epochs."""


def changes_of(refresh: Period, batched: bool) -> Changes:
    """With what the numbers of a period change, where samples are `batched` or at a parameter."""
    activation, parameter = _CHANGES[refresh]
    return activation if batched else parameter


def periods(
    refresh: Period, numbers: Samples, batched: bool, *, first: int | None = None, step: int = 0, epoch: int = 0
) -> Samples:
    """The refresh period of each of the samples with these `numbers` (samples,); a parameter reads only the first.

    `first` is the number of the first sample of their batch (None: theirs); `step` and `epoch` are those of training, 0
    in evaluation and in graphs.
    """
    changes = changes_of(refresh, batched)
    if changes == "sample":
        return numbers
    begins = np.asarray(numbers[:1] if first is None else [first])
    held = {"batch": begins, "step": np.array([step]), "epoch": np.array([epoch]), "never": np.zeros(1, np.int64)}
    return np.repeat(held[changes], len(numbers))[: len(numbers)].astype(np.int64)


def refresh_in_graph(refresh: Period, batched: bool) -> str:
    """The value of the attribute `refresh` of a graph's node, where samples are `batched` or at a parameter."""
    if refresh == "number":
        return "inference" if batched else "held"
    return _IN_GRAPHS[refresh]


def refresh_of_node(attribute: str) -> Refresh:
    """The refresh that a node's attribute stands for; raises ValueError for any other word."""
    for refresh in ("inference", "batch", "power_cycle"):
        if _IN_GRAPHS[refresh] == attribute:
            return refresh
    raise ValueError(f"refresh is {attribute!r}, expected {', '.join(sorted(set(_IN_GRAPHS.values())))}")
