"""The operators of protected memories: PyTorch's checks of them, every dtype, gradients, and what does not fit."""

import itertools

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from hwfault.codes import REPRESENTATIONS, CodeFormat, decode, encode
from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.stream.protection import KINDS, Layout, MapRows, Memory, protect_codes
from hwfault.stream.tables import ALWAYS
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.oracle import same_bits
from tests.helpers.torch_ops.operators import memory, memory_zero, protected, zero_protected
from tests.slowly import thinned
from tests.torch_ops.test_ops import on_grid

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
SOURCES = ("transient", "directed", "map", "intermittent", "both", "table")
SITE, ACTIVITY = 77, 99
TENSORS = {"x": 0, "samples": 1, "period": 2, "seed": 3, "program": 4, "word": 5, "masks": 6, "number": 7, "cells": 8}
BITS, WORDS = 4, 200


def memory_of(kind="secded", data_bits=16, slot=4, due=False):
    return Memory(kind, data_bits, slot, due)


def program_of(source, memory):
    rates = {"transient": (0.02, 0.02), "directed": (0.0, 0.05), "both": (0.01, 0.01)}
    return memory.program(SITE, *rates[source]) if source in rates else ()


def map_of(source, memory):
    if source not in ("map", "intermittent", "both", "table"):
        return MapRows([], [], [])
    word = np.arange(0, memory.words(WORDS) * memory.sub_words, 2)
    cells = word % memory.sub_word_bits
    stuck = word % 3 == 0
    masks = np.where(stuck, ~(1 << cells), -1) & 0xFFFFFFFF, np.where(stuck, 0, 3 << np.minimum(cells, 11))
    return MapRows(word, *masks, 2**31 if source == "intermittent" else ALWAYS, ACTIVITY)


def layout_of(source, memory):
    if source != "table":
        return Layout(np.empty(0), np.empty((0, memory.data_bits)))
    cells = np.arange(WORDS * 32).reshape(-1, 32)[:, :BITS].ravel()
    cells = np.random.default_rng(0).permutation(cells)[: 30 * memory.data_bits].reshape(30, -1)
    return Layout(np.arange(30) // 2 * 2, cells)


def arguments(
    source="transient",
    *,
    memory=None,
    x=None,
    dtype=torch.float32,
    straight_through=False,
    representation=0,
    seed=9,
    scale=0.25,
):
    memory = memory or memory_of()
    x = on_grid((3, 5, 40), dtype=dtype) if x is None else x
    rows, layout = map_of(source, memory), layout_of(source, memory)
    samples = torch.arange(x.shape[0]) + 3
    masks = torch.from_numpy(np.stack([rows.and_mask, rows.xor_mask]).view(np.int32))
    drawn = (samples, samples + 4, torch.tensor(seed), torch.tensor(program_of(source, memory), dtype=torch.int64))
    kept = (torch.from_numpy(rows.word), masks, torch.from_numpy(layout.number), torch.from_numpy(layout.cells))
    grid = (torch.as_tensor(scale, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    numbers = (BITS, True, representation, memory.kind, memory.data_bits, memory.slot, memory.due)
    return x, *drawn, *kept, *grid, *numbers, rows.threshold, rows.site, straight_through


def expected(args, source, memory):
    """The values and the counts by the reference, in the arithmetic of x's type."""
    x, samples, period, seed, program = args[:5]
    fmt = CodeFormat(BITS, True, REPRESENTATIONS[args[13]])
    wide = np.float64 if x.dtype == torch.float64 else np.float32
    values, *grid = (t.detach().to(torch.float64).numpy().astype(wide) for t in (x, args[9], args[10]))
    codes, total = encode(values, *grid, fmt), np.zeros(3, np.int64)
    given = {"bit_width": BITS, "program": program.tolist(), "seed": int(seed) % 2**64, "rows": map_of(source, memory)}
    given["layout"] = layout_of(source, memory) if source == "table" else None
    struck = []
    for row, sample, when in zip(codes.reshape(len(samples), -1), samples, period, strict=True):
        after, counts = protect_codes(row, memory, sample=int(sample), period=int(when), **given)
        struck.append(after)
        total += counts
    struck = np.stack(struck).reshape(codes.shape)
    faulty = torch.from_numpy(decode(struck, *grid, fmt, wide)).to(x.dtype)
    return torch.where(torch.from_numpy(struck == codes), x, faulty), total, torch.from_numpy(struck != codes)


@pytest.mark.every(7)
@pytest.mark.parametrize(
    ("source", "dtype", "straight_through"), thinned(itertools.product(SOURCES, DTYPES, (False, True)), 3), ids=str
)
def test_opcheck_of_protected(source, dtype, straight_through):
    x = on_grid((3, 5, 40), dtype=dtype).requires_grad_()
    torch.library.opcheck(strike, memory(*arguments(source, x=x, dtype=dtype, straight_through=straight_through)))


@pytest.mark.every(5)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_opcheck_of_zero_protected(source, dtype):
    *args, _ = arguments(source, dtype=dtype)
    gradient = torch.randn(args[0].shape).to(dtype).requires_grad_()
    torch.library.opcheck(zero, memory_zero(gradient, *args))


def test_opcheck_of_odd_shapes():
    for shape in ((4,), (1, 1), (0, 3), (2, 0), (2, 1, 3, 1)):
        torch.library.opcheck(strike, memory(*arguments(x=on_grid(shape).requires_grad_())))
    strided = on_grid((4, 6, 5)).transpose(1, 2).requires_grad_()
    torch.library.opcheck(strike, memory(*arguments("directed", x=strided)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_counts(kind, source, dtype):
    for due in (False, True):
        memory = memory_of(kind, due=due)
        args = arguments(source, memory=memory, dtype=dtype)
        out, counts = protected(*args)
        values, total, _ = expected(args, source, memory)
        assert same_bits(out, values)
        assert counts.tolist() == total.tolist()
        assert counts.sum() > 0


@pytest.mark.parametrize("representation", range(3))
def test_representations(representation):
    memory = memory_of("parity", 64, due=True)
    args = arguments(memory=memory, representation=representation)
    out, _ = protected(*args)
    assert same_bits(out, expected(args, "transient", memory)[0])
    assert not torch.equal(out, args[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_is_one_sample(kind):
    memory = memory_of(kind, 64, 5)
    args = list(arguments("transient", memory=memory, scale=torch.full((3, 1, 1), 0.25)))
    args[1], args[2] = torch.tensor([0]), torch.tensor([0])
    out, counts = protected(*args)
    values, total, changed = expected(args, "transient", memory)
    assert same_bits(out, values)
    assert counts.tolist() == total.tolist()
    assert changed.any() or kind == "tmr"


def test_a_batch_is_its_samples_one_by_one():
    args = list(arguments("intermittent", x=on_grid((64, 5, 40))))
    together, counts = protected(*args)
    total = torch.zeros(3, dtype=torch.int64)
    for i in range(64):
        one = [args[0][i : i + 1], args[1][i : i + 1], args[2][i : i + 1], *args[3:]]
        out, more = protected(*one)
        assert same_bits(out[0], together[i])
        total += more
    assert torch.equal(total, counts)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", ["parity", "secded"])
def test_gradients(kind, source, dtype):
    memory = memory_of(kind)
    args = arguments(source, memory=memory, dtype=dtype)
    upstream = torch.randn(args[0].shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    changed = expected(args, source, memory)[2]
    assert changed.any()
    assert same_bits(gradient_of(args, upstream), upstream.masked_fill(changed, 0))
    through = arguments(source, memory=memory, dtype=dtype, straight_through=True)
    assert same_bits(gradient_of(through, upstream), upstream)


def gradient_of(args, upstream):
    x = args[0].detach().requires_grad_()
    out, counts = protected(x, *args[1:])
    assert not counts.requires_grad
    return torch.autograd.grad(out, x, upstream)[0]


@pytest.mark.parametrize("straight_through", [False, True])
def test_the_second_derivative(straight_through):
    args = arguments("both", straight_through=straight_through)
    x = args[0].detach().requires_grad_()
    out, _ = protected(x, *args[1:])
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(out, x, upstream, create_graph=True)
    again = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (second,) = torch.autograd.grad(gradient, upstream, again)
    changed = expected(args, "both", memory_of())[2]
    assert same_bits(second, again if straight_through else again.masked_fill(changed, 0))


def test_zero_protected_is_linear_and_differentiable():
    *args, _ = arguments(dtype=torch.float64, x=on_grid((2, 20), dtype=torch.float64))
    gradient = torch.randn(2, 20, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda g: zero_protected(g, *args), gradient)
    assert gradgradcheck(lambda g: zero_protected(g, *args), gradient)


def test_nothing_but_x_is_kept_and_x_only_where_it_is_needed():
    x = on_grid((3, 5, 40)).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        protected(*arguments(x=x * 1, straight_through=True))
        assert not kept
        base = x * 1
        protected(*arguments(x=base))
    assert any(t.data_ptr() == base.data_ptr() for t in kept)
    assert sum(t.numel() == base.numel() for t in kept) == 1


def test_changing_the_input_afterwards_is_noticed():
    base = on_grid((3, 5, 40)).requires_grad_() * 1
    out, _ = protected(*arguments(x=base))
    with torch.no_grad():
        base.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_threads_do_not_matter():
    args = arguments("transient", x=on_grid((8, 5000)))
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 3):
            torch.set_num_threads(n)
            found.append((*protected(*args), gradient_of(args, torch.ones_like(args[0]))))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_strided_inputs():
    args = arguments("both", x=on_grid((40, 5, 3)).permute(2, 1, 0))
    same = arguments("both", x=on_grid((40, 5, 3)).permute(2, 1, 0).contiguous())
    assert same_bits(protected(*args)[0], protected(*same)[0])
    strided = list(args)
    strided[2] = torch.tensor(7).expand(3)
    kept = list(same)
    kept[2] = torch.tensor([7, 7, 7])
    assert same_bits(protected(*strided)[0], protected(*kept)[0])


def test_meta_tensors():
    args = [t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments()]
    out, counts = protected(*args)
    assert out.is_meta
    assert out.shape == args[0].shape
    assert counts.shape == (3,)


@pytest.mark.parametrize(
    ("which", "value", "text"),
    [
        ("x", torch.zeros((3, 5, 40), dtype=torch.int32), "values of type torch.int32"),
        ("samples", torch.arange(4), "sample numbers for a tensor of shape"),
        ("samples", torch.arange(3, dtype=torch.int32), "samples of type torch.int32 .* expected torch.int64"),
        ("period", torch.arange(4), r"periods of shape \(4,\) .* expected \(3,\)"),
        ("period", torch.zeros(3), "period of type torch.float32"),
        ("program", torch.zeros(3), "program of type torch.float32"),
        ("word", torch.zeros(3, dtype=torch.int32), "word of type torch.int32"),
        ("word", torch.arange(3), r"and_mask of shape .* expected \(3,\)"),
        ("masks", torch.zeros((2, 2), dtype=torch.int64), "and_mask of type torch.int64"),
        ("masks", torch.zeros((2, 27), dtype=torch.int32), r"and_mask of shape \(27,\)"),
        ("masks", (torch.zeros(25).int(), torch.zeros(27).int()), r"xor_mask of shape \(27,\)"),
        ("number", torch.arange(2), r"cells of shape \(0, 16\) .* expected \(2, 16\)"),
        ("cells", torch.zeros((1, 3), dtype=torch.int64), r"cells of shape \(1, 3\) .* expected \(0, 16\)"),
        ("cells", torch.zeros((1, 3)), "cells of type torch.float32"),
    ],
)
def test_tensors_that_do_not_fit(which, value, text):
    args = list(arguments("map"))
    args[TENSORS[which]] = value
    with pytest.raises(PlanError, match=text):
        protected(*args)


@pytest.mark.parametrize(
    ("at", "value", "error", "text"),
    [
        (11, 0, HwfaultError, "bit_width is 0"),
        (13, 3, HwfaultError, "representation is 3"),
        (14, "none", ModelError, "unknown protection 9"),
        (15, 0, ModelError, "data_bits is 0"),
        (15, 65, ModelError, "data_bits is 65"),
        (16, 3, HwfaultError, "slot is 3, expected 4 to 64"),
        (18, 2**32 + 1, HwfaultError, "threshold is 4294967297"),
    ],
)
def test_numbers_that_do_not_fit(at, value, error, text):
    args = list(arguments("map"))
    args[at] = value
    with pytest.raises(error, match=text):
        protected(*args)


@pytest.mark.parametrize("word", [[2, 1], [0, 0], [-1, 2], [0, 50]])
def test_rows_that_do_not_fit(word):
    args = list(arguments("transient"))
    args[5], args[6] = torch.tensor(word), torch.full((2, 2), 1, dtype=torch.int32)
    with pytest.raises(HwfaultError, match=r"strictly ascending|names word"):
        protected(*args)


@pytest.mark.parametrize("program", [[7], [0, 1, 2], [0, 0, 2**62], [3, 1, -4]])
def test_programs_that_are_none(program):
    args = list(arguments())
    args[4] = torch.tensor(program)
    with pytest.raises(HwfaultError, match="fault program"):
        protected(*args)


def test_a_gradient_of_another_shape_or_type():
    *args, _ = arguments()
    for gradient in (torch.zeros(3, 5, 41), torch.zeros(args[0].shape, dtype=torch.float64)):
        with pytest.raises(PlanError, match="a gradient"):
            zero_protected(gradient, *args)
