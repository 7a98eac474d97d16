"""One run of a site in two engines: what each has before and after the faults, and where the two differ."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.codes import CodeFormat, Codes, read_codes
from hwfault.graph.edit.array_node import add_up
from hwfault.graph.read.qonnxgraph import attribute
from hwfault.graph.run.strike import strike_values
from hwfault.graph.run.watched import Watched
from hwfault.program.batch_axes import in_rows
from hwfault.program.processes import Site

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_SURE_BITS = 20
"""Wider codes need not come back from float32 values."""


class Side:
    """The words of one run of a site in one engine, values or integers, and their codes as (samples, words).

    `codes` before and after, where the engine tells them; otherwise they are read off the words, those of wide values
    after a fault as the nearest that the word has.
    """

    def __init__(self, site: Site, values: Sequence[Array], codes: tuple[Array, Array] | None = None) -> None:
        self.batched, self._batch = site.batched, site.batch
        self._format = CodeFormat(site.bit_width, site.signed)
        self._before, self._after, self._scale, self._zero_point = values
        self.wide = site.bit_width > _SURE_BITS and self._after.dtype.kind == "f" and self._after.dtype != np.float64
        before, after = codes or (self._codes(self._before, False), self._codes(self._after, self.wide))
        self.before, self.after = (self._rows(c.astype(np.uint32)) for c in (before, after))

    def _codes(self, values: Array, nearest: bool) -> Codes:
        return read_codes(values, self._scale, self._zero_point, self._format, half=nearest)

    def _rows(self, words: Array) -> Array:
        return in_rows(words, self.batched, self._batch)

    def has(self, values: Sequence[Array]) -> bool:
        """Whether values before and after the faults are these, to the bit."""
        own = (self._before, self._after)
        return all(np.array_equal(bits_of(mine), bits_of(other)) for mine, other in zip(own, values, strict=True))

    @property
    def values(self) -> Array:
        """The values (samples, words) before the faults."""
        return self._rows(self._before)

    @property
    def numbers(self) -> Mask:
        """Which words hold a number: what is not finite is never struck."""
        numbers: Mask = np.isfinite(self.values)
        return numbers

    def strange(self, recorded: "Side") -> Mask:
        """Which words (samples, words) hold before the faults what no code of the word stands for.

        Values that are no numbers are strange as well, but where the same one is `recorded`.
        """
        grid = (self._scale, self._zero_point, self._format)
        return self._rows(strange_values(self._before, recorded._before, *grid))

    def differs_after(self, other: "Side") -> Mask:
        """Which words differ after the faults: in their codes, or where values do not tell them in their values."""
        differs: Mask = self.after != other.after
        if self.wide:
            differs &= self._rows(bits_of(self._after) != bits_of(other._after))
        return differs

    @property
    def changed(self) -> Mask:
        """Which words (samples, words) the faults changed; 0 and -0 are one number, and what is none stays."""
        changed: Mask = (self._before != self._after) & ~np.isnan(self._before)
        return self._rows(changed)

    def strays(self, watched: Watched, seed: int, first_sample: int) -> Mask:
        """Where the values after the faults are not, to the bit, what the stream makes of those before."""
        values, samples = self._before, np.arange(len(self.before)) + first_sample
        grid = (self._scale, self._zero_point, self._format)
        for step in watched.steps:
            values = strike_values(
                step, values, *grid, seed=seed, samples=samples, batched=self.batched, batch=self._batch
            )
        differs: Mask = bits_of(values) != bits_of(self._after)
        return self._rows(differs)


def strange_values(found: Array, recorded: Array, scale: Array, zero_point: Array, fmt: CodeFormat) -> Mask:
    """Which values of a site stand for no code of its words, and are not the very ones that were `recorded`.

    `recorded` has the shape of `found`; NaN is the recorded one only where NaN was recorded, of whatever bits.
    Integers stand for themselves, as far as the word goes.
    """
    if found.dtype.kind in "iu":
        beyond: Mask = ((found < fmt.low) | (found > fmt.high)) & (found != recorded)
        return beyond
    other: Mask = (found != recorded) & ~(np.isnan(found) & np.isnan(recorded))
    if other.any():  # mostly none is, and nothing has to be divided
        along = [np.broadcast_to(part, found.shape)[other] for part in (scale, zero_point)]
        other[other] = ~stands_for_code(found[other], along[0], along[1], fmt)
    return other


def stands_for_code(values: Array, scale: Array, zero_point: Array, fmt: CodeFormat) -> Mask:
    """Which values are those of a code word, (code - zero point) * scale as far as their type can say it.

    The type of values that engines hand over may be another than the one that they compute in: float64 numbers need
    be no more exact than float32. Scale and zero point broadcast to the values.
    """
    eps = float(np.finfo(values.dtype if values.dtype.itemsize < 4 else np.float32).eps)
    zero_point = np.asarray(zero_point, np.float64)
    with np.errstate(all="ignore"):
        integers = values.astype(np.float64) / np.asarray(scale, np.float64) + zero_point
        whole = np.rint(integers)
        room = eps * (np.abs(whole) + np.abs(zero_point) + 1)
        stands = (np.abs(integers - whole) <= room) & (whole >= fmt.low - room) & (whole <= fmt.high + room)
    if fmt.bipolar:
        stands &= whole != 0
    return np.asarray(stands)


class Differing(NamedTuple):
    """Words (samples, words) of one run of a site in one batch: those that differ, and those that faults changed.

    `strange` are those whose values stand for no code, which are among those that differ; `values` what was found.
    `no_numbers` is how many were recorded as no numbers.
    """

    codes: Mask
    faults: Mask
    expected: Mask
    seen: Mask
    strange: Mask
    values: Array
    no_numbers: int = 0


def differing(
    watched: Watched,
    ours: Side,
    theirs: Side,
    tensors: Mapping[str, Array],
    seed: int,
    first_sample: int,
    excused: Mask,
) -> Differing:
    """Where two engines differ; `theirs` is the graph's side, whose `tensors` by name tell of an array.

    Codes differ before the faults. Faults differ where either side is not what the stream says, or where the codes
    before are equal and those after are not. Sums of integers are exact, so that those which differ are the faults of
    an array, but in the samples that are `excused` (samples,), whose integers differed before.
    """
    strange = theirs.strange(ours)
    codes_differ = (ours.before != theirs.before) | (ours.numbers != theirs.numbers) | strange
    array_changed, array_strays = _added_up(watched, tensors, theirs)
    lost = int(np.count_nonzero(~ours.numbers))
    faults_differ = (
        theirs.strays(watched, seed, first_sample) | (~codes_differ & ours.differs_after(theirs)) | array_strays
    )
    if codes_differ.any():  # where none does, one side has what the other has, which is what the stream says
        faults_differ |= ours.strays(watched, seed, first_sample)
    if watched.array is not None:
        faults_differ |= codes_differ & ~excused[:, None]
        codes_differ &= excused[:, None]
    expected, seen = ours.changed | array_changed, theirs.changed | array_changed
    return Differing(codes_differ, faults_differ, expected, seen, strange, theirs.values, lost)


class Excuses:
    """Which samples of a batch have differed so far, by the site: sums of other integers are others.

    A parameter that differs does so until it is looked at again, be it in a later batch.
    """

    def __init__(self) -> None:
        self._samples: dict[str, Mask] = {}
        self._parameters: dict[str, bool] = {}
        self._looked_at: set[str] = set()

    def begin(self) -> None:
        """Begins a batch."""
        self._samples.clear()
        self._looked_at.clear()

    def note(self, site: Site, found: Differing) -> None:
        """Notes where a site differs, before its faults or after them."""
        samples: Mask = np.asarray((found.codes | found.faults).any(axis=1))
        if not site.batched:
            before = site.name in self._looked_at and self._parameters[site.name]  # a run of it in this batch
            self._parameters[site.name] = before or bool(samples.any())
            self._looked_at.add(site.name)
        elif site.name in self._samples:
            self._samples[site.name] |= samples
        else:
            self._samples[site.name] = samples

    def everywhere(self, samples: int) -> Mask:
        """The samples of a batch, of so many, in which any site differs; a parameter does in all of them."""
        found: Mask = np.full(samples, any(self._parameters.values()))
        for own in self._samples.values():
            found |= own
        return found

    def of(self, site: Site, samples: int) -> Mask:
        """The samples of a batch in which the integers that a layer adds up may differ, as far as sites tell.

        Inputs that come from no site are the same in all engines.
        """
        found: Mask = np.full(samples, any(self._parameters.values()))
        return found | self._samples[site.source] if site.source in self._samples else found


def unstruck_differing(ours: Side, theirs: Side) -> Differing:
    """The same at a site that no fault strikes."""
    strange = theirs.strange(ours)
    nothing = np.zeros(theirs.before.shape, bool)
    codes_differ = (ours.before != theirs.before) | (ours.numbers != theirs.numbers) | strange
    lost = int(np.count_nonzero(~ours.numbers))
    return Differing(codes_differ, nothing, nothing, nothing, strange, theirs.values, lost)


def _added_up(watched: Watched, tensors: Mapping[str, Array], theirs: Side) -> tuple[Mask, Mask]:
    """Which sums (samples, words) the array changed in the graph, and which are not what it makes of its inputs."""
    if watched.array is None:
        return np.zeros(theirs.before.shape, bool), np.zeros(theirs.before.shape, bool)
    sums, x, w = (tensors[name] for name in watched.array.input)
    expected, found = add_up(watched.array, sums, x, w), tensors[watched.node.before]
    # where the array adds everything up anew, its sums are no others
    changed = (found != (expected if attribute(watched.array, "recompute", 0) else sums)) & ~np.isnan(found)
    strays, lying = bits_of(expected) != bits_of(found), (watched.site.batched, watched.site.batch)
    return in_rows(changed, *lying), in_rows(strays, *lying)


def predictions(logits: Array) -> Array:
    """The index of each sample's largest logit, or the logits themselves where a sample has one."""
    return logits.argmax(axis=1) if logits.ndim > 1 else logits


def bits_of(values: Array) -> NDArray[np.integer[Any]]:
    """The bits of float32 or, for sums in that arithmetic, float64 numbers; integers as they are."""
    if values.dtype.kind in "iu":
        return values
    kind = np.int64 if values.dtype == np.float64 else np.int32
    numbers = np.ascontiguousarray(values, dtype=np.float64 if kind is np.int64 else np.float32)
    return numbers.view(kind)
