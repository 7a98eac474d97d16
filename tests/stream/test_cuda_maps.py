"""The Triton kernel of fault maps: known answers, and values equal to the native library's."""

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

from hwfault.stream.check import signed64
from hwfault.stream.cuda import launch
from hwfault.stream.cuda.map import first_row
from hwfault.stream.tables import ALWAYS
from tests.helpers.stream.cases import SAMPLES, SEEDS, SITES, Draw
from tests.helpers.stream.intermittent import case_of, known
from tests.helpers.stream.triton_calls import (
    DTYPES,
    INTERPRETED,
    fast_or,
    fault_map,
    on_device,
    rows_of,
    same_bits,
    tensors,
    zero_map,
)
from tests.helpers.torch_ops import operators
from tests.slowly import thinned


@pytest.fixture(autouse=True, scope="module")
def _fast():
    """The interpreter's time goes by the number of steps, so a block's rows are taken at once, but for two tests."""
    with fast_or(), pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setitem(launch.MAP, "LANES", 1024)
        yield


@pytest.mark.every(8)
@pytest.mark.parametrize("index", range(len(known()["cases"])))
def test_known_answers(index):
    vector = known()["cases"][index]
    case = case_of(vector)
    codes = case.codes(index)
    masks = torch.from_numpy(np.stack([case.rows.and_mask, case.rows.xor_mask]).view(np.int32))
    draw = (
        torch.tensor([case.period]),
        torch.tensor(signed64(case.seed)),
        torch.from_numpy(case.rows.word.copy()),
        masks,
    )
    given = torch.from_numpy(codes.astype(np.float64))[None], *draw, torch.tensor(1.0), torch.tensor(0.0)
    after = fault_map(*on_device(*given), case.bit_width, False, 0, case.threshold, case.site)
    assert after[0].cpu().long().tolist() == case.after(codes)


@triton.jit
def search_kernel(row_word, rows, words, out):
    word = tl.load(words + tl.program_id(0))
    tl.store(out + tl.program_id(0), first_row(row_word, rows, word, 32))


@pytest.mark.every(4)
@pytest.mark.parametrize("rows", [0, 1, 2, 31, 32, 33, 63, 64, 65, 1000, 1024, 1025, 40_000])
def test_the_search(rows):
    rng = np.random.default_rng(rows)
    ascending = np.unique(rng.integers(0, 3 * rows + 1, rows))
    words = np.concatenate([rng.integers(-1, 3 * rows + 2, 30), ascending[:2], ascending[-2:], ascending[-1:] + 1])
    out = on_device(torch.zeros(len(words), dtype=torch.int32))
    given = on_device(torch.from_numpy(ascending.astype(np.int64)), len(ascending), torch.from_numpy(words))
    search_kernel[(len(words),)](*given, out)
    assert out.tolist() == np.searchsorted(ascending, words).tolist()


@pytest.mark.parametrize(("dtype", "threshold"), thinned(itertools.product(DTYPES, (0, 2**31, ALWAYS)), 2), ids=str)
def test_values_and_gradients(dtype, threshold):
    draw, changed = Draw(DTYPES.index(dtype) + 1), 0
    for k, share in enumerate((0.02, 0.3, 1.0)):
        bits = draw.one_of((1, 2, 4, 8)) if k else 4
        x, period, seed, _, *grid = tensors(draw, dtype, (2, 3, 5, 80), k > 0, bits, k != 1, k > 1, k)
        rows = rows_of(draw, 1200, bits, share, flips_only=k == 0)
        given = (period, seed, *rows, *grid, threshold, draw.site())
        expected = operators.fault_map(x, *given, False, True)
        assert same_bits(fault_map(*on_device(x, *given)).cpu(), expected)
        gradient = torch.from_numpy(draw.rng.normal(size=x.shape)).to(dtype)
        for stored in (x, None) if k == 0 else (x,):
            zeroed = zero_map(*on_device(gradient, stored, *given)).cpu()
            assert same_bits(zeroed, operators.zero_map(gradient, stored, *given))
            changed += int((zeroed == 0).sum())
    assert (changed > 0) == (threshold > 0)


def test_rows_are_taken_some_at_a_time(monkeypatch):
    monkeypatch.setitem(launch.MAP, "LANES", 32)
    draw = Draw(3)
    x, period, seed, _, *grid = tensors(draw, torch.float32, (2, 3, 700), True, 4, True, True)
    given = (x, period, seed, *rows_of(draw, 2100, 4, 0.02, False), *grid, 2**31, 5)
    assert same_bits(fault_map(*on_device(*given)).cpu(), operators.fault_map(*given, False, True))


@settings(max_examples=8)
@given(
    words=st.sampled_from((0, 1, 2, 1023, 1024, 1025, 2049)),
    batch=st.integers(0, 3),
    seed=st.sampled_from(SEEDS),
    site=st.sampled_from(SITES),
    period=st.sampled_from(SAMPLES),
    share=st.sampled_from((0.0, 0.01, 0.2)),
    bits=st.integers(1, 32),
)
def test_shapes(words, batch, seed, site, period, share, bits):
    draw = Draw(words)
    x = torch.from_numpy(draw.codes(bits, batch * words).astype(np.float64)).reshape(batch, words)
    rows = rows_of(draw, words, bits, share, flips_only=False)
    grid = (torch.tensor(1.0), torch.tensor(0.0), bits, False, 0, 2**31, site)
    given = (x, torch.full((batch,), period), torch.tensor(signed64(seed)), *rows, *grid)
    assert same_bits(fault_map(*on_device(*given)).cpu(), operators.fault_map(*given, False, True))
