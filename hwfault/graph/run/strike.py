"""A plan's steps in NumPy, on the native library: what every engine makes of codes and values, to the bit."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import CodeFormat, Codes, faulty_values, read_codes
from hwfault.program.batch_axes import BatchAxis, arrange, grid_shape, restore
from hwfault.program.kinds import Mechanism
from hwfault.program.periods import Refresh, Samples, periods
from hwfault.program.steps import ClipStep, MapStep, ProtectedStep, Step, StreamStep
from hwfault.stream import native
from hwfault.stream.protection import Layout, MapRows, Memory

Values = NDArray[Any]
"""Floating-point values, or integers that are the codes."""


def strike_codes(step: Step, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
    """The codes (rows, words) after a step, in evaluation and in the step's representation; the input stays.

    `samples` (rows,) are the numbers of the samples where these are `batched`. A parameter is sample 0, and has a
    single number here, which says when: the first sample's of its batch.
    """
    return _STRIKES[step.mechanism](step, codes, seed, samples, batched)


def _stream(step: StreamStep, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
    numbers = samples if batched else np.zeros(1, np.int64)
    return native.inject_codes(codes, program=step.program, seed=seed, samples=numbers, bit_width=step.bit_width)


def _map(step: MapStep, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
    if step.process.permanent:
        return step.active(seed, 0).apply(codes)
    when = periods(step.process.refresh, samples, batched)[: len(codes)].tolist()
    maps = {period: step.active(seed, period) for period in set(when)}
    rows = [maps[period].apply(row) for row, period in zip(codes, when, strict=True)]
    return np.stack(rows) if rows else codes


def _protected(step: ProtectedStep, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
    process = step.process
    held = ProtectedCells(process.memory, process.rows, process.layout, step.program, process.refresh)
    return strike_memory(held, codes, step.bit_width, seed, samples, batched)


def _clip(step: ClipStep, codes: Codes, seed: int, samples: Samples, batched: bool) -> Codes:
    return step.process.clipped(codes)


class ProtectedCells(NamedTuple):
    """A protected memory, the rows of a map and the fault program that strike its cells, and when the map's show."""

    memory: Memory
    rows: MapRows
    layout: Layout | None
    program: Sequence[int]
    refresh: Refresh


def strike_memory(
    held: ProtectedCells, codes: Codes, bit_width: int, seed: int, samples: Samples, batched: bool
) -> Codes:
    """The codes (rows, words) as a protected memory answers them; arguments as of `strike_codes`."""
    struck, _ = native.protect_codes(
        codes,
        held.memory,
        bit_width=bit_width,
        program=held.program,
        seed=seed,
        samples=samples[: len(codes)] if batched else np.zeros(1, np.int64),
        rows=held.rows,
        periods=periods(held.refresh, samples, batched)[: len(codes)],
        layout=held.layout,
    )
    return struck


_STRIKES: dict[Mechanism, Callable[[Any, Codes, int, Samples, bool], Codes]] = {
    "stream": _stream,
    "map": _map,
    "protected": _protected,
    "clip": _clip,
}


def strike_values(
    step: Step,
    values: Values,
    scale: ArrayLike,
    zero_point: ArrayLike,
    fmt: CodeFormat,
    *,
    seed: int,
    samples: Samples,
    batched: bool,
    batch: BatchAxis | None = None,
) -> Values:
    """The values after a step, in NumPy, as every engine computes them; words that it leaves alone keep their bits,
    and so does what is not finite. Integers are the codes, with the scale 1 and the zero point 0.

    `fmt` says how integers are stored but for the step's own representation. `samples` (samples,) are the numbers of
    the samples where these are `batched`, along axis 0 unless `batch` says otherwise; a parameter has a single one,
    which says when.
    """
    if batch is not None:
        arranged = arrange(values, batch)
        scale, zero_point = (_along(t, values, batch, w) for t, w in ((scale, "scale"), (zero_point, "zero point")))
        faulty = strike_values(step, arranged, scale, zero_point, fmt, seed=seed, samples=samples, batched=batched)
        return restore(faulty, values.shape, batch)
    fmt = replace(fmt, representation=step.representation)
    codes = read_codes(values, scale, zero_point, fmt)
    struck = strike_codes(step, codes.reshape(len(samples), -1), seed, samples, batched).reshape(codes.shape)
    return faulty_values(values, codes, struck, scale, zero_point, fmt)


def _along(given: ArrayLike, values: Values, batch: BatchAxis, what: str) -> ArrayLike:
    """A scale or zero point along values whose samples are brought in front."""
    numbers = np.asarray(given)
    return numbers if numbers.size == 1 else numbers.reshape(grid_shape(numbers.shape, values.shape, batch, what))
