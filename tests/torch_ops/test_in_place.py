"""Struck in place, copied, or by functional operators: the same bits forward and backward, and nothing else moves."""

import copy
import itertools
import threading

import brevitas.nn as qnn
import pytest
import torch
from brevitas.export.inference import quant_inference_mode
from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from torch import nn
from torch.nn import functional

from hwfault.errors import HwfaultError
from hwfault.injection import site_hook
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, ProfileFaults, WordFaults
from hwfault.network.sites import quantizers, sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.mechanism import STREAM, StreamOperands
from hwfault.stream.protection_scheme import Protection
from hwfault.stream.tables import encode_table
from hwfault.torch_ops import eager
from hwfault.torch_ops.extension import extension, without_extension
from tests.helpers.injection.networks import NETWORKS, Chain, batch, build
from tests.helpers.injection.oracle import FAULTS, Seen, same_bits
from tests.helpers.torch_ops import operators

pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")
WAYS = [*(["extension"] if extension() is not None else []), "in place", "copied", "operators"]


class Written:
    """Counts what is struck: tensors in place and copies."""

    def __init__(self, monkeypatch):
        self.in_place, self.copies, self.zeroed = 0, 0, 0
        write, zero = eager._written, eager._zeroed

        def written(x, faults, operands, in_place, left):
            out = write(x, faults, operands, in_place, left)
            assert (out.data_ptr() == x.data_ptr()) == in_place or not x.numel()
            self.in_place += in_place
            self.copies += not in_place
            return out

        def zeroed(gradient, x, *rest):
            at = gradient.data_ptr()
            out = zero(gradient, x, *rest)
            self.zeroed += out.data_ptr() == at
            return out

        monkeypatch.setattr(eager, "_written", written)
        monkeypatch.setattr(eager, "_zeroed", zeroed)


@pytest.fixture
def written(monkeypatch):
    return Written(monkeypatch)


def by(way, run):
    """What `run` returns when values are struck in one of the WAYS."""
    if way == "extension":
        return run()
    with pytest.MonkeyPatch.context() as patch, without_extension():
        if way != "in place":
            patch.setattr(site_hook, "output_is_unheld", lambda _output: False)
            patch.setattr(eager, "gradient_is_unheld", lambda _gradient: False)
        if way == "operators":
            patch.setattr(eager, "traced", lambda: True)
        return run()


def same(one, other):
    if isinstance(one, torch.Tensor):
        return same_bits(one.detach(), other.detach())
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def assert_same_by_all_ways(run):
    results = [by(way, run) for way in WAYS]
    for way, other in itertools.pairwise(results):
        assert same(way, other)
    return results[0]


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def trained(name, faults, gradient="zero", steps=2, before=None):
    """Outputs, gradients and state of a few steps of training."""
    model = build(name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    found = []
    if before:
        before(model)
    with inject(model, faults, seed=7, gradient=gradient):
        for i in range(steps):
            optimizer.zero_grad()
            out = model(batch(8, seed=i))
            functional.cross_entropy(out, torch.arange(8) % 5).backward()
            optimizer.step()
            found.append((out, gradients(model)))
    return found, {key: t.clone() for key, t in model.state_dict().items()}


@pytest.mark.every(7)
@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("name", NETWORKS)
def test_training(name, gradient, written):
    by("in place", lambda: trained(name, FAULTS["bits"], gradient))
    assert written.in_place > 0
    assert written.copies == 0
    assert_same_by_all_ways(lambda: trained(name, FAULTS["bits"], gradient))


@pytest.mark.every(7)
@pytest.mark.parametrize("faults", FAULTS)
def test_every_kind_of_fault(faults):
    assert_same_by_all_ways(lambda: trained("cnn", FAULTS[faults]))
    assert_same_by_all_ways(lambda: trained("cnn", FAULTS[faults], "straight_through"))


@pytest.mark.parametrize("training", [False, True])
def test_protected_memories(training, written):
    """Their decoders count alike on every way; for a backward pass the values before are kept."""
    secded = Protection(kind="secded", data_bits=16)
    faults = [ProfileFaults(profile="uniform-flips", at={"ber": 0.02}, sites="*", protection=secded)]

    def run():
        model = build("cnn").train(training)
        known = resolve(sites(model, batch(8)), faults)
        with inject(model, known, seed=7) as injection, torch.set_grad_enabled(training):
            out = model(batch(8))
            if training:
                out.square().sum().backward()
            return out, gradients(model), {n: list(c) for n, c in injection.protection_counts().items()}

    by("in place", run)
    assert (written.in_place, written.copies) == ((0, 4) if training else (4, 0))
    _, _, counts = assert_same_by_all_ways(run)
    assert all(sum(c) for c in counts.values())


@pytest.mark.every(7)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_evaluation(name, context, written):
    def run():
        model = build(name)
        with inject(model, [f for key in ("bits", "asymmetric", "random") for f in FAULTS[key]], seed=7), context():
            return [model(batch(8, seed=i)) for i in range(3)]

    by("in place", run)
    assert written.in_place > written.copies == 0
    assert_same_by_all_ways(run)


def test_gradients_are_zeroed_in_place_where_nobody_holds_them(written):
    by("in place", lambda: trained("cnn", FAULTS["bits"], steps=1))
    # the gradients of the convolution's weights and inputs; those around the linear layer come as views
    assert written.zeroed == 2


@torch.no_grad()
def test_inference_mode_of_brevitas():
    def run():
        model, x = build("power_of_two"), batch(8)
        with quant_inference_mode(model):
            clean = model(x)
            with inject(model, [WordFaults(probability=0.2)], seed=7) as injection:
                outs = [model(x) for _ in range(2)]
                injection.first_sample = 0
                assert same_bits(model(x), outs[0])
            assert same_bits(model(x), clean)
        assert same_bits(model(x), clean)
        return outs

    assert_same_by_all_ways(run)


@pytest.mark.parametrize("training", [False, True])
def test_outputs_that_are_the_inputs_are_copied(training):
    """Quantizers that only observe return what they were given: parameters, and tensors of the caller's."""
    model = build("power_of_two").train(training)
    for _, proxy in quantizers(model):
        fused = getattr(proxy, "fused_activation_quant_proxy", None)
        tensor_quant = fused.tensor_quant if fused is not None else proxy.tensor_quant
        tensor_quant.observer_only = True
    x = batch(8)
    before, state = x.clone(), copy.deepcopy(model.state_dict())
    with inject(model, [WordFaults(probability=0.2)], seed=7), torch.set_grad_enabled(training):
        out = model(x)
    assert same_bits(x, before)
    assert all(same_bits(t, state[key]) for key, t in model.state_dict().items() if "weight" in key)
    assert not torch.equal(out, model(x))


def test_observers_see_the_values_before():
    def run():
        seen = Seen()
        model = build("residual").train()
        with inject(model, FAULTS["several"], seed=7, observe=seen):
            model(batch(8)).sum().backward()
        return [(call.name, call.before, call.after) for call in seen], gradients(model)

    calls, _ = assert_same_by_all_ways(run)
    assert any(not torch.equal(before, after) for _, before, after in calls)


@pytest.mark.parametrize("second", ["bits", "asymmetric"])
@pytest.mark.parametrize("first", ["bits", "asymmetric"])
def test_several_injections(first, second, written):
    def run():
        model = build("cnn").train()
        with inject(model, FAULTS[first], seed=7), inject(model, FAULTS[second], seed=8):
            model(batch(8)).square().sum().backward()
        return gradients(model)

    by("in place", run)
    # the codes stored before are kept for the backward; a new output is held by the loop over the hooks behind it
    assert written.in_place == {"bits": 4 + 4 * (second == "bits"), "asymmetric": 0}[first]
    assert_same_by_all_ways(run)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_types(dtype, written):
    def run():
        torch.manual_seed(0)
        model = Chain(
            qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4),
            nn.Flatten(),
            qnn.QuantLinear(72, 5, bias=False, weight_quant=Int8WeightPerTensorFloat, weight_bit_width=4),
        ).to(dtype)
        model(batch(8).to(dtype))
        with inject(model, [BitFlips(probability=0.1)], seed=7):
            out = model(batch(8).to(dtype))
            out.square().sum().backward()
        return out, gradients(model)

    by("in place", run)
    assert written.in_place == 2
    assert_same_by_all_ways(run)


def test_channels_last_and_expanded_gradients():
    def run():
        model, x = build("residual").train(), batch(8).to(memory_format=torch.channels_last).requires_grad_()
        model = model.to(memory_format=torch.channels_last)
        with inject(model, FAULTS["several"], seed=7):
            model.stem(x).value.sum().backward()
            model(x).sum().backward()
        return x.grad, gradients(model)

    assert_same_by_all_ways(run)


def test_no_samples():
    def run():
        model = build("cnn")
        with inject(model, FAULTS["bits"], seed=7), torch.no_grad():
            return model(batch(8)[:0])

    assert assert_same_by_all_ways(run).shape == (0, 5)


@pytest.mark.parametrize("reads_others", [False, True])
def test_late_bits_are_never_struck_in_place(reads_others):
    """Half of the words take the low bits of the word before, which must not have been struck yet."""
    x = torch.arange(40.0).reshape(8, 5) % 8
    body = [7, 1, 1, 5, 1, *encode_table(0.5)]
    program = torch.tensor([4, 1, len(body), *body])
    tensors = (torch.arange(8), torch.tensor(3), program, torch.ones(()), torch.zeros(()))
    operands = StreamOperands(*tensors, bit_width=4, signed=1, representation=0)
    faults = eager.Faults(STREAM, True, reads_others)
    if not reads_others:
        with pytest.raises(HwfaultError, match="late bits"):  # the last line of defence
            eager.strike_eagerly(x, faults, operands, False, True)
        return
    before = x.clone()
    out = eager.strike_eagerly(x, faults, operands, False, True)
    assert same_bits(x, before)
    assert same_bits(out, operators.inject(x, *tensors, 4, True, False, True, 0))
    assert not torch.equal(out, x)


def test_a_value_with_a_history_under_no_grad_is_copied():
    """In place it would go on to pass gradients, which a new tensor made under no_grad does not."""

    def run():
        model = nn.Sequential(qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, bit_width=4))
        proxy, x = model[0].act_quant, batch(8).requires_grad_()
        forward = proxy.forward

        def with_history(x):
            with torch.enable_grad():
                return forward(x)

        proxy.forward = with_history
        with inject(model, [BitFlips(probability=0.1)], seed=7), torch.no_grad():
            out = model(x)
        return out, out.requires_grad

    assert assert_same_by_all_ways(run)[1] is False


def test_threads_with_copies_of_their_own_do_not_meet():
    model, xs = build("residual"), [batch(8, seed=i) for i in range(4)]
    with inject(model, FAULTS["bits"], seed=7) as injection, torch.no_grad():
        injection.samples = torch.arange(8)
        expected = [by("copied", lambda x=x: model(x)) for x in xs]
        copies = [copy.deepcopy(model) for _ in xs]
    found = [[] for _ in xs]

    def run(i):
        with inject(copies[i], FAULTS["bits"], seed=7) as injection, torch.no_grad():
            injection.samples = torch.arange(8)
            found[i] += [copies[i](xs[i]) for _ in range(20)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(xs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(same_bits(out, expected[i]) for i, outs in enumerate(found) for out in outs)
    assert all(len(outs) == 20 for outs in found)


def test_modes_that_watch_operators_see_one():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        names = ()

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.names = (*self.names, func.name())
            return func(*args, **(kwargs or {}))

    model = build("cnn")
    with inject(model, FAULTS["bits"], seed=7), torch.no_grad(), Names() as mode:
        model(batch(8))
    assert mode.names.count("hwfault::strike") == 4
