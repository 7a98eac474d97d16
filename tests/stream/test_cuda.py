"""The Triton kernel of transient faults: known answers, and equality with the reference and the native library."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")

import triton
import triton.language as tl

from hwfault.codes import REPRESENTATIONS
from hwfault.stream import reference
from hwfault.stream.check import signed64
from hwfault.stream.cuda import launch
from hwfault.stream.cuda.draw import philox
from tests.helpers.stream.cases import SEEDS, WORDS, Draw
from tests.helpers.stream.engines import by_native, by_reference
from tests.helpers.stream.programs import VECTORS, Bit, Cluster, Mask, Random, program, symmetric, vector_process
from tests.helpers.stream.triton_calls import (
    DTYPES,
    INTERPRETED,
    by_triton,
    fast_or,
    hits,
    inject,
    native_inject,
    on_device,
    same_bits,
    tensors,
    zero_faulty,
)
from tests.helpers.torch_ops import operators
from tests.slowly import thinned
from tests.stream.test_known_answers import PHILOX
from tests.stream.test_late import draws as late_draws


@pytest.fixture(autouse=True, scope="module")
def _fast():
    """The interpreter's time goes by the number of steps: a block's words are taken at once, but for a test of this."""
    with fast_or(), pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setitem(launch.STRIKE, "WIDE", 1024)
        yield


@triton.jit
def philox_kernel(counter, key, out):
    c0, c1, c2, c3 = (
        tl.load(counter).to(tl.uint32),
        tl.load(counter + 1).to(tl.uint32),
        tl.load(counter + 2).to(tl.uint32),
        tl.load(counter + 3).to(tl.uint32),
    )
    r0, r1, r2, r3 = philox(c0, c1, c2, c3, tl.load(key).to(tl.uint32), tl.load(key + 1).to(tl.uint32))
    tl.store(out, r0.to(tl.int64))
    tl.store(out + 1, r1.to(tl.int64))
    tl.store(out + 2, r2.to(tl.int64))
    tl.store(out + 3, r3.to(tl.int64))


@pytest.mark.parametrize("answer", PHILOX)
def test_philox_is_random123s(answer):
    counter, key, out = on_device(torch.tensor(answer[:4]), torch.tensor(answer[4:6]), torch.zeros(4).long())
    philox_kernel[(1,)](counter, key, out)
    assert out.tolist() == answer[6:]


@pytest.mark.every(4)
@pytest.mark.parametrize("index", thinned(range(len(VECTORS["cases"])), 3))
def test_vectors(index):
    case = VECTORS["cases"][index]
    codes = np.array(case["codes"], np.uint32)
    expected = codes.copy()
    for word, code in case["changed"]:
        expected[word] = code
    faults = vector_process(index).program()
    after = by_triton(codes, faults, int(case["seed"]), case["sample"], case["bit_width"])
    np.testing.assert_array_equal(after, expected)


@pytest.mark.every(6)
@pytest.mark.parametrize("part", range(6))
def test_random_cases_equal_the_native_library(part):
    draw, done, struck = Draw(1000 + part), 0, 0
    while done < 25:
        case = draw.case()
        expected_hits = hits(case.processes, case.codes.size)
        if expected_hits > (100 if done % 5 == 0 else 20):  # more of them is a matter of time only
            continue
        given = (case.codes, case.program, case.seed, case.sample, case.bit_width)
        expected = by_native(*given)
        np.testing.assert_array_equal(by_triton(*given), expected, err_msg=str(case))
        done, struck = done + 1, struck + (expected != case.codes).any()
    assert struck > 2


HIGH = {
    "bit": lambda h, bits: Bit(7, tuple((h, 2**21, 2**22 - 5) for _ in range(bits))),
    "flip": lambda h, bits: symmetric(7, [h] * bits),
    "cluster of bits": lambda h, bits: Cluster(7, "bit", (2**21, 2**21 + 2**20, 2**22), [h] * bits),
    "cluster of words": lambda h, bits: Cluster(7, "word", (2**20, 2**21, 2**21, 2**22 - 9), [h] * bits),
    "mask": lambda h, bits: Mask(7, h, 5),
    "random": lambda h, bits: Random(7, h),
}


@pytest.mark.every(2)
@pytest.mark.parametrize(("kind", "h"), thinned(itertools.product(HIGH, (0.1, 0.5, 1.0)), 4))
def test_high_rates(kind, h):
    codes = Draw(3).codes(4, 1100 if h < 0.5 else 150)
    faults = program([HIGH[kind](h, 3), Mask(8, 0.01, 3), HIGH[kind](0.002, 3)])
    given = (codes & 7, faults, 2**63 + 3, 17, 3)
    np.testing.assert_array_equal(by_triton(*given), by_reference(*given))


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", HIGH)
def test_both_ways_agree(kind, monkeypatch):
    """The way of many hits, which any number of hits may take, finds what the way of few finds."""
    codes = Draw(4).codes(4, 1000)
    given = (codes, program([HIGH[kind](0.002, 4), HIGH[kind](0.001, 4)]), 3, 5, 4)
    few = by_triton(*given)
    monkeypatch.setitem(launch.STRIKE, "LANES", 1)
    monkeypatch.setitem(launch.STRIKE, "WIDE", 256)
    many = by_triton(*given)
    np.testing.assert_array_equal(few, by_reference(*given))
    np.testing.assert_array_equal(many, few)
    assert (few != codes).any()


@pytest.mark.parametrize("kind", ["bit", "random"])
def test_few_hits_without_the_shortcut(kind):
    """As the kernel is written, each OR taken by the interpreter element by element."""
    codes = Draw(5).codes(4, 900)
    given = (codes, program([HIGH[kind](0.003, 4)]), 1, 5, 4)
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            from triton.runtime.interpreter import ReduceOps

            patch.setattr(ReduceOps, "apply_impl", lambda self, given: self.generic_reduce(given))
        after = by_triton(*given)
    np.testing.assert_array_equal(after, by_reference(*given))
    assert (after != codes).any()


def test_several_hits_on_one_word():
    """Of some 24 hits of four processes, few enough for a lane each, several meet in a word, some in a cell."""
    codes, met = Draw(6).codes(4, 1024), 0
    processes = [
        Bit(1, ((0.006, 2**21, 2**21),) * 2 + ((0.001, 2**22, 2**22),) * 2),
        Random(3, 0.004),
        Mask(4, 0.004, 9),
    ]
    for seed in range(25):
        given = (codes, program(processes), seed, 0, 4)
        np.testing.assert_array_equal(by_triton(*given), by_reference(*given))
        draws = [(1, 0, 0.006), (1, 1, 0.006), (1, 2, 0.001), (1, 3, 0.001), (3, 63, 0.004), (4, 63, 0.004)]
        where = [
            reference.hits(seed=seed, site=s, sample=0, words=1024, plane=p, probability=h)[0] for s, p, h in draws
        ]
        found = np.concatenate(where)
        met += len(found) <= launch.STRIKE["LANES"] and len(set(found.tolist())) < len(found)
    assert met > 2


def test_late_bits():
    changed = 0
    for codes, faults, *draw in late_draws(5, 80):
        if codes.size > 2500 or len(faults) + 1000 * (-1 in faults) > 600:  # tables grow with the number of hits
            continue
        expected = by_reference(codes, faults, *draw)
        np.testing.assert_array_equal(by_triton(codes, faults, *draw), expected, err_msg=str(faults[:8]))
        changed += (expected != codes).any()
    assert changed > 3


@pytest.mark.parametrize(
    ("dtype", "representation"), thinned(itertools.product(DTYPES, range(len(REPRESENTATIONS))), 2), ids=str
)
def test_values_and_gradients(dtype, representation):
    draw, changed = Draw(representation * 10 + DTYPES.index(dtype)), 0
    for k in (0, 4, 5):
        bits, signed = draw.one_of((1, 2, 4, 8, 8, 17, 32)), k % 2 == 0
        given = tensors(draw, dtype, (2, 3, 5, 40), k % 3 > 0, bits, signed, k > 2, representation)
        expected = native_inject(*given)
        after = inject(*on_device(*given)).cpu()
        assert same_bits(after, expected), (k, given[3], bits)
        gradient = torch.from_numpy(draw.rng.normal(size=(2, 3, 5, 40))).to(dtype)
        zeroed = zero_faulty(*on_device(gradient, *given)).cpu()
        assert same_bits(zeroed, operators.zero_faulty(gradient, *given))
        changed += int((zeroed == 0).sum())
    assert changed > 0


def test_gradients_without_values():
    draw = Draw(8)
    for bits in (1, 4, 8):
        x, samples, seed, _, *grid = tensors(draw, torch.float32, (2, 3, 200), False, bits, True, False)
        faults = torch.tensor(program([symmetric(draw.site(), [0.01] * bits)]))
        gradient = torch.ones_like(x)
        given = samples, seed, faults, *grid
        zeroed = zero_faulty(*on_device(gradient, None, *given)).cpu()
        assert same_bits(zeroed, operators.zero_faulty(gradient, None, *given))
        assert (zeroed == 0).any()


@settings(max_examples=8)
@given(words=st.sampled_from(WORDS), batch=st.integers(0, 3), seed=st.sampled_from(SEEDS), bits=st.integers(1, 32))
def test_shapes(words, batch, seed, bits):
    rng = np.random.default_rng(words)
    x = torch.from_numpy(rng.integers(0, 2**bits, (batch, words))).double()
    faults = torch.tensor(program([symmetric(99, [2e-3 / bits] * bits), Random(98, 5e-4)]))
    given = (x, torch.arange(batch) + 2**32 - 1, torch.tensor(signed64(seed)), faults, torch.tensor(1.0))
    given = (*given, torch.tensor(0.0), bits, False, 0)
    assert same_bits(inject(*on_device(*given)).cpu(), native_inject(*given))


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 0), (0, 7), (1, 1030), (2, 3, 4)])
def test_a_tensor_of_any_shape_is_one_sample_under_one_number(shape):
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape) % 16
    given = (x, torch.tensor([5]), torch.tensor(1), torch.tensor(symmetric(9, [0.01] * 4).program()))
    given = (*given, torch.tensor(1.0), torch.tensor(0.0), 4, False, 0)
    after = inject(*on_device(*given)).cpu()
    assert after.shape == x.shape
    assert same_bits(after, native_inject(*given))


def test_what_does_not_lie_in_order_is_put_in_order():
    x = torch.arange(2 * 30 * 40.0).reshape(2, 40, 30).transpose(1, 2) % 16
    numbers = (torch.tensor([[1, 9], [2, 9]])[:, 0], torch.tensor(1))
    given = (
        x,
        *numbers,
        torch.tensor(symmetric(9, [0.001] * 4).program()),
        torch.tensor(1.0),
        torch.tensor(0.0),
        4,
        False,
        0,
    )
    after = inject(*on_device(*given)).cpu()
    assert after.is_contiguous()
    assert same_bits(after, native_inject(*given))
    assert (after != x).any()


def test_no_faults_is_a_copy():
    x = torch.tensor([[float("nan"), 0.3, -0.0, float("inf")]])
    given = (x, torch.tensor([5]), torch.tensor(1), torch.zeros(0, dtype=torch.int64), torch.tensor(1.0))
    after = inject(*on_device(*given, torch.tensor(0.0)), 4, False).cpu()
    assert same_bits(after, x)


def test_a_batch_is_its_samples_one_by_one():
    draw = Draw(12)
    x, samples, seed, _, *rest = tensors(draw, torch.float32, (5, 3, 350), True, 4, True, True)
    given = (seed, torch.tensor(symmetric(9, [0.002] * 4).program()), *rest)
    together = inject(*on_device(x, samples, *given))
    for i in range(5):
        alone = inject(*on_device(x[i : i + 1], samples[i : i + 1], *given))
        assert same_bits(alone, together[i : i + 1])
