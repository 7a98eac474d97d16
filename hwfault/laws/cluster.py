"""The law `cluster`: events that flip several neighbouring cells."""

from typing import Literal

from pydantic import field_validator

from hwfault.laws.bound import Bound, Lowered, Target
from hwfault.laws.on_sites import OnSites, Probability, per_bit
from hwfault.program.processes import Process, Site
from hwfault.stream.tables import size_table

EXAMPLE = "{model: cluster, probability: 1.0e-5, sizes: [0.7, 0.2, 0.1], axis: word}"


class Clusters(OnSites):
    """Multi-cell upsets: an event with `probability` for each cell flips 1, 2, ... neighbours.

    `sizes` are the probabilities of 1, 2, ... of them. Neighbours lie along the `axis`: "bit" (higher bits of the
    same word) or "word" (the same bit of the next words).
    """

    model: Literal["cluster"] = "cluster"
    probability: Probability
    sizes: tuple[float, ...] = (1.0,)
    axis: Literal["bit", "word"] = "bit"

    @field_validator("sizes")
    @classmethod
    def _sum_to_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        size_table(value)
        return value


def lower(bound: Bound[Clusters], target: Target) -> Lowered:
    """A cluster process at each site: one count table for each bit plane, and the thresholds of the sizes.

    Raises ModelError for a list of another length than the word, and for what cannot be drawn.
    """
    return Lowered([_process(bound.fault, site, target) for site in target.sites])


def _process(fault: Clusters, site: Site, target: Target) -> Process:
    with target.errors_at(site):
        tables = target.tables.numbers(per_bit(fault.probability, site.bit_width))
    return Process(**target.key(site), kind="cluster", tables=tables, axis=fault.axis, sizes=size_table(fault.sizes))
