"""The native library's functions on floats against the reference, with and without threads, in place and not."""

import ctypes

import numpy as np
import pytest

from hwfault.codes import CodeFormat
from hwfault.stream import native
from tests.helpers.stream import oracle
from tests.helpers.stream.capi import Arguments, Map, RefusedError, call, pointer
from tests.helpers.stream.cases import Case, Draw
from tests.helpers.stream.programs import Bit, Cluster, Mask, Random, program, symmetric
from tests.helpers.stream.values import BITS, DTYPES, STORED, Batch, Grid, batch, grid, numbers

COUNT, PARTS = 2000, 10


def batches(part, count=COUNT // PARTS):
    draw = Draw(1000 + part)
    return (batch(draw) for _ in range(count))


def arguments(b: Batch) -> Arguments:
    return Arguments(b.case.program, b.case.seed, b.samples, b.x.shape[1], b.grid)


def inject(b: Batch, out=None, threads=1):
    """The numbers after, and how many words have changed."""
    return injected_and_left(b, out, threads)[:2]


def injected_and_left(b: Batch, out=None, threads=1):
    """Also how many words were to be struck and hold no number."""
    out = np.empty_like(b.x) if out is None else out
    given = arguments(b)
    left = np.full(1, -1, np.int64)
    end = (given.draw, given.format, threads, left)
    changed = call("inject", DTYPES[b.dtype], np.ascontiguousarray(b.x), out, *end)
    return out, changed, int(left[0])


def zero_faulty(b: Batch, gradient, x=None, threads=1):
    out, given = np.empty_like(gradient), arguments(b)
    end = (given.draw, given.format, threads)
    return out, call("zero_faulty", DTYPES[b.dtype], gradient, out, x, *end)


def assert_same_bits(found, expected, b):
    """Every bit, the sign of zero and the payload of NaN too."""
    bits = BITS[b.dtype]
    same = found.view(bits) == expected.view(bits)
    assert same.all(), f"{np.argwhere(~same)[:3].tolist()} differ: {found[~same][:3]} for {expected[~same][:3]} in {b}"


@pytest.mark.every(11)
@pytest.mark.parametrize("part", range(PARTS))
def test_inject_is_the_reference_on_every_type(part):
    for b in batches(part):
        out, changed, left = injected_and_left(b)
        assert_same_bits(out, b.injected(), b)
        assert changed == b.faulty().sum()
        before, after = b.codes()
        assert left == ((before != after) & ~b.numbers).sum()


@pytest.mark.parametrize("part", range(2))
def test_in_place_is_the_same(part):
    for b in batches(part):
        x = b.x.copy()
        given = arguments(b)
        call("inject", DTYPES[b.dtype], x, x, given.draw, given.format, 1)
        assert_same_bits(x, inject(b)[0], b)


@pytest.mark.every(5)
@pytest.mark.parametrize("part", range(PARTS))
def test_zero_faulty_zeroes_what_inject_changes(part):
    for b in batches(part, COUNT // PARTS // 2):
        gradient = np.random.default_rng(part).standard_normal(b.x.shape).astype(np.float32).astype(STORED[b.dtype])
        gradient = gradient + STORED[b.dtype](1) if b.dtype == "bfloat16" else gradient
        if gradient.size:
            gradient.flat[:: max(gradient.size // 5, 1)] = 0x7FC0 if b.dtype == "bfloat16" else np.nan
        faulty = b.faulty()
        expected = np.where(faulty, STORED[b.dtype](0), gradient)
        out, changed = zero_faulty(b, gradient, np.ascontiguousarray(b.x))
        assert_same_bits(out, expected, b)
        assert changed == faulty.sum()


def reads_stored(b: Batch) -> bool:
    """Section 4 and 5: a direction may be refused, or a random code may lead back to the first."""
    kinds = [type(p) for p in b.case.processes]
    directed = any(h and {a, c} != {2**22} for p in b.case.processes if isinstance(p, Bit) for h, a, c in p.planes)
    return directed or (len(kinds) > 1 and Random in kinds)


@pytest.mark.every(5)
@pytest.mark.parametrize("part", range(PARTS))
def test_zero_faulty_without_the_values(part):
    refused = 0
    for b in batches(part, COUNT // PARTS // 2):
        gradient = np.ones(b.x.shape, STORED[b.dtype])
        if reads_stored(b):
            refused += 1
            with pytest.raises(RefusedError, match=r"depends on the stored codes"):
                zero_faulty(b, gradient)
            continue
        out, changed = zero_faulty(b, gradient)
        np.testing.assert_array_equal(out == 0, b.faulty_without_x())
        known = b.numbers  # of others nobody knows here
        np.testing.assert_array_equal((out == 0)[known], b.faulty()[known], err_msg="with the values it is another")
        assert changed == (out == 0).sum()
    assert refused > 5


def test_zero_faulty_in_place():
    b = next(b for b in batches(0) if b.faulty().sum() > 20)
    gradient = np.ones(b.x.shape, STORED[b.dtype])
    given = arguments(b)
    call("zero_faulty", DTYPES[b.dtype], gradient, gradient, b.x, given.draw, given.format, 1)
    np.testing.assert_array_equal(gradient == 0, b.faulty())


@pytest.mark.every(5)
@pytest.mark.parametrize("part", range(PARTS))
def test_faulty_words(part):
    for b in batches(part, COUNT // PARTS // 3):
        before, after = b.codes()
        expected = np.flatnonzero(b.faulty())
        for capacity in (expected.size, expected.size // 2):
            given, position = arguments(b), np.full(capacity + 1, -7, np.int64)
            was, now = (np.full(capacity + 1, 7, np.uint32) for _ in range(2))
            start = (DTYPES[b.dtype], np.ascontiguousarray(b.x), given.draw, given.format, capacity, position)
            assert call("faulty_words", *start, was, now) == expected.size
            assert position.tolist() == [*expected[:capacity], -7], "ascending, and not past the capacity"
            assert was.tolist() == [*before.flat[expected[:capacity]], 7]
            assert now.tolist() == [*after.flat[expected[:capacity]], 7]
            assert call("faulty_words", *start, None, None) == expected.size


def test_halves_below_the_normal_ones_survive_a_thread_that_flushes_to_zero():
    import torch

    on = Grid(CodeFormat(10, False), np.array([2.0**-24]), 1, np.zeros(1), 1)
    x = (np.arange(1024).reshape(1, -1) * 2.0**-24).astype(np.float16)
    case = Case(np.empty(0, np.uint32), (Mask(1, 1.0, 1),), 0, 0, 10)
    torch.set_flush_denormal(True)
    try:
        out, _ = inject(Batch(x, np.zeros(1, np.int64), "float16", on, case))
    finally:
        torch.set_flush_denormal(False)
    np.testing.assert_array_equal(out[0].astype(np.float64) * 2.0**24, np.arange(1024) ^ 1)


BIG = 2100  # blocks of a sample: enough for several threads


def big_batch(dtype="float32", rows=3, processes=None, words=BIG * 1024 + 77):
    draw = Draw(5)
    processes = processes or (Mask(3, 1e-3, 7), symmetric(9, [1e-4] * 4), Cluster(5, "word", (2**21,), (1e-4,) * 4))
    on = Grid(CodeFormat(4, True), np.array([0.5, 0.25]), 100, np.array([0.0, 1.0, 2.0]), 7)
    x = on.decode(draw.codes(4, rows * words).reshape(rows, words), dtype)
    case = draw.case()
    case = type(case)(case.codes, processes, 2**64 - 5, 0, 4)
    return Batch(x, np.arange(rows, dtype=np.int64) + 2**32 - 2, dtype, on, case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_matter(dtype):
    b = big_batch(dtype)
    alone, changed = inject(b, threads=1)
    assert changed > 1000
    gradient = np.ones(b.x.shape, STORED[dtype])
    zeroed = zero_faulty(b, gradient, b.x, threads=1)[0]
    for threads in (0, 2, 3, 8, 1000, -1):
        out, again = inject(b, threads=threads)
        assert_same_bits(out, alone, b)
        assert again == changed
        assert_same_bits(zero_faulty(b, gradient, b.x, threads=threads)[0], zeroed, b)
    in_place = b.x.copy()
    given = arguments(b)
    call("inject", DTYPES[dtype], in_place, in_place, given.draw, given.format, 3)
    assert_same_bits(in_place, alone, b)


def test_a_big_tensor_is_the_reference_s():
    b = big_batch(rows=2, words=60 * 1024 + 5)
    assert_same_bits(inject(b, threads=4)[0], b.injected(), b)


def long_batch(draw: Draw) -> Batch:
    """Several samples of many blocks: wherever blocks are drawn several at once, groups end at odd places."""
    bits, dtype = draw.one_of((1, 2, 3, 4, 5, 8)), draw.one_of(tuple(DTYPES))
    rows, words = draw.integer(1, 4), draw.integer(1, 40) * 1024 - draw.one_of((0, 0, 1, 1000, 1023))
    case = Case(np.empty(0, np.uint32), draw.processes(bits, 2000), draw.seed(), 0, bits)
    on = grid(draw, bits, signed=bool(draw.integer(0, 1)))
    samples = np.array([draw.sample() for _ in range(rows)], np.int64)
    return Batch(numbers(draw, on, (rows, words), dtype), samples, dtype, on, case)


@pytest.mark.parametrize("part", range(5))
def test_many_blocks(part):
    draw = Draw(3000 + part)
    for _ in range(12):
        b = long_batch(draw)
        expected, faulty = b.injected(), b.faulty()
        for threads in (1, 3):
            out, changed = inject(b, threads=threads)
            assert_same_bits(out, expected, b)
            assert changed == faulty.sum()
        ones = np.ones(b.x.shape, STORED[b.dtype])
        np.testing.assert_array_equal(zero_faulty(b, ones, b.x, threads=2)[0] == 0, faulty)
        before, after = b.codes()
        same = {"program": b.case.program, "seed": b.case.seed, "bit_width": b.case.bit_width}
        np.testing.assert_array_equal(native.inject_codes(before, samples=b.samples, **same), after)


def test_a_batch_of_64_is_64_batches_of_one():
    for b in batches(99, 40):
        rows = numbers(Draw(7), b.grid, (64, b.x.shape[1]), b.dtype)
        samples = np.arange(64, dtype=np.int64) + 2**32 - 7
        together = Batch(rows, samples, b.dtype, b.grid, b.case)
        out, _ = inject(together, threads=2)
        for i in range(64):
            alone = Batch(np.ascontiguousarray(rows[i : i + 1]), samples[i : i + 1], b.dtype, b.grid, b.case)
            assert_same_bits(inject(alone)[0][0], out[i], alone)


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0)])
def test_nothing_passes_through(shape):
    on = Grid(CodeFormat(4, True), np.ones(1), 1, np.zeros(1), 1)
    given = Arguments(symmetric(1, [1.0] * 4).program(), 1, np.arange(shape[0]), shape[1], on)
    x = np.zeros(shape, np.float32)
    assert call("inject", 0, x, x.copy(), given.draw, given.format, 2) == 0
    assert call("zero_faulty", 0, x, x.copy(), x, given.draw, given.format, 2) == 0
    assert call("faulty_words", 0, x, given.draw, given.format, 0, None, None, None) == 0
    assert call("inject_codes", x.astype(np.uint32), given.draw, 4) == 0


def test_nothing_beside_the_words_is_written():
    b = big_batch(rows=1, words=1500)
    room = np.full(1500 + 64, 9.0, np.float32)
    given = arguments(b)
    call("inject", 0, b.x, pointer(room) + 4 * 32, given.draw, given.format, 1)
    assert (room[:32] == 9).all()
    assert (room[-32:] == 9).all()
    assert_same_bits(room[32:-32].copy(), b.injected()[0], b)


def map_rows(draw: Draw, bits: int, words: int):
    """A fault map: ascending words, each healthy, flipped, stuck or all at once."""
    rows = draw.integer(0, words)
    word = np.sort(draw.rng.choice(words, rows, replace=False)).astype(np.int64)
    all_or_nothing = np.uint32(draw.one_of((0, 2**bits - 1)))
    and_mask, xor_mask = draw.codes(bits, rows), draw.codes(bits, rows)
    return word, and_mask | all_or_nothing, xor_mask * np.uint32(draw.integer(0, 1))


def fault_map(shape, word, and_mask, xor_mask, threshold=1 << 32):
    """The C struct of a permanent map over (elements, words); the arrays must outlive it."""
    return Map(*shape, pointer(word), pointer(and_mask), pointer(xor_mask), word.size, threshold, 0, 0, None)


@pytest.mark.parametrize("part", range(4))
def test_maps(part):
    draw = Draw(part)
    for b in batches(200 + part, 60):
        words, bits = b.x.shape[1], b.case.bit_width
        word, and_mask, xor_mask = map_rows(draw, bits, words)
        before = b.grid.encode(b.x, b.dtype)
        after = before.copy()
        after[:, word] = (before[:, word] & and_mask) ^ xor_mask
        changed = (before != after) & b.numbers
        expected = np.where(changed, b.grid.decode(after, b.dtype), b.x)
        given, out, left = arguments(b), np.empty_like(b.x), np.full(1, -1, np.int64)
        rows = fault_map(b.x.shape, word, and_mask, xor_mask)
        end = (ctypes.addressof(rows), given.format)
        x = np.ascontiguousarray(b.x)
        assert call("apply_map", DTYPES[b.dtype], x, out, *end, 2, left) == changed.sum()
        assert left[0] == ((before != after) & ~b.numbers).sum()
        ones, zeroed = np.ones(x.shape, STORED[b.dtype]), np.empty(x.shape, STORED[b.dtype])
        assert call("zero_map", DTYPES[b.dtype], ones, zeroed, x, *end, 2) == changed.sum()
        np.testing.assert_array_equal(zeroed == 0, changed)
        assert_same_bits(out, expected, b)
        in_place = x.copy()
        call("apply_map", DTYPES[b.dtype], in_place, in_place, *end, 1)
        assert_same_bits(in_place, expected, b)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_big_maps_on_several_threads(dtype):
    b = big_batch(dtype)
    elements, words = b.x.shape
    rng = np.random.default_rng(3)
    word = np.sort(rng.choice(words, 5000, replace=False)).astype(np.int64)
    word[0], word[-1] = 0, words - 1
    and_mask, xor_mask = (rng.integers(0, 16, word.size).astype(np.uint32) for _ in range(2))
    before = b.grid.encode(b.x, dtype)
    after = before.copy()
    after[:, word] = (before[:, word] & and_mask) ^ xor_mask
    expected = np.where(before == after, b.x, b.grid.decode(after, dtype))
    given = arguments(b)
    rows = fault_map((elements, words), word, and_mask, xor_mask)
    end = (ctypes.addressof(rows), given.format)
    for threads in (1, 2, 3, 7):
        out, in_place = np.empty_like(b.x), b.x.copy()
        assert call("apply_map", DTYPES[dtype], b.x, out, *end, threads) == (before != after).sum()
        call("apply_map", DTYPES[dtype], in_place, in_place, *end, threads)
        assert_same_bits(out, expected, b)
        assert_same_bits(in_place, expected, b)


@pytest.mark.parametrize(
    ("word", "masks"),
    [([5], (15, 0)), ([-1], (15, 0)), ([2, 2], (15, 0)), ([3, 1], (15, 0)), ([0, 2**62], (15, 0)), ([1], (15, 16))],
)
def test_maps_that_do_not_fit(word, masks):
    on = Grid(CodeFormat(4, False), np.ones(1), 1, np.zeros(1), 1)
    given, x = Arguments((), 0, [0], 5, on), np.ones((1, 5), np.float32)
    rows = np.array(word, np.int64), *(np.full(len(word), m, np.uint32) for m in masks)
    given_map = fault_map((1, 5), *rows)
    with pytest.raises(RefusedError, match=r"fault map"):
        call("apply_map", 0, x, x.copy(), ctypes.addressof(given_map), given.format, 1)


def test_philox_is_the_oracles():
    rng = np.random.default_rng(0)
    for _ in range(200):
        counter, key = rng.integers(0, 2**32, 4).tolist(), int(rng.integers(0, 2**64, dtype=np.uint64))
        assert list(native.philox(counter, key)) == list(oracle.philox(counter, key))


@pytest.mark.parametrize("capacity", [0, 1, 10, 10_000])
def test_hits_stay_within_their_capacity(capacity):
    table = np.array([3, 0, 0, 0], np.int64)
    word, aux = np.full(capacity + 4, -7, np.int64), np.full(capacity + 4, 7, np.uint32)
    found = call("hits", 1, 2, 3, 20 * 1024, 5, table, 4, capacity, word, aux)
    assert found == 60
    assert (word[min(found, capacity) :] == -7).all()
    assert (aux[min(found, capacity) :] == 7).all()
    assert (word[: min(found, capacity)] >= 0).all()


def test_the_library_says_its_version():
    assert call("abi_version") >= 1


def test_the_binding_injects_like_the_c_function():
    b = big_batch(rows=2, words=5000)
    given, out = arguments(b), np.empty_like(b.x)
    numbers = given.samples, given.program
    draw = native.draw(b.case.seed, pointer(numbers[0]), 2, 5000, pointer(numbers[1]), given.program.size)
    scale, zero_point = b.grid.scale, b.grid.zero_point
    form = native.format(pointer(scale), 2, 100, pointer(zero_point), 3, 7, 4, True)
    native.inject(0, pointer(b.x), pointer(out), draw, form, 2)
    assert_same_bits(out, b.injected(), b)
    gradient, zeroed = np.ones_like(b.x), np.empty_like(b.x)
    native.zero_faulty(0, pointer(gradient), pointer(zeroed), None, draw, form, 2)
    np.testing.assert_array_equal(zeroed == 0, b.faulty())


def test_seeds_of_torch_are_signed():
    codes = np.zeros((1, 3000), np.uint32)
    numbers = {"program": program([Random(4, 0.1)]), "samples": [1], "bit_width": 4}
    one = native.inject_codes(codes, seed=2**64 - 3, **numbers)
    assert ctypes.c_uint64(-3).value == 2**64 - 3
    np.testing.assert_array_equal(one, native.inject_codes(codes, seed=-3, **numbers))
