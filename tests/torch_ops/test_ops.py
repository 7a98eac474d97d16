"""The two torch operators on their own: PyTorch's checks of them, every dtype, every process, gradients."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import HwfaultError, PlanError
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.stream.check import signed64
from hwfault.stream.reference import inject_codes
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.oracle import FAULTS, same_bits
from tests.helpers.torch_ops import operators
from tests.slowly import thinned

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
PROGRAMS = {name: faults for name, faults in FAULTS.items() if name != "several"}
NO_STORED = [name for name in PROGRAMS if name not in ("asymmetric", "stuck")]


def site(bits=4, signed=True):
    return Site(name="x", kind="activation", bit_width=bits, signed=signed)


def program_of(faults, bits=4, signed=True):
    plan = resolve([site(bits, signed)], faults)
    return torch.tensor(plan.program("x")), plan.at("x").reads_stored(plan.tables)


def on_grid(shape=(3, 5, 40), bits=4, signed=True, dtype=torch.float32, seed=0):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    generator = torch.Generator().manual_seed(seed)
    return (torch.randint(low, high + 1, shape, generator=generator) * 0.25).to(dtype)


def arguments(name="bits", *, x=None, straight_through=False, seed=9, scale=0.25, zero_point=0.0, dtype=torch.float32):
    program, reads_stored = program_of(PROGRAMS[name])
    x = on_grid(dtype=dtype) if x is None else x
    samples = torch.arange(x.shape[0])
    scale, zero_point = (torch.as_tensor(t, dtype=dtype) for t in (scale, zero_point))
    return x, samples, torch.tensor(seed), program, scale, zero_point, 4, True, straight_through, reads_stored


def changed(x, out):
    return x != out


@pytest.mark.every(11)
@pytest.mark.parametrize(
    ("name", "dtype", "straight_through"), thinned(itertools.product(PROGRAMS, DTYPES, (False, True)), 3), ids=str
)
def test_opcheck_of_inject(name, dtype, straight_through):
    x = on_grid(dtype=dtype).requires_grad_()
    torch.library.opcheck(
        strike, operators.stream(*arguments(name, x=x, straight_through=straight_through, dtype=dtype))
    )


@pytest.mark.every(11)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_opcheck_of_zero_faulty(name, dtype):
    x, *draw, bits, signed, _, reads_stored = arguments(name, dtype=dtype)
    gradient = torch.randn(x.shape).to(dtype).requires_grad_()
    torch.library.opcheck(zero, operators.stream_zero(gradient, x if reads_stored else None, *draw, bits, signed))


def test_opcheck_of_odd_shapes():
    for shape in ((4,), (1, 1), (0, 3), (2, 0), (2, 1, 3, 1)):
        torch.library.opcheck(strike, operators.stream(*arguments(x=on_grid(shape).requires_grad_())))
    strided = on_grid((4, 6, 5)).transpose(1, 2).requires_grad_()
    torch.library.opcheck(strike, operators.stream(*arguments("asymmetric", x=strided)))


def expected(x, samples, seed, program, scale, zero_point, bits, signed):
    """The values by the reference, in the arithmetic of `x`'s type, one rounding at the end; no numbers stay."""
    fmt = CodeFormat(bits, signed)
    wide = np.float64 if x.dtype == torch.float64 else np.float32
    values, *grid = (t.detach().to(torch.float64).numpy().astype(wide) for t in (x, scale, zero_point))
    codes = encode(values, *grid, fmt)
    rows = codes.reshape(len(samples), -1)
    struck = np.stack(
        [
            inject_codes(row, program=program.tolist(), seed=int(seed) % 2**64, sample=int(n), bit_width=bits)
            for row, n in zip(rows, samples, strict=True)
        ]
    ).reshape(codes.shape)
    faulty = torch.from_numpy(decode(struck, *grid, fmt, wide)).to(x.dtype)
    return torch.where(torch.from_numpy(struck == codes) | ~x.isfinite(), x, faulty)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_values(name, dtype):
    args = arguments(name, dtype=dtype)
    out = operators.inject(*args)
    assert out.dtype == dtype
    assert same_bits(out, expected(*args[:8]))
    assert changed(args[0], out).any()


@pytest.mark.parametrize("scale_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_scales_of_another_type_than_the_values(dtype, scale_dtype):
    x, samples, seed, program, scale, zero_point, *rest = arguments(dtype=dtype)
    args = x, samples, seed, program, scale.to(scale_dtype), zero_point.to(scale_dtype), *rest
    assert same_bits(operators.inject(*args), operators.inject(*arguments(dtype=dtype)))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1), (5, 1), (1, 5, 1), (40,), (1, 1, 40)])
@pytest.mark.parametrize("which", ["scale", "zero_point"])
def test_scales_and_zero_points_for_the_tensor_or_a_channel(shape, which):
    values = (
        torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.1
        if which == "scale"
        else (torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(1)).float())
    )
    integers = on_grid() * 4
    scale, zero_point = (values, torch.tensor(0.0)) if which == "scale" else (torch.tensor(0.25), values)
    x = (integers - zero_point) * scale
    args = arguments("asymmetric", x=x, scale=scale, zero_point=zero_point)
    assert same_bits(operators.inject(*args), expected(*args[:8]))


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 5, 1), (4,), (1, 4, 1), (5, 40), (1, 1, 1, 1), (2, 1, 1, 1)])
@pytest.mark.parametrize("which", [4, 5])
def test_scales_that_do_not_fit(shape, which):
    args = list(arguments())
    args[which] = torch.ones(shape)
    with pytest.raises(PlanError, match=r"a (scale|zero point) of shape .* expected one for the tensor or one for"):
        operators.inject(*args)


def test_weights_may_have_a_scale_for_each_of_axis_0():
    x, _, *rest = arguments("bits", scale=torch.rand(3, 1, 1) + 0.5)
    args = (x, torch.zeros(1, dtype=torch.int64), *rest)
    assert same_bits(operators.inject(*args), expected(*args[:8]))


def test_the_bits_of_a_seed():
    for seed in (0, 2**32, 2**63, 2**64 - 1):
        args = arguments(seed=signed64(seed))
        assert same_bits(operators.inject(*args), expected(*args[:8]))


def test_strides_do_not_matter():
    x = on_grid((3, 5, 40))
    out = operators.inject(*arguments("asymmetric", x=x))
    for strided in (x.transpose(0, 2).contiguous().transpose(0, 2), x.repeat_interleave(2, 2)[..., ::2]):
        assert not strided.is_contiguous()
        found = operators.inject(*arguments("asymmetric", x=strided))
        assert found.is_contiguous()
        assert same_bits(found, out)
    x, samples, *rest = arguments()
    assert same_bits(operators.inject(x, samples.repeat_interleave(2)[::2], *rest), operators.inject(x, samples, *rest))


def test_the_input_is_not_written_and_the_output_is_another():
    x = on_grid()
    before = x.clone()
    out = operators.inject(*arguments(x=x))
    assert same_bits(x, before)
    assert out.data_ptr() != x.data_ptr()


def test_values_that_are_no_numbers_stay():
    x = on_grid((2, 600))
    x[:, ::7], x[:, 1::7], x[:, 2::7], x[:, 3::7] = float("nan"), float("inf"), -0.0, 0.3
    args = arguments("bits", x=x)
    out = operators.inject(*args)
    assert same_bits(out, expected(*args[:8]))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_types_that_are_not_floating(dtype):
    x, *rest = arguments()
    with pytest.raises(PlanError, match=rf"values of type {dtype}, expected one of torch\.float32"):
        operators.inject(x.to(dtype), *rest)


@pytest.mark.parametrize("samples", [[], [0, 1], [0, 1, 2, 3, 4, 5, 6]])
def test_another_number_of_samples(samples):
    x, _, *rest = arguments()
    with pytest.raises(PlanError, match=r"sample numbers for a tensor of shape \(3, 5, 40\)"):
        operators.inject(x, torch.tensor(samples, dtype=torch.int64), *rest)


@pytest.mark.parametrize("program", [[7], [0, 1, 2], [2, 5, 3, 1, 1], [3, 1, -4], [0, 0, 2**62]])
def test_programs_that_are_none(program):
    x, samples, seed, _, *rest = arguments()
    with pytest.raises(HwfaultError):
        operators.inject(x, samples, seed, torch.tensor(program), *rest)


@pytest.mark.parametrize("bits", [0, 33, -1])
def test_widths_that_are_none(bits):
    args = list(arguments())
    args[6] = bits
    with pytest.raises(HwfaultError):
        operators.inject(*args)


def test_an_empty_program_and_an_empty_tensor():
    x, samples, seed, _, *rest = arguments()
    assert same_bits(operators.inject(x, samples, seed, torch.zeros(0, dtype=torch.int64), *rest), x)
    for shape in ((0, 4), (3, 0), (0,)):
        assert operators.inject(*arguments(x=torch.zeros(shape))).shape == shape


def gradient_of(args, upstream):
    x = args[0].detach().requires_grad_()
    out = operators.inject(x, *args[1:])
    (gradient,) = torch.autograd.grad(out, x, upstream)
    return out.detach(), gradient


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients(name, dtype):
    args = arguments(name, dtype=dtype)
    upstream = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    out, gradient = gradient_of(args, upstream)
    struck = changed(args[0], out)
    assert struck.any()
    assert same_bits(gradient, upstream.masked_fill(struck, 0))
    _, through = gradient_of(arguments(name, dtype=dtype, straight_through=True), upstream)
    assert same_bits(through, upstream)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["bits", "asymmetric"])
def test_gradients_that_are_no_numbers(name, dtype):
    args = arguments(name, dtype=dtype)
    for bad in ("nan", "inf", "-inf"):
        upstream = torch.full(args[0].shape, float(bad), dtype=dtype)
        out, gradient = gradient_of(args, upstream)
        struck = changed(args[0], out)
        assert same_bits(gradient[struck], torch.zeros_like(gradient[struck]))
        assert same_bits(gradient[~struck], upstream[~struck])


def test_a_word_that_two_processes_bring_back_keeps_its_gradient():
    """Zero gradient is for words whose code changed: two flips of one bit change nothing."""
    from hwfault.laws.models import BitFlips, WordFaults

    faults = [WordFaults(probability=1.0, effect="lsb"), BitFlips(probability=[0.5, 0, 0, 0])]
    program, reads_stored = program_of(faults)
    x, samples, seed, _, scale, zero_point, *rest = arguments()
    args = (x, samples, seed, program, scale, zero_point, *rest[:-1], reads_stored)
    upstream = torch.ones_like(x)
    out, gradient = gradient_of(args, upstream)
    struck = changed(x, out)
    assert 0 < struck.sum() < struck.numel()
    assert torch.equal(gradient == 0, struck)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("name", ["bits", "asymmetric", "random"])
def test_the_second_derivative(name, straight_through):
    args = arguments(name, straight_through=straight_through)
    x = args[0].detach().requires_grad_()
    out = operators.inject(x, *args[1:])
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(out, x, upstream, create_graph=True)
    again = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (second,) = torch.autograd.grad(gradient, upstream, again)
    struck = changed(args[0], out)
    assert same_bits(second, again if straight_through else again.masked_fill(struck, 0))


def test_a_gradient_penalty():
    args = arguments("asymmetric")
    found = []
    for inject in (lambda x: operators.inject(x, *args[1:]), None):
        x = args[0].detach().requires_grad_()
        if inject is None:
            struck = changed(args[0], operators.inject(*args))
            faulty = torch.where(struck, operators.inject(*args), x)
        else:
            faulty = inject(x)
        (gradient,) = torch.autograd.grad(faulty.pow(3).sum(), x, create_graph=True)
        (penalty,) = torch.autograd.grad(gradient.square().sum(), x)
        found.append(penalty)
    assert torch.allclose(*found)


@pytest.mark.parametrize("name", ["bits", "clusters", "random"])
def test_zero_faulty_is_linear_and_differentiable(name):
    _, *draw, bits, signed, _, _ = arguments(name, dtype=torch.float64)
    gradient = torch.randn(2, 20, dtype=torch.float64).requires_grad_()
    draw[0] = torch.arange(2)

    def zero(g):
        return operators.zero_faulty(g, None, *draw, bits, signed)

    assert gradcheck(zero, gradient)
    assert gradgradcheck(zero, gradient)


def test_accumulated_gradients():
    args = arguments("asymmetric")
    x = args[0].detach().requires_grad_()
    seeds = (torch.tensor(1), torch.tensor(2), torch.tensor(3))
    total = torch.zeros_like(args[0])
    for seed in seeds:
        out = operators.inject(x, args[1], seed, *args[3:])
        out.backward(torch.ones_like(out))
        total += (~changed(args[0], out)).float()
    assert torch.equal(x.grad, total)


def test_strided_gradients():
    args = arguments("asymmetric")
    upstream = torch.randn(40, 5, 3).permute(2, 1, 0)
    out, gradient = gradient_of(args, upstream)
    assert torch.equal(gradient, upstream.masked_fill(changed(args[0], out), 0))
    _, gradient = gradient_of(args, torch.tensor(1.0).expand(args[0].shape))
    assert torch.equal(gradient == 0, changed(args[0], out))


def test_only_x_has_a_gradient():
    args = list(arguments())
    args[4].requires_grad_()
    args[5].requires_grad_()
    x = args[0].requires_grad_()
    out = operators.inject(*args)
    found = torch.autograd.grad(out.sum(), [x, args[4], args[5]], allow_unused=True)
    assert found[1] is None
    assert found[2] is None


def test_changing_the_input_afterwards_is_noticed_where_it_matters():
    x = on_grid().requires_grad_()
    base = x * 1
    out = operators.inject(*arguments("asymmetric", x=base))
    with torch.no_grad():
        base.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    base = x * 1
    out = operators.inject(*arguments("bits", x=base))
    with torch.no_grad():
        base.add_(1)
    out.sum().backward()  # nothing of it was kept


def test_gradients_from_another_thread_and_many_threads():
    args = arguments("asymmetric", x=on_grid((8, 5000)))
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            found.append(gradient_of(args, torch.ones_like(args[0])))
    finally:
        torch.set_num_threads(threads)
    assert all(same_bits(one, other) for one, other in zip(*found, strict=True))


def test_meta_and_fake_tensors():
    args = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments()]
    out = operators.inject(*args)
    assert out.is_meta
    assert out.shape == args[0].shape
