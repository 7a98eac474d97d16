"""Which cases of a test marked `every(n)` are slow."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import slowly
from tests.slowly import LONG, put_long_files_first, thin


def case(name, every=None, slow=False):
    """What `thin` asks of a collected test, with the marks that it was given in `added`."""
    held = {} if every is None else {"every": pytest.mark.every(every).mark}
    held |= {"slow": pytest.mark.slow} if slow else {}
    added = []
    return SimpleNamespace(nodeid=name, get_closest_marker=held.get, add_marker=added.append, added=added)


def slow_ones(items):
    thin(items)
    return [item.nodeid for item in items if item.added]


def test_the_first_of_each_n_stays_quick():
    items = [case(f"t.py::one[{i}]", 3) for i in range(7)] + [case(f"t.py::two[{i}]", 2) for i in range(3)]
    assert slow_ones(items) == [*(f"t.py::one[{i}]" for i in (1, 2, 4, 5)), "t.py::two[1]"]


def test_without_the_mark_nothing_changes():
    assert slow_ones([case("t.py::one[0]"), case("t.py::one[1]"), case("t.py::two")]) == []


def test_cases_that_are_slow_already_do_not_count():
    items = [case("t.py::one[0]", 2, slow=True), *(case(f"t.py::one[{i}]", 2) for i in (1, 2, 3))]
    assert slow_ones(items) == ["t.py::one[2]"]


def test_long_files_come_first_and_the_others_as_they_were(monkeypatch):
    monkeypatch.setattr(slowly, "LONG", ("c.py", "b.py"))
    items = [case(name) for name in ("d.py::two", "b.py::two", "c.py::one", "a.py::one", "b.py::one", "d.py::one")]
    put_long_files_first(items)
    assert [item.nodeid for item in items] == [
        *("c.py::one", "b.py::two", "b.py::one", "d.py::two", "a.py::one", "d.py::one")
    ]


@pytest.mark.parametrize("name", LONG)
def test_long_files_are_there(name):
    assert (Path(__file__).parents[1] / name).is_file()


@pytest.mark.every(2)
@pytest.mark.parametrize("number", range(4))
def test_here_too(number, request):
    assert (request.node.get_closest_marker("slow") is not None) == (number % 2 == 1 and len(request.session.items) > 1)
