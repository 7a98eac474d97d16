"""Layers that compute on their integers: equal to the specification's formula, with every fault, and without trace."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.inject.enum import RestrictValueType, ScalingImplType
from brevitas.quant import Int8ActPerTensorFixedPoint, Int8WeightPerChannelFloat, Int8WeightPerTensorFixedPoint
from torch import nn

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, StuckElement, WordFaults
from hwfault.network.accumulators import accumulator_layers, watched
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import ArrayPlan
from hwfault.stream.array import Array, Axis, Layer
from hwfault.stream.array_reference import accumulate
from hwfault.stream.mapping import FinnMvau, OutputStationary, WeightStationary
from hwfault.stream.reference import inject_codes
from tests.helpers.graph.networks import NETWORKS as EXACT
from tests.helpers.graph.networks import batch as exact_batch
from tests.helpers.graph.networks import network as exact_network
from tests.helpers.injection.networks import NETWORKS, Chain, batch, build
from tests.helpers.injection.oracle import Seen, same_bits
from tests.helpers.injection.snapshot import snapshot

ONES = 0xFFFFFFFF


def idle(model, x, **options):
    """A plan that has every accumulator computed on integers, and does nothing."""
    return resolve(sites(model, x), [AccumulatorFormat(**options)])


def with_array(plan, **fields):
    array = ArrayPlan(**fields)
    return plan.model_copy(update={"sites": tuple(e.model_copy(update={"array": array}) for e in plan.sites)})


def struck(model, plan, x, seed=1, **options):
    with torch.no_grad(), inject(model, plan, seed=seed, **options):
        out = model(x)
    return getattr(out, "value", out)


def clean(model, x):
    with torch.no_grad():
        out = model(x)
    return getattr(out, "value", out)


@pytest.mark.parametrize("name", [name for name in EXACT if name != "tied"])
@pytest.mark.parametrize("arithmetic", ["float32", "float64"])
def test_exact_networks_are_the_same_to_the_bit(name, arithmetic):
    model, x = exact_network(name), exact_batch(name)
    plan = idle(model, x, arithmetic=arithmetic)
    assert torch.equal(struck(model, plan, x), clean(model, x))


class Layers:
    """What every layer of a network was given and gave, by name, in a forward under a plan."""

    def __init__(self, model, plan, x, seed=1):
        layers = accumulator_layers(model)
        self.calls = {}
        with inject(model, plan, seed=seed), torch.no_grad():
            planned = {name: layer for name, layer in layers.items() if name in plan.names}
            with watched(planned, lambda name, x, out: self.calls.setdefault(name, (x, out))):
                model(x)


def formula(layer, x, arrays, double=False):
    """y = acc' (s_x s_w) + bias in NumPy, from the integers of x and of the layer's weights."""
    s_x = np.float32(x.scale.item())
    weight = layer.quant_weight(x) if layer.weight_quant.requires_quant_input else layer.quant_weight()
    s_w = weight.scale.numpy().astype(np.float32)
    x_int, w_int = (np.rint(t / s).astype(np.int64) for t, s in ((x.value.numpy(), s_x), (weight.value.numpy(), s_w)))
    acc = arrays(x_int, w_int)
    dtype = np.float64 if double else np.float32
    channels = (-1,) if isinstance(layer, nn.Linear) else (1, -1, *[1] * (w_int.ndim - 2))
    scale = dtype(s_x) * (s_w.astype(dtype).reshape(channels) if s_w.size > 1 else s_w.astype(dtype).reshape(()))
    y = (acc.astype(dtype) * scale).astype(np.float32)
    bias = layer.bias_quant(layer.bias, x, weight) if layer.bias is not None else None
    return y if bias is None else y + getattr(bias, "value", bias).numpy().reshape(channels)


def shape_of(layer, x_int, out):
    if isinstance(layer, nn.Linear):
        positions = int(np.prod(out.shape[1:-1]))
        return Layer(len(x_int), *layer.weight.shape[:1], 1, layer.weight.shape[1], (Axis(positions, positions),), True)
    lengths = zip(
        x_int.shape[2:], out.shape[2:], layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True
    )
    axes = tuple(Axis(*axis) for axis in lengths)
    return Layer(len(x_int), layer.out_channels, layer.groups, layer.weight.shape[1], axes)


CASES = {
    "plain": {},
    "stuck": {"events": ((3, 1, 1, 0, 4, 1, ONES ^ 4, 4), (2, 1, 2, 1, 1, 0, ONES ^ 8, 0)), "pass_steps": 5, "step": 2},
    "saturating": {"overflow": "saturate", "step": 3},
    "wrapping": {"overflow": "wrap"},
}
ACT = {"return_quant_tensor": True}
WEIGHT = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}
SHAPES = {
    "conv1d": (lambda: qnn.QuantConv1d(2, 3, 3, stride=2, padding=1, bias=True, **WEIGHT), (2, 2, 9)),
    "conv2d": (
        lambda: qnn.QuantConv2d(2, 4, (3, 2), stride=(1, 2), padding=(0, 1), bias=False, **WEIGHT),
        (2, 2, 6, 5),
    ),
    "conv3d": (lambda: qnn.QuantConv3d(1, 2, 2, padding=1, bias=True, weight_bit_width=4), (2, 1, 3, 2, 4)),
    "grouped": (lambda: qnn.QuantConv2d(4, 6, 3, groups=2, dilation=2, padding=2, bias=False, **WEIGHT), (1, 4, 6, 6)),
    "depthwise": (lambda: qnn.QuantConv2d(4, 4, 3, groups=4, padding=1, bias=True, **WEIGHT), (2, 4, 5, 5)),
    "linear": (lambda: qnn.QuantLinear(12, 5, bias=True, **WEIGHT), (3, 12)),
    "linear of many positions": (lambda: qnn.QuantLinear(7, 4, bias=False, **WEIGHT), (2, 5, 7)),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("double", [False, True])
def test_every_layer_is_the_formula(name, case, double):
    make, shape = SHAPES[name]
    torch.manual_seed(0)
    model = nn.Sequential(qnn.QuantIdentity(**ACT), make())
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    model.train()(x)
    model.eval()
    plan = idle(model, x)
    if case in ("saturating", "wrapping"):
        site = plan.sites[0].site.model_copy(update={"bit_width": 9})
        plan = plan.model_copy(update={"sites": (plan.sites[0].model_copy(update={"site": site}),)})
    plan = with_array(plan, arithmetic="float64" if double else "float32", **CASES[case])
    width = plan.sites[0].site.bit_width
    given, out = Layers(model, plan, x).calls["1.accumulator"]
    fields = {k: v for k, v in CASES[case].items() if k != "overflow"}
    array = Array(width, CASES[case].get("overflow") == "saturate", **fields)
    shape_now = shape_of(model[1], given.value, out)
    with torch.no_grad():
        expected = formula(model[1], given, lambda a, b: accumulate(a, b, shape_now, array).reshape(out.shape), double)
        plain = formula(model[1], given, lambda a, b: accumulate(a, b, shape_now, Array(32)).reshape(out.shape), double)
    np.testing.assert_array_equal(out.numpy(), expected)
    assert (case == "plain") == np.array_equal(expected, plain), "every fault shows"
    np.testing.assert_allclose(plain, clean(model, x).numpy(), rtol=1e-5, atol=1e-5)  # what the layer means to compute


# strided by 2, 5 x 7 needs even numbers of zeros on both axes, 4 x 7 an odd one on one, 6 x 8 on both
@pytest.mark.parametrize("size", [(5, 7), (4, 7), (6, 8)])
@pytest.mark.parametrize("padding", ["same", "valid", "strided same", "circular", "reflect"])
def test_every_padding(padding, size):
    options = {mode: {"padding": 1, "padding_mode": mode} for mode in ("circular", "reflect")}
    given = options.get(padding, {"padding": padding.split()[-1], "stride": 2 if "strided" in padding else 1})
    layer = qnn.QuantConv2d(2, 3, (3, 5), bias=False, weight_bit_width=4, **given)
    act = qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint)
    model, x = nn.Sequential(act, layer), torch.randn(2, 2, *size)
    model.train()(x)
    model.eval()
    assert_close(struck(model, idle(model, x), x), clean(model, x))
    stuck = with_array(idle(model, x), events=((3, 1, 1, 0, 1, 0, ONES ^ 8, 8),))
    changed = (struck(model, stuck, x) != struck(model, idle(model, x), x)).flatten(2).any(-1).any(0)
    assert changed.tolist() == [False, True, False]


def assert_close(one, other):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_compute_what_they_mean_to(name):
    model = build(name)
    plan = idle(model, batch()) if any(s.kind == "accumulator" for s in sites(model, batch())) else None
    if plan is not None:
        assert_close(struck(model, plan, batch()), clean(model, batch()))


def test_faults_of_the_stream_strike_the_integers():
    model, x, seen = build("cnn"), batch(), Seen()
    plan = resolve(sites(model, x), [BitFlips(probability=0.02, sites="*.accumulator"), WordFaults(probability=0.05)])
    struck(model, plan, x, seed=5, observe=seen)
    for name, words in (("1.accumulator", 64), ("5.accumulator", 5)):
        (call,) = seen.of(name)
        assert call.scale.item() == 1
        assert call.zero_point.item() == 0
        bits = plan.at(name).site.bit_width
        codes = (call.before.numpy().astype(np.int64) % (1 << bits)).astype(np.uint32).reshape(4, words)
        program = plan.program(name)
        after = [inject_codes(row, program=program, seed=5, sample=i, bit_width=bits) for i, row in enumerate(codes)]
        got = (call.after.numpy().astype(np.int64) % (1 << bits)).reshape(4, words)
        np.testing.assert_array_equal(got, np.stack(after))
        assert (got != codes).any()


def test_a_batch_equals_its_elements():
    model, x = build("cnn"), batch(6)
    plan = resolve(sites(model, x), [BitFlips(probability=0.01, sites={"kind": "accumulator"})])
    together = struck(model, plan, x)
    with torch.no_grad(), inject(model, plan, seed=1):
        alone = torch.cat([model(x[i : i + 1]) for i in range(6)])
    assert torch.equal(together, alone)


def footprint(mapping, bit, out_shape=None):
    """Which (channel, position) of a 3 x 3 convolution a stuck element changes."""
    torch.manual_seed(0)
    model = nn.Sequential(qnn.QuantIdentity(**ACT), qnn.QuantConv2d(4, 8, 3, padding=1, bias=False, weight_bit_width=4))
    x = torch.randn(8, 4, 6, 6)
    model.train()(x)
    model.eval()
    faults = [StuckElement(mapping=mapping, bit=b, value=v, **bit) for b, v in ((3, 1), (3, 0))]
    plain = struck(model, idle(model, x), x)
    changed = [struck(model, resolve(sites(model, x), [fault]), x) != plain for fault in faults]
    return torch.stack(changed).any(0).any(0).flatten(1)


def test_a_finn_element_has_its_channels():
    changed = footprint(FinnMvau(pe=4, simd=2), {"pe": 3})
    assert changed.all(1).nonzero().flatten().tolist() == [3, 7]
    assert not changed[[0, 1, 2, 4, 5, 6]].any()


def test_a_weight_stationary_element_has_its_column():
    changed = footprint(WeightStationary(rows=16, columns=4), {"element": (9, 1)})
    assert changed.all(1).nonzero().flatten().tolist() == [1, 5]
    assert not changed[[0, 2, 3, 4, 6, 7]].any()


def test_an_output_stationary_element_has_its_outputs():
    changed = footprint(OutputStationary(rows=5, columns=8), {"element": (2, 6)})
    expected = torch.zeros(8, 36, dtype=torch.bool)
    expected[6, 2::5] = True
    assert torch.equal(changed, expected)


def test_late_bits_come_from_the_word_before():
    model, x, seen = build("cnn"), batch(), Seen()
    fault = LateBits(probability=1.0, bits=10, mapping=FinnMvau(pe=1, simd=1), sites="5.*")
    struck(model, resolve(sites(model, x), [fault]), x, observe=seen)
    before, after = seen[0].before.numpy().astype(int), seen[0].after.numpy().astype(int)
    for row, got in zip(before, after, strict=True):
        late = [0, *row[:-1]]
        assert got.tolist() == [(p & ~7) | (c & 7) for p, c in zip(late, row, strict=True)]
    assert (before != after).any()


@pytest.mark.parametrize("rule", ["zero", "straight_through"])
def test_gradients(rule):
    torch.manual_seed(0)
    weight = {"weight_bit_width": 4, "bias": False}
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, **ACT), qnn.QuantLinear(6, 4, **weight)
    )
    x = torch.randn(5, 6)
    model.train()(x)
    model.eval()
    plan = with_array(idle(model, x), events=((4, 2, 1, 0, 1, 0, ONES ^ 2, 2),))
    ours, plain = (x.clone().requires_grad_() for _ in range(2))
    changed = struck(model, plan, x) != struck(model, idle(model, x), x)
    assert changed[:, 2].any()
    assert not changed[:, [0, 1, 3]].any()
    weights = torch.arange(1.0, 21.0).reshape(5, 4)
    with inject(model, plan, seed=1, gradient=rule):
        (model(ours) * weights).sum().backward()
    kept = weights.masked_fill(changed, 0) if rule == "zero" else weights
    model[1].weight.grad, got = None, model[1].weight.grad
    (model(plain) * kept).sum().backward()
    assert_close(ours.grad, plain.grad)
    assert_close(got, model[1].weight.grad)


def test_training_under_faults_of_accumulators():
    model = build("cnn").train()
    plan = resolve(sites(model, batch()), [BitFlips(probability=0.001, sites={"kind": "accumulator"})])
    with inject(model, plan, seed=1):
        model(batch()).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_leaving_the_block_leaves_no_trace():
    model, x = build("biased"), batch()
    before, plan = snapshot(model), idle(model, x)
    first = inject(model, plan, seed=1)
    second = inject(model, plan, seed=2)
    assert attached(model)
    first.remove()
    assert attached(model), "the other one is still there"
    clean(model, x)
    second.remove()
    second.remove()
    assert not attached(model)
    assert snapshot(model) == before


def test_two_injections_act_one_after_the_other():
    model, x = build("cnn"), batch()
    listed = sites(model, x)
    full = [WordFaults(probability=1.0, effect="full", sites="1.accumulator")]
    plan, seen = resolve(listed, full), Seen()
    with torch.no_grad(), inject(model, plan, seed=1), inject(model, plan, seed=2, observe=seen):
        twice = model(x)
    (call,) = seen.of("1.accumulator")
    assert not torch.equal(call.before, call.after)
    assert torch.equal(twice, struck(model, idle(model, x, sites="1.*"), x)), "all bits inverted twice"


def test_a_layer_that_returns_a_quant_tensor_still_does():
    model, x = build("biased"), batch()
    plan, found = idle(model, x), []
    handle = model[1].register_forward_hook(lambda _m, _a, out: found.append(out))
    struck(model, plan, x)
    clean(model, x)
    handle.remove()
    ours, plain = found
    assert type(ours) is type(plain)
    assert_close(ours.value, plain.value)
    assert same_bits(ours.scale, plain.scale)
    assert int(ours.bit_width) == int(plain.bit_width)


class AlongInputs(Int8WeightPerTensorFixedPoint):
    """A scale for each input of a layer, as no accumulator can have."""

    scaling_impl_type = ScalingImplType.PARAMETER
    restrict_scaling_type = RestrictValueType.FP
    scaling_init = 0.01


def test_scales_along_the_inputs_of_a_square_layer_are_refused():
    """As many scales as outputs, but on the other axis: the shape of the scales tells, their number does not."""
    layer = qnn.QuantLinear(4, 4, bias=False, weight_quant=AlongInputs)
    model, x = nn.Sequential(qnn.QuantIdentity(**ACT), layer).eval(), torch.rand(2, 4)
    plan = idle(model, x)
    scale = next(p for name, p in layer.named_parameters() if "scaling" in name)
    scale.data = torch.tensor([[0.01, 0.02, 0.03, 0.04]])
    with pytest.raises(
        PlanError, match=r"have scales of shape \(1, 4\), expected one, or one for each of the 4 output"
    ):
        struck(model, plan, x)


def test_inputs_that_left_their_grid_are_refused():
    class Shifting(Chain):
        offset = 0.0

        def forward(self, x):
            x = self[0](x)
            return self[1](x + self.offset if self.offset else x)

    model = Shifting(qnn.QuantIdentity(), qnn.QuantLinear(8, 3, bias=False)).eval()
    x = torch.rand(2, 8)
    plan = idle(model, x)
    model.offset = 0.1234
    with pytest.raises(PlanError, match=r"'1.accumulator' are not multiples of their quantizer's scale"):
        struck(model, plan, x)


def test_switched_off_quantizers_leave_the_layer_alone():
    model, x = build("cnn"), batch()
    plan = resolve(sites(model, x), [WordFaults(probability=1.0, effect="msb", sites={"kind": "accumulator"})])
    with torch.no_grad(), inject(model, plan, seed=1):
        model[5].weight_quant.disable_quant = model[1].weight_quant.disable_quant = True
        assert torch.equal(model(x), _without(model, x))
    model[5].weight_quant.disable_quant = model[1].weight_quant.disable_quant = False


def _without(model, x):
    plain = build("cnn")
    for index in (1, 5):
        plain[index].weight_quant.disable_quant = True
    return clean(plain, x)


def test_halves_and_doubles():
    model, x = build("power_of_two"), batch()
    plan = idle(model, x)
    for dtype in (torch.float64, torch.bfloat16):
        other = build("power_of_two").to(dtype)
        out = struck(other, plan, x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out, clean(other, x.to(dtype)), rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks():
    model, x = build("cnn"), batch()
    plan = resolve(sites(model, x), [BitFlips(probability=0.02, sites={"kind": "accumulator"})])
    expected, plain = struck(model, plan, x, seed=3), clean(model, x)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(clean(compiled, x), plain)
    assert torch.equal(struck(compiled, plan, x, seed=3), expected), "attaching after compilation takes effect"
    assert torch.equal(clean(compiled, x), plain), "so does leaving"
