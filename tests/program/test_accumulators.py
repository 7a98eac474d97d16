"""How wide accumulators are, and what is said of layers that have none."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.program.accumulators import (
    EXACT_BITS,
    EXACT_SUM,
    WIDEST_INPUT,
    WIDEST_WORD,
    NoAccumulatorError,
    check_exact,
    check_one_scale,
    check_whole,
    largest_magnitude,
    make_accumulator_site,
    sum_bits,
)
from hwfault.program.processes import ArrayPlan, Site


@pytest.mark.parametrize(("bits", "signed"), list(itertools.product([1, 2, 4, 8], [True, False])))
def test_no_code_is_larger_than_the_largest_magnitude(bits, signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    codes = range(low, high + 1)
    assert max(map(abs, codes)) == largest_magnitude(bits, signed=signed)
    shifted = max(abs(code - zero) for code in codes for zero in codes)
    assert shifted == largest_magnitude(bits, signed=signed, symmetric=False)


@given(largest=st.integers(0, 1 << 40))
def test_a_word_holds_the_largest_sum_in_both_signs_and_no_narrower_one_does(largest):
    bits = sum_bits(largest)
    assert -(1 << bits - 1) <= -largest <= largest <= (1 << bits - 1) - 1
    assert bits == 2 or largest > (1 << bits - 2) - 1


def site(weights=(4, 3, 3, 3), largest_input=15, largest_weight=8):
    operands = {"largest_input": largest_input, "largest_weight": largest_weight}
    return make_accumulator_site("layer", "Conv", weights, **operands, shape=(4, 6, 6), source="relu")


def test_an_accumulator_says_all_of_its_layer():
    bits = sum_bits(27 * 15 * 8)
    assert site() == Site(
        name="layer",
        kind="accumulator",
        bit_width=bits,
        signed=True,
        layer="Conv",
        shape=(4, 6, 6),
        source="relu",
        weights=(4, 3, 3, 3),
        worst_case=bits,
    )


def test_sums_that_no_accumulator_holds():
    assert site((1, 1 << 15), 1 << 8, 1 << 7).bit_width == WIDEST_WORD
    with pytest.raises(NoAccumulatorError, match="its largest sum needs 33 bits, expected at most 32"):
        site((1, 1 << 16), 1 << 8, 1 << 7)
    assert site((1, 1), (1 << WIDEST_INPUT) - 1, 1).bit_width == 25
    with pytest.raises(NoAccumulatorError, match="its largest sum needs 26 bits"):
        site((1, 1), 1 << WIDEST_INPUT, 1)


def test_what_mean_no_sums():
    check_whole("inputs", whole=True)
    check_one_scale(1)
    with pytest.raises(NoAccumulatorError, match="its weights have a zero point that is no integer"):
        check_whole("weights", whole=False)
    with pytest.raises(NoAccumulatorError, match="its inputs have a scale for each channel"):
        check_one_scale(2)


def test_float32_holds_the_words_that_are_said_to_be_exact():
    words = np.array([-(1 << EXACT_BITS - 1), (1 << EXACT_BITS - 1) - 1, EXACT_SUM])
    assert np.array_equal(words.astype(np.float32).astype(np.int64), words)
    assert int(np.float32(EXACT_SUM + 1)) != EXACT_SUM + 1


@pytest.mark.parametrize("arithmetic", [None, "float32", "float64"])
@pytest.mark.parametrize(("bits", "worst_case"), [(25, 25), (26, 20), (20, 26)])
def test_words_that_float32_does_not_hold_take_the_other_arithmetic(bits, worst_case, arithmetic):
    wide = site().model_copy(update={"bit_width": bits, "worst_case": worst_case})
    array = None if arithmetic is None else ArrayPlan(arithmetic=arithmetic)
    if max(bits, worst_case) == 25 or arithmetic == "float64":
        check_exact(wide, array)
    else:
        with pytest.raises(ModelError, match=r"need 26 bits, and float32 is exact to 25 only.*arithmetic: float64"):
            check_exact(wide, array)
