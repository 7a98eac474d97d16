"""Training under faults: gradients as the rule says, and master weights that no fault ever touches."""

import copy
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import quantizers, sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import Seen, name_of_parameter, same_bits

FLIPS = [BitFlips(probability=0.05)]
pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")


class Replaced:
    """Faults written out by hand: given values take the place of what the quantizers return, forward and backward.

    `mask` false lets the gradient of the quantizer's own value through, true stops it.
    """

    def __init__(self, model, seen, straight_through):
        self.after = {name: iter(seen.of(name)) for name in {call.name for call in seen}}
        self.straight_through, self.runs = straight_through, Counter()
        self.handles = [
            proxy.register_forward_hook(
                lambda m, args, out, name=name: self._replace(name_of_parameter(model, m, args[0]) or name, out)
            )
            for name, proxy in quantizers(model)
        ]

    def _replace(self, name, out):
        value = getattr(out, "value", out)
        if value.dim() == 0:
            return None
        self.runs[name] += "act" in name or "input" in name
        call = next(self.after[name if self.runs[name] < 2 else f"{name}#{self.runs[name] - 1}"])
        assert same_bits(call.before, value)
        mask = call.before != call.after
        if self.straight_through:
            # the difference is a constant: values as after, gradient as before
            faulty = value + (call.after - value).detach()
            faulty = faulty + (call.after - faulty).detach()
        else:
            faulty = torch.where(mask, call.after, value)
        return out if value is out and faulty is None else (faulty if value is out else out._replace(value=faulty))

    def remove(self):
        for handle in self.handles:
            handle.remove()


def step(model, optimizer, i):
    x, target = batch(8, seed=i), torch.arange(8) % 5
    optimizer.zero_grad()
    loss = functional.cross_entropy(model(x), target)
    loss.backward()
    optimizer.step()
    return loss.detach()


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"asymmetric"}))
def test_gradients_are_those_of_values_put_in_by_hand(name, gradient):
    model = build(name).train()
    twin, seen, grads = copy.deepcopy(model), Seen(), []
    faults = [BitFlips(p01=0.05, p10=0.08), WordFaults(probability=0.02)]
    with inject(model, faults, seed=7, gradient=gradient, observe=seen):
        functional.cross_entropy(model(batch(8)), torch.arange(8) % 5).backward()
        grads.append({key: p.grad for key, p in model.named_parameters()})
    by_hand = Replaced(twin, seen, gradient == "straight_through")
    functional.cross_entropy(twin(batch(8)), torch.arange(8) % 5).backward()
    by_hand.remove()
    grads.append({key: p.grad for key, p in twin.named_parameters()})
    assert any(g is not None and g.abs().sum() > 0 for g in grads[0].values())
    for key, found in grads[0].items():
        expected = grads[1][key]
        assert (found is None) == (expected is None), key
        assert found is None or torch.equal(found, expected), key


def test_the_gradient_of_a_faulty_weight_is_zero():
    model, seen = build("power_of_two").train(), Seen()
    with inject(model, [WordFaults(probability=0.3, sites="*weight*")], seed=7, observe=seen):
        model(batch(8)).square().sum().backward()
    for i in (1, 4):
        call = seen.of(f"{i}.weight_quant")[0]
        struck = call.before != call.after
        assert 0 < struck.sum() < struck.numel()
        assert (model[i].weight.grad[struck] == 0).all()
        assert (model[i].weight.grad[~struck] != 0).any()


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_ten_steps_move_the_weights_by_their_gradients_only(gradient):
    model = build("biased").train()
    with inject(model, FLIPS, seed=7, gradient=gradient):
        for i in range(10):
            before = {key: p.detach().clone() for key, p in model.named_parameters()}
            step(model, torch.optim.SGD(model.parameters(), lr=0.05), i)
            for key, p in model.named_parameters():
                moved = before[key] if p.grad is None else before[key] - 0.05 * p.grad
                assert torch.allclose(p.detach(), moved, rtol=0, atol=1e-7), key


def test_steps_without_a_learning_rate_leave_the_state_untouched():
    model = build("power_of_two").train()
    for i in range(3):  # the runtime statistics come to rest where they are turned into parameters
        model(batch(8, seed=i))
    before = state(model)
    with inject(model, [WordFaults(probability=0.3), *FLIPS], seed=7, gradient="straight_through"):
        for i in range(10):
            step(model, torch.optim.SGD(model.parameters(), lr=0.0), i)
    after = state(model)
    assert before.keys() == after.keys()
    for key in before:
        if "runtime_stats" not in key and "counter" not in key and "scaling_impl" not in key:
            assert same_bits(before[key], after[key]), key
    assert same_bits(before["1.weight"], after["1.weight"])


def test_faults_do_not_accumulate():
    """Ten steps under faults in the weights of 1 % leave 1 % in the eleventh, not ten times as many."""
    model, seen = build("mlp").train(), Seen()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
    plan = resolve(sites(model), [WordFaults(probability=0.01, effect="msb", sites="*weight*")])
    shares = []
    with inject(model, plan, seed=7, observe=seen):
        for i in range(40):
            seen.clear()
            step(model, optimizer, i)
            (call,) = seen.of("1.weight_quant")
            shares.append((call.before != call.after).float().mean())
    words = 576
    early, late = (float(torch.stack(part).mean()) for part in (shares[:20], shares[20:]))
    sigma = (0.01 * 0.99 / (20 * words)) ** 0.5
    assert abs(early - 0.01) < 5 * sigma
    assert abs(late - 0.01) < 5 * sigma
    clean = build("mlp")
    assert torch.allclose(model[1].weight, clean[1].weight, atol=1e-4)


def test_other_weights_and_the_scale_do_not_move_with_a_fault():
    """The scale is learnt from clean masters: a struck weight leaves every other weight's value as it was."""
    model, seen = build("per_channel").train(), Seen()
    with inject(model, [WordFaults(probability=0.1, effect="msb", sites="1.weight_quant")], seed=7, observe=seen):
        for i in range(5):
            model(batch(8, seed=i))
    scales = [call.scale for call in seen]
    assert all(same_bits(scales[0], scale) for scale in scales)
    assert all(same_bits(seen[0].before, call.before) for call in seen)


def test_training_is_repeatable():
    def trained():
        model = build("biased").train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with inject(model, FLIPS, seed=7):
            losses = [step(model, optimizer, i) for i in range(5)]
        return torch.stack(losses), state(model)

    (one, first), (other, second) = trained(), trained()
    assert same_bits(one, other)
    assert all(same_bits(first[key], second[key]) for key in first)


def test_training_with_clipped_gradients_and_mixed_precision():
    model = build("power_of_two").train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with inject(model, [BitFlips(p01=0.05, p10=0.01)], seed=7):
        for i in range(2):
            with torch.autocast("cpu", torch.bfloat16):
                loss = functional.cross_entropy(model(batch(8, seed=i)), torch.arange(8) % 5)
            optimizer.zero_grad()
            loss.backward()
            assert torch.isfinite(nn.utils.clip_grad_norm_(model.parameters(), 1.0))
            optimizer.step()


def test_gradients_that_are_infinite_downstream_do_not_reach_struck_words():
    model, seen = build("power_of_two").train(), Seen()
    with inject(model, [WordFaults(probability=0.3, sites="4.weight_quant")], seed=7, observe=seen):
        out = model(batch(8))
        out.backward(torch.full_like(out, float("inf")))
    struck = seen[0].before != seen[0].after
    gradient = model[4].weight.grad
    assert (gradient[struck] == 0).all()
    assert not torch.isfinite(gradient[~struck]).all()
