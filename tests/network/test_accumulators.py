"""Which accumulators a network has, how wide they are, and whose integers feed them."""

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat
from torch import Tensor, nn

from hwfault.errors import ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train.networks import digits_cnn
from tests.helpers.injection.networks import Chain, batch, build
from tests.helpers.injection.snapshot import snapshot


def accumulators(model, x=None):
    listed = sites(model, batch() if x is None else x)
    return [s for s in listed if s.kind == "accumulator"], listed.obstacles


def only(*layers, x):
    found, obstacles = accumulators(Chain(*layers).eval(), x)
    reasons = [why for name, why in obstacles.items() if name.endswith("accumulator")]
    assert len(found) + len(reasons) == 1, (found, obstacles)
    return found[0] if found else reasons[0]


EXPECTED = {  # products, largest input and largest weight: 18 * 128 * 8 needs 15 bits and a sign
    "cnn": [("1", 16, (4, 4, 4), "0.act_quant", (4, 2, 3, 3)), ("5", 13, (5,), "3.act_quant", (5, 64))],
    "biased": [("1", 16, (4, 4, 4), "0.act_quant", (4, 2, 3, 3)), ("4", 13, (5,), "2.act_quant", (5, 64))],
    "mlp": [("1", 16, (8,), "1.input_quant", (8, 72)), ("2", 13, (8,), "2.input_quant", (8, 8))],
    "binary": [
        ("1", 13, (4, 4, 4), "0.act_quant", (4, 2, 3, 3)),
        ("4", 8, (8,), "2.act_quant", (8, 64)),
        ("6", 9, (5,), "5.act_quant", (5, 8)),
    ],
    "asymmetric": [("2", 17, (5,), "0.act_quant", (5, 72))],
    "twice": [
        ("again", 11, (8,), "relu.act_quant", (8, 8)),
        ("again#1", 11, (8,), "relu.act_quant#1", (8, 8)),
    ],
    "residual": [
        ("left", 13, (2, 6, 6), "stem.act_quant", (2, 2, 3, 3)),
        ("right", 9, (2, 6, 6), "stem.act_quant", (2, 2, 1, 1)),
        ("head", 15, (5,), "sum.act_quant", (5, 72)),
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_accumulators_of_networks(name):
    found, _ = accumulators(build(name))
    listed = [(s.name.replace(".accumulator", ""), s.bit_width, s.shape, s.source, s.weights) for s in found]
    assert listed == EXPECTED[name]
    assert all(s.signed and s.batched and s.worst_case == s.bit_width for s in found)


def test_layers_without_one_say_why():
    _, obstacles = accumulators(build("per_channel"))
    assert "QuantConvTranspose2d does not add up products" in obstacles["3.accumulator"]
    assert "no known grid" in obstacles["5.accumulator"], "what a transposed convolution yields is on none"
    _, obstacles = accumulators(build("twice"))
    assert "no known grid" in obstacles["first.accumulator"]


def test_the_largest_sum_is_that_of_the_data_types():
    largest = 288 * 255 * 128  # the last convolution of the 8 bit network: 0.56 of 2^24
    found, _ = accumulators(digits_cnn(8).eval(), torch.rand(2, 1, 8, 8))
    assert max(s.bit_width for s in found) == largest.bit_length() + 1 == 25


LINEAR = {"bias": False, "weight_bit_width": 4}
X = torch.rand(2, 8)


@pytest.mark.parametrize(
    "between",
    [
        [nn.Flatten()],
        [nn.ReLU()],
        [nn.ReLU(inplace=True)],
        [nn.Identity()],
        [nn.Unflatten(1, (2, 4)), nn.MaxPool1d(1), nn.Flatten()],
    ],
    ids=str,
)
def test_what_keeps_the_grid(between):
    assert only(qnn.QuantIdentity(), *between, qnn.QuantLinear(8, 3, **LINEAR), x=X).source == "0.act_quant"


class Function(nn.Module):
    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x)


KEEPS = {
    "slice": lambda x: x[:, :8],
    "permute": lambda x: x.reshape(-1, 2, 4).permute(0, 2, 1).flatten(1),
    "split": lambda x: x.chunk(1, 1)[0],
    "pad": lambda x: nn.functional.pad(x[:, :6], (1, 1)),
    "transpose": lambda x: x.T.contiguous().T,
    "largest": lambda x: x.reshape(-1, 8, 1).amax(2),
    "smallest": lambda x: torch.amin(x.reshape(-1, 8, 1), dim=-1),
    "names": lambda x: x.rename(None) if hasattr(x, "rename") else x,
}
LEAVES = {
    "scale": lambda x: x * 1.5,
    "in place": lambda x: x.mul_(1.5),
    "sum": lambda x: x + x,
    "batch mean": lambda x: x - x.mean(),
    "pad with ones": lambda x: nn.functional.pad(x[:, :6], (1, 1), value=1.0),
    "dropout": lambda x: nn.functional.dropout(x, 0.5, training=False),
    "assignment": lambda x: x.clone().index_fill_(1, torch.tensor([0]), 0.123),
}


@pytest.mark.parametrize("name", KEEPS)
def test_functions_that_keep_the_grid(name):
    assert only(qnn.QuantIdentity(), Function(KEEPS[name]), qnn.QuantLinear(8, 3, **LINEAR), x=X).bit_width == 15


@pytest.mark.parametrize("name", LEAVES)
def test_functions_that_leave_it(name):
    with torch.no_grad():
        text = only(qnn.QuantIdentity(), Function(LEAVES[name]), qnn.QuantLinear(8, 3, **LINEAR), x=X)
    assert "no known grid" in text


def test_a_quant_tensor_of_no_quantizer_brings_its_grid_along():
    act = qnn.QuantIdentity(return_quant_tensor=True)
    site = only(act, Function(lambda x: x + x), qnn.QuantLinear(8, 3, **LINEAR), x=X)
    assert (site.source, site.bit_width) == (None, 16), "nine bits for the sum of two"


def test_a_zero_point_makes_the_integers_larger():
    quant = {"weight_bit_width": 4, "bias": False, "input_bit_width": 6}
    for act, largest in ((Int8ActPerTensorFloat, 32), (ShiftedUint8ActPerTensorFloat, 63)):
        site = only(qnn.QuantLinear(8, 3, input_quant=act, **quant), x=X)
        assert site.bit_width == (8 * largest * 8).bit_length() + 1


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([qnn.QuantIdentity(), qnn.QuantLinear(8, 3, bias=False, weight_quant=None)], "weights are not quantized"),
        ([nn.Identity(), qnn.QuantLinear(8, 3, **LINEAR)], "no known grid"),
        ([qnn.QuantIdentity(bit_width=24), qnn.QuantLinear(8, 3, bias=False)], "needs 35 bits, expected at most 32"),
    ],
)
def test_obstacles(layers, text):
    assert text in only(*layers, x=X)


WITH_SCALES = {  # what a layer is given of a quantizer that has a scale for each of 3 channels
    "as it is": (lambda x: x, qnn.QuantConv2d(3, 4, 3, bias=False)),
    "bare": (lambda x: x.value, qnn.QuantConv2d(3, 4, 3, bias=False)),
    "bare and flat": (lambda x: x.value.flatten(1), qnn.QuantLinear(48, 3, bias=False)),
    "bare, channels last": (lambda x: x.value.transpose(1, 3), qnn.QuantLinear(3, 2, bias=False)),
    "the largest": (lambda x: x.value.amax((2, 3)), qnn.QuantLinear(3, 2, bias=False)),
}


@pytest.mark.parametrize("name", WITH_SCALES)
def test_inputs_with_several_scales_add_up_to_nothing(name):
    between, layer = WITH_SCALES[name]

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            scales = {"per_channel_broadcastable_shape": (1, 3, 1, 1), "scaling_stats_permute_dims": (1, 0, 2, 3)}
            self.act = qnn.QuantReLU(bit_width=4, scaling_per_output_channel=True, return_quant_tensor=True, **scales)
            self.layer = layer

        def forward(self, x):
            return self.layer(between(self.act(x)))

    x = torch.rand(6, 3, 4, 4)
    model = Scaled()
    model(x)
    found, obstacles = accumulators(model.eval(), x)
    assert found == []
    assert "its inputs have a scale for each channel" in obstacles["layer.accumulator"]


def test_a_layer_without_a_batch_axis():
    assert "no batch axis" in only(qnn.QuantIdentity(), qnn.QuantLinear(8, 3, **LINEAR), x=torch.rand(8))


def test_a_layer_that_does_not_run():
    class Idle(Chain):
        def forward(self, x):
            return self[0](x)

    _, obstacles = accumulators(Idle(qnn.QuantIdentity(), qnn.QuantLinear(8, 3, **LINEAR)).eval(), X)
    assert obstacles == {"1.accumulator": "the layer did not run on the example"}


def test_listing_leaves_no_trace():
    model = build("residual").train()
    before = snapshot(model)
    sites(model, batch())
    assert snapshot(model) == before
    assert not attached(model)


def test_accumulators_are_chosen_by_kind_or_name_only():
    listed = sites(build("cnn"), batch())

    def chosen(where):
        return [e.site.name for e in resolve(listed, [BitFlips(probability=0.1, sites=where)]).sites]

    everything = chosen("*")
    assert not [name for name in everything if name.endswith("accumulator")]
    assert chosen({"kind": "accumulator"}) == chosen("*.accumulator") == ["1.accumulator", "5.accumulator"]
    assert chosen("1.accumulator") == ["1.accumulator"]
    assert chosen({"layer": "QuantConv2d"}) == ["1.weight_quant"]


def test_selectors_that_name_no_site_hear_why():
    model = build("per_channel")
    for where, text in {
        "3.accumulator": r"3.accumulator: a QuantConvTranspose2d",
        "1.acumulator": "did you mean '1.accumulator'",
        "2.accumulator": "did you mean '1.accumulator'",
    }.items():
        with pytest.raises(ModelError, match=text):
            resolve(sites(model, batch()), [BitFlips(probability=0.1, sites=where)])
    with pytest.raises(ModelError, match="known once an example batch has run"):
        inject(model, [BitFlips(probability=0.1, sites={"kind": "accumulator"})], seed=1)


def test_a_plan_of_another_network_is_refused():
    plan = resolve(sites(build("cnn"), batch()), [BitFlips(probability=0.1, sites="*.accumulator")])
    narrower = Chain(*build("cnn"))
    narrower[1] = qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=3)
    with pytest.raises(PlanError, match=r"1.accumulator.*\(16, True, True\).*\(15, True, True\)"):
        inject(narrower, plan, seed=1)
    for name, text in {"mlp": "no quantizer '0.act_quant'", "twice": "does not have"}.items():
        with pytest.raises(PlanError, match=text):
            inject(build(name), plan, seed=1)
