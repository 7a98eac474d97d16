"""What is changed about a whole quantizer while it is fused: the next forward is what Brevitas makes of it."""

import copy
import pickle

import pytest
import torch
from brevitas.core.function_wrapper import Identity
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)
from torch import nn

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from tests.helpers.fusion.changes import (
    another_scaling,
    another_zero_point,
    evaluate,
    evaluate_scaling_alone,
    narrow,
    narrow_range_of_scale,
    only_observe,
    parametrize_scale,
    parametrize_weights,
    raise_limit,
    rebuild,
    rectify,
    rectify_otherwise,
    reload,
    replace_proxy_parts,
    replace_scale,
    replace_weights,
    reshape_scale,
    scale_as_buffer,
    switch_off,
    there_and_back,
    unsigned,
    unsigned_proxy,
    unsigned_range_of_scale,
    values_alone,
    width,
    write_scale,
    write_weights,
    write_width,
    write_zero_point,
)
from tests.helpers.fusion.variants import searched
from tests.helpers.fusion.whole import (
    CONSTANT,
    LEARNED,
    X,
    act,
    by_brevitas,
    linear,
    parts_of,
    proxy_of,
    quantize,
    same,
    ways,
)

PERCENTILE = Int8WeightPerTensorFloat.let(scaling_stats_op="percentile", high_percentile_q=90.0)
RANGE = LEARNED.let(scaling_min_val=0.1)


BOTH = (
    *(write_width, narrow, narrow_range_of_scale, unsigned, unsigned_range_of_scale, unsigned_proxy),
    *(another_zero_point, write_zero_point, another_scaling, only_observe, switch_off, values_alone, evaluate),
    *(rebuild, reload, there_and_back),
)
OF_SCALES = (write_scale, reshape_scale, replace_scale, scale_as_buffer, parametrize_scale)
OF_ACTIVATIONS = (replace_proxy_parts, rectify, rectify_otherwise, evaluate_scaling_alone)
OF_WEIGHTS = (write_weights, replace_weights, parametrize_weights)


def check(layer, change, x):
    with hf.fused(layer) as block:
        assert same(quantize(layer, x), by_brevitas(layer, x))
        assert block.left == {}
        assert proxy_why(layer) is None
        change(layer)
        for _ in range(2):
            assert same(quantize(layer, x), by_brevitas(layer, x))
        if change is evaluate:
            layer.train()
            assert same(quantize(layer, x), by_brevitas(layer, x))
    assert WholeQuantizer.of(proxy_of(layer)) is None


def proxy_why(layer):
    return WholeQuantizer.of(proxy_of(layer)).why


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("change", [*BOTH, *OF_SCALES, *OF_ACTIVATIONS], ids=lambda c: c.__name__)
def test_activations(change, grad):
    with torch.set_grad_enabled(grad):
        check(act(), change, X)


@pytest.mark.parametrize("change", [*BOTH, *OF_WEIGHTS], ids=lambda c: c.__name__)
@pytest.mark.parametrize("quantizer", [Int8WeightPerTensorFloat, Int8WeightPerChannelFloat, PERCENTILE])
def test_weights(quantizer, change):
    check(linear(quantizer), change, None)


def test_another_type_of_numbers():
    for layer, x in ((act(), X), (linear(), None)):
        with hf.fused(layer) as block:
            quantize(layer, x)
            layer.double()
            x = None if x is None else x.double()
            assert same(quantize(layer, x), by_brevitas(layer, x))
            assert "torch.float64" in proxy_why(layer)
            layer.float()
            x = None if x is None else x.float()
            assert same(quantize(layer, x), by_brevitas(layer, x))
            assert block.left == {}
            assert proxy_why(layer) is None


@pytest.mark.parametrize("bits", [torch.tensor([[2.0], [3.0], [4.0], [5.0], [6.0]]), torch.tensor([4.0])])
@pytest.mark.parametrize("before", [True, False])
def test_a_bit_width_of_another_shape(bits, before):
    layer = linear(Int8WeightPerChannelFloat)
    if before:
        width(layer).value = bits
    with hf.fused(layer) as block:
        quantize(layer) if before else width(layer).__setattr__("value", bits)
        assert same(quantize(layer), by_brevitas(layer))
        assert "bit width" in block.left["weight_quant"]


def test_limits():
    check(act(RANGE), raise_limit, X)
    constant = act(CONSTANT.let(scaling_min_val=0.1))
    check(constant, raise_limit, X)


def test_scales_that_move_are_read_each_time(monkeypatch):
    layer = act()
    with hf.fused(layer), ways(monkeypatch) as ran:
        scales = []
        for step in range(4):
            scales.append(float(quantize(layer, X).scale.detach()))
            with torch.no_grad():
                parts_of(layer).scaling_impl.value.sub_(0.25 * step)
    assert ran == ["rule"] * 4
    assert len(set(scales)) == 3


def test_a_scale_that_takes_the_shape_of_channels_where_these_do_not_lie_behind_one_another():
    layer = act()
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    with hf.fused(layer):
        assert same(quantize(layer, x), by_brevitas(layer, x))
        parts_of(layer).scaling_impl.value.data = torch.rand(1, 3, 1, 1) + 0.5
        for _ in range(2):
            assert same(quantize(layer, x), by_brevitas(layer, x))


def test_what_is_read_of_a_known_part_is_what_this_part_does():
    layer = act(LEARNED)
    restrict = parts_of(layer).scaling_impl.restrict_clamp_scaling.restrict_value_impl
    parts_of(layer).scaling_impl.value.data.neg_()
    with hf.fused(layer):
        assert same(quantize(layer, X), by_brevitas(layer, X))
        restrict.apply_abs = Identity()
        assert same(quantize(layer, X), by_brevitas(layer, X))


def test_hooks_that_are_attached_while_a_quantizer_runs():
    for quantizer, where in ((PERCENTILE, "scaling_impl"), (ShiftedUint8WeightPerTensorFloat, "zero_point_impl")):
        layer, seen = linear(quantizer), []
        step = parts_of(layer).int_quant.float_to_int_impl

        def attach(*_, step=step, seen=seen):
            step.register_forward_hook(lambda *_: seen.append(1))

        parts_of(layer).get_submodule(where).register_forward_hook(attach)
        with hf.fused(layer):
            quantize(layer)
        assert seen


def test_hooks_of_all_modules_come_and_go():
    layer = act()
    with hf.fused(layer):
        seen = []
        handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
        quantize(layer, X)
        handle.remove()
        assert parts_of(layer).scaling_impl in seen
        assert "hooks are attached to all modules" in WholeQuantizer.of(proxy_of(layer))._why_left
        quantize(layer, X)
        assert proxy_why(layer) is None


@pytest.mark.parametrize("inside", [True, False])
def test_another_forward_of_the_proxy(inside):
    layer = act()
    own = lambda x: "own"  # noqa: E731
    if not inside:
        proxy_of(layer).forward = own
    with hf.fused(layer):
        if inside:
            proxy_of(layer).forward = own
        assert proxy_of(layer)(X) == "own"
    assert vars(proxy_of(layer)).get("forward") is own


def test_values_of_other_rows_than_the_weights():
    layer = linear(Int8WeightPerChannelFloat)
    with hf.fused(layer):
        for x in (torch.randn(2, 5, 6), torch.randn(2, 6)):
            with pytest.raises(RuntimeError, match=r"shape .* is invalid"):
                quantize(layer, x)
        x = torch.randn(5, 5, 6)
        assert same(quantize(layer, x), by_brevitas(layer, x))
    layer = linear(Int8WeightPerTensorFloat)
    with hf.fused(layer):
        for x in (layer.weight[:2], layer.weight[:, ::2], torch.randn(3, 4, 5), torch.tensor(0.3)):
            assert same(quantize(layer, x), by_brevitas(layer, x))
        with pytest.raises(RuntimeError, match="max"):
            quantize(layer, torch.zeros(0, 6))


def test_parts_that_are_built_meanwhile_and_run_their_proxy_can_be_copied_with_it():
    layer = searched().layer
    expected = quantize(searched().layer).scale
    with hf.fused(layer):
        rebuild(layer)  # its search for a scale has taken the forward of the proxy
        assert torch.equal(quantize(layer).scale, expected)
        inside = copy.deepcopy(layer)
    for other in (inside, copy.deepcopy(layer), layer):
        assert not isinstance(vars(proxy_of(other)).get("forward"), WholeQuantizer)
        assert torch.equal(quantize(other).scale, expected)
    stats = parts_of(inside).scaling_impl.parameter_list_stats.stats.stats_impl
    assert stats.proxy_forward == proxy_of(inside).forward


def test_copies_have_no_stand_in():
    layer = act()
    with hf.fused(layer):
        pickled = pickle.dumps(proxy_of(layer).fused_activation_quant_proxy)
        for other in (copy.deepcopy(proxy_of(layer)), pickle.loads(pickled)):  # noqa: S301  # written here
            assert "forward" not in vars(other)
        assert WholeQuantizer.of(proxy_of(layer))


def test_an_axis_of_largest_magnitudes_that_is_set_by_hand():
    layer = linear(Int8WeightPerChannelFloat)
    with hf.fused(layer):
        quantize(layer)
        assert proxy_why(layer) is None
        statistic = parts_of(layer).scaling_impl.parameter_list_stats.stats.stats_impl
        statistic.stats_reduce_dim = None
        for run in (quantize, by_brevitas):
            with pytest.raises(RuntimeError, match="shape"):
                run(layer)
        statistic.stats_reduce_dim = 1
        assert same(quantize(layer), by_brevitas(layer))
        assert proxy_why(layer) is None
