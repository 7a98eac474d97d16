"""The Triton kernels of the fake quantizer against NumPy: any layout, strange values, what is asked for."""

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

from hwfault.stream.cuda import launch_quantize
from hwfault.stream.cuda.launch_quantize import Grid
from hwfault.torch_ops.quantize import lie_of
from tests.helpers.stream import quantize_oracle as oracle
from tests.helpers.stream.triton_calls import on_device
from tests.slowly import slow
from tests.stream.test_quantize import LAYOUTS, STRANGE, check_sums, grids, one


def grid_there(grid):
    """A grid of the oracle on the kernels' device, with a zero point for each scale."""
    scale, zero = (torch.from_numpy(np.ascontiguousarray(a)) for a in (grid.scale, grid.zero_point))
    ends = (torch.tensor(end, dtype=torch.float32) for end in (grid.least, grid.most))
    return Grid(*on_device(scale, zero.expand(scale.shape).contiguous(), *ends), grid.passes)


def quantize(x, grid):
    return launch_quantize.quantize(on_device(torch.from_numpy(x)), grid_there(grid), lie_of(x.shape, grid.scale.shape))


def differentiate(x, gradient, grid, wanted=(True, True)):
    given = on_device(torch.from_numpy(x), torch.from_numpy(gradient))
    return launch_quantize.differentiate(*given, grid_there(grid), lie_of(x.shape, grid.scale.shape), wanted)


def same(found, expected):
    """The same bits, but for those of NaN, which differ from device to device."""
    found = found.cpu().numpy()
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    numbers = ~np.isnan(expected)
    return oracle.same_bits(found[numbers], expected[numbers])


# under the interpreter a program for each row takes its time
@pytest.mark.parametrize(
    ("shape", "scale_shape"), [(shape, scale) for shape, scale in LAYOUTS if not {300, 4500} & {*shape}]
)
@settings(max_examples=3)
@given(st.integers(0, 2**32), st.booleans())
def test_any_layout_equals_numpy(shape, scale_shape, seed, several_zero_points):
    rng = np.random.default_rng(seed)
    grid = grids(rng, scale_shape, several_zero_points)
    x = (rng.normal(size=shape) * rng.choice([0.1, 1, 10])).astype(np.float32)
    gradient = rng.normal(size=shape).astype(np.float32)
    assert same(quantize(x, grid), oracle.quantized(x, grid))
    of_x, of_scale = differentiate(x, gradient, grid)
    assert same(of_x, oracle.x_gradient(x, gradient, grid))
    assert of_scale.dtype == torch.float64
    check_sums(of_scale.cpu().numpy(), x, gradient, grid)


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("scale_shape", [(1, 1), (5, 1), (1, 600)])
def test_only_what_is_asked_for(wanted, scale_shape):
    rng = np.random.default_rng(1)
    grid = grids(rng, scale_shape, False)
    x, gradient = (rng.normal(size=(5, 600)).astype(np.float32) for _ in range(2))
    found, both = differentiate(x, gradient, grid, wanted), differentiate(x, gradient, grid)
    for one_, other, wants in zip(found, both, wanted, strict=True):
        assert (one_ is not None) == wants
        assert one_ is None or torch.equal(one_, other)


@pytest.mark.parametrize(
    "grid", [one(), one(passes=True), one(least=0, most=15), one(scale=-0.5), one(scale=np.inf), one(scale=0.0)]
)
def test_what_is_infinite_or_no_number(grid):
    x = np.concatenate([STRANGE, STRANGE[::-1]])
    with np.errstate(all="ignore"):
        assert same(quantize(x, grid), oracle.quantized(x, grid))
        for value in (1.0, np.inf, np.nan, -0.0):
            gradient = np.full_like(x, value)
            assert same(differentiate(x, gradient, grid)[0], oracle.x_gradient(x, gradient, grid))


@pytest.mark.parametrize(("x", "through"), [(np.inf, -np.inf), (-np.inf, np.inf), (np.nan, np.nan)])
def test_the_scale_has_no_number_for_a_gradient_where_a_value_is_not_finite(x, through):
    values = np.array([x, 0.3], np.float32)
    with np.errstate(all="ignore"):
        assert differentiate(values, np.ones_like(values), one())[1].isnan().all()
        found = differentiate(values, np.ones_like(values), one(passes=True))[1]
    assert np.array_equal(found.cpu().numpy(), [through], equal_nan=True)


def test_ties_and_zeros():
    x = np.arange(-40, 41).astype(np.float32) / 4
    for grid in (one(scale=1.0), one(scale=-1.0), one(scale=1.0, zero_point=3.0)):
        assert same(quantize(x, grid), oracle.quantized(x, grid))


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton

from hwfault.stream.cuda import quantize

FLOATS = ("x", "out", "gradient", "x_gradient", "scale", "zero_point", "least", "most")
WAYS = [
    (quantize.quantize_kernel, {"ONE": one, "RECTIFIES": one}) for one in (True, False)
] + [
    (kernel, {"PASSES": passes, "WANTS_X": wants_x, "WANTS_SCALE": wants_scale, "RECTIFIES": wants_x})
    for kernel in (quantize.rows_kernel, quantize.columns_kernel)
    for passes, wants_x, wants_scale in ((True, True, True), (False, True, False), (False, False, True))
]
for kernel, known in WAYS:
    names = kernel.arg_names
    known = {**known, "BLOCK": 1024, **({"PIECE": 4096} if "PIECE" in names else {})}
    kinds = {name: "*fp32" for name in FLOATS} | {"sums": "*fp64", "n": "i64"}
    signature = {name: "constexpr" if name in known else kinds.get(name, "i32") for name in names}
    constants = {(names.index(name),): value for name, value in known.items()}
    options = {"num_warps": 4, "enable_fp_fusion": False}
    source = ASTSource(kernel, signature, constants, {})
    ptx = triton.compile(source, target=GPUTarget("cuda", DEVICE, 32), options=options).asm["ptx"]
    print("good" if "div.rn.f32" in ptx and "fma.rn" not in ptx else (kernel.__name__, known))
"""


@pytest.mark.parametrize("device", [80, slow(90)])
def test_the_kernels_compile(device):
    """Triton's compiler needs no GPU; divisions are correctly rounded, and nothing is fused."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    code = COMPILE.replace("DEVICE", str(device))
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split() == ["good"] * 8
