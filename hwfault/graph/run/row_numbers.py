"""The numbers under which the rows of a batch are struck: one seed and first sample number for all, or one for each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import GraphError, HwfaultError
from hwfault.program.periods import Samples
from hwfault.stream.check import SAMPLES, check_number, check_seed, signed64

Seeds = int | Sequence[int] | NDArray[np.integer[Any]]
"""A seed, or one for each row of a batch."""

Numbers = Sequence[int] | NDArray[np.integer[Any]]
"""Sample numbers, one for each row of a batch."""


def check_seeds(seeds: Seeds) -> NDArray[np.int64]:
    """The bits of a seed, shape (), or of one for each row, (rows,), as graphs take them.

    Raises HwfaultError for what is no unsigned 64 bit integer, and for an array of another shape.
    """
    given: Any = seeds
    if isinstance(seeds, np.ndarray):
        _check_one_axis(seeds, "seeds")
        if seeds.dtype == np.uint64:  # all of its values are seeds
            return seeds.view(np.int64)
        given = seeds.tolist()
    is_one = isinstance(given, str) or not isinstance(given, Sequence)  # a text is refused as no seed
    if is_one:
        return np.array(signed64(check_seed(given)), np.int64)
    return np.array([signed64(check_seed(seed)) for seed in given], np.int64)


def check_samples(samples: Numbers) -> NDArray[np.int64]:
    """Sample numbers (rows,) as graphs take them; raises HwfaultError for what is none, and for another shape."""
    numbers = np.asarray(samples)
    _check_one_axis(numbers, "sample numbers")
    if numbers.dtype.kind in "iu" and numbers.size and numbers.min() >= 0 and numbers.max() < SAMPLES:
        return numbers.astype(np.int64)
    return np.array([check_number(number) for number in numbers.tolist()], np.int64)


def _check_one_axis(numbers: NDArray[Any], what: str) -> None:
    if numbers.ndim > 1:
        raise HwfaultError(f"the {what} have shape {numbers.shape}, expected one for each row of the batch: (rows,)")


def read_seeds(given: NDArray[np.int64], rows: int, batched: bool) -> NDArray[np.uint64]:
    """The seed of each row (rows,), from what a fault node reads.

    Raises GraphError for another number of them, and for different ones where all samples read the same values.
    """
    seeds = _of_each(given, rows, batched, "seed").astype(np.int64).view(np.uint64)
    if len(seeds) == rows and batched:
        return seeds
    if len(set(seeds.tolist())) != 1:
        raise GraphError(
            f"the seed has {len(seeds)} values, not all the same, for a parameter, which all samples of a batch read; "
            "expected one seed: run a plan that strikes parameters once for each seed"
        )
    return np.repeat(seeds[:1], rows)


def read_samples(given: NDArray[np.int64], rows: int, batched: bool, *, by_batch: bool = False) -> Samples:
    """The sample number of each row (rows,), from what a fault node reads; of a parameter, the first one of the batch.

    Where faults change `by_batch`, numbers of several batches raise GraphError: such a period is that of the batch's
    first sample. Raises HwfaultError for numbers that the stream does not have.
    """
    numbers = _of_each(given, rows, batched, "first sample number")
    if len(numbers) == 1:
        first = check_number(int(numbers[0]), "first sample number")
        check_number(first + (max(rows - 1, 0) if batched else 0), "last sample's number")
        return first + np.arange(rows)
    for number in numbers:
        check_number(int(number))
    if by_batch and (np.diff(numbers) != 1).any():
        raise GraphError(
            "the faults change from batch to batch, but the sample numbers of the rows are not those of one batch; "
            "expected numbers one after the other"
        )
    return numbers if batched else numbers[:rows]


def _of_each(given: NDArray[np.int64], rows: int, batched: bool, what: str) -> NDArray[np.int64]:
    """One number for all, or one for each row; raises GraphError for another number of them."""
    numbers = np.asarray(given)
    if numbers.size == 1:
        return numbers.reshape(1)
    expected = rows if batched else max(numbers.size, 1)  # a parameter does not know how many samples read it
    if numbers.shape != (expected,):
        each = f"of {rows} samples" if batched else "sample"
        raise GraphError(f"the {what} has shape {numbers.shape}, expected one value, or one for each {each}")
    return numbers
