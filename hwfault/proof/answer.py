"""What a runner is asked and what it answers.

It is given the inputs of a graph by name: `input` (the batch; of several inputs each by its own name) and, where faults
are meant, `hwfault_seed` (the 64 bits of the seed as int64) and `hwfault_first_sample` (int64, the number of the
batch's first sample). It answers with one array, the outputs, or with arrays by name:

    output       numbers of the shape of the graph's output
    prediction   integers, the class of each sample, where the outputs are not to be had
    NAME         the values of the site NAME after its faults, integers (as stored) or floating-point
    NAME#1       the same of its second run in one forward, and so on

What stands for no code of a site's word (an integer beyond it, a value off its grid, NaN where there was a number) is
told from the codes, and differs from every one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, Codes, decode, encode
from hwfault.errors import HwfaultError, nearest
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.own_code import errors_of
from hwfault.program.batch_axes import from_rows, in_rows
from hwfault.program.processes import Site
from hwfault.proof.expected import Batch, Expected
from hwfault.proof.sides import Mask, strange_values
from hwfault.stream.check import signed64

Array = NDArray[Any]
Runner = Callable[[dict[str, Array]], Any]


class CodePair(NamedTuple):
    """Codes (rows, words) before and after the faults."""

    before: Codes
    after: Codes


OUTPUT: Final = "output"
PREDICTION: Final = "prediction"


def ask(runner: Runner, batch: Mapping[str, Array], seed: int | None, first_sample: int) -> dict[str, Array]:
    """The runner's answer for a batch, arrays by name; raises HwfaultError for what it raises or answers wrongly."""
    question = {name: np.array(values) for name, values in batch.items()}
    if seed is not None:
        question |= {SEED: np.array(signed64(seed), np.int64), FIRST_SAMPLE: np.array(first_sample, np.int64)}
    with errors_of("the runner"):
        answer = runner(question)
    return _parsed(answer)


def _parsed(answer: Any) -> dict[str, Array]:
    given = dict(answer) if isinstance(answer, Mapping) else {OUTPUT: answer}
    out: dict[str, Array] = {}
    for name, values in given.items():
        array = np.asarray(values)
        if array.dtype.kind not in "biuf" or not isinstance(name, str):
            raise HwfaultError(f"the runner answered {name!r} with {array.dtype}, expected numbers")
        out[name] = array
    if OUTPUT in out and PREDICTION not in out and out[OUTPUT].dtype.kind in "iu" and out[OUTPUT].ndim == 1:
        out[PREDICTION] = out.pop(OUTPUT)
    if not out:
        raise HwfaultError("the runner answered nothing, expected outputs: one array, or arrays by name")
    return out


@dataclass
class Answered:
    """What a runner told of one run of a site in one batch, beside what was recorded; all of it (rows, words)."""

    site: Site
    call: int
    recorded: CodePair
    found: CodePair
    """Before the faults what was recorded: a runner does not tell of it."""
    strange: Mask
    """Where what it told stands for no code."""
    differs: Mask
    values: Array
    """What it told."""


def site_answers(answer: dict[str, Array], expected: Expected, batch: Batch) -> Iterator[Answered]:
    """What an answer tells of sites; raises HwfaultError for unknown names, and for what a site has no room for."""
    known = {entry.site.name: entry for entry in expected.sites}
    for name in (name for name in answer if name not in (OUTPUT, PREDICTION)):
        base, call = (name, 0) if name in known else _numbered(name)
        if base not in known or call >= known[base].calls:
            raise HwfaultError(
                f"the runner answered with {name!r}, expected {OUTPUT!r}, {PREDICTION!r} or sites: "
                f"{nearest(base, known)}"
            )
        site = known[base].site
        yield _answered(site, call, answer[name], expected, batch.rows(site))


def _numbered(name: str) -> tuple[str, int]:
    base, _, number = name.rpartition("#")
    return (base, int(number)) if number.isascii() and number.isdecimal() and len(number) < 6 else (name, 0)


def _answered(site: Site, call: int, values: Array, expected: Expected, rows: slice) -> Answered:
    before, after = expected.codes(site, call, rows)
    if values.size != after.size:
        raise HwfaultError(
            f"the runner answered {site.name!r} with the shape {list(values.shape)}, expected {after.size} values: "
            f"{after.shape[1]} words of {len(after)} samples"
        )
    told = _rows_told(site, values, after)
    fmt = CodeFormat(site.bit_width, site.signed)
    if values.dtype.kind == "f":
        grid, none = expected.grid(site, call), expected.no_numbers(site, call, rows, after.shape)
        codes, strange = _codes_of_values(values, after, (*grid, none), site, fmt)
        # a number where none was recorded has a code, but not the recorded "none"
        differs = (codes != after) | strange | (np.isfinite(told) & ~np.isfinite(none))
    else:
        codes, strange = codes_of_integers(told, fmt)
        differs = (codes != after) | strange
    recorded, found = CodePair(before, after), CodePair(before, codes)
    return Answered(site, call, recorded, found, strange, differs, told)


def _rows_told(site: Site, values: Array, after: Codes) -> Array:
    """What a runner told, as (rows, words); raises HwfaultError for a shape that does not tell the samples apart."""
    if site.batch is None:
        return values.reshape(after.shape)
    axis, axes = site.batch.axis, len(site.shape or ()) + (site.batch.rows == 1)
    if values.ndim != axes or values.shape[axis] != site.batch.rows * len(after):
        raise HwfaultError(
            f"the runner answered {site.name!r} with the shape {list(values.shape)}, but the site has {site.batch}; "
            "expected the graph's shape"
        )
    return in_rows(values, True, site.batch)


def codes_of_integers(values: Array, fmt: CodeFormat) -> tuple[Codes, Mask]:
    """The codes of a site's integers, and which of them stand for none (their codes are 0).

    They are signed integers where any is negative, else integers or code words, which are the same up to the largest
    integer: one answer is read in one way.
    """
    signed = values.dtype.kind == "i" and bool((values < 0).any())
    low, high = (fmt.low, fmt.high) if signed else (0, fmt.mask)
    fits = (values >= low) & (values <= high)
    if fmt.bipolar and signed:
        fits &= values != 0
    whole = np.where(fits, values, 0).astype(np.int64)
    if fmt.bipolar:
        whole = (whole > 0).astype(np.int64)
    return (whole & fmt.mask).astype(np.uint32), ~fits


def _codes_of_values(
    values: Array, after: Codes, grid: tuple[Array, Array, Array], site: Site, fmt: CodeFormat
) -> tuple[Codes, Mask]:
    """The codes (rows, words) of floating-point values, and which of them stand for none.

    `after` are the recorded ones, `grid` scale, zero point and, where a word held no number, what it held.
    """
    scale, zero_point, none = grid
    shapes = [part.shape for part in (scale, zero_point) if part.size > 1]
    try:
        fits = np.broadcast_shapes(values.shape, *shapes) == values.shape
    except ValueError:
        fits = False
    if not fits:
        raise HwfaultError(
            f"the runner answered {site.name!r} with the shape {list(values.shape)}, but its channels have scales of "
            "their own; expected the graph's shape, or integers"
        )
    scale, zero_point = (part if part.size > 1 else part.reshape(()) for part in (scale, zero_point))
    recorded, none = (_as_told(words, values, site) for words in (after, none))
    with np.errstate(all="ignore"):
        worth = decode(recorded, scale, zero_point, fmt, values.dtype.type)
    lost = ~np.isfinite(none)
    worth[lost] = none[lost]
    strange = strange_values(values, worth, scale, zero_point, fmt)
    # a wide word's value may be that of several codes: the recorded one is as good as the one read
    codes = np.where(values == worth, recorded, encode(values, scale, zero_point, fmt))
    return _rows_told(site, codes, after), _rows_told(site, strange, after)


def _as_told(words: Array, values: Array, site: Site) -> Array:
    """What was recorded (rows, words), as the values of an answer lie."""
    return words.reshape(values.shape) if site.batch is None else from_rows(words, values.shape, True, site.batch)
