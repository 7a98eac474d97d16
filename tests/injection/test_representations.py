"""Two's complement, offset binary and sign-magnitude: exact facts by enumeration, and every engine on every code."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from onnx import AttributeProto, TensorProto, helper

from hwfault.codes import (
    REPRESENTATIONS,
    CodeFormat,
    decode,
    encode,
    integers,
    represent,
    twos_complement,
)
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.reference import inject_codes
from tests.helpers.stream import engines
from tests.helpers.stream.programs import Mask, symmetric
from tests.helpers.torch_ops import operators

TWOS, OFFSET, SIGN = REPRESENTATIONS
WIDTHS = (4, 8)
P = Fraction(1, 100)


def fmt(bits, representation=TWOS, signed=True):
    return CodeFormat(bits, signed, representation)


def codes(bits):
    return np.arange(2**bits, dtype=np.uint32)


def in_words(bits, representation, q):
    """The code of an integer by the definition of the representation; None where it has none."""
    if representation == OFFSET:
        return q + 2 ** (bits - 1)
    if representation == TWOS:
        return q % 2**bits
    return None if q == -(2 ** (bits - 1)) else abs(q) + (q < 0) * 2 ** (bits - 1)


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("bits", range(2, 11))
def test_codes_of_every_integer(bits, representation):
    form, q = fmt(bits, representation), np.arange(-(2 ** (bits - 1)), 2 ** (bits - 1))
    found = encode(q.astype(np.float32), 1.0, 0.0, form)
    for integer, code in zip(q.tolist(), found.tolist(), strict=True):
        expected = in_words(bits, representation, integer)
        assert code == (in_words(bits, representation, integer + 1) if expected is None else expected)
    held = [integer for integer in q.tolist() if in_words(bits, representation, integer) is not None]
    at = np.array([in_words(bits, representation, integer) for integer in held], np.uint32)
    assert integers(at, form).tolist() == held
    assert found.dtype == np.uint32


@pytest.mark.parametrize("bits", [2, 4, 8, 31, 32])
def test_minus_zero_is_zero(bits):
    top = 2 ** (bits - 1)
    assert integers(np.array([0, top, top + 1], np.uint32), fmt(bits, SIGN)).tolist() == [0, 0, -1]
    values = decode(np.array([top], np.uint32), 0.5, 0.0, fmt(bits, SIGN))
    assert values.tobytes() == np.zeros(1, np.float32).tobytes()


@pytest.mark.parametrize("bits", [2, 4, 8, 31, 32])
def test_the_least_integer_shares_its_neighbours_sign_magnitude_code(bits):
    least = np.array([-(2.0 ** (bits - 1)), -(2.0 ** (bits - 1)) + 1])
    assert encode(least, 1.0, 0.0, fmt(bits, SIGN)).tolist() == [2**bits - 1] * 2


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 7, 32])
def test_a_single_code_is_as_good_as_an_array(bits, signed, representation):
    form = fmt(bits, representation, signed)
    for code in (0, 1, 2 ** (bits - 1), 2**bits - 1):
        many = integers(np.array([code], np.uint32), form)
        assert integers(code, form) == integers(np.uint32(code), form) == many[0]
        value = decode(code, 1.0, 0.0, form, np.float64)
        assert encode(value, 1.0, 0.0, form) == encode(np.array([value]), 1.0, 0.0, form)[0]


@pytest.mark.parametrize("representation", REPRESENTATIONS)
@pytest.mark.parametrize("bits", range(1, 9))
def test_unsigned_and_bipolar_words_have_but_one_representation(bits, representation):
    forms = [CodeFormat(bits, False, representation)] + [CodeFormat(1, True, representation)] * (bits == 1)
    for form in forms:
        np.testing.assert_array_equal(represent(codes(bits), form), codes(bits))
        np.testing.assert_array_equal(twos_complement(codes(bits), form), codes(bits))
        plain = CodeFormat(form.bit_width, form.signed)
        np.testing.assert_array_equal(integers(codes(bits), form), integers(codes(bits), plain))


@pytest.mark.parametrize("bits", range(2, 9))
def test_there_and_back(bits):
    for representation in (OFFSET, TWOS):
        form = fmt(bits, representation)
        np.testing.assert_array_equal(twos_complement(represent(codes(bits), form), form), codes(bits))
        np.testing.assert_array_equal(represent(twos_complement(codes(bits), form), form), codes(bits))
    form, least = fmt(bits, SIGN), 2 ** (bits - 1)
    back = twos_complement(represent(codes(bits), form), form)
    assert back.tolist() == [least + 1 if code == least else code for code in range(2**bits)]


def delta(code, after, form):
    """How far integers move, for arrays of codes."""
    return integers(after, form) - integers(code, form)


def flip_weights(bits):
    """(masks, the probability of each) under independent flips with probability P."""
    masks = codes(bits)
    n = [int(mask).bit_count() for mask in masks]
    return masks, [P**k * (1 - P) ** (bits - k) for k in n]


@pytest.mark.parametrize("bits", WIDTHS)
def test_mean_and_variance_of_independent_flips(bits):
    """E[delta | v] = -p (2 v + 1) and Var[delta | v] = p (1 - p) (4^k - 1) / 3, exactly."""
    masks, weights = flip_weights(bits)
    assert sum(weights) == 1
    for code in codes(bits):
        v = int(integers(code, fmt(bits)))
        moves = [int(d) for d in delta(np.full_like(masks, code), code ^ masks, fmt(bits))]
        mean = sum(w * d for w, d in zip(weights, moves, strict=True))
        square = sum(w * d * d for w, d in zip(weights, moves, strict=True))
        assert mean == -P * (2 * v + 1)
        assert square - mean**2 == P * (1 - P) * (4**bits - 1) / 3


@pytest.mark.parametrize(("bits", "p", "expected"), [(8, 0.01, 218.45), (8, 0.001, 21.845), (4, 0.01, 0.85)])
def test_mean_square_over_uniform_words(bits, p, expected):
    p = Fraction(str(p))
    masks = codes(bits)
    moves = delta(codes(bits)[:, None], codes(bits)[:, None] ^ masks, fmt(bits)).astype(np.int64)
    squares = (moves**2).sum(axis=0).tolist()
    n = [int(m).bit_count() for m in masks]
    mean = sum(s * p**k * (1 - p) ** (bits - k) for s, k in zip(squares, n, strict=True)) / 2**bits
    assert mean == p * (4**bits - 1) / 3
    assert float(mean) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("bits", WIDTHS)
def test_the_top_bit_has_three_quarters_of_the_mean_square(bits):
    one_bit = [
        np.mean(delta(codes(bits), codes(bits) ^ np.uint32(1 << b), fmt(bits)).astype(float) ** 2) for b in range(bits)
    ]
    assert one_bit == [4.0**b for b in range(bits)]
    assert one_bit[-1] / sum(one_bit) == 3 * 4 ** (bits - 1) / (4**bits - 1) > 0.75


@pytest.mark.parametrize("bits", WIDTHS)
def test_flips_move_offset_binary_as_they_move_twos_complement(bits):
    two, offset = fmt(bits), fmt(bits, OFFSET)
    stored = represent(codes(bits), offset)
    for mask in codes(bits):
        np.testing.assert_array_equal(delta(codes(bits), codes(bits) ^ mask, two), delta(stored, stored ^ mask, offset))


@pytest.mark.parametrize("bits", WIDTHS)
def test_stuck_bits_do_not(bits):
    """Where the top bit is among them, for it is stored inverted; elsewhere they do."""
    two, offset = fmt(bits), fmt(bits, OFFSET)
    stored, top = represent(codes(bits), offset), 2 ** (bits - 1)
    for mask in range(1, 2**bits):
        for after, other in (
            (codes(bits) & ~np.uint32(mask), stored & ~np.uint32(mask)),
            (codes(bits) | np.uint32(mask), stored | np.uint32(mask)),
        ):
            same = np.array_equal(delta(codes(bits), after, two), delta(stored, other, offset))
            assert same == (mask < top)


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_sign_flip_in_sign_magnitude_gives_minus_2_v(bits):
    form, top = fmt(bits, SIGN), np.uint32(2 ** (bits - 1))
    v = integers(codes(bits), form)
    np.testing.assert_array_equal(delta(codes(bits), codes(bits) ^ top, form), -2 * v)
    for b in range(bits - 1):
        np.testing.assert_array_equal(np.abs(delta(codes(bits), codes(bits) ^ np.uint32(1 << b), form)), 2**b)


@pytest.mark.parametrize("bits", WIDTHS)
def test_half_stuck_at_0_and_half_at_1_flips_half_of_uniform_bits(bits):
    f = Fraction(1, 8)
    flipped, zeros, ones = Fraction(0), Fraction(0), Fraction(0)
    for code, bit in product(range(2**bits), range(bits)):
        outcomes = {
            k: FaultMap.from_cells(1, bits, [0], [bit], [k]).apply(np.array([code], np.uint32))[0] != code for k in Kind
        }
        flipped += f / 2 * int(outcomes[Kind.STUCK_AT_0]) + f / 2 * int(outcomes[Kind.STUCK_AT_1])
        ones += int(outcomes[Kind.STUCK_AT_0]) * (code == 2**bits - 1)
        zeros += int(outcomes[Kind.STUCK_AT_0]) * (code == 0)
    assert flipped / (bits * 2**bits) == f / 2
    assert (ones, zeros) == (bits, 0)  # stuck at 0 shows on every bit of all ones, and never on zero


def maps_of(bits):
    """A map that strikes words of every code in several ways: one word for each pair of code and masks."""
    rng = np.random.default_rng(bits)
    and_masks = rng.integers(0, 2**bits, 2**bits, dtype=np.uint32)
    xor_masks = rng.integers(0, 2**bits, 2**bits, dtype=np.uint32)
    and_masks[: 2 ** (bits - 1)] |= np.uint32(2**bits - 1)
    return and_masks, xor_masks


def struck_values(q, form, strike):
    """float32 integers after a fault on their codes; those that it leaves alone stay."""
    before = encode(q, 1.0, 0.0, form)
    after = strike(before)
    return np.where(after == before, q, decode(after, 1.0, 0.0, form))


FORMATS = [
    (bits, signed, representation) for bits in range(1, 9) for signed in (True, False) for representation in range(3)
]


def every_integer(form):
    """Each integer that a tensor of the format may hold, also the least, which sign-magnitude cannot."""
    return integers(codes(form.bit_width), CodeFormat(form.bit_width, form.signed)).astype(np.float32)


@pytest.mark.parametrize(("bits", "signed", "representation"), FORMATS)
def test_maps_on_every_code_in_every_engine(bits, signed, representation):
    form = CodeFormat(bits, signed, REPRESENTATIONS[representation])
    q, (and_mask, xor_mask), word = every_integer(form), maps_of(bits), np.arange(2**bits)
    expected = struck_values(q, form, lambda c: (c & and_mask) ^ xor_mask)
    one = torch.ones(())
    masks = torch.from_numpy(np.stack([and_mask, xor_mask]).view(np.int32))
    draw = (torch.zeros(1).long(), torch.zeros(()).long(), torch.from_numpy(word), masks)
    numbers = (bits, signed, representation, 2**32, 0, False, True)
    by_torch = operators.fault_map(torch.from_numpy(q), *draw, one, 0 * one, *numbers)
    np.testing.assert_array_equal(by_torch.numpy(), expected)
    inputs = ["x", "scale", "zero", "word", "and_mask", "xor_mask"]
    node = helper.make_node(
        "FaultMap", inputs, ["y"], domain="hwfault", bit_width=bits, signed=int(signed), batched=0,
        representation=representation,
    )  # fmt: skip
    feeds = {"x": q, "word": word, "and_mask": and_mask.astype(np.int64), "xor_mask": xor_mask.astype(np.int64)}
    infos = [
        helper.make_tensor_value_info(k, TensorProto.FLOAT if k == "x" else TensorProto.INT64, None) for k in feeds
    ]
    held = engines.session([node], infos, TensorProto.FLOAT, {"scale": 1.0, "zero": 0.0})
    np.testing.assert_array_equal(held.run(None, feeds)[0], expected)


@pytest.mark.parametrize(("bits", "signed", "representation"), FORMATS)
def test_the_streams_faults_on_every_code_in_every_engine(bits, signed, representation):
    form = CodeFormat(bits, signed, REPRESENTATIONS[representation])
    q = every_integer(form)
    for process in (symmetric(7, [0.2] * bits), Mask(8, 1.0, 2**bits - 1), Mask(9, 1.0, 2 ** (bits - 1))):
        draw = {"program": process.program(), "seed": 3, "sample": 0, "bit_width": bits}
        expected = struck_values(q, form, lambda c, draw=draw: inject_codes(c, **draw))
        one, program = torch.ones(()), torch.tensor(process.program())
        numbers = (bits, signed, False, True, representation)
        draw = (torch.zeros(1).long(), torch.tensor(3), program, one, 0 * one)
        found = operators.inject(torch.from_numpy(q), *draw, *numbers)
        np.testing.assert_array_equal(found.numpy(), expected)
        assert_in_graph(q, process, form, representation, expected)


def assert_in_graph(q, process, form, representation, expected):
    node = engines.fault_node(0, process.program(), form.bit_width, signed=int(form.signed), batched=0)
    node.attribute.append(AttributeProto(name="representation", type=AttributeProto.INT, i=representation))
    infos = [helper.make_tensor_value_info("x0", TensorProto.FLOAT, None)]
    infos += [helper.make_tensor_value_info(name, TensorProto.INT64, []) for name in ("seed0", "first_sample0")]
    held = engines.session([node], infos, TensorProto.FLOAT, {"scale": 1.0, "zero_point": 0.0})
    feeds = {"x0": q, "seed0": np.array(3), "first_sample0": np.array(0)}
    np.testing.assert_array_equal(held.run(None, feeds)[0], expected)


def test_wide_words():
    """Words of 31 and 32 bits, whose top bit is that of the machine's."""
    for bits, representation in product((31, 32), range(3)):
        form = fmt(bits, REPRESENTATIONS[representation])
        top = 2.0 ** (bits - 1)
        q = np.array([-top, -top + 1, -1.0, 0.0, 1.0, top - 1, -123456789.0])
        mask = np.uint32(1 << (bits - 1) | 5)
        before = encode(q, 1.0, 0.0, form)
        expected = decode(before ^ mask, 1.0, 0.0, form, np.float64)
        one, word = torch.ones((), dtype=torch.float64), torch.arange(q.size)
        masks = torch.from_numpy(np.full((2, q.size), mask, np.uint32).view(np.int32).copy())
        masks[0] = -1
        draw = (torch.zeros(1).long(), torch.zeros(()).long(), word, masks, one, 0 * one)
        found = operators.fault_map(torch.from_numpy(q), *draw, bits, True, representation, 2**32, 0, False, False)
        np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("representation", [-1, 3])
def test_representations_that_are_none(representation):
    one = torch.ones(())
    draw = (torch.zeros(1).long(), torch.zeros(()).long(), torch.zeros(1).long(), torch.zeros(2, 1).int(), one, 0 * one)
    with pytest.raises(Exception, match=f"representation is {representation}, expected 0 to 2"):
        operators.fault_map(torch.zeros(4), *draw, 4, True, representation, 2**32, 0, False, True)
