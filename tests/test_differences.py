"""Where two nests of plain data differ: known answers."""

from hypothesis import given
from hypothesis import strategies as st

from hwfault.differences import MISSING, differences

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
NESTS = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
)


def test_known_differences():
    assert differences({"a": {"b": 1}, "c": [1, 2]}, {"a": {"b": 2}, "c": [1, 2, 3]}) == {
        "a.b": (1, 2),
        "c": ([1, 2], [1, 2, 3]),
    }
    assert differences({"a": [{"b": 1}, 2]}, {"a": [{"b": 1, "c": 3}, 4]}) == {"a.0.c": (MISSING, 3), "a.1": (2, 4)}
    assert differences({"a": {"x": 1}}, {}) == {"a": ({"x": 1}, MISSING)}
    assert differences(1, "1") == {"": (1, "1")}


@given(NESTS, NESTS)
def test_there_are_none_between_equal_nests_alone(first, second):
    assert differences(first, first) == {}
    assert (differences(first, second) == {}) == (first == second)
