"""The torch op that lays a fault map over values: against a NumPy oracle, and its gradients."""

import itertools

import numpy as np
import pytest
import torch

from hwfault.codes import CodeFormat, decode, encode
from hwfault.errors import HwfaultError
from hwfault.graph.run.strike import strike_codes
from hwfault.program.processes import MapProcess, MapStep
from hwfault.stream.check import signed64
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.torch_ops.strike_op import strike, zero
from tests.helpers.injection.oracle import same_bits
from tests.helpers.torch_ops.operators import fault_map, rows, rows_zero
from tests.injection.test_maps import HALF, rows_of
from tests.injection.test_memory import kept
from tests.slowly import thinned
from tests.torch_ops.test_ops import DTYPES, on_grid

KINDS = {
    "flips": (Kind.FLIP,),
    "stuck": (Kind.STUCK_AT_0, Kind.STUCK_AT_1),
    "mixed": tuple(Kind),
}


def arguments(
    kinds="mixed", *, x=None, threshold=2**32, straight_through=False, dtype=torch.float32, seed=9, share=0.2
):
    x = on_grid(dtype=dtype) if x is None else x
    rows = rows_of(KINDS[kinds], words=x.numel() // max(len(x), 1), share=share)
    masks = torch.from_numpy(np.stack([rows.and_mask, rows.xor_mask]).view(np.int32))
    draw = (torch.arange(len(x)) + 3, torch.tensor(signed64(seed)), torch.from_numpy(rows.word.copy()), masks)
    scale, zero_point = torch.tensor(0.25, dtype=dtype), torch.tensor(0.0, dtype=dtype)
    reads = kinds != "flips"
    return x, *draw, scale, zero_point, 4, True, 0, threshold, 17, straight_through, reads


def gradient_arguments(args, gradient):
    """The arguments of zero_map for those of fault_map."""
    x, *rest = args
    return gradient, x if args[-1] else None, *rest[:-2]


def expected(args):
    """The values by NumPy, in the arithmetic of x's type, one rounding at the end; and which words changed."""
    x, period, seed, word, masks, scale, zero_point, bits, signed, _, threshold, site, *_ = args
    words, wide = x.numel() // max(len(x), 1), np.float64 if x.dtype == torch.float64 else np.float32
    rows = FaultMap(bits, words, word.numpy(), *masks.numpy().view(np.uint32))
    process = MapProcess(fault=0, map=rows, threshold=threshold, site_number=site)
    values, *on = (t.detach().double().numpy().astype(wide) for t in (x, scale, zero_point))
    fmt = CodeFormat(bits, signed)
    codes = encode(values, *on, fmt).reshape(len(x), -1)
    after = strike_codes(MapStep(process), codes, int(seed) % 2**64, period.numpy(), True)
    changed = torch.from_numpy(after != codes).reshape(x.shape)
    faulty = torch.from_numpy(decode(after, *on, fmt, wide)).reshape(x.shape).to(x.dtype)
    return torch.where(changed, faulty, x), changed


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("kinds", "dtype", "threshold"), thinned(itertools.product(KINDS, DTYPES, (HALF, 2**32)), 3), ids=str
)
def test_opcheck(kinds, dtype, threshold):
    for straight_through in (False, True):
        args = arguments(kinds, dtype=dtype, threshold=threshold, straight_through=straight_through)
        torch.library.opcheck(strike, rows(args[0].requires_grad_(), *args[1:]))
    args = arguments(kinds, dtype=dtype, threshold=threshold)
    gradient = torch.randn(args[0].shape).to(dtype).requires_grad_()
    torch.library.opcheck(zero, rows_zero(*gradient_arguments(args, gradient)))


def test_opcheck_of_odd_shapes():
    for shape in ((4,), (1, 1), (0, 3), (2, 1, 3, 1)):
        torch.library.opcheck(strike, rows(*arguments(x=on_grid(shape).requires_grad_())))
    torch.library.opcheck(strike, rows(*arguments(x=on_grid((4, 6, 5)).transpose(1, 2).requires_grad_())))
    torch.library.opcheck(strike, rows(*arguments(share=0.0)))


@pytest.mark.parametrize("threshold", [0, HALF, 2**32])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kinds", KINDS)
def test_values(kinds, dtype, threshold):
    args = arguments(kinds, dtype=dtype, threshold=threshold)
    out, (wanted, changed) = fault_map(*args), expected(args)
    assert out.dtype == dtype
    assert same_bits(out, wanted)
    assert changed.any() == (threshold > 0)


@pytest.mark.parametrize("seed", [0, 2**63, 2**64 - 1])
def test_seeds_of_64_bits(seed):
    args = arguments(threshold=HALF, seed=seed)
    assert same_bits(fault_map(*args), expected(args)[0])
    assert not torch.equal(fault_map(*args), fault_map(*arguments(threshold=HALF, seed=5)))


@pytest.mark.parametrize("threshold", [HALF, 2**32])
@pytest.mark.parametrize("kinds", KINDS)
def test_gradients_are_zero_at_changed_words_alone(kinds, threshold):
    args = arguments(kinds, threshold=threshold, x=on_grid().requires_grad_())
    gradient = torch.randn(args[0].shape)
    gradient[0, 0, :5] = torch.tensor([torch.nan, torch.inf, -0.0, 1.0, 2.0])
    fault_map(*args).backward(gradient)
    changed = expected(args)[1]
    assert same_bits(args[0].grad, torch.where(changed, torch.zeros(()), gradient))
    assert 0 < changed.sum() < changed.numel()


def test_gradients_straight_through():
    args = arguments(x=on_grid().requires_grad_(), straight_through=True)
    gradient = torch.randn(args[0].shape)
    fault_map(*args).backward(gradient)
    assert same_bits(args[0].grad, gradient)


def test_gradients_of_gradients():
    args = arguments("stuck", x=on_grid().requires_grad_())
    gradient = torch.randn(args[0].shape, requires_grad=True)
    (first,) = torch.autograd.grad(fault_map(*args), args[0], gradient, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), gradient)
    assert same_bits(second, torch.where(expected(args)[1], 0.0, 1.0))


def test_flips_keep_no_values_for_the_backward_pass():
    args = arguments("flips", x=on_grid((8, 500)).requires_grad_())
    packed, _ = kept(lambda: fault_map(*args))
    assert {t.data_ptr() for t in packed} <= own_tensors(args)


def own_tensors(args):
    """Where the operands lie."""
    return {t.data_ptr() for t in rows(*args)[1]}


@pytest.mark.parametrize("kinds", ["stuck", "mixed"])
def test_stuck_cells_keep_a_reference_to_the_input(kinds):
    args = arguments(kinds, x=on_grid((8, 500)).requires_grad_())
    packed, out = kept(lambda: fault_map(*args))
    own = own_tensors(args)
    assert [t.data_ptr() for t in packed if t.data_ptr() not in own] == [args[0].data_ptr()]
    assert out.data_ptr() != args[0].data_ptr()


def test_straight_through_keeps_nothing():
    packed, _ = kept(lambda: fault_map(*arguments(x=on_grid().requires_grad_(), straight_through=True)))
    assert packed == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({0: torch.zeros(3, 5, 40).int()}, "values of type torch.int32"),
        ({1: torch.arange(2)}, "2 sample numbers for a tensor of shape"),
        ({5: torch.ones(7)}, "a scale of shape"),
        ({6: torch.ones(7)}, "a zero point of shape"),
        ({3: torch.tensor([200]), 4: torch.zeros(2, 1).int()}, "word 200 of a tensor of 200 words"),
        ({3: torch.tensor([2, 1]), 4: torch.zeros(2, 2).int()}, "ascending"),
        ({3: torch.tensor([2]), 4: torch.full((2, 1), 16).int()}, "beyond the bit width"),
        ({10: -1}, "threshold is -1"),
    ],
)
def test_arguments_that_do_not_fit(change, words):
    args = list(arguments())
    for place, value in change.items():
        args[place] = value
    with pytest.raises(HwfaultError, match=words):
        fault_map(*args)
