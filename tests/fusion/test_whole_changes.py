"""What is changed about a whole quantizer while it is fused: the next forward is what Brevitas makes of it."""

import copy

import pytest
import torch
from brevitas.core.function_wrapper import Identity
from brevitas.core.zero_point import ZeroZeroPoint
from brevitas.quant import (
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from torch import nn
from torch.nn.utils import parametrize

import hwfault as hf
from hwfault.fusion.whole import WholeQuantizer
from hwfault.train.networks.quantizers import SameGrid
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


def width(layer):
    return parts_of(layer).msb_clamp_bit_width_impl.bit_width


def set_width(layer, value):
    width(layer).value = torch.tensor(value)


def write_width(layer):
    width(layer).value.fill_(3.0)


def write_scale(layer):
    parts_of(layer).scaling_impl.value.data.fill_(1.3)


def reshape_scale(layer):
    parts_of(layer).scaling_impl.value.data = torch.linspace(0.5, 1, 6).reshape(1, 6)


def replace_scale(layer):
    parts_of(layer).scaling_impl.value = nn.Parameter(torch.tensor(0.7))


def scale_as_buffer(layer):
    scaling = parts_of(layer).scaling_impl
    value = scaling.value.detach() * 0.5
    del scaling.value
    scaling.register_buffer("value", value)


class Half(nn.Module):
    def forward(self, value):
        return value / 2


def parametrize_scale(layer):
    parametrize.register_parametrization(parts_of(layer).scaling_impl, "value", Half())


def raise_limit(layer):
    parts_of(layer).scaling_impl.restrict_clamp_scaling.clamp_ste.min_val = 3.0


def set_part(name, **attributes):
    def change(layer):
        for attribute, value in attributes.items():
            setattr(parts_of(layer).get_submodule(name), attribute, value)

    return change


def narrow(layer):
    set_part("int_quant", narrow_range=True)(layer)


def narrow_range_of_scale(layer):
    set_part("int_scaling_impl", narrow_range=True)(layer)


def unsigned(layer):
    set_part("int_quant", signed=False)(layer)


def unsigned_range_of_scale(layer):
    set_part("int_scaling_impl", signed=False)(layer)


def unsigned_proxy(layer):
    proxy_of(layer).is_signed = False


def another_zero_point(layer):
    parts_of(layer).zero_point_impl = Shifted()


def write_zero_point(layer):
    parts_of(layer).zero_point_impl.zero_point.value.fill_(2.0)


class Shifted(nn.Module):
    def forward(self, x, scale, bit_width):
        return torch.tensor(1.0)


class Fixed(nn.Module):
    def forward(self, x, threshold=None):
        return torch.tensor(0.2)


def another_scaling(layer):
    parts_of(layer).scaling_impl = Fixed()


def only_observe(layer):
    parts_of(layer).observer_only = True


def switch_off(layer):
    proxy_of(layer).disable_quant = True


def values_alone(layer):
    proxy_of(layer).skip_create_quant_tensor = True


def evaluate(layer):
    layer.eval()


def evaluate_scaling_alone(layer):
    parts_of(layer).scaling_impl.eval()


def rebuild(layer):
    proxy_of(layer).init_tensor_quant()


def reload(layer):
    state = {name: value * 1.5 for name, value in layer.state_dict().items()}
    layer.load_state_dict(state)


def to_double(layer):
    layer.double()


def there_and_back(layer):
    layer.double().float()


def replace_proxy_parts(layer):
    proxy_of(layer).fused_activation_quant_proxy = copy.deepcopy(act(CONSTANT).act_quant.fused_activation_quant_proxy)


def rectify(layer):
    proxy_of(layer).fused_activation_quant_proxy.activation_impl = nn.ReLU()


def rectify_otherwise(layer):
    proxy_of(layer).fused_activation_quant_proxy.activation_impl = nn.ReLU6()


def write_weights(layer):
    layer.weight.data.mul_(3)


def replace_weights(layer):
    layer.weight = nn.Parameter(torch.randn(5, 6))


def parametrize_weights(layer):
    parametrize.register_parametrization(layer, "weight", Half())


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


class TestSharedScales:
    """The leader's parts are not below the follower's proxy."""

    def made(self):
        leader = act()
        return leader, SameGrid(leader, 4)

    @pytest.mark.parametrize(
        "change",
        [
            *(write_width, narrow_range_of_scale, unsigned_range_of_scale, another_scaling, switch_off, evaluate),
            *(rebuild, reload, write_scale, reshape_scale, replace_scale, scale_as_buffer, parametrize_scale),
        ],
        ids=lambda c: c.__name__,
    )
    def test_the_leader_changes(self, change):
        leader, follower = self.made()
        with hf.fused(nn.Sequential(leader, follower)):
            assert same(quantize(follower, X), by_brevitas(follower, X))
            assert proxy_why(follower) is None
            change(leader)
            if change is rebuild:
                write_scale(leader)
            for _ in range(2):
                assert same(quantize(follower, X), by_brevitas(follower, X))

    def test_the_parts_of_the_leader_are_replaced(self):
        for name in ("scaling_impl", "msb_clamp_bit_width_impl", "int_scaling_impl"):
            leader, follower = self.made()
            with hf.fused(nn.Sequential(leader, follower)):
                quantize(follower, X)
                other = copy.deepcopy(parts_of(leader).get_submodule(name))
                setattr(parts_of(leader), name, other)
                {"scaling_impl": write_scale, "msb_clamp_bit_width_impl": write_width}.get(name, narrow_range_of_scale)(
                    leader
                )
                assert same(quantize(follower, X), by_brevitas(follower, X))

    def test_a_hook_on_a_part_of_the_leader(self):
        for name in ("scaling_impl", "scaling_impl.restrict_clamp_scaling", "msb_clamp_bit_width_impl"):
            leader, follower = self.made()
            seen = []
            with hf.fused(nn.Sequential(leader, follower)):
                quantize(follower, X)
                parts_of(leader).get_submodule(name).register_forward_hook(lambda *_, seen=seen: seen.append(1))
                quantize(follower, X)
            assert seen == [1]

    def test_the_follower_follows_another(self):
        leader, follower = self.made()
        other = act(max_val=1.0, min_val=-1.0)
        with hf.fused(nn.Sequential(leader, follower, other)):
            quantize(follower, X)
            parts_of(follower).scaling_impl._leader = (other,)
            assert same(quantize(follower, X), by_brevitas(follower, X))

    def test_a_leader_that_learns_from_statistics(self):
        leader = act(Uint8ActPerTensorFloat.let(collect_stats_steps=2))
        follower, plain = SameGrid(leader, 4), copy.deepcopy(leader)
        twin = SameGrid(plain, 4)
        with hf.fused(nn.Sequential(leader, follower)):
            for _ in range(5):
                assert same(leader(X), plain(X))
                assert same(quantize(follower, X), quantize(twin, X))
        assert ZeroZeroPoint is type(parts_of(follower).zero_point_impl)


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
