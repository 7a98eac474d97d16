"""One graph of the set: who writes it, what it reads, and what about it is known."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto


@dataclass(frozen=True)
class Case:
    """A graph that an exporter writes: `make` has it written anew, for batches of any size of samples of `shape`."""

    exporter: str
    make: Callable[[], ModelProto]
    shape: tuple[int, ...]
    exact: bool = False
    """Whether all of its scales are powers of two and its sums small, so that no engine rounds any."""
    batch_scales: bool = False
    """Whether the graph works out scales from the whole batch, so that its outputs depend on what else is in it."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters warn of and log about their own parts."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def samples(shape: tuple[int, ...], count: int, seed: int = 1) -> NDArray[np.float32]:
    """A batch of numbers around 0."""
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)
