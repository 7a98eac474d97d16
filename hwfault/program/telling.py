"""What processes do, in words for people: from the integers that engines apply, whatever else a plan says of them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from hwfault.program.means import hit_probability, taken_probability
from hwfault.stream.tables import ACCEPT_ALL, Table

Cells = tuple[int, int, int]
"""How many cells flip, are stuck at 0 and are stuck at 1."""

_MOST = 3
"""So many different things are told of one fault; of further ones how many there are."""


def tell_probability(p: float) -> str:
    """A probability in a few digits."""
    return f"{p:.4g}"


def tell_number(count: int, of: str) -> str:
    """So many of something."""
    return f"{count:,} {of}" + ("" if count == 1 else "s")


def tell_bits(planes: Sequence[tuple[float, float]]) -> str:
    """Bit errors: for each plane the probabilities that 0 reads 1 and that 1 reads 0."""
    told = [tell_directions(*plane) for plane in planes]
    if len(set(told)) == 1:
        return told[0]
    return "by bit, lowest first: " + "; ".join(one.removeprefix("with probability ") for one in told)


def tell_directions(p01: float, p10: float) -> str:
    """The probabilities that a cell which stores 0 reads 1, and the other way round."""
    up, down = tell_probability(p01), tell_probability(p10)
    if up == down:
        return f"with probability {up}"
    return f"with probability {up} where 0 is stored and {down} where 1 is"


def tell_accepts(tables: Sequence[Table], accept01: Sequence[int], accept10: Sequence[int]) -> str:
    """The same of the tables and accepts of planes."""
    planes = zip(tables, accept01, accept10, strict=True)
    return tell_bits([(taken_probability(t, up), taken_probability(t, down)) for t, up, down in planes])


def tell_tables(tables: Sequence[Table]) -> str:
    """The probabilities of the hits of planes, of which each does the same."""
    return tell_bits([(p, p) for p in map(hit_probability, tables)])


def tell_sizes(thresholds: Sequence[int]) -> str:
    """The sizes of clusters."""
    edges = [0, *thresholds, ACCEPT_ALL]
    shares = [(after - before) / ACCEPT_ALL for before, after in pairwise(edges)]
    return "sizes " + ", ".join(f"{i}: {tell_probability(share)}" for i, share in enumerate(shares, 1))


def tell_cells(cells: Cells) -> str:
    """How many cells of each kind there are."""
    flip, stuck_at_0, stuck_at_1 = cells
    kinds = ((flip, "flip"), (stuck_at_0, "stuck at 0"), (stuck_at_1, "stuck at 1"))
    return f"{sum(cells):,} (" + ", ".join(f"{n:,} {what}" for n, what in kinds if n or not sum(cells)) + ")"


def tell_all(told: Iterable[tuple[str, Cells | None]]) -> str:
    """What the processes of one fault do at its sites: what each does, and the cells that it has if it is a map's."""
    sites: dict[str, int] = {}
    cells: dict[str, list[Cells]] = {}
    for text, own in told:
        sites[text] = sites.get(text, 0) + 1
        cells.setdefault(text, []).extend([] if own is None else [own])
    parts = []
    for text, count in list(sites.items())[:_MOST]:
        flip, stuck_at_0, stuck_at_1 = (sum(column) for column in zip((0, 0, 0), *cells[text], strict=True))
        found = f": {tell_cells((flip, stuck_at_0, stuck_at_1))}" if cells[text] else ""
        parts.append(f"{text}{found}, at {tell_number(count, 'site')}")
    if rest := sum(list(sites.values())[_MOST:]):
        parts.append(f"with other numbers at {tell_number(rest, 'site')}")
    return "; ".join(parts)
