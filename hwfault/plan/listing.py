"""The faults of a plan at one site, spelled out one by one for people to look at."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hwfault.codes import CodeFormat, Codes, represent, twos_complement
from hwfault.errors import HwfaultError
from hwfault.laws.memory import addresses
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.draws import Draws, When, draws
from hwfault.program.processes import AnyProcess, Site
from hwfault.program.steps import in_steps
from hwfault.records import Record
from hwfault.stream.check import check_draw, check_number


class Hit(Record):
    """One drawn fault: where it falls and what it does to the code stored there.

    `process` is the number of the fault; `bit` is None where it strikes the word as a whole, and `length` says how many
    words from `word` on are struck alike. `conditional`: what is stored decides whether it makes another code.
    """

    process: int
    word: int
    bit: int | None
    aux: int | None = None
    effect: str
    address: str | None = None
    length: int = 1
    conditional: bool = False


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name != "Fault":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import warnings

        warnings.warn(f"{__name__}.Fault is Hit now; the old name goes away in 1.0", DeprecationWarning, stacklevel=2)
        return Hit


def faults_at(
    plan: FaultPlan,
    name: str,
    *,
    seed: int,
    sample: int = 0,
    first_sample: int = 0,
    step: int = 0,
    epoch: int = 0,
    words: int | None = None,
    codes: ArrayLike | None = None,
) -> list[Hit]:
    """The hits on one sample of a site, by process, plane and stream order, for every process of the plan.

    Hits that can never change a code are left out. `first_sample` is the number of the first sample of the batch that
    the sample is read in, which matters to faults that change with batches. A parameter has no samples: its transient
    faults are those of a training `step` (0 in evaluation). `epoch` is the number of the training's epoch.

    `codes` are those that the site holds before its faults: as many integers as it has words, of any shape, either code
    words in two's complement or, where it is signed, what they stand for. With them the hits that change nothing are
    left out, too; without them `conditional` says of which hits they decide.

    `words` defaults to the size of the site's shape. Raises PlanError for an unknown site, HwfaultError where the
    number of words is neither known nor given, for a sample of a parameter, a step of anything else, and for codes that
    are not the site's.
    """
    entry = plan.at(name)
    words = _size(entry.site) if words is None else words
    check_draw(seed=seed, site=0, words=words, plane=0, sample=sample)
    check_when(entry.site, sample=sample, step=step)
    check_number(first_sample, "number of the batch's first sample")
    when = When(seed, np.array([sample]), first_sample, check_number(step, "step"), check_number(epoch, "epoch"))
    chain = _Chain(plan, entry.site, None if codes is None else check_codes(codes, entry.site, words))
    found: list[Hit] = []
    for group in in_steps(entry.processes):
        hits = [draws(process, entry.site, plan.tables, when, words) for process in group]
        found += chain.listed(group, hits)
    return found


def check_when(site: Site, *, sample: int = 0, step: int = 0) -> None:
    """Raises HwfaultError for a sample of a parameter, the same for all of them, and for a step of anything else."""
    if sample and not site.batched:
        raise HwfaultError(
            f"sample {sample} of the {site.kind} {site.name!r}, which is the same for all samples; expected a training "
            "step, or nothing in evaluation"
        )
    if step and site.batched:
        raise HwfaultError(f"step {step} of the {site.kind} {site.name!r}, whose faults are told by their sample alone")


def check_codes(given: ArrayLike, site: Site, words: int) -> Codes:
    """The code words (words,) of integers that a site holds; raises HwfaultError for any others."""
    integers = np.asarray(given)
    fmt = CodeFormat(site.bit_width, site.signed)
    if integers.dtype.kind not in "iu" or integers.size != words:
        raise HwfaultError(
            f"codes of type {integers.dtype} and shape {integers.shape} for {site.name!r}, expected {words} integers"
        )
    least, most = (int(np.min(integers, initial=0)), int(np.max(integers, initial=0)))
    if least < fmt.low or most > fmt.mask:
        raise HwfaultError(
            f"codes from {least} to {most} for {site.name!r}, expected code words of {site.bit_width} bits, 0 to "
            f"{fmt.mask}" + (f", or integers from {fmt.low} on" if site.signed else "")
        )
    flat = integers.reshape(-1).astype(np.int64)
    return (np.maximum(flat, 0) if fmt.bipolar else flat & fmt.mask).astype(np.uint32)


class _Told(NamedTuple):
    """Hits, which of them change a code (None: not known), and what is said of each beside its effect."""

    hits: Draws
    changes: NDArray[np.bool_] | None
    verdicts: Sequence[str]


class _Chain:
    """The codes of a site, if they are given, as its processes find them one after the other."""

    def __init__(self, plan: FaultPlan, site: Site, codes: Codes | None) -> None:
        self._plan, self._site = plan, site
        self._codes = None if codes is None else codes[np.newaxis]

    def listed(self, group: Sequence[AnyProcess], hits: Sequence[Draws]) -> list[Hit]:
        """The hits of processes that strike together, and then finds the codes as they leave them."""
        if self._codes is None:
            told = [_Told(of, None, [""] * len(of)) for of in hits]
        else:
            told = self._struck(self._codes, group, hits)
        return [hit for p, of in zip(group, told, strict=True) for hit in _spelled_out(p, of, self._site.bit_width)]

    def _struck(self, codes: Codes, group: Sequence[AnyProcess], hits: Sequence[Draws]) -> list[_Told]:
        fmt = CodeFormat(self._site.bit_width, self._site.signed, group[0].stored_as)
        found = now = represent(codes, fmt)
        told = []
        for process, of in zip(group, hits, strict=True):
            after = process.strike(of, now, found, fmt.bit_width)
            told.append(_Told(of, after.changes, after.verdicts))
            now = after.codes
        # codes that no fault changed stay what they are: two of them may be stored alike
        self._codes = np.where(now != found, twos_complement(now, fmt), codes)
        return told


def _spelled_out(process: AnyProcess, told: _Told, bit_width: int) -> Iterator[Hit]:
    """The hits that change a code, or may."""
    hits, place = told.hits, process.row.place
    kept = hits.taken if told.changes is None else told.changes
    asks = hits.conditional
    for i in np.flatnonzero(kept).tolist():
        one = {name: int(column[i]) for name, column in vars(hits).items()}
        where = ", ".join(part for part in (place, told.verdicts[i]) if part)
        yield Hit(
            process=process.fault,
            word=one["word"],
            bit=None if one["bit"] < 0 else one["bit"],
            aux=None if one["aux"] < 0 else one["aux"],
            effect=_effect(one, bit_width) + (f" ({where})" if where else ""),
            length=one["length"],
            conditional=told.changes is None and bool(asks[i]),
        )


def _effect(hit: dict[str, int], bit_width: int) -> str:
    """What a hit does, in words."""
    if hit["kept"]:
        return f"keeps {hit['kept']:#x} of the word before"
    if hit["added"]:
        return f"+ {hit['added']} mod 2^{bit_width}"
    if hit["bit"] < 0:
        return word_effect(hit["zeros"], hit["ones"])
    if hit["length"] > 1:
        return f"flips {hit['length']} along word"
    if (hit["zeros"] & hit["ones"]).bit_count() > 1:
        return f"flips {hit['zeros'].bit_count()} along bit"
    if hit["zeros"] and hit["ones"]:
        return "flip"
    # a cell of a map, which the stream gives no number, is so for as long as it shows
    to_one, to_zero = ("0 reads 1", "1 reads 0") if hit["aux"] >= 0 else ("stuck at 1", "stuck at 0")
    return to_one if hit["zeros"] else to_zero


def word_effect(zeros: int, ones: int) -> str:
    """What a hit does to a word of which these bits flip where they hold 0, and those where they hold 1."""
    told = {"xor": zeros & ones, "sets": zeros & ~ones, "clears": ones & ~zeros}
    return ", ".join(f"{what} {bits:#x}" for what, bits in told.items() if bits)


def _size(site: Site) -> int:
    if site.words is None:
        raise HwfaultError(
            f"how many words a sample of {site.name!r} has is not known; give it (--words), or list the network's "
            "sites with an example batch before resolving the plan"
        )
    return site.words


def with_addresses(plan: FaultPlan, name: str, hits: Sequence[Hit]) -> list[Hit]:
    """The hits at a site, those on cells that a map names with the physical place of the cell."""
    places: dict[tuple[int, int, int], str | None] = {}
    entry = plan.at(name)  # by an alias, too
    for process in entry.processes:
        if process.named_cells is not None:
            word, bit = process.named_cells
            names = _addresses(plan, process.fault, entry.site.name, process.named_cells)
            places |= {(process.fault, w, b): a for w, b, a in zip(word.tolist(), bit.tolist(), names, strict=True)}
    keys = ((hit.process, hit.word, -1 if hit.bit is None else hit.bit) for hit in hits)
    return [hit.model_copy(update={"address": places.get(key)}) for hit, key in zip(hits, keys, strict=True)]


def _addresses(plan: FaultPlan, k: int, name: str, cells: tuple[Any, Any]) -> list[str | None]:
    named = [e.site for e in plan.sites if any(p.named_cells is not None and p.fault == k for p in e.processes)]
    return addresses(plan.faults[k], named, name, *cells)
