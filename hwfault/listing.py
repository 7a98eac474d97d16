"""The faults of a plan at one site, spelled out one by one for people to look at."""

from collections.abc import Iterator

from hwfault.errors import HwfaultError
from hwfault.plan import FaultPlan, Process, Site
from hwfault.processes import MapProcess, MapStep
from hwfault.profiles.faultmap import Kind
from hwfault.profiles.records import Record
from hwfault.stream.check import check_draw
from hwfault.stream.reference import plane_hits
from hwfault.stream.tables import ACCEPT_ALL, WORD_PLANE


class Fault(Record):
    """One hit: where it falls and what it does to the code stored there (`bit` is None where it strikes the word)."""

    process: int
    word: int
    bit: int | None
    aux: int | None = None
    effect: str


def faults_at(plan: FaultPlan, name: str, *, seed: int, sample: int, words: int | None = None) -> list[Fault]:
    """The hits on one sample of a site, by process, plane and stream order, for every process of the plan.

    `words` defaults to the size of the site's shape. Raises PlanError for an unknown site, HwfaultError where the
    number of words is neither known nor given.
    """
    entry = plan.at(name)
    words = _size(entry.site) if words is None else words
    check_draw(seed=seed, site=0, words=words, plane=0)
    draw = (seed, sample, words)
    return [
        fault
        for p in entry.processes
        for fault in (_cells(p, draw) if isinstance(p, MapProcess) else _faults(plan, entry.site, p, draw))
    ]


def _size(site: Site) -> int:
    if site.words is None:
        raise HwfaultError(
            f"how many words a sample of {site.name!r} has is not known; give it (--words), or list the network's "
            "sites with an example batch before resolving the plan"
        )
    return site.words


def _cells(process: MapProcess, draw: tuple[int, int, int]) -> Iterator[Fault]:
    """The cells of a map; of an intermittent one, those active in the sample's refresh period."""
    seed, sample, words = draw
    period = sample if process.refresh in ("inference", "batch") else 0
    rows = process.map if process.permanent else MapStep(process).active(seed, period)
    for word, bit, kind in zip(*(column.tolist() for column in rows.cells()), strict=True):
        if word < words:
            yield Fault(process=process.fault, word=word, bit=bit, effect=_KINDS[Kind(kind)])


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
        return _bit_effect(aux < process.accept01[plane], aux >= ACCEPT_ALL - process.accept10[plane])
    if process.kind == "cluster":
        size = 1 + sum(threshold <= aux for threshold in process.sizes)
        return f"flips {size} along {process.axis}" if size > 1 else "flip"
    if process.mask is not None:
        return f"xor {process.mask:#x}"
    return f"+ {1 + (aux * ((1 << bits) - 1) >> 32)} mod 2^{bits}"


def _bit_effect(up: bool, down: bool) -> str:
    return {(True, True): "flip", (True, False): "0 reads 1", (False, True): "1 reads 0"}.get((up, down), "none")
