"""Sites of the stream struck where their samples lie, against tensors whose samples are brought in front."""

import copy
from itertools import permutations

import pytest
import torch

from hwfault.errors import HwfaultError, PlanError
from hwfault.program.batch_axes import BatchAxis
from hwfault.stream.mechanism import StreamOperands
from hwfault.stream.native import ParsedSite, calls, fail, strides
from hwfault.stream.tables import encode_table
from hwfault.torch_ops.arranged import arrange, restore
from hwfault.torch_ops.on_cpu import WRITERS, Left
from hwfault.torch_ops.on_site import StreamSite, run_of

TABLE = encode_table(0.2)
PROGRAM = [2, 9, len(TABLE) + 1, 5, *TABLE]
"""Kind, site, length; the mask, and how often a word is hit."""
AXES = [
    (None, (6, 5, 4)),
    (BatchAxis(axis=1), (5, 6, 4)),
    (BatchAxis(axis=2), (5, 4, 6)),
    (BatchAxis(rows=4, inner=4), (24, 5)),
    (BatchAxis(rows=4, inner=2), (24, 5)),
    (BatchAxis(rows=4), (24, 5)),
    (BatchAxis(axis=1, rows=3, inner=3), (4, 18, 5)),
]


def values(shape, dtype=torch.float32):
    return (torch.randint(-8, 8, shape, generator=torch.Generator().manual_seed(1)) * 0.5).to(dtype)


def operands(samples=6, scale=0.5, zero_point=0.0, dtype=torch.float32):
    grid = torch.tensor(scale, dtype=dtype), torch.tensor(zero_point, dtype=dtype)
    rest = (torch.arange(samples) + 3, torch.tensor(-5), torch.tensor(PROGRAM))
    return StreamOperands(*rest, *grid, bit_width=4, signed=1, representation=0)


def site(axis=None):
    return StreamSite(ParsedSite(PROGRAM, 4, True), axis)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("axis", "shape"), AXES)
def test_samples_are_struck_where_they_lie(axis, shape, in_place):
    x, o = values(shape), operands()
    front = x if axis is None else arrange(x, axis)
    expected = torch.empty_like(front)
    WRITERS["stream"].strike(front, expected, o, None, None)
    changed = expected != front
    if axis is not None:
        expected, changed = restore(expected, x, axis), restore(changed, x, axis)
    here, out = site(axis), x.clone() if in_place else torch.empty_like(x)
    here.strike(out if in_place else x, out, o, None)
    assert torch.equal(out, expected)
    assert changed.any()
    gradient = torch.ones(shape)
    zeroed = gradient if in_place else torch.empty_like(gradient)
    here.zero(gradient, zeroed, None, o)
    assert torch.equal(zeroed == 0, changed)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize(("axis", "shape"), AXES)
def test_words_are_numbered_in_c_order_however_they_lie(axis, shape, in_place):
    """Every order of the axes in memory."""
    o, here, x = operands(), site(axis), values(shape)
    expected = torch.empty_like(x)
    here.strike(x, expected, o, None)
    for order in permutations(range(len(shape))):
        lying = (
            x.permute(order)
            .clone(memory_format=torch.contiguous_format)
            .permute([order.index(axis) for axis in range(len(shape))])
        )
        out = lying if in_place else torch.empty_like(lying)
        assert out.stride() == lying.stride()
        here.strike(lying, out, o, None)
        assert torch.equal(out, expected)
        assert in_place or torch.equal(lying, x)


def test_a_scale_for_each_channel_of_channels_that_lie_last():
    x, expected = values((6, 5, 8)), torch.empty(6, 5, 8)
    o = operands()._replace(scale=torch.tensor([0.5, 0.25, 1.0, 2.0, 0.5]).reshape(5, 1))
    site().strike(x, expected, o, None)
    out = x.transpose(1, 2).contiguous().transpose(1, 2)
    site().strike(out, out, o, None)
    assert torch.equal(out, expected)
    assert not torch.equal(out, x)


@pytest.mark.parametrize(
    ("lengths", "steps", "match"),
    [
        ((6, 5, 4), (20, 4, 2), "axis 2 of a tensor has 4 indices 2 values apart"),
        ((6, 5, 4), (-1, 1, 1), "axis 0 of a tensor has 6 indices -1 values apart"),
        ((6, 5, 0), (20, 4, 1), "axis 2 of a tensor has 0 indices"),
        ((6, 5), (20, 4), "30 indices for 120 values"),
    ],
)
def test_strides_that_lead_elsewhere_are_refused(lengths, steps, match):
    x, o = values((6, 5, 4)), operands()
    here, grid = site(), (o.scale.data_ptr(), o.zero_point.data_ptr())
    shape = here._shape(x, o.samples, o.scale, o.zero_point)
    given = here.parsed.address, shape, strides(lengths, steps), x.data_ptr(), x.data_ptr(), *grid, 5
    found = calls().strike_strided(*given, o.samples.data_ptr(), 1, None)
    assert found < 0
    with pytest.raises(HwfaultError, match=match):
        fail()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("of_scale", [torch.float32, torch.float64, torch.bfloat16, torch.int64])
def test_scales_of_another_type(dtype, of_scale):
    x, out, expected = values((6, 40), dtype), torch.empty(6, 40, dtype=dtype), torch.empty(6, 40, dtype=dtype)
    o = operands(scale=1, zero_point=0, dtype=of_scale)
    site().strike(x, out, o, None)
    WRITERS["stream"].strike(x, expected, o, None, None)
    assert torch.equal(out, expected)
    assert not torch.equal(out, x)


def test_a_scale_for_each_channel():
    x, out, expected = values((6, 5, 8)), torch.empty(6, 5, 8), torch.empty(6, 5, 8)
    o = operands()._replace(scale=torch.tensor([0.5, 0.25, 1.0, 2.0, 0.5]).reshape(5, 1))
    site().strike(x, out, o, None)
    WRITERS["stream"].strike(x, expected, o, None, None)
    assert torch.equal(out, expected)


def test_shapes_and_seeds_may_change_from_call_to_call():
    here = site()
    for words, seed in ((40, 1), (30, 1), (40, -7), (40, 2)):
        x, o = values((6, words)), operands()._replace(seed=torch.tensor(seed))
        out, expected = torch.empty_like(x), torch.empty_like(x)
        here.strike(x, out, o, None)
        WRITERS["stream"].strike(x, expected, o, None, None)
        assert torch.equal(out, expected)


def test_many_shapes_are_not_kept_for_ever():
    here, o = site(), operands()
    for words in range(1, 150):
        x = values((6, words))
        here.strike(x, x, o, None)
    assert len(here._shapes) <= 64


def test_words_that_hold_no_number_are_counted_and_left():
    x, left = torch.full((6, 40), torch.nan), Left(0)
    site().strike(x, x, operands(), left)
    assert left.value > 0
    assert x.isnan().all()


@pytest.mark.parametrize(("axis", "shape"), [(None, (5, 4)), (BatchAxis(axis=1), (4, 5))])
def test_a_number_for_each_sample(axis, shape):
    with pytest.raises(PlanError, match="6 sample numbers"):
        site(axis).strike(values(shape), torch.empty(shape), operands(), None)


def test_a_copy_strikes_as_the_first():
    here = site(BatchAxis(axis=1))
    x, out, again = values((5, 6)), torch.empty(5, 6), torch.empty(5, 6)
    here.strike(x, out, operands(), None)
    copy.deepcopy(here).strike(x, again, operands(), None)
    assert torch.equal(out, again)


@pytest.mark.parametrize(
    ("axis", "shape", "run"),
    [
        (BatchAxis(), (6, 5), 0),
        (BatchAxis(axis=1), (5, 6, 4), 4),
        (BatchAxis(axis=1), (1, 6, 4), 0),
        (BatchAxis(rows=4, inner=4), (24, 5), 0),
        (BatchAxis(rows=4, inner=2), (24, 5), 10),
    ],
)
def test_how_many_words_of_a_sample_lie_together(axis, shape, run):
    assert run_of(axis, shape, 6) == run
