"""Where the samples of a batch lie at each site of a network, found by what becomes of one marked sample.

The network runs at two batch sizes that are different primes. The axis whose extent grows with the batch holds the
samples; which of its rows belong to the marked one says how the rows of a sample lie. Where the mark is lost (max
pooling, comparisons, quantizers that compare) or spreads to all samples, several random changes of the sample's content
are tried instead.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from hwfault.errors import PlanError
from hwfault.network.inputs import Inputs
from hwfault.network.marks import CHANGES, Runs, Watch, differ, same_random_numbers
from hwfault.program.batch_axes import BatchAxis

MARKED = {3: (0, 1, 2), 5: (1, 3)}
"""The samples that are marked, one at a time, in a batch of each size."""

_UNEVEN = "how often it runs depends on the number of samples"

Shape = tuple[int, ...]
Rows = list[bool]
Key = tuple[str, int]
"""A site's name and the number of its run."""
Marks = dict[tuple[int, int], Rows]
"""Which rows of the batch axis a sample reaches, by the batch's size and the sample's number."""


class Extents(NamedTuple):
    """The axis that grows with the batch, and how many rows of it each sample has."""

    axis: int
    rows: int


def batch_axes(
    model: nn.Module, inputs: Inputs, watch: Watch, runs: Mapping[str, int] | None = None
) -> dict[str, list[BatchAxis | str]]:
    """The batch axis of each run of each site that `watch` shows, or why it has none that fits the rule.

    `runs` says how often each site runs on the inputs as they are, which is the number of answers it then has. The
    model runs in evaluation mode, without gradients; nothing of it is written. Raises PlanError where two answers
    differ, and whatever the model raises where it does not run on batches of other sizes.
    """
    with same_random_numbers(inputs):
        found = _found(Runs(model, watch), inputs)
    if runs is None:
        return found
    return {name: _as_often(found.get(name, []), often) for name, often in runs.items()}


def _as_often(found: list[BatchAxis | str], runs: int) -> list[BatchAxis | str]:
    """What was found of the runs of a site if there are so many; otherwise why there is nothing to be said of them."""
    return found if len(found) == runs else [_UNEVEN] * runs


def _found(runs: Runs, inputs: Inputs) -> dict[str, list[BatchAxis | str]]:
    batches = {size: inputs.batch(size) for size in MARKED}
    found, extents = _find_extents(runs, batches)
    # how the rows lie, by the mark; where that does not tell, by changes
    marked = _find_marked(runs, batches, extents)
    told = {key: _inner(marked.get(key, {}), extent.rows) for key, extent in extents.items()}
    unsure = {key: extents[key] for key, inner in told.items() if len(inner) != 1}
    changed = _find_changed(runs, batches, unsure)
    for (name, run), extent in extents.items():
        found[name][run] = _answer(name, extent, told[name, run], changed.get((name, run)))
    return found


def _find_extents(
    runs: Runs, batches: Mapping[int, Inputs]
) -> tuple[dict[str, list[BatchAxis | str]], dict[Key, Extents]]:
    """The axis and its rows for each run, by the shapes alone; and for each site why its runs have none, "" so far."""
    shapes = {size: runs.see(batch, lambda _n, _r, value: tuple(value.shape)) for size, batch in batches.items()}
    names: dict[str, None] = {}
    for seen in shapes.values():
        names.update(dict.fromkeys(seen))
    found: dict[str, list[BatchAxis | str]] = {}
    extents: dict[Key, Extents] = {}
    for name in names:
        three, five = (shapes[size].get(name, []) for size in MARKED)
        if len(three) != len(five):
            found[name] = [_UNEVEN] * max(len(three), len(five))
            continue
        found[name] = []
        for run, (a, b) in enumerate(zip(three, five, strict=True)):
            said = _extents(a, b)
            if isinstance(said, Extents):
                extents[name, run] = said
                found[name].append("")
            else:
                found[name].append(said)
    return found, extents


def _extents(three: Shape, five: Shape) -> Extents | str:
    """The axis that grows with the batch, from the shapes at both sizes, or why there is none."""
    sizes = tuple(MARKED)
    if len(three) != len(five):
        return f"it has {len(three)} axes for {sizes[0]} samples and {len(five)} for {sizes[1]}"
    grown = [axis for axis, (a, b) in enumerate(zip(three, five, strict=True)) if a != b]
    if not grown:
        return f"it holds no batch: its shape {three} is the same for {sizes[0]} and for {sizes[1]} samples"
    if len(grown) > 1:
        return f"the axes {grown} of its shape {three} all grow with the number of samples, expected one"
    (axis,) = grown
    rows, rest = divmod(three[axis], sizes[0])
    if divmod(five[axis], sizes[1]) != (rows, rest) or rest:
        return (
            f"axis {axis} has {three[axis]} rows for {sizes[0]} samples and {five[axis]} for {sizes[1]}, expected as "
            "many for each sample (rows that depend on the data cannot be told apart by sample)"
        )
    return Extents(axis, rows)


def _find_marked(runs: Runs, batches: Mapping[int, Inputs], extents: Mapping[Key, Extents]) -> dict[Key, Marks]:
    """Which rows hold the mark of each marked sample; nothing where the network does not bear it."""

    def rows(name: str, run: int, value: Tensor) -> Rows:
        return _reached(value.isnan(), extents.get((name, run)))

    found: dict[Key, Marks] = {key: {} for key in extents}
    for size, samples in MARKED.items():
        for sample in samples:
            try:
                seen = runs.see_marked(batches[size], sample, rows)
            except Exception:  # a network may refuse NaN in any way it likes
                return {}
            _note(found, seen, size, sample)
    return found


def _find_changed(runs: Runs, batches: Mapping[int, Inputs], extents: Mapping[Key, Extents]) -> dict[Key, Marks]:
    """Which rows change with the content of each sample, over several changes."""
    found: dict[Key, Marks] = {key: {} for key in extents}
    if not extents:
        return found

    def kept(name: str, run: int, value: Tensor) -> Tensor | None:
        return value.clone() if (name, run) in extents else None

    for size, samples in MARKED.items():
        before = runs.see(batches[size], kept)

        def rows(name: str, run: int, value: Tensor, before: dict[str, list[Tensor | None]] = before) -> Rows:
            earlier = before.get(name, [])
            old = earlier[run] if run < len(earlier) else None
            if old is None or old.shape != value.shape:
                return []
            return _reached(differ(old, value), extents.get((name, run)))

        for sample in samples:
            for change in CHANGES:
                changed = batches[size].changed(sample, change)
                _note(found, runs.see(changed, rows), size, sample)
    return found


def _reached(where: Tensor, extents: Extents | None) -> Rows:
    """The rows of the batch axis with anything true in them."""
    if extents is None or extents.axis >= where.dim():
        return []
    if where.dim() > 1:
        where = where.movedim(extents.axis, 0).flatten(1).any(1)
    rows: Rows = where.tolist()
    return rows


def _note(found: dict[Key, Marks], seen: Mapping[str, list[Rows]], size: int, sample: int) -> None:
    """Adds rows that were reached to those found before."""
    for (name, run), marks in found.items():
        each = seen.get(name, [])
        rows = each[run] if run < len(each) else []
        before = marks.get((size, sample), rows)
        if len(before) == len(rows):
            marks[size, sample] = [a or b for a, b in zip(before, rows, strict=True)]
        else:
            marks[size, sample] = []  # of another length is what depends on the data: it fits nothing


def _inner(marks: Marks, rows: int) -> list[int]:
    """How many rows of a sample may lie together, by the rows that were reached; none where no number fits."""
    seen = {key: reached for key, reached in marks.items() if any(reached)}
    if {size for size, _ in seen} != set(MARKED):
        return []
    exact: list[int] = []
    within: list[int] = []
    for inner in range(1, rows + 1):
        if rows % inner:
            continue
        pairs = [(reached, _expected(key, rows, inner)) for key, reached in seen.items()]
        if all(reached == expected for reached, expected in pairs):
            exact.append(inner)
        if all(_within(reached, expected) for reached, expected in pairs):
            within.append(inner)
    # rows that hold no content (padding, a token of the network's own) are not reached
    return exact or within


def _expected(key: tuple[int, int], rows: int, inner: int) -> Rows:
    size, sample = key
    return [row // inner % size == sample for row in range(rows * size)]


def _within(reached: Rows, expected: Rows) -> bool:
    if len(reached) != len(expected):
        return False
    return all(there for here, there in zip(reached, expected, strict=True) if here)


def _answer(name: str, extents: Extents, marked: list[int], changed: Marks | None) -> BatchAxis | str:
    """The batch axis of one run, or why it has none."""
    if changed is None:
        return BatchAxis(axis=extents.axis, inner=marked[0], rows=extents.rows)
    told = _inner(changed, extents.rows)
    if marked and told and not set(marked) & set(told):
        raise PlanError(
            f"the site {name!r} has two answers to where its samples lie: a mark says {_said(marked)} of the "
            f"{extents.rows} rows of axis {extents.axis} lie together for each sample, changes of the content say "
            f"{_said(told)}; expected samples that lie in one way"
        )
    both = [inner for inner in told if not marked or inner in marked]
    if len(both) == 1:
        return BatchAxis(axis=extents.axis, inner=both[0], rows=extents.rows)
    if not any(any(rows) for rows in changed.values()):
        if extents.rows == 1:  # nothing of the content comes here, so that any sample is as good as any other
            return BatchAxis(axis=extents.axis)
        return f"no change of a sample reaches the {extents.rows} rows that each has on axis {extents.axis}"
    if not told:
        return (
            f"the samples do not lie one beside the other along axis {extents.axis}: what is changed in one sample "
            "comes out at rows of others (samples mixed or in another order, or rows that depend on the data)"
        )
    return f"how the {extents.rows} rows of a sample lie along axis {extents.axis} cannot be told: {_said(told)} fit"


def _said(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))
