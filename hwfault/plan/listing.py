"""The faults of a plan at one site, spelled out one by one for people to look at."""

from collections.abc import Iterator, Sequence

from hwfault.errors import HwfaultError
from hwfault.laws.memory import addresses
from hwfault.plan.fault_plan import FaultPlan
from hwfault.program.processes import AnyProcess, MapProcess, MapStep, Process, ProtectedProcess, Site
from hwfault.records import Record
from hwfault.stream.check import check_draw
from hwfault.stream.fault_map import Kind, Words
from hwfault.stream.reference import plane_hits
from hwfault.stream.tables import ACCEPT_ALL, WORD_PLANE


class Fault(Record):
    """One hit: where it falls and what it does to the code stored there (`bit` is None where it strikes the word)."""

    process: int
    word: int
    bit: int | None
    aux: int | None = None
    effect: str
    address: str | None = None


def faults_at(plan: FaultPlan, name: str, *, seed: int, sample: int, words: int | None = None) -> list[Fault]:
    """The hits on one sample of a site, by process, plane and stream order, for every process of the plan.

    `words` defaults to the size of the site's shape. Raises PlanError for an unknown site, HwfaultError where the
    number of words is neither known nor given.
    """
    entry = plan.at(name)
    words = _size(entry.site) if words is None else words
    check_draw(seed=seed, site=0, words=words, plane=0, sample=sample)
    draw = (seed, sample, words)
    return [fault for process in entry.processes for fault in _of_process(plan, entry.site, process, draw)]


def _of_process(plan: FaultPlan, site: Site, process: AnyProcess, draw: tuple[int, int, int]) -> Iterator[Fault]:
    if isinstance(process, MapProcess):
        return _cells(process, draw)
    if isinstance(process, ProtectedProcess):
        return _protected(plan, process, draw)
    return _faults(plan, site, process, draw)


def _size(site: Site) -> int:
    if site.words is None:
        raise HwfaultError(
            f"how many words a sample of {site.name!r} has is not known; give it (--words), or list the network's "
            "sites with an example batch before resolving the plan"
        )
    return site.words


def with_addresses(plan: FaultPlan, name: str, faults: Sequence[Fault]) -> list[Fault]:
    """The faults of a site, those that a map holds with the physical place of their cell."""
    places: dict[tuple[int, int, int], str | None] = {}
    entry = plan.at(name)  # by an alias, too
    for process in entry.processes:
        if isinstance(process, MapProcess):
            word, bit, _ = process.map.cells()
            names = _addresses(plan, process.fault, entry.site.name, word, bit)
            places |= {(process.fault, w, b): a for w, b, a in zip(word.tolist(), bit.tolist(), names, strict=True)}
    keys = ((f.process, f.word, -1 if f.bit is None else f.bit) for f in faults)
    return [f.model_copy(update={"address": places.get(key)}) for f, key in zip(faults, keys, strict=True)]


def _addresses(plan: FaultPlan, k: int, name: str, word: Words, bit: Words) -> list[str | None]:
    struck = [e.site for e in plan.sites if any(isinstance(p, MapProcess) and p.fault == k for p in e.processes)]
    return addresses(plan.faults[k], struck, name, word, bit)


def _cells(process: MapProcess, draw: tuple[int, int, int]) -> Iterator[Fault]:
    """The cells of a map; of an intermittent one, those active in the sample's refresh period."""
    seed, sample, words = draw
    period = sample if process.refresh in ("inference", "batch") else 0
    rows = process.map if process.permanent else MapStep(process).active(seed, period)
    for word, bit, kind in zip(*(column.tolist() for column in rows.cells()), strict=True):
        if word < words:
            yield Fault(process=process.fault, word=word, bit=bit, effect=_KINDS[Kind(kind)])


def _protected(plan: FaultPlan, process: ProtectedProcess, draw: tuple[int, int, int]) -> Iterator[Fault]:
    """Faulty cells of a protected memory before its decoder: `word` is a memory word there, `bit` one of its cells."""
    seed, sample, words = draw
    cells: list[tuple[int, int, int | None, str]] = []
    if process.map is not None:
        word, bit, kind = process.map.cells()
        for w, b, k in zip(word.tolist(), bit.tolist(), kind.tolist(), strict=True):
            cells.append((w, b, None, _KINDS[Kind(k)]))
    else:
        table, count = plan.tables[process.tables[0]], process.memory.words(words) * process.memory.sub_words
        for plane in range(process.memory.sub_word_bits):
            hits = plane_hits(seed, process.site_number, sample, count, plane, table)
            for w, a in zip(*(column.tolist() for column in hits), strict=True):
                cells.append((w, plane, a, _accepted(process.accept01, process.accept10, a)))
    for w, b, aux, effect in cells:
        memory_word, part = divmod(w, process.memory.sub_words)
        if (cell := 32 * part + b) < process.memory.cells:
            yield Fault(process=process.fault, word=memory_word, bit=cell, aux=aux, effect=f"{effect} (memory word)")


_KINDS = {Kind.FLIP: "flip", Kind.STUCK_AT_0: "stuck at 0", Kind.STUCK_AT_1: "stuck at 1"}


def _faults(plan: FaultPlan, site: Site, process: Process, draw: tuple[int, int, int]) -> Iterator[Fault]:
    seed, sample, words = draw
    on_bits = process.kind in ("bit", "cluster")
    for i, table in enumerate(process.tables):
        plane = i if on_bits else WORD_PLANE
        word, aux = plane_hits(seed, process.site_number, sample, words, plane, plan.tables[table])
        for w, a in zip(word.tolist(), aux.tolist(), strict=True):
            effect = _effect(process, i, a, site.bit_width)
            yield Fault(process=process.fault, word=w, bit=i if on_bits else None, aux=a, effect=effect)


def _effect(process: Process, plane: int, aux: int, bits: int) -> str:
    if process.kind == "bit":
        return _accepted(process.accept01[plane], process.accept10[plane], aux)
    if process.kind == "cluster":
        size = 1 + sum(threshold <= aux for threshold in process.sizes)
        return f"flips {size} along {process.axis}" if size > 1 else "flip"
    if process.kind == "late":
        return f"keeps {process.mask:#x} of the word before"
    if process.mask is not None:
        return f"xor {process.mask:#x}"
    return f"+ {1 + (aux * ((1 << bits) - 1) >> 32)} mod 2^{bits}"


def _accepted(accept01: int, accept10: int, aux: int) -> str:
    up, down = aux < accept01, aux >= ACCEPT_ALL - accept10
    return {(True, True): "flip", (True, False): "0 reads 1", (False, True): "1 reads 0"}.get((up, down), "none")
