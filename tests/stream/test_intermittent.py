"""Intermittent faults: known answers over every engine, equality on random cases, rates and independence."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from hwfault.program.processes import MapStep
from hwfault.stream import native, reference
from hwfault.stream.fault_map import FaultMap
from tests.helpers.stream.capi import RefusedError, call
from tests.helpers.stream.cases import SITES, Draw
from tests.helpers.stream.intermittent import (
    ALWAYS,
    ENGINES,
    EXTREME_PERIODS,
    EXTREME_SEEDS,
    FILE,
    Case,
    MapArguments,
    activity,
    case_of,
    known,
    plain_grid,
    site_number,
    struck,
    threshold,
)
from tests.helpers.stream.values import DTYPES, Batch, grid, numbers
from tests.stream.test_native import assert_same_bits

SITE, SEED = 0xC0FFEE, 2**63 + 12345
FLOATS = {"float32": np.float32, "float64": np.float64}


@pytest.fixture(params=ENGINES)
def engine(request):
    return ENGINES[request.param]


def by_reference(seed, site, period, word, bit):
    where = {"word": np.atleast_1d(word).astype(np.int64), "bit": np.atleast_1d(bit).astype(np.int64)}
    return reference.activity(seed=seed, site=site, period=period, **where)


def vectors():
    return range(len(known()["cases"]))


@pytest.mark.parametrize("vector", known()["activities"], ids=lambda v: f"word {v['word']}")
def test_activity_words(vector):
    where = int(vector["seed"]), vector["site"], int(vector["period"]), vector["word"], vector["bit"]
    assert activity(*where) == vector["activity"]
    assert by_reference(*where).tolist() == [vector["activity"]]


@pytest.mark.parametrize("index", vectors())
def test_the_answers_are_the_rules(index):
    vector = known()["cases"][index]
    case = case_of(vector)
    assert vector["site_number"] == site_number(vector["site"], vector["process"])
    assert vector["threshold"] == threshold(vector["p_active"])
    assert vector["active"] == [[w, b] for w, b, _ in case.active]


def test_the_answers_reach_everything():
    cases = [case_of(vector) for vector in known()["cases"]]
    assert {case.bit_width for case in cases} == set(range(1, 33))
    assert {kind for case in cases for _, _, kind in case.cells} == {0, 1, 2}
    assert {0, ALWAYS} < {case.threshold for case in cases}
    assert any(case.period >= 2**32 for case in cases)
    assert sum(0 < len(case.active) < len(case.cells) for case in cases) > 15
    assert len(FILE.read_text().splitlines()) > len(cases)


@pytest.mark.parametrize("index", vectors())
def test_known_answers(engine, index):
    vector = known()["cases"][index]
    case, active = case_of(vector), set(map(tuple, vector["active"]))
    cells = [cell for cell in case.cells if cell[:2] in active]
    for codes in (case.codes(), 0 * case.codes(), ~(0 * case.codes()) & np.uint32(2**case.bit_width - 1)):
        kept = codes.copy()
        assert engine(codes, case).tolist() == struck(codes.tolist(), cells)
        np.testing.assert_array_equal(codes, kept, err_msg="the engine changed its input")


def random_case(draw, bits=None, most=40):
    bits, words = bits or draw.bit_width(), max(draw.words(), 1)
    places = {(draw.integer(0, words - 1), draw.integer(0, bits - 1)) for _ in range(draw.integer(0, most))}
    cells = tuple((w, b, draw.integer(0, 2)) for w, b in sorted(places))
    period = draw.mostly(0.5, lambda: draw.integer(0, 10_000), EXTREME_PERIODS)
    active = draw.mostly(0.8, lambda: draw.integer(0, ALWAYS), (0, 1, ALWAYS - 1, ALWAYS))
    site = draw.mostly(0.9, lambda: draw.integer(0, 2**32 - 1), SITES)
    seed = draw.mostly(0.7, lambda: draw.integer(0, 2**64 - 1), EXTREME_SEEDS)
    return Case(cells, words, bits, site, seed, period, active)


@pytest.mark.parametrize("bits", range(1, 33))
def test_every_engine_is_the_rule_on_random_cases(bits):
    draw = Draw(bits)
    for _ in range(4):
        case = random_case(draw, bits)
        codes = case.codes(bits)
        expected = case.after(codes)
        for name, engine in ENGINES.items():
            assert engine(codes, case).tolist() == expected, (name, case)


def values(draw, case, rows, dtype, on=None):
    """A batch (rows, words) of floats, and its grid."""
    on = on or grid(draw, case.bit_width, bool(draw.integer(0, 1)))
    return Batch(numbers(draw, on, (rows, case.words), dtype), np.zeros(rows, np.int64), dtype, on, None)


def after_periods(b, case, periods):
    """The values after the faults of each row's period; words that do not change keep their bits."""
    before = b.grid.encode(b.x, b.dtype)
    rows = [replace(case, period=t).after(codes) for codes, t in zip(before, periods, strict=True)]
    after = np.array(rows, np.uint32).reshape(before.shape)
    faulty = (after != before) & b.numbers
    return np.where(faulty, b.grid.decode(after, b.dtype), b.x), faulty


@pytest.mark.parametrize("dtype", DTYPES)
def test_in_c_on_every_type_and_format(dtype):
    draw, changed = Draw(len(dtype)), 0
    for _ in range(60):
        case = random_case(draw)
        rows = draw.one_of((0, 1, 2, 5))
        periods = [draw.mostly(0.5, lambda: draw.integer(0, 10_000), EXTREME_PERIODS) for _ in range(rows)]
        b = values(draw, case, rows, dtype)
        expected, faulty = after_periods(b, case, periods)
        given, out = MapArguments(case, periods, b.grid), np.empty_like(b.x)
        n = call("apply_map", DTYPES[dtype], b.x, out, given.map, given.format, draw.integer(1, 3))
        assert_same_bits(out, expected, b)
        assert n == faulty.sum()
        again = b.x.copy()
        assert call("apply_map", DTYPES[dtype], again, again, given.map, given.format, 1) == n
        assert_same_bits(again, expected, b)
        gradient, left = np.ones_like(b.x), np.empty_like(b.x)
        assert call("zero_map", DTYPES[dtype], gradient, left, b.x, given.map, given.format, 1) == n
        np.testing.assert_array_equal(left, np.where(faulty, 0, gradient))
        changed += n
    assert changed > 100


def flips(words=3000, bits=8, count=300, active=0.5, seed=0):
    """A map of flips only."""
    rng = np.random.default_rng(seed)
    places = sorted({(int(rng.integers(words)), int(rng.integers(bits))) for _ in range(count)})
    return Case(tuple((w, b, 0) for w, b in places), words, bits, SITE, SEED, 5, threshold(active))


def test_in_c_gradients_of_flips_need_no_values():
    case = flips()
    given = MapArguments(case, [5, 6], plain_grid(8))
    gradient, left = np.ones((2, case.words), np.float32), np.empty((2, case.words), np.float32)
    call("zero_map", 0, gradient, left, None, given.map, given.format, 1)
    for row, period in zip(left, (5, 6), strict=True):
        assert set(np.flatnonzero(row == 0).tolist()) == {w for w, _, _ in replace(case, period=period).active}
    stuck = MapArguments(replace(case, cells=((1, 1, 1),)), [5, 6], plain_grid(8))
    with pytest.raises(RefusedError, match="the values before are needed"):
        call("zero_map", 0, gradient, left, None, stuck.map, stuck.format, 1)


def test_in_c_threads_do_not_matter():
    case, rows = flips(words=2100 * 1024 + 17, count=3000), 3
    x = np.random.default_rng(1).integers(0, 256, (rows, case.words)).astype(np.float32)
    given, outs = MapArguments(case, [1, 2, 3], plain_grid(8)), [np.empty_like(x) for _ in range(3)]
    counts = [call("apply_map", 0, x, out, given.map, given.format, n) for out, n in zip(outs, (1, 2, 5), strict=True)]
    assert len(set(counts)) == 1
    assert counts[0] > 3000
    np.testing.assert_array_equal(outs[0], outs[1])
    np.testing.assert_array_equal(outs[0], outs[2])


@pytest.mark.parametrize(
    ("changes", "periods", "words"),
    [
        ({"threshold": -1}, [1], "threshold is -1, expected 0 to 2"),
        ({"threshold": ALWAYS + 1}, [1], "threshold is 4294967297"),
        ({}, None, "pointer to the periods is null"),
    ],
)
def test_in_c_numbers_that_do_not_fit(changes, periods, words):
    case = replace(flips(), **changes)
    given, x = MapArguments(case, periods, plain_grid(8)), np.zeros((1, case.words))
    for name, ends in (("apply_map", (x, x)), ("zero_map", (x, x, x))):
        with pytest.raises(RefusedError, match=words):
            call(name, 1, *ends, given.map, given.format, 1)


def test_in_c_permanent_faults_need_no_periods():
    case = replace(flips(), threshold=ALWAYS)
    given, x = MapArguments(case, None, plain_grid(8)), np.zeros((1, case.words))
    assert call("apply_map", 1, x, x, given.map, given.format, 1) == len({w for w, _, _ in case.cells})


def test_no_activity_and_full_activity(engine):
    case, codes = flips(), flips().codes()
    assert engine(codes, replace(case, threshold=0)).tolist() == codes.tolist()
    everything = engine(codes, replace(case, threshold=ALWAYS)).tolist()
    assert everything == struck(codes.tolist(), case.cells)
    assert [engine(codes, replace(case, threshold=ALWAYS, period=t)).tolist() for t in (0, 77)] == [everything] * 2


def test_more_activity_only_adds_cells():
    case = flips()
    steps = [set(replace(case, threshold=threshold(p)).active) for p in (0.0, 0.01, 0.3, 0.31, 0.9, 1.0)]
    rows = [MapStep(replace(case, threshold=threshold(p)).process()).active(SEED, 5) for p in (0.0, 0.3, 0.9)]
    assert all(milder <= harsher for milder, harsher in pairwise(steps))
    assert all(set(a.word.tolist()) <= set(b.word.tolist()) for a, b in pairwise(rows))
    assert len(steps[1]) < len(steps[2]) < len(steps[4])


def test_the_active_cells_keep_their_kind():
    case = Case(tuple((w, w % 5, w % 3) for w in range(300)), 300, 5, SITE, SEED, 9, threshold(0.5))
    columns = MapStep(case.process()).active(SEED, 9).cells()
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == case.active


def test_periods_are_taken_mod_2_to_the_32(engine):
    case, codes = flips(), flips().codes()
    expected = engine(codes, case).tolist()
    for period in (5 + 2**32, 5 + 2**40, 5 + 2**62, 5 - 2**32):
        assert engine(codes, replace(case, period=period)).tolist() == expected
    assert engine(codes, replace(case, period=6)).tolist() != expected


# 10^6 cells a draw: planes 0 to 7 of 125000 words, some beyond any block
WORDS, BITS, SIGMAS = 125_000, 8, 5
RATES = (2.0**-20, 0.001, 0.1, 0.5, 0.9, 0.999)


def drawn(seed=SEED, site=SITE, period=0, bits=BITS, words=WORDS):
    """The activity words (bits, words)."""
    bit, word = np.divmod(np.arange(bits * words), words)
    return by_reference(seed, site, period, word, bit).reshape(bits, words)


def z(count, trials, p):
    return (count - trials * p) / np.sqrt(trials * p * (1 - p))


@pytest.mark.parametrize("p", RATES)
def test_the_share_of_active_cells(p):
    on = drawn() < threshold(p)
    assert abs(z(on.sum(), on.size, p)) < SIGMAS
    assert all(abs(z(plane.sum(), plane.size, p)) < SIGMAS for plane in on)


def test_the_native_draw_has_the_same_rates():
    """A map of every cell of 125000 words, in C."""
    rows = FaultMap(8, WORDS, np.arange(WORDS), np.full(WORDS, 2**32 - 1, np.uint32), np.full(WORDS, 255, np.uint32))
    x, out = torch.zeros(1, WORDS), torch.empty(1, WORDS)
    one, zero, period = torch.ones(1).double(), torch.zeros(1).double(), torch.zeros(1).long()
    fmt = native.format(one.data_ptr(), 1, 1, zero.data_ptr(), 1, 1, 8, False)
    pointers = (rows.word.ctypes.data, rows.and_mask.ctypes.data, rows.xor_mask.ctypes.data, WORDS)
    native.apply_map(
        0,
        x.data_ptr(),
        out.data_ptr(),
        native.Map(1, WORDS, *pointers, threshold(0.1), SEED, SITE, period.data_ptr()),
        fmt,
        1,
    )
    flipped = out[0].numpy().astype(np.uint8)
    on = np.unpackbits(flipped[:, None], axis=1, bitorder="little").T.astype(bool)
    np.testing.assert_array_equal(on, drawn() < threshold(0.1))
    assert abs(z(on.sum(), on.size, 0.1)) < SIGMAS


def pairs():
    """Draws side by side that must have nothing to do with each other."""
    here = drawn()
    yield "next word", here[:, :-1], here[:, 1:]
    yield "word + 4", here[:, :-4], here[:, 4:]
    yield "next block", here[:, :-1024], here[:, 1024:]
    yield "next bit", here[:-1], here[1:]
    yield "next period", here, drawn(period=1)
    yield "next site", here, drawn(site=SITE + 1)
    yield "next seed", here, drawn(seed=SEED + 1)
    yield "high seed", here, drawn(seed=SEED ^ 2**32)


@pytest.mark.parametrize("p", [0.01, 0.5])
def test_nothing_depends_on_its_neighbour(p):
    for name, a, b in pairs():
        both = (a < threshold(p)) & (b < threshold(p))
        assert abs(z(both.sum(), both.size, p * p)) < SIGMAS, name


def test_no_two_cells_share_an_activity_word():
    """10^6 words of 32 bits: as many pairs meet as chance brings together, none stands in for another."""
    words = np.concatenate([drawn().ravel(), drawn(period=1).ravel()])
    meetings = words.size - np.unique(words).size
    expected = words.size**2 / 2 / 2**32
    assert abs(meetings - expected) < SIGMAS * np.sqrt(expected)
