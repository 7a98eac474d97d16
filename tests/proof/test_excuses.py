"""Which samples excuse sums that differ: those whose integers did, in this batch, and all where a parameter does."""

import numpy as np

from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site
from hwfault.proof.sides import Differing, Excuses

ROWS = BatchAxis(axis=0, rows=1)
ACT = Site(name="a", kind="activation", bit_width=4, signed=True, batch=ROWS)
WEIGHT = Site(name="w", kind="weight", bit_width=4, signed=True)
SUMS = Site(name="l.accumulator", kind="accumulator", bit_width=12, signed=True, source="a", weights=(2, 2), batch=ROWS)
OTHERS = SUMS.model_copy(update={"name": "m.accumulator", "source": "b"})


def found(*rows, codes=True):
    """What differs in these rows of three."""
    mask = np.zeros((3, 2), bool)
    mask[list(rows)] = True
    nothing = np.zeros((3, 2), bool)
    return Differing(*((mask, nothing) if codes else (nothing, mask)), nothing, nothing, nothing, np.zeros((3, 2)))


def of(excuses, site=SUMS):
    return excuses.of(site, 3).tolist()


def test_samples_of_the_source():
    excuses = Excuses()
    excuses.begin()
    excuses.note(ACT, found(1))
    assert of(excuses) == [False, True, False]
    assert of(excuses, OTHERS) == [False, False, False]
    excuses.note(ACT, found(2, codes=False))
    assert of(excuses) == [False, True, True]
    assert excuses.everywhere(3).tolist() == [False, True, True]


def test_another_batch_has_other_samples():
    excuses = Excuses()
    excuses.begin()
    excuses.note(ACT, found(1))
    excuses.begin()
    assert of(excuses) == [False, False, False]


def test_a_parameter_differs_until_it_is_looked_at_again():
    excuses = Excuses()
    excuses.begin()
    excuses.note(WEIGHT, found(0))
    excuses.note(WEIGHT, found())  # its second run
    assert of(excuses) == of(excuses, OTHERS) == [True, True, True]
    excuses.begin()
    assert excuses.everywhere(3).all()
    excuses.note(WEIGHT, found())
    assert not excuses.everywhere(3).any()
