"""How often events must start: the cells of a line are then faulty with the probability that was asked for."""

from decimal import Decimal
from math import fsum

import pytest

from hwfault.devices.events import event_probability, least


@pytest.mark.parametrize("line", [1, 2, 7, 32])
@pytest.mark.parametrize("sizes", [(1.0,), (0.5, 0.5), (0.7, 0.2, 0.1), (0.0, 0.0, 0.0, 1.0)])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.3, 0.999])
def test_cells_of_a_line_are_faulty_with_the_probability(p, sizes, line):
    """Cell by cell: an event that starts d cells before one reaches it if it has more than d cells."""
    h = event_probability(p, sizes, line)
    healthy = []
    for cell in range(line):
        reach = fsum(fsum(sizes[d:]) for d in range(min(cell + 1, len(sizes))))
        healthy.append((1 - h) ** reach)
    assert 1 - fsum(healthy) / line == pytest.approx(p, rel=1e-9)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_certainties_need_no_search(p):
    assert event_probability(p, (0.5, 0.5), 8) == p


def test_events_of_one_cell_start_as_often_as_cells_are_faulty():
    assert event_probability(0.125, (1.0,), 32) == 0.125


def test_the_least_number_is_found_to_sixty_digits():
    root = least(lambda x: x * x >= 2, Decimal(1), Decimal(2))
    assert abs(root * root - 2) < Decimal("1e-57")
