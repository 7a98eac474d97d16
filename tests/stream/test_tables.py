"""Count tables, accepts and size tables against oracles of their own, and their errors."""

from decimal import Decimal, localcontext
from hashlib import blake2b

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp, mpf
from scipy.stats import poisson

from hwfault.errors import HwfaultError, ModelError
from hwfault.stream.tables import (
    ACCEPT_ALL,
    BLOCK,
    WORD_PLANE,
    accepts,
    check_probability,
    count_table,
    encode_table,
    site_number,
    size_table,
)
from tests.helpers.stream import oracle

MODERATE = (1e-4, 7e-4, 1e-3, 0.0123, 0.03, 0.1, 0.25, 0.5, 0.9)
SMALLEST = 2.0**-43  # where 2^32 P(N > 0) reaches 1/2


@pytest.mark.parametrize("h", MODERATE)
def test_thresholds_are_scipys_poisson_distribution(h):
    table = np.array(count_table(h), dtype=np.float64)
    exact = 2.0**32 * poisson.cdf(np.arange(len(table)), -1024 * np.log1p(-h))
    slack = 1e-2  # of one part in 2^32: what float64 leaves in scipy's sum
    assert (table <= exact + slack).all()
    assert (table > exact - 1 - slack).all()


@pytest.mark.parametrize("h", MODERATE)
def test_a_table_ends_before_the_first_negligible_tail(h):
    n, mean = len(count_table(h)), -1024 * np.log1p(-h)
    assert 2.0**32 * poisson.sf(n - 1, mean) >= 0.5
    assert 2.0**32 * poisson.sf(n, mean) < 0.5


@pytest.mark.parametrize("h", [2e-13, 1e-12, 1e-9, 1e-5, 1e-3, 0.02, 0.3])
def test_thresholds_to_the_last_bit(h):
    assert count_table(h) == oracle.thresholds(h)


@pytest.mark.parametrize("h", [np.nextafter(1.0, 0.0), 0.999, 1 - 1e-9])
def test_tables_close_to_one_are_whole(h):
    table = count_table(float(h))
    mean = -1024 * float(mp.log(1 - mpf(float(h))))
    assert list(table) == sorted(table)
    assert 0 <= table[0] <= table[-1] < 2**32
    assert table[-1] >= 2**32 - 2
    assert abs(np.searchsorted(table, 2**31) - mean) < 2  # the median of a Poisson count lies beside its mean


def test_the_table_takes_the_doubles_exact_value():
    # 0.1 as a double is a little more than one tenth; one ulp below it shows in the thresholds
    h, below = 0.1, float(np.nextafter(0.1, 0.0))
    assert count_table(h) == oracle.thresholds(h)
    with localcontext() as ctx:
        ctx.prec = 60
        assert Decimal(h) > Decimal("0.1") > Decimal(below)


def test_encoded_tables():
    assert encode_table(0.0) == encode_table(0) == (0,)
    assert encode_table(1.0) == encode_table(1) == (-1,)
    assert encode_table(1e-9) == (1, 4294962897)
    assert encode_table(0.01) == (len(count_table(0.01)), *count_table(0.01))


def test_the_smallest_rate_that_can_be_drawn():
    assert count_table(SMALLEST * 1.0001) == (2**32 - 1,)
    with pytest.raises(ModelError, match=r"too small to be drawn.*2.3e-13"):
        count_table(SMALLEST * 0.9999)


@pytest.mark.parametrize("h", [5e-324, 1e-300, 1e-100, 1e-20, 1e-13])
def test_a_rate_below_the_resolution_is_never_a_silent_zero(h):
    with pytest.raises(ModelError, match=rf"{h!r} is too small to be drawn.*give 0 or a larger"):
        encode_table(h)


@pytest.mark.parametrize("h", [0.0, 1.0, -0.1, 1.1, float("nan")])
def test_count_tables_have_no_ends(h):
    with pytest.raises(ValueError, match="expected 0 < h < 1"):
        count_table(h)


@pytest.mark.parametrize("p", [-1e-300, 1.0000001, 3, -1, float("nan"), float("inf"), float("-inf")])
def test_what_is_no_probability(p):
    for raiser in (check_probability, encode_table, lambda p: accepts(p, 0.1), lambda p: accepts(0.1, p)):
        with pytest.raises(ModelError, match=r"expected a number in \[0, 1\] \(a rate of 3 % is written 0.03\)"):
            raiser(p)


def test_a_probability_is_named_in_its_error():
    with pytest.raises(ModelError, match=r"^p10 is 1.5"):
        accepts(0.5, 1.5)
    with pytest.raises(ModelError, match=r"^probability is -1"):
        check_probability(-1)


def test_the_constants_of_the_specification():
    assert (BLOCK, WORD_PLANE, ACCEPT_ALL) == (1024, 63, 4194304)


@pytest.mark.parametrize("name", ["", "a", "conv1.weight_quant", "größe", "層", "a#1"])
def test_site_numbers_are_little_endian_blake2b(name):
    for process in (0, 3, 12):
        first, second, third, fourth = blake2b(f"{name}#{process}".encode(), digest_size=4).digest()
        assert site_number(name, process) == first + 256 * second + 256**2 * third + 256**3 * fourth


@given(st.floats(1e-9, 0.999), st.floats(1e-3, 1.0))
def test_accepts_are_the_ratio_of_logarithms(h, share):
    p = h * share
    with mp.workdps(60):
        ratio = 2**22 * mp.log(1 - mpf(p)) / mp.log(1 - mpf(h))
    got_h, got01, got10 = accepts(h, p)
    assert (got_h, got01) == (h, 2**22)
    assert abs(got10 - ratio) <= 0.5
    assert accepts(p, h) == (h, got10, 2**22)


def test_accepts_at_the_ends():
    assert accepts(0.0, 0.0) == (0.0, 0, 0)
    assert accepts(0.0, 1.0) == (1.0, 0, 2**22)
    assert accepts(1.0, 1.0) == (1.0, 2**22, 2**22)
    assert accepts(0.3, 0.3) == (0.3, 2**22, 2**22)


def test_the_realised_probabilities_are_the_asked_ones():
    # a cell is hit unless all of a Poisson number of hits miss it; a share a of them is accepted
    for p01, p10 in ((0.001, 0.01), (0.2, 0.05), (0.9, 0.4)):
        h, accept01, accept10 = accepts(p01, p10)
        for p, accept in ((p01, accept01), (p10, accept10)):
            assert 1 - (1 - h) ** (accept / 2**22) == pytest.approx(p, rel=2e-5)


@pytest.mark.parametrize("pair", [(1.0, 0.5), (1e-9, 1.0)])
def test_no_rate_gives_one_certain_and_one_uncertain_direction(pair):
    with pytest.raises(ModelError, match=r"p01 = .* with p10 = .* cannot be drawn: where one is 1 the other must be"):
        accepts(*pair)


def test_a_direction_too_rare_beside_the_other_is_an_error():
    with pytest.raises(ModelError, match=r"1e-09 beside 0.5 is too small"):
        accepts(1e-9, 0.5)
    assert accepts(0.5 * 2**-22, 0.5)[1] > 0


def test_size_tables():
    assert size_table([1.0]) == ()
    assert size_table([0.5, 0.5]) == (2**21,)
    assert size_table([0.9, 0.05, 0.05]) == (round(2**22 * 0.9), round(2**22 * 0.95))
    assert size_table([0.0, 0.0, 1.0]) == (0, 0)
    assert size_table([1.0, 0.0]) == (2**22,)
    assert size_table([0.7738, 0.119, 0.0714, 0.0358]) == tuple(round(2**22 * p) for p in (0.7738, 0.8928, 0.9642))


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_size_tables_ascend_within_the_aux(weights):
    table = size_table([w / sum(weights) for w in weights])
    assert len(table) == len(weights) - 1
    assert list(table) == sorted(table)
    assert all(0 <= c <= 2**22 for c in table)


@pytest.mark.parametrize("sizes", [[], [0.5], [0.5, 0.4], [0.6, 0.6], [1.0, 1e-6]])
def test_sizes_must_sum_to_one(sizes):
    with pytest.raises(ModelError, match=r"cluster sizes' probabilities are \[.*expected a list that sums to 1"):
        size_table(sizes)


@pytest.mark.parametrize("sizes", [[1.5, -0.5], [float("nan"), 1.0]])
def test_each_size_needs_a_probability(sizes):
    with pytest.raises(ModelError, match=r"the probability of cluster size 1 is"):
        size_table(sizes)


def test_errors_of_the_builder_are_errors_of_hwfault():
    assert issubclass(ModelError, HwfaultError)
    assert issubclass(ModelError, ValueError)
