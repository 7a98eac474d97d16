"""What the export refuses, and that it leaves the network alone when it does."""

import re
import threading

import pytest
import torch
from brevitas import nn as qnn
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from brevitas.quant import Int16Bias
from torch import nn

from hwfault.errors import GraphError, PlanError
from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips
from hwfault.network.sites import quantizers, sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.networks import (
    ACTS,
    WEIGHTS,
    Chain,
    FixedPointActivation,
    SignedActivation,
    batch,
    fresh,
    plan,
    signed,
)
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_onnxruntime, by_pytorch
from tests.helpers.injection.snapshot import snapshot

X = batch("biased")


def refused(model, *parts, example=X, error=GraphError):
    """The export fails with a text that has all the parts, and nothing of the network has changed."""
    before = snapshot(model)
    with pytest.raises(error) as caught:
        export(model, example)
    for part in parts:
        assert re.search(part, str(caught.value)), f"{part!r} is not in {caught.value}"
    assert type(caught.value) is error
    assert snapshot(model) == before


class Of(nn.Module):
    """A network of named parts and a forward of its own."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.forward_of = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        return self.forward_of(self, x)


def test_attached_faults():
    model = fresh("biased")
    with inject(model, plan("biased"), seed=1):
        refused(model, "faults attached", r"leave the `with inject\(...\)` block", r"\.remove\(\)", r"plan=plan\)")
        assert attached(model)
        with pytest.raises(GraphError, match="faults attached"):
            export(torch.compile(model, backend="eager"), X)
        with pytest.raises(GraphError, match="faults attached"):
            export(model, X, plan=plan("biased"))
    export(model, X)


def test_faults_attached_by_hand():
    model = fresh("mlp")
    injection = inject(model, plan("mlp"), seed=1)
    refused(model, "faults attached")
    injection.remove()
    export(model, X)


@pytest.mark.parametrize("rounding", ["FLOOR", "CEIL", "ROUND_TO_ZERO"])
def test_biases_that_are_rounded_in_another_way(rounding):
    """Brevitas writes these as they are."""

    def build(rounding):
        bias = {"bias": True, "bias_quant": Int16Bias, "bias_float_to_int_impl_type": rounding}
        layer = qnn.QuantLinear(72, 5, **bias, **WEIGHTS)
        nn.init.uniform_(layer.bias, -0.9, 0.9, generator=torch.Generator().manual_seed(1))
        nn.init.zeros_(layer.weight)
        return Chain(signed(), nn.Flatten(), layer).eval()

    model = build(rounding)
    assert (by_pytorch(model, X) != by_pytorch(build("ROUND"), X)).any()
    assert_same(by_onnxruntime(export(model, X), X), by_pytorch(model, X))


def test_one_bias_on_two_grids():
    """A layer that runs twice on inputs of different scales: Brevitas writes one of them for both."""

    def forward(self, x):
        y = self.layer(self.first(x).flatten(1))
        return getattr(self.layer(self.second(getattr(y, "value", y))), "value", None)

    layer = qnn.QuantLinear(72, 72, bias=True, bias_quant=Int16Bias, return_quant_tensor=True, **WEIGHTS)
    nn.init.uniform_(layer.bias, -0.9, 0.9, generator=torch.Generator().manual_seed(1))
    model = Of(forward, first=signed(5), second=signed(6, largest=4.0), layer=layer).eval()
    refused(model, "'layer.bias_quant", "yields other values", "one scale for all runs")


def rounding_activation(rounding):
    own = {"min_val": -1.0, "max_val": 1.0, "float_to_int_impl_type": rounding}
    return Chain(qnn.QuantIdentity(act_quant=SignedActivation, bit_width=5, **own), nn.Flatten()).eval()


@pytest.mark.parametrize("rounding", ["DPU", "STOCHASTIC_ROUND"])
def test_activations_that_are_rounded_in_a_way_of_brevitas_own(rounding):
    refused(rounding_activation(rounding), "'0.act_quant'", f"rounds by {rounding}", "HALF_EVEN, CEIL, FLOOR, UP, DOWN")


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "ROUND_TO_ZERO"])
def test_activations_that_are_rounded_in_a_way_of_qonnx(rounding):
    model = rounding_activation(rounding)
    x = torch.linspace(-1.2, 1.2, 72 * 32).reshape(32, 2, 6, 6)
    graph = export(model, x)
    assert_same(by_onnxruntime(graph, x), by_pytorch(model, x))
    others = {by_pytorch(rounding_activation(r), x).tobytes() for r in ("ROUND", "FLOOR", "CEIL", "ROUND_TO_ZERO")}
    assert len(others) == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_networks_that_are_not_float32(dtype):
    refused(fresh("biased").to(dtype), str(dtype), "expected float32", r"model\.float\(\)")


def test_a_network_with_one_buffer_that_is_not_float32():
    model = fresh("mlp")
    model.register_buffer("extra", torch.zeros(2, dtype=torch.float64))
    refused(model, "float64")


@pytest.mark.parametrize(
    "example", [X.double(), X.half(), X.to(torch.int16), X > 0], ids=lambda x: f"{x.dtype}{x.shape}"
)
def test_examples_of_other_types(example):
    text = re.escape(f"{example.dtype} of shape {list(example.shape)}")
    refused(fresh("biased"), text, "expected float32, int64 or int32", "convert it in the network", example=example)


@pytest.mark.parametrize("example", [X[:0], torch.tensor(1.0)], ids=lambda x: f"{x.shape}")
def test_examples_without_samples(example):
    refused(fresh("biased"), re.escape(str(tuple(example.shape))), "none with samples", example=example)


def test_an_example_of_another_shape():
    refused(fresh("biased"), r"does not run on the example of shape \[2, 3, 6, 6\]", example=torch.zeros(2, 3, 6, 6))


def test_a_network_without_quantizers():
    refused(nn.Sequential(nn.Flatten(), nn.Linear(72, 5)).eval(), "no quantizer", "expected a Brevitas network")


def test_a_network_whose_quantizers_are_off():
    refused(
        Chain(qnn.QuantIdentity(act_quant=None), nn.Flatten()).eval(),
        "no quantizer of the network is a site",
        "expected a Brevitas network whose quantizers run",
    )


@pytest.mark.parametrize(
    ("answer", "kind"), [(lambda v: (v, v), "tuple"), (lambda v: {"a": v}, "dict"), (lambda v: None, "NoneType")]
)
def test_networks_with_other_answers_than_a_tensor(answer, kind):
    model = Of(lambda self, x: answer(self.act(x).value), act=signed()).eval()
    refused(model, f"returns {kind}, expected one tensor", "wrap it")


def test_a_network_that_cannot_be_copied():
    model = Of(lambda self, x: self.act(x).value, act=signed()).eval()
    model.lock = threading.Lock()
    refused(model, "cannot be copied", "lock")


def test_an_operator_that_onnx_does_not_have():
    model = Of(lambda self, x: torch.linalg.svdvals(self.act(x).value.flatten(1)), act=signed()).eval()
    refused(model, "cannot export the network", "linalg_svdvals")


def test_a_quantizer_whose_values_nobody_reads():
    def forward(self, x):
        self.idle(x)
        return self.act(x).value

    refused(Of(forward, act=signed(), idle=signed(3)).eval(), "'idle.act_quant' runs 1 times", "graph has 0 nodes")


class OtherProxy(ActQuantProxyFromInjector):
    """A quantizer that Brevitas' export has never heard of."""


def test_a_quantizer_that_brevitas_does_not_export():
    class Other(SignedActivation):
        proxy_class = OtherProxy

    model = Chain(qnn.QuantIdentity(act_quant=Other, bit_width=4, min_val=-1.0, max_val=1.0), nn.Flatten()).eval()
    assert [site.name for site in sites(model)] == ["0.act_quant"]
    refused(model, "no QONNX export for the quantizer '0.act_quant'", "OtherProxy")


def test_a_quantizer_whose_values_a_hook_changes():
    model = fresh("mlp")
    for name, proxy in quantizers(model):
        if name == "2.input_quant":
            proxy.register_forward_hook(lambda _m, _a, out: out._replace(value=out.value * 2))
    refused(model, "no quantizer node of its own for the site '2.input_quant'")


def test_unsigned_codes_of_one_bit():
    model = Chain(qnn.QuantReLU(act_quant=FixedPointActivation, bit_width=1), nn.Flatten()).eval()
    refused(model, "'0.act_quant'", r"\(1, 'signed', True\)", r"\(1, 'unsigned', True\)", "QONNX cannot express it")


def test_a_constant_that_is_quantized_as_an_activation():
    where = nn.Parameter(torch.rand(1, 5))
    model = Of(
        lambda m, x: m.act(x.flatten(1)[:, :5] + m.of_place(m.where)), act=signed(), of_place=signed(), where=where
    )
    model(X)
    refused(model.eval(), "'of_place.act_quant' quantizes a constant, which holds no samples", "expected values that")


def test_signed_codes_of_one_bit_that_are_not_bipolar():
    """Brevitas' integers of one signed bit are -1 and 0; it writes them as -1 and +1."""
    model = Chain(qnn.QuantIdentity(act_quant=SignedActivation, bit_width=1, min_val=-1.0, max_val=1.0), nn.Flatten())
    with pytest.raises(GraphError, match=r"'0.act_quant' yields signed integers of one bit, -1 and 0"):
        export(model.eval(), X)


def test_a_plan_for_another_network():
    with pytest.raises(PlanError, match=r"strikes the site '\d.*', which the graph does not have"):
        export(fresh("residual"), X, plan=plan("biased"))


def test_a_plan_for_other_widths():
    other = resolve(sites(Chain(signed(6), nn.Flatten())), [BitFlips(probability=0.1)])
    model = Chain(signed(5), nn.Flatten()).eval()
    text = r"'0.act_quant' with .* = \(6, True, True\), but the graph has \(5, True, True\)"
    with pytest.raises(PlanError, match=text):
        export(model, X, plan=other)


def test_a_network_that_is_refused_can_be_mended():
    model = Chain(qnn.QuantReLU(**ACTS), nn.Flatten())
    refused(model.double(), "float64")
    model = model.float().eval()
    assert_same(by_onnxruntime(export(model, X), X), by_pytorch(model, X))
