"""Cells of two sites, as the tests of the law `cells` name them."""

from hypothesis import strategies as st

from hwfault.laws.cells import CellFaults
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site

ACT = Site(name="act", kind="activation", bit_width=5, signed=False, shape=(3, 7))
WEIGHT = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(10,), aliases=("also.w",))
SITES = [ACT, WEIGHT]


def cell(site="act", word=0, bit=0, kind="flip", **when):
    return {"site": site, "word": word, "bit": bit, "kind": kind, **when}


def cells(*given):
    return CellFaults(cells=given)


def plan_of(*given, sites=SITES):
    return resolve(sites, [cells(*given)])


@st.composite
def some_cells(draw, site, numbers):
    """Cells of a site, each once, some in one of the samples or steps."""
    when = "sample" if site.batched else "step"
    given, seen = [], set()
    for _ in range(draw(st.integers(1, 12))):
        word, bit = draw(st.integers(0, site.words - 1)), draw(st.integers(0, site.bit_width - 1))
        own = draw(st.lists(st.sampled_from(numbers), unique=True, max_size=2))
        kind = draw(st.sampled_from(["flip", "stuck_0", "stuck_1"]))
        if (word, bit) not in seen:
            seen.add((word, bit))
            given += [cell(site.name, word, bit, kind, **{when: n}) for n in own] or [cell(site.name, word, bit, kind)]
    return draw(st.permutations(given))
