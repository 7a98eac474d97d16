"""What a runner is asked and what it answers.

It is given the inputs of a graph by name: `input` (float32, the batch) and, where faults are meant, `hwfault_seed` (the
64 bits of the seed as int64) and `hwfault_first_sample` (int64, the number of the batch's first sample). It answers
with one array, the outputs, or with arrays by name:

    output       numbers of the shape of the graph's output
    prediction   integers, the class of each sample, where the outputs are not to be had
    NAME         the values of the site NAME after its faults, integers (as stored) or floating-point
    NAME#1       the same of its second run in one forward, and so on
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, Codes, decode, encode
from hwfault.errors import HwfaultError, nearest
from hwfault.graph.read.nodes import FIRST_SAMPLE, SEED
from hwfault.own_code import errors_of
from hwfault.program.processes import Site
from hwfault.proof.expected import Expected
from hwfault.stream.check import signed64

Array = NDArray[Any]
Runner = Callable[[dict[str, Array]], Any]


class CodePair(NamedTuple):
    """Codes (rows, words) before and after the faults."""

    before: Codes
    after: Codes


INPUT, OUTPUT, PREDICTION = "input", "output", "prediction"


def ask(runner: Runner, batch: Array, seed: int | None, first_sample: int) -> dict[str, Array]:
    """The runner's answer for a batch, arrays by name; raises HwfaultError for what it raises or answers wrongly."""
    question = {INPUT: np.array(batch)}
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


def site_answers(
    answer: dict[str, Array], expected: Expected, batch: slice, number: int
) -> Iterator[tuple[Site, int, CodePair, CodePair]]:
    """(site, run, recorded, found) of each site that an answer tells of; raises HwfaultError for unknown names."""
    known = {entry.site.name: entry for entry in expected.manifest.sites}
    for name in (name for name in answer if name not in (OUTPUT, PREDICTION)):
        base, call = (name, 0) if name in known else _numbered(name)
        if base not in known or call >= known[base].calls:
            raise HwfaultError(
                f"the runner answered with {name!r}, expected {OUTPUT!r}, {PREDICTION!r} or sites: "
                f"{nearest(base, known)}"
            )
        site = known[base].site
        rows = batch if site.batched else slice(number, number + 1)
        yield site, call, *_sides(site, call, answer[name], expected, rows)


def _numbered(name: str) -> tuple[str, int]:
    base, _, number = name.rpartition("#")
    return (base, int(number)) if number.isascii() and number.isdecimal() and len(number) < 6 else (name, 0)


def _sides(site: Site, call: int, found: Array, expected: Expected, rows: slice) -> tuple[CodePair, CodePair]:
    before, after = (codes[rows] for codes in expected.codes(site, call))
    if found.size != after.size:
        raise HwfaultError(
            f"the runner answered {site.name!r} with the shape {list(found.shape)}, expected {after.size} values: "
            f"{after.shape[1]} words of {len(after)} samples"
        )
    fmt = CodeFormat(site.bit_width, site.signed)
    if found.dtype.kind != "f":  # integers as they are stored, which a scale of one turns into codes
        codes = encode(found.astype(np.float64), np.ones(()), np.zeros(()), fmt)
    else:
        grid = expected.grid(site, call)
        if max(values.size for values in grid) > 1 and any(values.ndim > found.ndim for values in grid):
            raise HwfaultError(
                f"the runner answered {site.name!r} with the shape {list(found.shape)}, but its channels have scales "
                "of their own; expected the graph's shape, or integers"
            )
        codes = encode(found, *grid, fmt).reshape(after.shape)
        # a wide word's value may be that of several codes: the recorded one is as good as the one read
        with np.errstate(all="ignore"):
            worth = decode(after.reshape(found.shape), *grid, fmt, found.dtype.type)
        codes = np.where((worth == found).reshape(after.shape), after, codes)
        # what should be a number and is none must not pass for the integer 0
        lost = ~np.isfinite(found).reshape(after.shape) & expected.numbers(site, call, rows, after.shape)
        codes = np.where(lost, np.uint32(fmt.mask) - after, codes)
    return CodePair(before, after), CodePair(before, codes.reshape(after.shape))
