"""Accumulators added up on an array: known answers, and the reference, the C++ library and Python's integers alike."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwfault.errors import HwfaultError
from hwfault.stream import native
from hwfault.stream.array import Array, Axis, Layer
from hwfault.stream.array_reference import accumulate
from tests.helpers.stream.accumulator_cases import case

KNOWN = json.loads((Path(__file__).parent / "accumulators.json").read_text())
LINEAR = Layer(1, 4, 1, 6, (Axis(1, 1),), True)
X = np.array([[[3, 1, 4, 1, 5, 9]]], np.float32)
W = np.array([[1, 1, 1, 1, 1, 1], [2, -7, 1, 8, -2, 8], [-3, -3, -3, -3, -3, -3], [0, 0, 0, 0, 0, 0]], np.float32)
EXACT = (X @ W.T).astype(np.float32)
ONES = 0xFFFFFFFF


def sums(array, **changes):
    return native.accumulate_arrays(EXACT, X, W, LINEAR, Array(**{"width": 16, **array, **changes})).ravel().tolist()


def both(c, dtype=np.float32):
    acc = c.exact.astype(dtype)
    found = native.accumulate_arrays(acc, c.x, c.w, c.layer, c.array, threads=3)
    assert found.dtype == dtype
    return found.reshape(acc.shape), accumulate(c.x, c.w, c.layer, c.array).reshape(acc.shape)


@pytest.mark.parametrize("known", KNOWN["array"], ids=lambda known: known["name"])
def test_known_answers(known):
    axes = tuple(Axis(*axis) for axis in known["axes"])
    layer = Layer(*known["layer"], axes, known["channels_last"])
    fields = {**known["array"], "order": tuple(known["array"]["order"])}
    array = Array(**{**fields, "events": tuple(map(tuple, fields["events"]))})
    x, w = (np.array(known[key], np.float32) for key in "xw")
    expected = np.array(known["expected"])
    acc = accumulate(x, w, layer, Array(width=32)).astype(np.float64)
    np.testing.assert_array_equal(acc, known["exact"])
    np.testing.assert_array_equal(accumulate(x, w, layer, array), expected)
    np.testing.assert_array_equal(native.accumulate_arrays(acc, x, w, layer, array), expected)


@pytest.mark.parametrize("seed", range(150))
def test_reference_and_library_equal_the_oracle(seed):
    c = case(np.random.default_rng(seed))
    native, reference = both(c, np.float32 if c.array.width <= 25 and seed % 3 else np.float64)
    np.testing.assert_array_equal(reference, c.by_oracle())
    np.testing.assert_array_equal(native, reference)


@pytest.mark.parametrize("seed", range(1000, 2000))
def test_reference_and_library_agree(seed):
    native, reference = both(case(np.random.default_rng(seed)), np.float64)
    np.testing.assert_array_equal(native, reference)


@pytest.mark.parametrize("saturate", [False, True])
def test_a_layer_of_many_parts_and_threads(saturate):
    rng = np.random.default_rng(1)
    layer = Layer(3, 16, 2, 8, (Axis(20, 18, 3), Axis(40, 40, 3, 1, 1)))
    x = rng.integers(0, 16, (3, 16, 20, 40)).astype(np.float32)
    w = rng.integers(-8, 8, (16, 8, 3, 3)).astype(np.float32)
    acc = accumulate(x, w, layer, Array(width=32)).astype(np.float32)
    events = ((3, 1, 1, 0, 1, 0, ONES ^ 64, 64), (1, 0, 7, 3, 5, 2, ONES ^ 1, 1))
    array = Array(10, saturate, step=4, pass_steps=9, events=events)
    expected = accumulate(x, w, layer, array)
    for threads in (1, 2, 7):
        np.testing.assert_array_equal(native.accumulate_arrays(acc, x, w, layer, array, threads), expected)
    assert (expected != acc).mean() > 0.1


def test_wrapping_is_the_exact_sum_modulo_the_width_however_it_is_added_up():
    for seed in range(60):
        c = case(np.random.default_rng(seed)).with_array(events=(), saturate=False)
        width = c.array.width
        expected = (c.exact.astype(np.int64) + (1 << (width - 1))) % (1 << width) - (1 << (width - 1))
        np.testing.assert_array_equal(both(c)[0], expected)


def test_wrapping_alone_reads_neither_inputs_nor_weights():
    out = native.accumulate_arrays(EXACT * 100, X * 0, W * 0, LINEAR, Array(width=8))
    np.testing.assert_array_equal(out, (EXACT * 100 + 128) % 256 - 128)


def test_saturation_depends_on_the_order():
    # channel 1: 6, -7, 4, 8, -10, 72 in 5 bits, -16 to 15
    def scalar(values):
        total = 0
        for value in values:
            total = max(-16, min(15, total + value))
        return total

    products = [6, -7, 4, 8, -10, 72]
    backwards = tuple(range(5, -1, -1))
    assert sums({"saturate": True}, width=5)[1] == scalar(products)
    assert sums({"saturate": True, "order": backwards}, width=5)[1] == scalar(products[::-1]) != scalar(products)
    assert sums({"saturate": True, "step": 2}, width=5)[1] == scalar([-1, 12, 62])


def test_only_channels_that_can_overflow_are_added_up_anew():
    acc = np.full_like(EXACT, 5)  # not the sums: what is not added up anew stays
    out = native.accumulate_arrays(acc, X, W, LINEAR, Array(width=8, saturate=True)).ravel().tolist()
    assert out == [5, 73, -69, 5], "9 * (2 + 1 + 8 + 8) passes 127, -9 * 18 passes -128, the others stay within"


def test_a_stuck_bit_strikes_every_partial_sum():
    stuck = {"events": ((4, 0, 1, 0, 1, 0, ONES ^ 1, 1),)}  # bit 0 at 1, after each of 3, 1, 4, 1, 5, 9
    total = 0
    for value in (3, 1, 4, 1, 5, 9):
        total = (total + value) | 1
    assert sums(stuck) == [total, *EXACT.ravel()[1:].tolist()]
    assert total == 27


def test_a_pass_goes_through_every_row_also_those_without_products():
    rows = 4  # six products: rows 2 and 3 of the second pass have none
    last_row = {"pass_steps": rows, "events": ((1, 0, 1, 0, rows, 3, ONES ^ 32, 32),)}
    assert sums(last_row)[3] == 64, "bit 5 stuck at 1 in both passes of a sum of zeros"
    assert sums({**last_row, "pass_steps": 6})[3] == 32, "steps are counted within a pass"


def test_no_events_and_a_wide_accumulator_change_nothing():
    assert sums({"step": 5, "pass_steps": 1, "saturate": True}) == EXACT.ravel().tolist()
    assert sums({"recompute": True}) == EXACT.ravel().tolist()


def test_in_place():
    acc = (EXACT * 100).copy()
    native.accumulate(0, acc.ctypes.data, X.ctypes.data, W.ctypes.data, acc.ctypes.data, LINEAR, Array(width=8), 1)
    np.testing.assert_array_equal(acc, (EXACT * 100 + 128) % 256 - 128)


EVENT = (1, 0, 1, 0, 1, 0, ONES, 0)
BAD = {
    r"width of an accumulator is 1": {"width": 1},
    r"width of an accumulator is 33": {"width": 33},
    r"products of a step is 0": {"step": 0},
    r"steps of a pass is -1": {"pass_steps": -1},
    r"order names 2 products of 6": {"order": (0, 1)},
    r"order of the products is 0": {"order": (0, 0, 1, 2, 3, 4)},
    r"order of the products is 6": {"order": (0, 1, 2, 3, 4, 6)},
    r"period of an event is 0": {"events": ((0, *EVENT[1:]),)},
    r"place of an event is 1, expected 0 to its period less 1": {"events": ((1, 1, *EVENT[2:]),)},
    r"and_mask is -1": {"events": ((*EVENT[:6], -1, 0),)},
    r"xor_mask is 4294967296": {"events": ((*EVENT[:6], 0, 1 << 32),)},
    r"xor_mask is 65536, expected one within the accumulator's width": {"events": ((*EVENT[:6], 0, 1 << 16),)},
}


@pytest.mark.parametrize("text", BAD)
def test_impossible_arrays_are_refused(text):
    with pytest.raises(HwfaultError, match=text):
        sums(BAD[text])


BAD_LAYERS = {
    r"number of channels is 4, expected a multiple": Layer(1, 4, 3, 2, (Axis(1, 1),)),
    r"number of groups is 0": Layer(1, 4, 0, 6, (Axis(1, 1),)),
    r"kernel length, stride or dilation is 0": Layer(1, 4, 1, 6, (Axis(1, 1, 1, 0),)),
    r"padding is -1": Layer(1, 4, 1, 6, (Axis(1, 1, 1, 1, -1),)),
}


@pytest.mark.parametrize("text", BAD_LAYERS)
def test_impossible_layers_are_refused(text):
    pointers = [part.ctypes.data for part in (EXACT, X, W, EXACT.copy())]
    with pytest.raises(HwfaultError, match=text):
        native.accumulate(0, *pointers, BAD_LAYERS[text], Array(width=8), 1)


def test_tensors_of_other_sizes_are_refused():
    with pytest.raises(HwfaultError, match=r"4 accumulators, 5 inputs and 24 weights, expected \(4, 6, 24\)"):
        native.accumulate_arrays(EXACT, X[..., :5], W, LINEAR, Array(width=8))
