"""Bit widths that move while faults are attached stop the forward; those that do not are sites like others."""

import copy

import brevitas.nn as qnn
import pytest
import torch
from brevitas.core.bit_width import BitWidthConst
from brevitas.export.inference.manager import quant_inference_mode
from brevitas.inject.enum import BitWidthImplType
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat
from torch import nn

from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.injection.layer import QuantFaultInjectionLayer
from hwfault.laws.models import BitFlips
from hwfault.network import widths
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.torch_ops import held
from tests.helpers.injection.networks import Chain, batch
from tests.helpers.injection.oracle import same_bits
from tests.slowly import slow

FLIPS = [BitFlips(probability=0.05)]
LEARNED, STATEFUL, CONST = BitWidthImplType.PARAMETER, BitWidthImplType.STATEFUL_CONST, BitWidthImplType.CONST
MOVED = r"the bit width of the site {!r} is {}, but was {} when the faults were attached.*inject anew"


def network(kind=LEARNED, weights=CONST, quant_tensor=True):
    """Widths of activations (8 and 6 bits) and of weights (5 bits) of the kinds given."""
    torch.manual_seed(0)
    made = Chain(
        qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width_impl_type=kind, return_quant_tensor=quant_tensor),
        qnn.QuantConv2d(
            2, 4, 3, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=5,
            weight_bit_width_impl_type=weights,
        ),
        qnn.QuantReLU(
            act_quant=Uint8ActPerTensorFloat, bit_width=6, bit_width_impl_type=kind, return_quant_tensor=quant_tensor
        ),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, bias=False, weight_bit_width=4, weight_bit_width_impl_type=weights),
    )  # fmt: skip
    made(batch(64))
    return made.eval()


def offset(model, name):
    """The parameter of a learned width."""
    return next(p for n, p in model.named_parameters() if n.startswith(name) and n.endswith("bit_width_offset"))


def by_optimizer(model, name, bits):
    """Each of these moves a width by so many bits."""
    p = offset(model, name)
    p.grad = torch.full_like(p, -float(bits))
    torch.optim.SGD([p], lr=1.0).step()


@torch.no_grad()
def by_hand(model, name, bits):
    offset(model, name).add_(bits)


def by_data(model, name, bits):
    offset(model, name).data += bits


def by_new_data(model, name, bits):
    offset(model, name).data = offset(model, name).data + bits


def by_load_state_dict(model, name, bits):
    other = copy.deepcopy(model)
    by_hand(other, name, bits)
    model.load_state_dict(other.state_dict())


def by_assigned_state_dict(model, name, bits):
    other = copy.deepcopy(model)
    by_hand(other, name, bits)
    model.load_state_dict(other.state_dict(), assign=True)


WAYS = [by_optimizer, by_hand, by_data, by_new_data, by_load_state_dict, by_assigned_state_dict]


@pytest.mark.every(5)
@pytest.mark.parametrize("move", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize(
    ("name", "site", "bits"),
    [("0", "0.act_quant", 8), ("2", "2.act_quant", 6), ("1", "1.weight_quant", 5), ("4", "4.weight_quant", 4)],
)
def test_a_learned_width_that_moves_stops_the_forward(name, site, bits, move):
    model, x = network(weights=LEARNED), batch()
    with inject(model, FLIPS, seed=1) as injection:
        model(x)
        move(model, name, -1)
        with pytest.raises(HwfaultError, match=MOVED.format(site, bits - 1, bits)):
            model(x)
        injection.disable(site)  # nothing strikes it
        model(x)
        injection.enable(site)
        by_hand(model, name, 3)
        with pytest.raises(HwfaultError, match=MOVED.format(site, bits + 2, bits)):
            model(x)
        by_hand(model, name, -2)
        model(x)
    by_hand(model, name, 1)
    assert next(s for s in sites(model) if s.name == site).bit_width == bits + 1
    with inject(model, FLIPS, seed=1):
        model(x)


def test_a_width_that_does_not_move_is_a_site_like_others():
    x = batch()
    outputs = []
    for kind in (CONST, STATEFUL, LEARNED):
        model = network(kind, weights=kind)
        with inject(model, FLIPS, seed=1):
            outputs.append(model(x))
            if kind == LEARNED:
                by_hand(model, "0", 0.3)  # rounded to the same width
                model(x)
    assert same_bits(outputs[0], outputs[1])
    assert same_bits(outputs[0], outputs[2])


def test_stateful_constants_that_are_loaded():
    model, x = network(STATEFUL), batch()
    state = model.state_dict()
    key = next(k for k in state if k.startswith("2") and k.endswith("bit_width"))
    with inject(model, FLIPS, seed=1):
        model.load_state_dict(state | {key: torch.tensor(4.0)})
        with pytest.raises(HwfaultError, match=MOVED.format("2.act_quant", 4, 6)):
            model(x)


def test_constants_that_are_set_by_hand():
    model, x = network(CONST), batch()
    with inject(model, FLIPS, seed=1):
        widths.width_of(model[0].act_quant).bit_width.value.fill_(4)
        with pytest.raises(HwfaultError, match=MOVED.format("0.act_quant", 4, 8)):
            model(x)


def test_a_quantizer_that_is_made_anew():
    model, x = network(CONST), batch()
    with inject(model, FLIPS, seed=1):
        proxy = model[1].weight_quant
        proxy.quant_injector = proxy.quant_injector.let(bit_width=3)
        proxy.init_tensor_quant()
        with pytest.raises(HwfaultError, match=MOVED.format("1.weight_quant", 3, 5)):
            model(x)


@pytest.mark.parametrize("kind", [CONST, LEARNED])
def test_a_quantizer_of_bare_values_that_is_made_anew(kind):
    """Its output brings no width, and the module that the width came from is no longer the quantizer's."""
    proxy, scale = network(kind)[0].act_quant, torch.ones(())
    width = widths.Width("a", proxy, 8)
    assert width.checked(None, scale) is scale
    proxy.quant_injector = proxy.quant_injector.let(bit_width=3)
    proxy.init_tensor_quant()
    with pytest.raises(HwfaultError, match=MOVED.format("a", 3, 8)):
        width.checked(None, scale)


def test_the_width_that_counts_is_that_of_the_output():
    model, x = network(), batch()
    fewer = model[0].act_quant.register_forward_hook(lambda _m, _a, out: out._replace(bit_width=torch.tensor(4.0)))
    with inject(model, FLIPS, seed=1), pytest.raises(HwfaultError, match=MOVED.format("0.act_quant", 4, 8)):
        model(x)
    fewer.remove()
    with inject(model, FLIPS, seed=1):
        model(x)


@pytest.mark.parametrize("kind", [CONST, STATEFUL, LEARNED])
def test_networks_that_are_made_in_inference_mode(kind):
    """Whose tensors do not say how often they were written."""
    with torch.inference_mode():
        model, x = network(kind, quant_tensor=False), batch()
        with inject(model, FLIPS, seed=1):
            model(x)
            model[0].act_quant.fused_activation_quant_proxy.tensor_quant.msb_clamp_bit_width_impl = widths.width_of(
                model[2].act_quant
            )
            with pytest.raises(HwfaultError, match=MOVED.format("0.act_quant", 6, 8)):
                model(x)


def test_one_width_that_two_quantizers_share():
    model, x = network(), batch()
    one, other = (model[i].act_quant.fused_activation_quant_proxy.tensor_quant for i in (0, 2))
    other.msb_clamp_bit_width_impl = one.msb_clamp_bit_width_impl
    for alone in ("0.act_quant", "2.act_quant"):
        plan = resolve(sites(model), [BitFlips(probability=0.05, sites=[alone])])
        with inject(model, plan, seed=1):
            model(x)
            by_hand(model, "0", -2)
            with pytest.raises(HwfaultError, match=MOVED.format(alone, 6, 8)):
                model(x)
            by_hand(model, "0", 2)


def test_bare_values():
    """Without QuantTensors, in the network and in Brevitas' inference mode, whose quantizers keep their numbers."""
    model, x = network(quant_tensor=False), batch()
    with inject(model, FLIPS, seed=1), torch.no_grad():
        with quant_inference_mode(model):
            model(x)
            model(x)
        by_hand(model, "2", -1)
        for mode in (quant_inference_mode(model), torch.inference_mode()):
            with mode, pytest.raises(HwfaultError, match=MOVED.format("2.act_quant", 5, 6)):
                model(x)


@pytest.mark.parametrize(("name", "site"), [("0", "1.accumulator"), ("1", "1.accumulator"), ("2", "4.accumulator")])
def test_widths_that_only_make_sums_larger(name, site):
    model, x = network(weights=LEARNED), batch()
    plan = resolve(sites(model, example=x), [BitFlips(probability=0.05, sites=[{"kind": "accumulator"}])])
    with inject(model, plan, seed=1):
        model(x)
        by_hand(model, name, 1)
        with pytest.raises(HwfaultError, match=rf"the bit width of the site '{site}' is \d, but was \d"):
            model(x)


def test_training_with_faults_stops_at_the_step_after_the_one_that_moved_it():
    model, x = network(), batch().requires_grad_()
    optimizer = torch.optim.SGD([offset(model, "0")], lr=1.0)
    with inject(model.train(), FLIPS, seed=1):
        model(x).sum().backward()
        offset(model, "0").grad.fill_(2.0)
        optimizer.step()
        with pytest.raises(HwfaultError, match=MOVED.format("0.act_quant", 6, 8)):
            model(x)


@pytest.mark.parametrize("backend", ["eager", *map(slow, ("aot_eager", "inductor"))])
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks_are_stopped_too(backend):
    torch.compiler.reset()
    model, x = network(), batch()
    if backend == "eager":  # compilers take long
        model = Chain(model[0], nn.Flatten(), qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4)).eval()
    with inject(model, FLIPS, seed=1) as injection, torch.no_grad():
        expected = model(x)
        compiled = torch.compile(model, backend=backend)
        injection.first_sample = 0
        assert torch.allclose(compiled(x), expected, atol=1e-5)
        by_hand(model, "0", -2)
        with pytest.raises(HwfaultError, match=MOVED.format("0.act_quant", 6, 8)):
            compiled(x)
    torch.compiler.reset()


@pytest.fixture
def on_a_device(monkeypatch):
    """The CPU stands in for a GPU: what is asserted there is the same operator, whose error comes at once."""
    for module in (held, widths):
        monkeypatch.setattr(module, "asserts", lambda number: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)


def test_a_device_asserts(on_a_device):
    model, x = network(), batch()
    with inject(model, FLIPS, seed=1):
        model(x)
        by_hand(model, "0", -2)
        asserted = pytest.raises(RuntimeError, match=r"the bit width of the site '0.act_quant' is another, but was 8")
        with asserted as stopped:
            model(x)
    assert not isinstance(stopped.value, HwfaultError)


def test_a_device_is_not_waited_for_and_constants_cost_nothing(on_a_device, monkeypatch):
    scale, other, asserted = torch.ones(()), torch.tensor(3.0), []
    made = [
        (widths.Width("a", network(kind)[0].act_quant, 8), n) for kind, n in ((CONST, 0), (STATEFUL, 1), (LEARNED, 1))
    ]
    monkeypatch.setattr(torch, "_assert_async", lambda *args: asserted.append(args))
    for width, asserts in made:
        asserted.clear()
        with monkeypatch.context() as patch:
            for name in ("__int__", "__bool__", "item"):
                patch.setattr(torch.Tensor, name, lambda t: 1 / 0)
            if not asserts:
                patch.setattr(BitWidthConst, "forward", lambda source: 1 / 0)
            assert width.checked(other, scale) is scale
            assert width.checked(None, scale) is scale
        assert len(asserted) == 2 * asserts


@pytest.mark.parametrize("kind", [LEARNED, STATEFUL])
def test_a_capture_is_refused_if_the_width_was_written_since_the_last_forward(on_a_device, monkeypatch, kind):
    model, x = network(kind), batch()
    with inject(model, FLIPS, seed=1):
        model(x)
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            model(x)
            source = widths.width_of(model[2].act_quant)
            with torch.no_grad():
                for tensor in (*source.parameters(), *source.buffers()):
                    tensor.mul_(1)  # to the same width
            for _ in range(2):
                with pytest.raises(
                    HwfaultError, match=r"'2.act_quant' was written after the last forward.* CUDA graph"
                ):
                    model(x)
        model(x)  # which checks it
        with monkeypatch.context() as patch:
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
            model(x)


def test_the_layer_of_its_own_on_a_device(on_a_device, monkeypatch):
    layer, x = QuantFaultInjectionLayer(FLIPS, name="here", seed=1), torch.randn(4, 6)
    quantizers = [qnn.QuantIdentity(bit_width=bits, return_quant_tensor=True) for bits in (8, 4)]
    unsigned = qnn.QuantReLU(bit_width=8, return_quant_tensor=True)
    monkeypatch.setattr("hwfault.injection.layer.on_the_host", lambda x: False)
    layer(quantizers[0](x))
    layer(quantizers[0](x))
    with pytest.raises(RuntimeError, match="the bit width of the inputs of the layer 'here' is another, but was 8"):
        layer(quantizers[1](x))
    with pytest.raises(
        RuntimeError, match=r"the sign \(0 or 1\) of the inputs of the layer 'here' is another, but was 1"
    ):
        layer(unsigned(x))
    monkeypatch.setattr("hwfault.injection.layer.on_the_host", lambda x: True)
    assert layer(quantizers[1](x)).bit_width == 4, "the CPU takes another width"
