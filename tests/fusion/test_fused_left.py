"""What stays Brevitas' own, for each reason, and that it computes what Brevitas does."""

import contextlib

import pytest
import torch
from brevitas import nn as qnn
from brevitas import quant
from brevitas.core.function_wrapper import (
    CeilSte,
    DPURoundSte,
    FloorSte,
    InplaceTensorClampSte,
    RoundSte,
    RoundToZeroSte,
    TensorClamp,
    TensorClampSte,
)
from brevitas.core.quant.delay import DelayWrapper, _DelayQuant, _NoDelay
from brevitas.core.quant.int_base import IntQuant
from brevitas.inject.enum import BitWidthImplType, FloatToIntImplType, LearnedRoundImplType
from brevitas.quant import Int8WeightPerTensorFloat
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPWeightPerTensorFloat
from torch import nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode

import hwfault as hf
from hwfault.fusion.parts import int_quant
from hwfault.network.hooks import StandIn
from tests.helpers.injection.oracle import same_bits

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))


def linear(**options):
    torch.manual_seed(0)
    return qnn.QuantLinear(6, 5, bias=False, weight_bit_width=4, **options)


def identity(**options):
    return qnn.QuantIdentity(bit_width=4, **options)


def left(model, x=X):
    """Why the only quantizer of a network is left, before it runs and after; the outputs must be Brevitas'."""
    model.eval()
    model(x)
    expected = value(model(x))
    with hf.fused(model) as block:
        before = dict(block.left)
        assert same_bits(value(model(x)), expected)
        assert len(block.left) == len(before) or not before
        return (*before.values(), *block.left.values())[-1:]


def value(out):
    return getattr(out, "value", out)


def step(model):
    """The IntQuant of a layer."""
    return int_quant(model.weight_quant)


def replaced(name, part):
    """A layer with another part in its quantizer."""
    model = linear()
    owner, _, last = name.rpartition(".")
    setattr(step(model).get_submodule(owner), last, part)
    return model


def subclass(kind):
    return type(f"Own{kind.__name__}", (kind,), {})


@pytest.mark.parametrize(
    ("name", "part", "why"),
    [
        ("float_to_int_impl", FloorSte(), "its rounding is a FloorSte, expected RoundSte"),
        ("float_to_int_impl", CeilSte(), "its rounding is a CeilSte"),
        ("float_to_int_impl", RoundToZeroSte(), "its rounding is a RoundToZeroSte"),
        ("float_to_int_impl", DPURoundSte(), "its rounding is a DPURoundSte"),
        ("float_to_int_impl", subclass(RoundSte)(), "its rounding is a OwnRoundSte"),
        (
            "tensor_clamp_impl",
            InplaceTensorClampSte(),
            "a InplaceTensorClampSte, expected TensorClamp or TensorClampSte",
        ),
        ("tensor_clamp_impl", subclass(TensorClamp)(), "its clamp is a OwnTensorClamp"),
        ("tensor_clamp_impl", subclass(TensorClampSte)(), "its clamp is a OwnTensorClampSte"),
        ("delay_wrapper.delay_impl", _DelayQuant(0), "its delay is a _DelayQuant, expected _NoDelay"),
        ("delay_wrapper.delay_impl", subclass(_NoDelay)(), "its delay is a Own_NoDelay"),
        ("delay_wrapper", subclass(DelayWrapper)(0), "its delay is a OwnDelayWrapper"),
    ],
)
def test_a_part_of_another_type(name, part, why):
    assert why in left(replaced(name, part))[0]


def test_a_delay():
    model = linear(weight_quant=Int8WeightPerTensorFloat.let(quant_delay_steps=2))
    with hf.fused(model) as block:
        assert torch.equal(model(X), nn.functional.linear(X, model.weight))
        assert block.left == {"weight_quant": "its delay is a _DelayQuant, expected _NoDelay"}


@pytest.mark.parametrize(
    ("quantizer", "why"),
    [
        (quant.Int4WeightPerTensorFloatDecoupled, "it is a DecoupledRescalingIntQuant, expected an integer quantizer"),
        (quant.SignedBinaryWeightPerTensorConst, "it is a ClampedBinaryQuant, expected"),
        (quant.SignedTernaryWeightPerTensorConst, "its clamp is a InplaceTensorClampSte"),
        (quant.Int8WeightPerTensorFloat.let(float_to_int_impl_type=FloatToIntImplType.FLOOR), "a FloorSte"),
    ],
)
def test_other_quantizers(quantizer, why):
    torch.manual_seed(0)
    assert why in left(qnn.QuantLinear(6, 5, bias=False, weight_quant=quantizer))[0]


def test_a_learned_rounding():
    rounding = {"float_to_int_impl_type": FloatToIntImplType.LEARNED_ROUND}
    rounding["learned_round_impl_type"] = LearnedRoundImplType.HARD_SIGMOID
    rounding["learned_round_init"] = torch.zeros(5, 6)
    model = linear(weight_quant=Int8WeightPerTensorFloat.let(**rounding))
    assert "its rounding is a LearnedRoundSte" in left(model)[0]


def test_small_floats():
    model = qnn.QuantLinear(6, 5, bias=False, weight_quant=Fp8e4m3OCPWeightPerTensorFloat)
    assert "it is a FloatQuant, expected" in left(model)[0]


def test_a_subclass_of_the_whole():
    class Own(IntQuant):
        def forward(self, *args):
            return 2 * super().forward(*args)

    model = linear()
    step(model).__class__ = Own
    assert left(model) == ("its integers come from a Own, expected an IntQuant",)


HOOKS = {
    "forward": lambda m, seen: m.register_forward_hook(lambda *_: seen.append(1)),
    "forward_pre": lambda m, seen: m.register_forward_pre_hook(lambda *_: seen.append(1)),
    "full_backward": lambda m, seen: m.register_full_backward_hook(lambda *_: seen.append(1)),
    "full_backward_pre": lambda m, seen: m.register_full_backward_pre_hook(lambda *_: seen.append(1)),
}
PARTS = ("float_to_int_impl", "tensor_clamp_impl", "delay_wrapper", "delay_wrapper.delay_impl", "input_view_impl")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_on_a_part(kind, name, inside):
    model, seen = linear(), []
    part = step(model).get_submodule(name)
    if not inside:
        handle = HOOKS[kind](part, seen)
    with hf.fused(model) as block:
        if inside:
            handle = HOOKS[kind](part, seen)
        model(X).sum().backward()
        assert seen
        assert block.left == {"weight_quant": f"a hook is attached to its part {name!r}, which would not run"}
        if not inside:
            return
        handle.remove()
        seen.clear()
        model(X).sum().backward()
        assert not seen
        assert block.left == {}


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("name", PARTS)
def test_another_forward_of_a_part(name, inside):
    model = linear()
    part = step(model).get_submodule(name)
    plain = part.forward

    def other(*args, **kwargs):
        return plain(*args, **kwargs) * 1.5

    if not inside:
        part.forward = other
    with hf.fused(model) as block:
        if inside:
            part.forward = other
        out = model(X)
        assert block.left == {"weight_quant": f"another forward stands in for that of its part {name!r}"}
    assert torch.equal(model(X), out)


@pytest.mark.parametrize("name", PARTS[:-1])
def test_a_part_that_is_replaced_inside_of_the_block(name):
    other = {
        "float_to_int_impl": FloorSte(),
        "tensor_clamp_impl": InplaceTensorClampSte(),
        "delay_wrapper": DelayWrapper(2),
    }
    model = linear()
    with hf.fused(model) as block:
        model(X)
        owner, _, last = name.rpartition(".")
        setattr(step(model).get_submodule(owner), last, other.get(name, _DelayQuant(2)))
        out = model(X)
        assert "expected" in block.left["weight_quant"]
    if name in other and not name.startswith("delay"):
        assert torch.equal(model(X), out)


def test_a_known_part_that_is_replaced_inside_of_the_block():
    model = linear()
    with hf.fused(model) as block:
        model(X)
        step(model).tensor_clamp_impl = TensorClampSte()
        with torch.no_grad():
            model.weight.mul_(torch.where(torch.arange(6) > 3, 100, 1))
        found = _scaled_gradients(model)
        assert block.left == {}
    expected = _scaled_gradients(model)
    for one, own in zip(expected, found, strict=True):
        assert torch.equal(one, own)


def _scaled_gradients(model):
    """The values of a step at a small scale, at which most are clamped, and their gradient."""
    x = torch.linspace(-3, 3, 50, requires_grad=True)
    out = step(model)(torch.tensor(0.1), torch.tensor(0.0), torch.tensor(4.0), x)
    return out.detach(), *torch.autograd.grad(out.sum(), x)


def test_another_forward_of_the_whole():
    model = linear()
    step(model).forward = lambda scale, zero, width, x: x
    assert left(model) == ("another forward stands in for that of its IntQuant",)


def test_hooks_of_all_modules():
    model, seen = linear(), []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(type(m)))
    try:
        with hf.fused(model) as block:
            model(X)
            assert RoundSte in seen
            assert "hooks are attached to all modules" in block.left["weight_quant"]
    finally:
        handle.remove()


def test_a_learned_width():
    model = linear(weight_quant=Int8WeightPerTensorFloat.let(bit_width_impl_type=BitWidthImplType.PARAMETER))
    assert left(model) == ("its bit width is learned",)
    with hf.fused(model) as block, torch.no_grad():
        model(X)
        assert block.left == {}


def test_a_width_that_moves_where_it_is_not_learned():
    model = linear(weight_quant=Int8WeightPerTensorFloat.let(bit_width_impl_type=BitWidthImplType.PARAMETER))
    width = next(p for n, p in model.named_parameters() if "bit_width" in n)
    width.requires_grad_(False)
    with hf.fused(model) as block:
        for _ in range(3):
            out = model(X)
            width.sub_(1)
            assert block.left == {}
    width.add_(1)
    assert torch.equal(model(X), out)


class _Learned(nn.Module):
    """A zero point that is a parameter."""

    def __init__(self):
        super().__init__()
        self.value = nn.Parameter(torch.tensor(10.0))

    def forward(self, *_):
        return self.value


def test_a_learned_zero_point():
    model = linear()
    model.weight_quant.tensor_quant.zero_point_impl = _Learned()
    assert left(model) == ("its zero point is learned",)
    with hf.fused(model) as block, torch.no_grad():
        model(X)
        assert block.left == {}


def test_a_learned_zero_point_learns():
    model = linear()
    model.weight_quant.tensor_quant.zero_point_impl = learned = _Learned()
    step(model).tensor_clamp_impl = TensorClamp()
    gradients = []
    for use in (contextlib.nullcontext, lambda: hf.fused(model)):
        model.zero_grad()
        with use():
            (model(X) * torch.arange(5)).sum().backward()
        gradients.append(learned.value.grad)
    assert gradients[0] == gradients[1] != 0


def test_other_types_of_values():
    assert "torch.float64" in left(linear().double(), X.double())[0]


def test_a_compiled_quantizer():
    model = linear()
    model.weight_quant.tensor_quant = torch.compile(model.weight_quant.tensor_quant, backend="eager")
    with hf.fused(model) as block:
        assert block.left == {"weight_quant": "it is compiled"}


def test_a_truncation():
    model = qnn.TruncAvgPool2d(2)
    with hf.fused(model) as block:
        assert list(block.left) == ["trunc_quant"]
        assert "it is a TruncIntQuant, expected an integer quantizer" in block.left["trunc_quant"]


def test_a_stand_in_of_another_kind_is_left_alone():
    model = linear()
    stand_in = StandIn(step(model), "forward", step(model).forward, lambda: None)
    with hf.fused(model) as block:
        assert block.fused == ()
    assert "forward" in vars(step(model))
    stand_in.remove()


def test_a_function_mode():
    class Mode(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    model, seen = linear(), []
    with hf.fused(model) as block:
        with Mode():
            model(X)
        assert torch.round in seen
        assert "its operators were followed" in block.left["weight_quant"]
        model(X)
        assert block.left == {}


def test_a_dispatch_mode():
    class Mode(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    model, seen = linear(), []
    with hf.fused(model) as block:
        with Mode():
            model(X)
        assert torch.ops.aten.round.default in seen
        assert "its operators were followed" in block.left["weight_quant"]


def test_derivatives_in_forward_mode():
    model = linear()
    expected = model(X)
    with hf.fused(model) as block, forward_ad.dual_level():
        assert torch.equal(model(X), expected)
        assert "its operators were followed" in block.left["weight_quant"]


def test_quantization_that_is_switched_off():
    model = identity().eval()
    model(X)
    with hf.fused(model):
        model.act_quant.disable_quant = True
        assert torch.equal(model(X), X)
        model.act_quant.disable_quant = False
        assert not torch.equal(model(X), X)
