"""Schedules and footprints of arrays: against plain simulations of the hardware, product by product."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.devices.systolic import affected_channels, affected_outputs, affected_weights, array_of, schedule
from hwfault.errors import ModelError
from hwfault.stream.layouts import Stored
from hwfault.stream.mapping import FinnMvau, Linear, OutputStationary, WeightStationary

SIZE = st.integers(1, 5)
TAPS = st.sampled_from([(), (3,), (1, 1), (2, 3)])


@st.composite
def layers(draw):
    """(mapping, weight shape): any array with a weight it can hold."""
    kind = draw(st.sampled_from([FinnMvau, WeightStationary, OutputStationary]))
    a, b, taps = draw(SIZE), draw(SIZE), draw(TAPS)
    if kind is FinnMvau:
        return FinnMvau(pe=a, simd=b), (a * draw(SIZE), b * draw(SIZE), *taps)
    return kind(rows=a, columns=b), (draw(SIZE), draw(SIZE), *taps)


def run(plan, weight, x, faulty, stuck):
    """One pixel's sums (N,) for inputs x (K,); `stuck` acts on each partial sum that leaves the element `faulty`."""
    sums = []
    for n, row in enumerate(weight.reshape(len(weight), -1)):
        products = [int(row[k] * x[k]) for k in plan.order]
        products += [0] * (plan.steps * plan.step - len(products))
        length = plan.pass_steps or plan.steps
        total = 0
        for begin in range(0, plan.steps, length):
            partial = 0
            for step in range(begin, begin + length):
                partial += sum(products[step * plan.step : (step + 1) * plan.step])
                row_of = int(plan.pe_row(step)) if plan.rows_count == "product" else 0
                if (row_of, int(plan.pe_column(n))) == faulty:
                    partial = stuck(partial)
            total += partial
        sums.append(total)
    return np.array(sums)


@given(layers())
def test_healthy_schedules_give_the_dot_product(case):
    mapping, shape = case
    rng = np.random.default_rng(5)
    weight, x = rng.integers(-8, 8, shape), rng.integers(0, 16, int(np.prod(shape[1:])))
    plan = schedule(mapping, shape)
    assert np.array_equal(np.sort(plan.order), np.arange(len(x)))
    assert np.array_equal(run(plan, weight, x, None, None), weight.reshape(len(weight), -1) @ x)


@given(layers(), st.data())
def test_a_stuck_element_changes_exactly_its_channels(case, data):
    """A bit above all sums, stuck at 1, shows in every sum that passes through."""
    mapping, shape = case
    rng = np.random.default_rng(6)
    weight, x = rng.integers(0, 8, shape), rng.integers(0, 16, int(np.prod(shape[1:])))
    rows, columns = array_of(mapping)
    row = data.draw(st.integers(0, rows - 1)) if isinstance(mapping, WeightStationary) else 0
    column = data.draw(st.integers(0, columns - 1))
    plan = schedule(mapping, shape)
    healthy = run(plan, weight, x, None, None)
    struck = run(plan, weight, x, (row, column), lambda s: s | 1 << 20)
    affected = affected_channels(mapping, shape[0], row * columns + column)
    assert np.flatnonzero(healthy != struck).tolist() == affected.tolist()
    assert affected.tolist() == [n for n in range(shape[0]) if n % columns == column]


@given(layers(), st.data())
def test_affected_weights_one_by_one(case, data):
    mapping, shape = case
    rows, columns = array_of(mapping)
    element = data.draw(st.integers(0, rows * columns - 1))
    inputs, expected = int(np.prod(shape[1:])), []
    for word in range(int(np.prod(shape))):
        n, k = divmod(word, inputs)
        in_row = k % rows == element // columns or not isinstance(mapping, WeightStationary)
        if in_row and n % columns == element % columns:
            expected.append(word)
    assert affected_weights(mapping, shape, element).tolist() == expected


@given(layers(), st.data())
def test_footprints_agree_with_addresses(case, data):
    """A weight lies in the memory or register of the element that multiplies it."""
    mapping, shape = case
    rows, columns = array_of(mapping)
    element = data.draw(st.integers(0, rows * columns - 1))
    layout = mapping.layout([Stored("w", shape, 4)])
    if isinstance(mapping, OutputStationary):
        words = affected_outputs(mapping, shape, element)
    else:
        words = affected_weights(mapping, shape, element)
    assert np.flatnonzero(layout.pe_of("w", np.arange(np.prod(shape))) == element).tolist() == words.tolist()
    if isinstance(mapping, WeightStationary):
        register = element // columns * layout.row_bits + element % columns * 4
        assert np.sort(layout.places([register]).word).tolist() == words.tolist()


def test_finn_accumulates_kernel_positions_channels_fastest():
    plan = schedule(FinnMvau(pe=2, simd=2), (4, 2, 1, 3))
    assert plan.order.tolist() == [0, 3, 1, 4, 2, 5]  # k = c * 3 + tap
    assert (plan.step, plan.pass_steps, plan.steps, plan.passes) == (2, 0, 3, 1)
    assert plan.pe_column(np.arange(4)).tolist() == [0, 1, 0, 1]
    assert plan.pe_row(np.arange(6)).tolist() == [0] * 6


def test_weight_stationary_passes():
    plan = schedule(WeightStationary(rows=4, columns=3), (5, 10))
    assert plan.order.tolist() == list(range(10))
    assert (plan.step, plan.pass_steps, plan.steps, plan.passes) == (1, 4, 12, 3)
    assert plan.pe_row(np.arange(10)).tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert plan.pe_column(np.arange(5)).tolist() == [0, 1, 2, 0, 1]
    assert plan.rows_count == "product"


def test_output_stationary_keeps_sums_in_one_element():
    plan = schedule(OutputStationary(rows=4, columns=3), (5, 10))
    assert (plan.step, plan.pass_steps, plan.steps, plan.passes) == (1, 0, 10, 1)
    assert plan.rows_count == "output"
    assert plan.pe_row(np.array([0, 5])).tolist() == [0, 1]


@pytest.mark.parametrize("mapping", [WeightStationary(rows=16, columns=16), FinnMvau(pe=8, simd=1)])
def test_depthwise_layers_are_summed_group_by_group(mapping):
    assert len(schedule(mapping, (8, 1, 3, 3), groups=8).order) == 9


@given(layers(), st.tuples(SIZE, SIZE, SIZE), st.sampled_from([0, 1, 2, -1]), st.data())
def test_affected_outputs_one_by_one(case, shape, axis, data):
    mapping, _ = case
    rows, columns = array_of(mapping)
    element = data.draw(st.integers(0, rows * columns - 1))
    words = []
    for word, at in enumerate(np.ndindex(*shape)):
        others = [i for j, i in enumerate(at) if j != axis % 3]
        m = int(np.ravel_multi_index(others, [n for j, n in enumerate(shape) if j != axis % 3]))
        in_row = m % rows == element // columns or not isinstance(mapping, OutputStationary)
        if in_row and at[axis] % columns == element % columns:
            words.append(word)
    assert affected_outputs(mapping, shape, element, axis).tolist() == words


def test_linear_layers_have_a_single_pixel():
    mapping = OutputStationary(rows=2, columns=3)
    assert affected_outputs(mapping, (7,), 1).tolist() == [1, 4]
    assert affected_outputs(mapping, (7,), 4).tolist() == []  # row 1 stays idle


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: schedule(Linear(row_bits=8), (4, 4)), "a linear memory has no processing elements"),
        (lambda: array_of(Linear(row_bits=8)), "expected the mapping finn_mvau, weight_stationary or output_stat"),
        (lambda: schedule(FinnMvau(pe=3, simd=1), (4, 4), name="fc"), "pe: 3 does not divide the 4 .* of 'fc'"),
        (lambda: schedule(FinnMvau(pe=1, simd=3), (4, 4), name="fc"), "simd: 3 does not divide the 4 .* of 'fc'"),
        (lambda: schedule(OutputStationary(rows=1, columns=1), (4,)), r"has the shape \(4,\)"),
        (lambda: schedule(WeightStationary(rows=1, columns=1), (4, 4), groups=3), "3 groups do not divide the 4"),
        (lambda: schedule(WeightStationary(rows=1, columns=1), (4, 4), groups=0), "0 groups"),
        (lambda: affected_channels(FinnMvau(pe=4, simd=1), 8, 4), "the array of 1 x 4 has no element 4, .* 0 to 3"),
        (lambda: affected_weights(WeightStationary(rows=2, columns=2), (4, 4), -1), "no element -1"),
        (lambda: affected_outputs(Linear(row_bits=8), (4,), 0), "a linear memory"),
    ],
)
def test_what_arrays_cannot_do(call, words):
    with pytest.raises(ModelError, match=words):
        call()
