"""The page's tables of classes: how often each has silent wrong answers."""

from collections.abc import Iterable

from hwfault.campaigns.by_class import most_harmed
from hwfault.campaigns.figures import Figure
from hwfault.campaigns.page.words import share, told
from hwfault.campaigns.statistics.classes import ClassRate

_MOST = 20
"""So many classes of a task are told on the page; all are in classes.csv."""
Rows = list[tuple[str, ...]]


def classes_told(figures: Iterable[Figure]) -> list[tuple[str, str, Rows, int]]:
    """Of each task that has classes: its name, which class is harmed most, rows, and how many classes are left out."""
    found = []
    for figure in figures:
        if figure.classes:
            rows = [_row(one) for one in figure.classes[:_MOST]]
            sentence = most_harmed(figure, share) or "no class has a silent wrong answer that was seen"
            found.append((figure.name, sentence, rows, max(0, len(figure.classes) - _MOST)))
    return found


def _row(one: ClassRate) -> tuple[str, ...]:
    rank = "-"
    if one.first:
        rank = str(one.first) if one.first == one.last else f"{one.first} to {one.last}"
    rate = "no sample" if not one.samples else "not tried" if one.rate is None else told(one.rate)
    return rank, str(one.label), f"{one.samples:,}", rate, ", ".join(map(str, one.tied)) or "-"
