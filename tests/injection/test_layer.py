"""The two public primitives for callers who place faults themselves."""

import copy

import brevitas.nn as qnn
import pytest
import torch
from brevitas.quant import Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat
from brevitas.quant_tensor import IntQuantTensor
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.layer import QuantFaultInjectionLayer
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site
from hwfault.torch_ops.function import FaultInjectionFunction
from tests.helpers.injection.networks import Chain, batch
from tests.helpers.injection.oracle import FAULTS, Call, faulty, same_bits

apply = FaultInjectionFunction.apply
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def example(dtype=torch.float32, shape=(3, 4, 5)):
    generator = torch.Generator().manual_seed(0)
    x, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    return x.requires_grad_(), values, torch.rand(shape, generator=generator) < 0.3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_function_forward_and_backward(dtype):
    x, values, mask = example(dtype)
    out = apply(x, values, mask)
    assert out.dtype == dtype
    assert same_bits(out, torch.where(mask, values, x))
    upstream = torch.randn(x.shape).to(dtype)
    out.backward(upstream)
    assert same_bits(x.grad, upstream.masked_fill(mask, 0))


def test_function_gradient_of_the_others_is_none():
    x, values, mask = example()
    values.requires_grad_()
    out = apply(x, values, mask)
    assert out.requires_grad
    found = torch.autograd.grad(out.sum(), [x, values], allow_unused=True)
    assert found[0] is not None
    assert found[1] is None


def test_function_gradients_that_are_no_numbers():
    x, values, mask = example()
    for bad in ("nan", "inf", "-inf"):
        upstream = torch.full(x.shape, float(bad))
        (gradient,) = torch.autograd.grad(apply(x, values, mask), x, upstream)
        assert same_bits(gradient, upstream.masked_fill(mask, 0))


def test_function_keeps_only_the_mask():
    x, values, mask = example()
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        apply(x, values, mask)
    assert [t.data_ptr() for t in packed] == [mask.data_ptr()]


def test_function_accumulates():
    x, values, mask = example()
    for _ in range(3):
        apply(x, values, mask).sum().backward()
        apply(x, values, ~mask).sum().backward()
    assert torch.equal(x.grad, torch.full(x.shape, 3.0))


def test_function_twice_on_one_path():
    x, values, mask = example()
    other = torch.rand(x.shape, generator=torch.Generator().manual_seed(5)) < 0.3
    apply(apply(x, values, mask) * 2, values, other).sum().backward()
    assert torch.equal(x.grad, torch.full(x.shape, 2.0).masked_fill(mask | other, 0))


def test_function_second_derivatives():
    x, values, mask = example(torch.float64)
    assert gradcheck(lambda x: apply(x, values, mask).pow(3), x)
    assert gradgradcheck(lambda x: apply(x, values, mask).pow(3), x)


def test_function_where_no_gradient_is_wanted():
    x, values, mask = example()
    assert not apply(x.detach(), values, mask).requires_grad
    with torch.no_grad():
        assert same_bits(apply(x, values, mask), torch.where(mask, values, x))


def test_function_does_not_write_its_inputs():
    x, values, mask = example()
    before = [t.detach().clone() for t in (x, values, mask)]
    apply(x, values, mask).sum().backward()
    assert all(torch.equal(t.detach(), b) for t, b in zip((x, values, mask), before, strict=True))


def test_function_on_odd_shapes():
    for shape in ((), (0,), (2, 0), (1,)):
        x, values, mask = example(shape=shape)
        apply(x, values, mask).sum().backward()
        assert x.grad.shape == shape


def quantized(x=None, bits=5, quantizer=Int8ActPerTensorFloat):
    """A QuantTensor, as a quantizer in front of the layer gives it."""
    front = qnn.QuantIdentity(act_quant=quantizer, bit_width=bits, return_quant_tensor=True)
    front(batch())
    return front.eval()(batch() if x is None else x)


def layer_of(faults, **rest):
    return QuantFaultInjectionLayer(faults, **{"name": "x", "seed": 3} | rest).eval()


def by_oracle(faults, before, samples, seed=3):
    site = Site(name="x", kind="activation", bit_width=int(before.bit_width), signed=bool(before.signed))
    call = Call("x", *(t.detach() for t in (before.value, before.value, before.scale, before.zero_point)))
    return faulty(resolve([site], faults), call, seed, samples)


@pytest.mark.parametrize("quantizer", [Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat])
@pytest.mark.parametrize("faults", sorted(set(FAULTS) - {"several"}))
def test_layer_values(faults, quantizer):
    before = quantized(quantizer=quantizer)
    after = layer_of(FAULTS[faults])(before)
    assert isinstance(after, IntQuantTensor)
    assert same_bits(after.value.detach(), by_oracle(FAULTS[faults], before, range(4)))
    assert not torch.equal(after.value, before.value)
    for key in ("scale", "zero_point", "bit_width", "signed_t", "training_t"):
        assert torch.equal(getattr(after, key), getattr(before, key)), key
    after.int()  # its integers lie in their range


def test_layer_does_not_depend_on_the_batch():
    before = quantized(batch(16))
    whole = layer_of(FAULTS["asymmetric"])(before)
    single = layer_of(FAULTS["asymmetric"])
    ones = [single(before._replace(value=before.value[i : i + 1])).value for i in range(16)]
    assert same_bits(torch.cat(ones), whole.value)


def test_layer_finds_the_samples_where_it_is_told_that_they_lie():
    """(tokens, samples, channels) and (samples x rows, channels): as many samples together as one by one."""
    x = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(1))
    along, folded = BatchAxis(axis=1), BatchAxis(inner=4, rows=4)
    for before, where, samples, take in (
        (quantized(x), along, 8, lambda value, i: value[:, i : i + 1]),
        (quantized(x.reshape(24, 5)), folded, 6, lambda value, i: value[4 * i : 4 * i + 4]),
    ):
        whole = layer_of(FAULTS["asymmetric"], batch=where)(before).value
        single = layer_of(FAULTS["asymmetric"], batch=where)
        for i in range(samples):
            one = single(before._replace(value=take(before.value, i))).value
            assert same_bits(one, take(whole, i))
        assert not same_bits(whole, layer_of(FAULTS["asymmetric"])(before).value)
    with pytest.raises(PlanError, match=r"'x' have the shape \(25, 5\), which does not hold 4 rows"):
        layer_of(FAULTS["bits"], batch=folded)(quantized(torch.randn(25, 5)))


def test_layer_counts_training_and_evaluation_apart():
    layer, before = layer_of(FAULTS["bits"]), quantized()

    def numbers(training):
        value = layer.train(training)(before).value.detach()
        return [n for n in range(0, 24, 4) if same_bits(value, by_oracle(FAULTS["bits"], before, range(n, n + 4)))]

    assert [numbers(mode) for mode in (False, False, True, True, False, True, False)] == [
        [0], [4], [0], [4], [0], [8], [0],
    ]  # fmt: skip


def test_layer_samples_can_be_given():
    layer, before = layer_of(FAULTS["bits"]), quantized()
    layer(before)
    layer.clock.samples = torch.tensor([9, 2, 2, 0])
    assert same_bits(layer(before).value, by_oracle(FAULTS["bits"], before, [9, 2, 2, 0]))
    layer.clock.samples = torch.tensor([1])
    with pytest.raises(HwfaultError, match="`samples` has shape"):
        layer(before)


def test_layer_name_and_seed_tell_layers_apart():
    before = quantized()
    outs = [layer_of(FAULTS["bits"], **k)(before).value for k in ({}, {"name": "y"}, {"seed": 4}, {})]
    assert same_bits(outs[0], outs[3])
    assert not torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("faults", ["bits", "asymmetric", "random"])
def test_layer_gradients(faults, gradient):
    front = qnn.QuantIdentity(bit_width=5, return_quant_tensor=True).eval()
    x = batch().requires_grad_()
    clean = front(x)
    (plain,) = torch.autograd.grad(clean.value.sum(), x)
    before = front(x)
    after = layer_of(FAULTS[faults], gradient=gradient)(before)
    (found,) = torch.autograd.grad(after.value.sum(), x)
    struck = after.value != before.value
    assert struck.any()
    assert torch.equal(found, plain if gradient == "straight_through" else plain.masked_fill(struck, 0))


def test_layer_in_a_network():
    torch.manual_seed(0)
    model = Chain(
        qnn.QuantIdentity(return_quant_tensor=True),
        layer_of(FAULTS["bits"], name="a"),
        qnn.QuantConv2d(2, 3, 3, bias=False, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4, return_quant_tensor=True),
        layer_of(FAULTS["asymmetric"], name="b"),
        nn.Flatten(),
        qnn.QuantLinear(48, 5, bias=False, weight_bit_width=4),
    ).train()
    model(batch(8))
    keys = set(model.state_dict())
    for i in range(3):
        model(batch(8, seed=i)).square().sum().backward()
    assert set(model.state_dict()) == keys
    assert not any(key.startswith(("1.", "4.")) for key in keys)
    model.eval()
    out = model(batch())
    twin = copy.deepcopy(model)
    for one in (model, twin):
        for i in (1, 4):
            one[i].clock.set_next_sample(0)
    assert same_bits(model(batch()), out)
    assert same_bits(twin(batch()), out)
    assert [site.name for site in sites(model)] == ["0.act_quant", "2.weight_quant", "3.act_quant", "6.weight_quant"]


def test_layer_beside_an_injection():
    model = Chain(qnn.QuantIdentity(return_quant_tensor=True), layer_of(FAULTS["bits"])).eval()
    model[0](batch())
    with inject(model, [BitFlips(probability=0.0)], seed=1):
        assert attached(model)
        out = model(batch())
    model[1].clock.set_next_sample(0)
    assert same_bits(model(batch()), out)


def test_layer_takes_other_formats_in_turn():
    layer = layer_of(FAULTS["bits"])
    for bits in (5, 3, 8, 5):
        layer.clock = None
        before = quantized(bits=bits)
        assert same_bits(layer(before).value, by_oracle(FAULTS["bits"], before, range(4)))


def test_layer_on_a_batch_of_nothing():
    assert layer_of(FAULTS["asymmetric"])(quantized(batch(0))).value.shape == (0, 2, 6, 6)


@pytest.mark.parametrize("given", [torch.zeros(2, 3), None, 3.0])
def test_layer_wants_a_quant_tensor(given):
    with pytest.raises(PlanError, match=r"the layer 'x' was given a \w+, expected an integer QuantTensor; set return"):
        layer_of(FAULTS["bits"])(given)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, None])
def test_layer_seeds(seed):
    with pytest.raises(HwfaultError, match="the seed is"):
        layer_of(FAULTS["bits"], seed=seed)
    before = quantized()
    assert same_bits(
        layer_of(FAULTS["bits"], seed=2**64 - 1)(before).value,
        by_oracle(FAULTS["bits"], before, range(4), seed=2**64 - 1),
    )


def test_layer_gradient_rules():
    with pytest.raises(HwfaultError, match="expected 'zero' or 'straight_through'"):
        layer_of(FAULTS["bits"], gradient="straight")


def test_layer_faults_that_do_not_fit():
    with pytest.raises(ModelError, match="does not fit words of 5 bits"):
        layer_of([WordFaults(probability=0.1, effect=32)])(quantized())
    with pytest.raises(ModelError, match="no site matches the selector 'y'"):
        layer_of([BitFlips(probability=0.1, sites="y")])(quantized())


def test_layer_shows_what_it_is():
    text = repr(layer_of([BitFlips(probability=0.25)]))
    assert text.startswith("QuantFaultInjectionLayer(name='x', seed=3, gradient='zero'")
    assert "0.25" in text
    assert "samples along axis 1" in repr(layer_of([BitFlips(probability=0.25)], batch=BatchAxis(axis=1)))


def test_layer_is_exported_with_its_faults_or_not_at_all():
    """A graph without the layer's faults would lie."""
    from hwfault.errors import GraphError
    from hwfault.graph.export.of_network import export

    model = Chain(
        qnn.QuantIdentity(return_quant_tensor=True),
        layer_of(FAULTS["bits"]),
        nn.Flatten(),
        qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4),
    ).eval()
    model(batch())
    with pytest.raises(GraphError):
        export(model, batch())
