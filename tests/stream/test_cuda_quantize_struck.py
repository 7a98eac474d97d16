"""The Triton kernels that quantize and strike in one pass: known answers, and NumPy and the reference after another."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.stream.triton_here import OLDEST

pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")

from hwfault.errors import PlanError
from hwfault.stream.check import signed64
from hwfault.stream.cuda import launch, launch_quantize
from hwfault.stream.cuda.launch_quantize import Grid
from hwfault.stream.mechanism import StreamOperands
from hwfault.torch_ops.quantize import lie_of
from tests.helpers.stream import quantize_oracle as oracle
from tests.helpers.stream.engines import by_reference
from tests.helpers.stream.programs import VECTORS, Bit, Cluster, Random, program, symmetric, vector_process
from tests.helpers.stream.triton_calls import INTERPRETED, fast_or, on_device
from tests.slowly import slow, thinned
from tests.stream.test_quantize import check_sums, one

BITS = 4
MASK = 2**BITS - 1
FLIPS = program([symmetric(9, [0.003] * BITS)])
LAYOUTS = [
    ((2, 3, 20, 30), (1, 3, 1, 1)),
    ((2, 1500), (1, 1)),
    ((40, 60), (40, 1)),
    ((3, 5, 7), (1, 5, 1)),
    ((1,), (1,)),
]
"""Values and their scales: rows that share blocks, blocks that share a row, and what is left over."""


@pytest.fixture(autouse=True, scope="module")
def _fast():
    with fast_or(), pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setitem(launch.STRIKE, "WIDE", 1024)
        yield


def operands(faults, grid, samples, seed=5, bits=BITS, signed=True):
    numbers = torch.tensor(samples), torch.tensor(signed64(seed)), torch.tensor(faults, dtype=torch.int64)
    return StreamOperands(*on_device(*numbers), grid.scale, grid.zero_point, bits, int(signed), 0)


def there(grid, rectifies=False):
    """A grid of the oracle on the kernels' device."""
    scale, zero = (torch.from_numpy(np.ascontiguousarray(a)) for a in (grid.scale, grid.zero_point))
    ends = (torch.tensor(end, dtype=torch.float32) for end in (grid.least, grid.most))
    return Grid(*on_device(scale, zero.expand(scale.shape).contiguous(), *ends), grid.passes, rectifies)


def quantize(x, grid, faults, samples):
    made = there(grid)
    out = launch_quantize.quantize_struck(on_device(torch.from_numpy(x)), made, operands(faults, made, samples))
    return out.cpu().numpy()


def differentiate(x, gradient, grid, faults, samples, wanted=(True, True)):
    made, lie = there(grid), lie_of(x.shape, grid.scale.shape)
    given = on_device(torch.from_numpy(x), torch.from_numpy(gradient))
    found = launch_quantize.differentiate_struck(*given, made, lie, operands(faults, made, samples), wanted)
    return [None if t is None else t.cpu().numpy() for t in found]


def struck_codes(codes, faults, samples):
    """The code words after the faults, by the reference, of a batch or of one sample."""
    rows = codes.reshape(len(samples), -1).astype(np.uint32)
    after = [by_reference(row, faults, 5, sample, BITS) for row, sample in zip(rows, samples, strict=True)]
    return np.stack(after).reshape(codes.shape)


def expected_values(x, grid, faults, samples):
    clean = oracle.quantized(x, grid)
    q = oracle.clamped(oracle.rounded(x, grid), grid)
    codes = np.where(np.isfinite(q), q, 0).astype(np.int64) & MASK
    after = struck_codes(codes, faults, samples).astype(np.int64)
    signed = np.where(after > MASK // 2, after - MASK - 1, after).astype(np.float32)
    changed = (after != codes) & np.isfinite(clean)
    return np.where(changed, (signed - grid.zero_point) * grid.scale, clean)


def expected_gradient(gradient, faults, samples):
    """The gradient that the quantizer is given: faults of flips strike whatever is stored."""
    return np.where(struck_codes(np.zeros(gradient.shape, np.int64), faults, samples) != 0, np.float32(0), gradient)


def case(shape, scale_shape, seed):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.1, 0.5, scale_shape).astype(np.float32)
    zero = rng.integers(-2, 3, scale_shape).astype(np.float32)
    grid = oracle.Grid(scale, zero, -8, 7, passes=bool(seed % 2))
    samples = rng.integers(0, 2**32, 1 if scale_shape[0] > 1 else shape[0]).tolist()
    x, gradient = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    return x, gradient, grid, samples


@pytest.mark.every(3)
@pytest.mark.parametrize("index", thinned([i for i, c in enumerate(VECTORS["cases"]) if c["bit_width"] <= 24], 4))
def test_vectors(index):
    known = VECTORS["cases"][index]
    codes = np.array(known["codes"], np.uint32)
    expected = codes.copy()
    for word, code in known["changed"]:
        expected[word] = code
    bits = known["bit_width"]
    made = there(one(scale=1.0, least=0, most=2**bits - 1))
    drawn = operands(vector_process(index).program(), made, [known["sample"]], int(known["seed"]), bits, signed=False)
    x = torch.from_numpy(codes.astype(np.float32) + np.float32(0.25))  # it is rounded
    x = x if bits < 22 else torch.from_numpy(codes.astype(np.float32))
    after = launch_quantize.quantize_struck(on_device(x), made, drawn)
    np.testing.assert_array_equal(after.cpu().numpy().astype(np.uint32), expected)


@pytest.mark.every(2)
@pytest.mark.parametrize(("shape", "scale_shape"), LAYOUTS)
@settings(max_examples=1)
@given(st.integers(0, 2**32))
def test_any_layout(shape, scale_shape, seed):
    x, gradient, grid, samples = case(shape, scale_shape, seed)
    assert oracle.same_bits(quantize(x, grid, FLIPS, samples), expected_values(x, grid, FLIPS, samples))
    of_x, of_scale = differentiate(x, gradient, grid, FLIPS, samples)
    zeroed = expected_gradient(gradient, FLIPS, samples)
    assert oracle.same_bits(of_x, oracle.x_gradient(x, zeroed, grid))
    check_sums(of_scale, x, zeroed, grid)


def test_faults_are_there():
    x, gradient, grid, samples = case((2, 3, 20, 30), (1, 3, 1, 1), 1)
    assert 5 < (quantize(x, grid, FLIPS, samples) != oracle.quantized(x, grid)).sum() < 100
    assert 5 < (expected_gradient(gradient, FLIPS, samples) != gradient).sum() < 100


PROGRAMS = {
    "by what is stored": [Bit(7, tuple((0.01, 2**21, 2**22 - 5) for _ in range(BITS)))],
    "clusters": [Cluster(7, "word", (2**20, 2**21, 2**22 - 9), [0.005] * BITS)],
    "other codes": [Random(7, 0.01)],
    "two": [symmetric(7, [0.002] * BITS), Random(8, 0.004)],
}


@pytest.mark.parametrize("lanes", [32, 1])
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name, lanes, monkeypatch):
    """By the way of few hits, and by that of many."""
    monkeypatch.setitem(launch.STRIKE, "LANES", lanes)
    x, _, grid, samples = case((2, 700), (1, 1), 4)
    faults = program(PROGRAMS[name])
    found = quantize(x, grid, faults, samples)
    assert oracle.same_bits(found, expected_values(x, grid, faults, samples))
    assert (found != oracle.quantized(x, grid)).any()


def test_what_is_no_number_stays():
    x = np.full((1, 1024), np.nan, np.float32)
    x[0, ::2] = np.inf
    grid = one(scale=np.inf, axes=2)  # infinity by infinity, too
    found = quantize(x, grid, program([symmetric(7, [0.05] * BITS)]), [3])
    assert np.isnan(found).all()


def test_rectified_values():
    x, gradient, grid, samples = case((2, 700), (1, 1), 6)
    made, lie = there(grid, rectifies=True), lie_of(x.shape, (1, 1))
    drawn, given = operands(FLIPS, made, samples), on_device(torch.from_numpy(x), torch.from_numpy(gradient))
    found = launch_quantize.quantize_struck(given[0], made, drawn)
    assert oracle.same_bits(found.cpu().numpy(), expected_values(np.maximum(x, 0), grid, FLIPS, samples))
    of_x, _ = launch_quantize.differentiate_struck(*given, made, lie, drawn, (True, False))
    zeroed = np.where(x > 0, expected_gradient(gradient, FLIPS, samples), np.float32(0))
    assert np.array_equal(of_x.cpu().numpy(), oracle.x_gradient(np.maximum(x, 0), zeroed, grid))


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_only_what_is_asked_for(wanted):
    x, gradient, grid, samples = case((2, 3, 100), (1, 3, 1), 2)
    found, both = (differentiate(x, gradient, grid, FLIPS, samples, w) for w in (wanted, (True, True)))
    for one_, other, wants in zip(found, both, wanted, strict=True):
        assert (one_ is not None) == wants
        assert one_ is None or np.array_equal(one_, other)


def test_nothing():
    made = there(one(axes=2))
    x, drawn = torch.zeros(0, 4), operands(FLIPS, made, [1])
    assert launch_quantize.quantize_struck(on_device(x), made, drawn).shape == (0, 4)
    of_x, of_scale = launch_quantize.differentiate_struck(
        *on_device(x, x), made, lie_of(x.shape, (1, 1)), drawn, (True, True)
    )
    assert of_x.shape == (0, 4)
    assert of_scale.tolist() == [[0.0]]


def test_operands_that_do_not_fit():
    made = there(one(axes=2))
    with pytest.raises(PlanError, match="3 sample numbers for a tensor of shape"):
        launch_quantize.quantize_struck(on_device(torch.zeros(2, 4)), made, operands(FLIPS, made, [1, 2, 3]))


COMPILE = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from hwfault.stream.cuda import launch, quantize_struck

FLOATS = ("x", "out", "gradient", "x_gradient", "scale", "zero_point", "least", "most")
kinds = {name: "*fp32" for name in FLOATS} | {"sums": "*fp64"}
kinds |= {name: "*i64" for name in ("samples", "seed", "program")}
WAYS = [
    (quantize_struck.differentiate_struck_kernel, {"PASSES": on, "RECTIFIES": on, "WANTS_SCALE": on})
    for on in (True, False)
]
WAYS.append((quantize_struck.quantize_struck_kernel, {"RECTIFIES": True}))
for kernel, known in WAYS[:MANY]:
    names = kernel.arg_names
    known = {**known, "NUMBER": tl.float32, "LANES": launch.STRIKE["LANES"], "WIDE": launch.STRIKE["WIDE"]}
    signature = {name: "constexpr" if name in known else kinds.get(name, "i32") for name in names}
    constants = {(names.index(name),): value for name, value in known.items()}
    options = {"num_warps": 1, "num_stages": 1, "enable_fp_fusion": False}
    source = ASTSource(kernel, signature, constants, {})
    ptx = triton.compile(source, target=GPUTarget("cuda", DEVICE, 32), options=options).asm["ptx"]
    print("good" if "div.rn.f32" in ptx and "fma.rn" not in ptx else (kernel.__name__, known))
"""


@pytest.mark.parametrize(("device", "many"), [(80, 1), slow(80, 3), slow(90, 3)])
def test_the_kernels_compile(device, many):
    """Triton's compiler needs no GPU; divisions are correctly rounded, and nothing is fused."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    code = COMPILE.replace("DEVICE", str(device)).replace("MANY", str(many))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["good"] * many
