"""Training with quantizers that run as one operator each: the same training, in all but the order of a sum."""

import logging

import brevitas.nn as qnn
import pytest
import torch
from brevitas.core.function_wrapper import CeilSte
from safetensors.torch import load_file
from torch import nn

import hwfault as hf
from hwfault.campaigns.evaluate import evaluate
from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.laws.models import bit_errors
from hwfault.notices import spoken
from hwfault.train import TrainConfig, build, fusing, train
from hwfault.train.data import digits
from hwfault.train.fusing import describe_fused
from hwfault.train.run import train_into
from tests.helpers.train import small

OWN = {"network": "tests.helpers.train.small:network", "data": "tests.helpers.train.small:data", "batch_size": 8}


def trained(data, config):
    """History, weights and the training batches in their order."""
    network, batches = build(config.network, seed=config.seed), []

    def see(module, args):
        if module.training:
            batches.append(args[0].clone())

    with network.register_forward_pre_hook(see):
        history = train(network, data, config)
    return history, network.state_dict(), batches


def both(samples, **changes):
    one, other = (trained(samples, TrainConfig(fused=fused, **changes)) for fused in (True, False))
    assert len(one[2]) == len(other[2]) > 0
    assert all(map(torch.equal, one[2], other[2]))
    assert one[1].keys() == other[1].keys()
    return one, other


@pytest.mark.parametrize("rate", [0, 0.03])
def test_where_no_scale_is_learned_it_is_the_same_to_the_bit(rate):
    """The demonstration's network has constant scales: every value and every gradient is Brevitas'."""
    one, other = both(digits(), epochs=2, validation=0.2, faults=bit_errors(rate) if rate else (), seed=1)
    assert one[0] == other[0]
    assert all(torch.equal(tensor, other[1][key]) for key, tensor in one[1].items())


@pytest.mark.parametrize("rate", [0, 0.03])
def test_where_scales_are_learned_sums_have_another_order(rate):
    one, other = both(small.data(), epochs=2, validation=0.2, faults=bit_errors(rate) if rate else (), **OWN)
    for first, second in zip(one[0], other[0], strict=True):
        assert first.loss == pytest.approx(second.loss, rel=1e-6)
        assert first.validation_loss == pytest.approx(second.validation_loss, rel=1e-6)
    for key, tensor in one[1].items():
        torch.testing.assert_close(tensor, other[1][key], rtol=1e-4, atol=1e-5)


@pytest.fixture
def seen(monkeypatch):
    """(in training, how many quantizers run as one operator each) of every forward that a network of ours has."""
    forwards, blocks = [], []
    begin, build_one = fusing.fused, small.network
    monkeypatch.setattr(fusing, "fused", lambda network: blocks.append(begin(network)) or blocks[-1])

    def network():
        made = build_one()
        count = lambda: sum(len(block.fused) for block in blocks)  # noqa: E731
        made.register_forward_pre_hook(lambda module, _: forwards.append((module.training, count())))
        return made

    monkeypatch.setattr(small, "network", network)
    return forwards


def test_training_and_validation(seen):
    network = build(OWN["network"])
    train(network, small.data(), TrainConfig(epochs=1, validation=0.2, **OWN))
    assert {(True, 3), (False, 3)} == set(seen)
    assert "forward" not in vars(network[0].weight_quant.tensor_quant.int_quant)
    seen.clear()
    train(network, small.data(), TrainConfig(epochs=1, validation=0.2, fused=False, **OWN))
    assert {(True, 0), (False, 0)} == set(seen)


def test_evaluation(seen):
    network, data = small.network().eval(), small.data()
    with torch.no_grad():
        expected = float((network(data.test_x).argmax(1) == data.test_y).float().mean())
    seen.clear()
    assert evaluate(network, data.test_x, data.test_y, (), seeds=(0,)).golden_accuracy == pytest.approx(expected)
    assert {(False, 3)} == set(seen)
    found = evaluate(network, data.test_x, data.test_y, bit_errors(0.1), seeds=(1, 2))
    with hf.fused(network):  # a block of the user's own
        assert evaluate(network, data.test_x, data.test_y, bit_errors(0.1), seeds=(1, 2)) == found


def said(config):
    lines = []
    with spoken(lines.append):
        train(build(config.network), small.data(), config)
    return lines


def ceiling():
    """A network of which some quantizers stay Brevitas'."""
    network = small.network()
    for layer in (network[0], network[3]):
        layer.weight_quant.tensor_quant.int_quant.float_to_int_impl = CeilSte()
    return network


def test_the_log_says_once_which_are_left_and_why():
    phases = [{"epochs": 1}, {"epochs": 1, "freeze": ["0.*"]}]
    assert said(TrainConfig(epochs=2, phases=phases, **OWN)) == ["3 of 3 quantizers run as one operator each"]
    assert said(TrainConfig(epochs=1, **OWN, fused=False)) == ["all quantizers run as Brevitas' own: `fused` is false"]
    own = OWN | {"network": "tests.train.test_fused_training:ceiling"}
    assert said(TrainConfig(epochs=1, **own)) == [
        "1 of 3 quantizers run as one operator each; as Brevitas' own: 0.weight_quant, 3.weight_quant (its "
        "rounding is a CeilSte, expected RoundSte)"
    ]


@pytest.mark.slow  # fusion/test_fused_networks.py has a quick one of what is compiled
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of the compiler about Brevitas' functions
def test_a_compiled_network_is_trained_as_brevitas_does():
    networks = [build(OWN["network"], dropout=0.0) for _ in range(2)]
    compiled, lines = torch.compile(networks[0], backend="eager"), []
    with spoken(lines.append):
        one = train(compiled, small.data(), TrainConfig(epochs=1, **OWN))
    assert lines[0].endswith("; as Brevitas' own: all that torch.compile has compiled")
    (epoch,) = train(networks[1], small.data(), TrainConfig(epochs=1, fused=False, **OWN))
    assert one[0].loss == pytest.approx(epoch.loss, rel=1e-5)


def test_a_network_that_is_compiled_in_place_is_told():
    net = build(OWN["network"], dropout=0.0)
    net.compile(backend="eager")
    with hf.fused(net) as block:
        assert describe_fused(net, block).endswith("all that torch.compile has compiled")


def test_without_the_native_library(monkeypatch):
    """It never was needed to train without faults, nor to measure."""

    def missing():
        raise NativeLibraryError("the library was never built")

    monkeypatch.setattr(fusing, "library", missing)
    assert said(TrainConfig(epochs=1, **OWN)) == ["all quantizers run as Brevitas' own: the library was never built"]
    monkeypatch.setattr(fusing, "fused", lambda network: pytest.fail("nothing may be fused"))
    data = small.data()
    evaluate(small.network(), data.test_x, data.test_y, (), seeds=(0,))


def test_many_are_counted():
    network = nn.Sequential(*(qnn.QuantLinear(4, 4, bias=False) for _ in range(5)))
    for layer in network:
        layer.weight_quant.tensor_quant.int_quant.float_to_int_impl = CeilSte()
    with hf.fused(network) as block:
        assert "0.weight_quant, 1.weight_quant, 2.weight_quant and 2 more (its rounding" in describe_fused(
            network, block
        )


def test_python_hears_of_it_where_a_log_was_asked_for(caplog):
    with caplog.at_level(logging.INFO, logger="hwfault"):
        train(small.network(), small.data(), TrainConfig(epochs=1, **OWN))
    assert [record.levelname for record in caplog.records] == ["INFO"]


class Overwriting(nn.Module):
    """Overwrites what a quantizer was given, which Brevitas' own does not need any more where its scale is constant."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.act = qnn.QuantIdentity(scaling_impl_type="const", scaling_init=1.0)
        self.last = nn.Linear(8, 3)

    def forward(self, x):
        hidden = self.first(x)
        out = self.act(hidden)
        hidden.detach().zero_()
        return self.last(out)


def test_what_writes_over_a_quantizers_values_is_told_what_to_do():
    own = OWN | {"network": "tests.train.test_fused_training:Overwriting"}
    with pytest.raises(HwfaultError, match="without operations in place, or set `fused: false`"):
        said(TrainConfig(epochs=1, **own))


def test_another_error_stays_what_it_is(monkeypatch):
    wrong = nn.Sequential(small.network(), nn.Linear(7, 3))
    monkeypatch.setattr(small, "network", lambda: wrong)
    with pytest.raises(RuntimeError, match="shapes"):
        said(TrainConfig(epochs=1, **OWN))


def test_a_block_around_it_is_refused():
    network = small.network()
    with hf.fused(network), pytest.raises(HwfaultError, match="is fused already"):
        train(network, small.data(), TrainConfig(epochs=1, **OWN))


def test_configurations_without_the_field():
    assert TrainConfig.parse({"epochs": 3}, "old").fused
    assert not TrainConfig.parse({"fused": False}, "new").fused
    with pytest.raises(HwfaultError, match="fused"):
        TrainConfig.parse({"fused": "perhaps"}, "wrong")


def test_a_run_goes_on_where_it_stopped(tmp_path):
    """With learned scales, whose gradients are sums: no order of them depends on where the run was stopped."""
    rules = {"epochs": 4, "validation": 0.2, "faults": bit_errors(0.02), "checkpoint_every_steps": 2, **OWN}

    def stopping_after(steps):
        left = iter(range(steps))

        def advance():
            if next(left, None) is None:
                raise KeyboardInterrupt

        return lambda _what, _steps: advance

    whole = train_into(tmp_path / "whole", TrainConfig(**rules), stopping_after(1000))
    with pytest.raises(KeyboardInterrupt):
        train_into(tmp_path / "parts", TrainConfig(**rules), stopping_after(7))
    assert train_into(tmp_path / "parts", TrainConfig(**rules), stopping_after(1000), resume=True) == whole
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "parts"))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
