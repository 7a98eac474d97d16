"""Guards in C++ and in Python: what they let pass, and what they notice."""

import gc
import weakref

import pytest
import torch

from hwfault.fusion.guards import holding
from hwfault.torch_ops.extension import extension, without_extension


@pytest.fixture(params=[True, False], ids=["extension", "Python"])
def guarded(request):
    if request.param:
        assert extension() is not None, "run `python -m hwfault.fast`, as make install does"
        return holding

    def in_python(*given):
        with without_extension():
            return holding(*given)

    return in_python


class Thing:
    pass


def test_dicts_whose_values_all_stay(guarded):
    one, other = Thing(), Thing()
    held = {"a": one, "b": None}
    holds = guarded([held, {}], [], [])
    assert holds()
    held["b"] = other
    assert not holds()
    held["b"] = None
    assert holds()
    held["c"] = None
    assert not holds()
    del held["c"], held["a"]
    assert not holds()


def test_dicts_that_get_another_entry(guarded):
    first, second = {"a": 1}, {}
    holds = guarded([], [first, second], [])
    first["a"] = 2
    assert holds(), "what they hold is looked at elsewhere"
    second["forward"] = len
    assert not holds()


@pytest.mark.parametrize(
    ("then", "now", "same"),
    [
        (True, False, False),
        (None, 1, False),
        (1e-10, float("1e-10"), True),
        (1e-10, 1e-9, False),
        (4, 4.0, True),
        (float("nan"), float("nan"), False),
    ],
)
def test_single_entries(guarded, then, now, same):
    held = {"value": then, "other": 0}
    holds = guarded([], [], [(held, "value"), (held, "missing")])
    held["other"] = 1
    assert holds()
    held["value"] = now
    assert holds() == same
    held["value"] = then
    held["missing"] = 0
    assert not holds()


def test_tensors_have_to_be_the_same(guarded):
    held = {"value": torch.ones(3)}
    holds = guarded([], [], [(held, "value")])
    held["value"].zero_()
    assert holds()
    held["value"] = torch.zeros(3)
    assert not holds()


def test_guards_of_what_holds_them_are_collected(guarded):
    thing = Thing()
    thing.holds = guarded([vars(thing)], [], [(vars(thing), "holds")])
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
