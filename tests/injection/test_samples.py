"""Which sample numbers a forward has: results depend on the sample and not on its company."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.networks import NETWORKS, batch, build
from tests.helpers.injection.oracle import Seen, faulty, same_bits

FLIPS = [BitFlips(probability=0.05)]
MODELS = {"bits": FLIPS, "asymmetric": [BitFlips(p01=0.08, p10=0.01)], "random": [WordFaults(probability=0.1)]}


def outputs(model, batches):
    return torch.cat([model(x) for x in batches])


def activations(seen, name):
    return torch.cat([call.after for call in seen.of(name)])


def check(seen, plan, seed, samples, step=0):
    """The calls of one forward: activations have these sample numbers, parameters the step's."""
    assert {call.name for call in seen} == set(plan.names)
    for call in seen:
        assert same_bits(call.after, faulty(plan, call, seed, samples, step)), call.name


@pytest.mark.parametrize("faults", MODELS)
@pytest.mark.parametrize("name", ["power_of_two", "binary", "asymmetric", "twice"])
def test_batch_64_equals_64_times_batch_1(name, faults):
    model, x = build(name), batch(64)
    whole, single = Seen(), Seen()
    with torch.no_grad():
        with inject(model, MODELS[faults], seed=7, observe=whole):
            model(x)
        with inject(model, MODELS[faults], seed=7, observe=single):
            outputs(model, x.split(1))
    for site in {call.name for call in whole}:
        calls = whole.of(site)
        for i, call in enumerate(calls):
            ones = single.of(site)[i :: len(calls)]
            assert len(ones) == 64
            before, after = (torch.cat([getattr(one, key) for one in ones]) for key in ("before", "after"))
            if call.after.shape[0] != 64:
                before, after = before[: len(call.before)], after[: len(call.after)]
            # float sums may differ in the last bit from one batch size to another, where arithmetic is not exact
            same = before == call.before
            assert same.all() or (name != "power_of_two" and same.float().mean() > 0.9)
            assert torch.equal(call.after[same], after[same]), site


def test_any_split_gives_the_same_outputs():
    model, x = build("power_of_two"), batch(24)
    with inject(model, FLIPS, seed=7) as injection, torch.no_grad():
        whole = model(x)
        for sizes in ([24], [5, 19], [1, 2, 3, 4, 14], [7, 7, 7, 3]):
            injection.first_sample = 0
            assert same_bits(outputs(model, x.split(sizes)), whole)
            assert injection.first_sample == 24


@pytest.mark.parametrize("seed", range(3))
def test_any_order_with_samples(seed):
    model, x = build("power_of_two"), batch(16)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(seed))
    with inject(model, FLIPS, seed=7) as injection, torch.no_grad():
        whole = model(x)
        injection.samples = order
        assert same_bits(model(x[order]), whole[order])
        injection.samples = order[:3]
        assert same_bits(model(x[order[:3]]), whole[order[:3]])
        injection.samples = [3, 3, 3]
        assert same_bits(model(x[[3, 3, 3]]), whole[[3, 3, 3]])
        injection.samples, injection.first_sample = None, 4
        assert same_bits(model(x[4:9]), whole[4:9])


class Tempered(nn.Module):
    """Its first argument is no batch: three numbers, whatever the number of samples."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, temperatures, x):
        return self.inner(x) * temperatures.mean()


def test_a_first_argument_that_is_no_batch_is_refused():
    """Its three numbers were counted as samples once, and the four samples of the sites beside them."""
    model = Tempered(build("power_of_two")).eval()
    plan = resolve(sites(model), FLIPS)
    with torch.no_grad(), inject(model, plan, seed=7), pytest.raises(PlanError, match=r"4 samples .* inputs hold 3"):
        model(torch.ones(3), batch(4))


def test_samples_given_one_by_one_leave_the_running_number():
    model, x = build("power_of_two"), batch(4)
    with inject(model, FLIPS, seed=7) as injection, torch.no_grad():
        model(x)
        injection.samples = torch.tensor([90, 91, 92, 93])
        model(x)
        injection.samples = None
        assert injection.first_sample == 4


@pytest.mark.parametrize("first", [0, 1, 5, 2**31, 2**32 - 5])
def test_the_first_sample_can_be_set(first):
    model, seen = build("cnn"), Seen()
    plan = resolve(sites(model), FLIPS)
    with inject(model, plan, seed=7, observe=seen) as injection:
        injection.first_sample = first
        assert injection.first_sample == first
        model(batch(5))
        assert injection.first_sample == first + 5
    check(seen, plan, 7, range(first, first + 5))


def test_the_first_sample_only_moves_activations():
    model, seen = build("cnn"), Seen()
    with inject(model, FLIPS, seed=7, observe=seen) as injection:
        model(batch())
        injection.first_sample = 100
        model(batch())
    for name in ("0.act_quant", "1.weight_quant", "5.weight_quant"):
        one, other = seen.of(name)
        assert torch.equal(one.before, other.before)
        assert torch.equal(one.after, other.after) == (name != "0.act_quant")


@pytest.mark.parametrize("samples", [[1, 2, 3], [1, 2, 3, 4, 5], [], [[1, 2, 3, 4]], 7])
def test_samples_of_another_number_than_the_batch(samples):
    model = build("cnn")
    with inject(model, FLIPS, seed=7) as injection:
        injection.samples = samples
        with pytest.raises(HwfaultError, match=r"`samples` has shape \(.*\) but the batch has 4 elements"):
            model(batch(4))
        injection.samples = None
        model(batch(4))


@pytest.mark.parametrize("number", [-1, 1.7, 2**32, 2**32 + 1, 2**63, "3", None, True])
def test_first_samples_that_are_none(number):
    with inject(build("cnn"), FLIPS, seed=7) as injection:
        with pytest.raises(HwfaultError, match=r"the sample number is .*expected an integer from 0"):
            injection.first_sample = number
        assert injection.first_sample == 0


def test_samples_that_are_no_integers():
    with inject(build("cnn"), FLIPS, seed=7) as injection:
        with pytest.raises(HwfaultError, match="expected integers"):
            injection.samples = [0.5, 1.0, 2.0, 3.0]
        assert injection.samples is None


def test_the_samples_are_the_caller_s_and_not_written():
    model, numbers = build("cnn"), torch.arange(4)
    with inject(model, FLIPS, seed=7) as injection:
        injection.samples = numbers
        model(batch(4))
        assert torch.equal(injection.samples, numbers)
    assert numbers.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_of_nothing_passes_through(name):
    model = build(name)
    with inject(model, [BitFlips(p01=0.05, p10=0.01)], seed=7) as injection, torch.no_grad():
        clean = build(name)(batch(0))
        out = model(batch(0))
        assert out.shape == clean.shape
        assert out.shape[0] == 0
        assert injection.first_sample == 0
        injection.samples = []
        assert model(batch(0)).shape == clean.shape


def test_training_runs_on_and_evaluation_starts_anew_after_it():
    model, seen = build("cnn"), Seen()
    plan = resolve(sites(model), FLIPS)
    with inject(model, plan, seed=7, observe=seen) as injection:

        def forward(training, size, samples, step):
            seen.clear()
            model.train(training)(batch(size))
            check(seen, plan, 7, samples, step)

        forward(False, 3, range(3), 0)
        forward(False, 2, range(3, 5), 0)
        forward(True, 4, range(4), 0)
        forward(True, 3, range(4, 7), 1)
        assert injection.first_sample == 7
        forward(False, 4, range(4), 0)
        forward(False, 4, range(4, 8), 0)
        assert injection.first_sample == 8
        forward(True, 2, range(7, 9), 2)
        forward(False, 2, range(2), 0)
        assert injection.clock.steps == 3


def test_training_can_be_resumed():
    model, seen = build("cnn").train(), Seen()
    plan = resolve(sites(model), FLIPS)
    with inject(model, plan, seed=7, observe=seen) as injection:
        injection.clock.steps, injection.first_sample = 1000, 64000
        model(batch(4))
        assert injection.clock.steps == 1001
    check(seen, plan, 7, range(64000, 64004), 1000)


def test_every_training_step_draws_anew_and_evaluation_does_not():
    model, seen = build("cnn"), Seen()
    with inject(model, FLIPS, seed=7, observe=seen) as injection:
        for _ in range(3):
            injection.first_sample = 0
            model.eval()(batch())
        evaluated = {name: seen.of(name) for name in ("0.act_quant", "1.weight_quant")}
        seen.clear()
        for _ in range(3):
            model.train()(batch())
    for calls in evaluated.values():
        assert all(same_bits(calls[0].after, call.after) for call in calls)
    codes = [call.after / call.scale - call.before / call.scale for call in seen.of("1.weight_quant")]
    assert not torch.equal(codes[0], codes[1])
    assert not torch.equal(codes[1], codes[2])


def test_the_numbers_of_an_aborted_forward_are_not_used_up_twice():
    model, seen = build("cnn"), Seen()
    plan = resolve(sites(model), FLIPS)
    with inject(model, plan, seed=7, observe=seen):
        with pytest.raises(RuntimeError):
            model(torch.zeros(2, 2, 2, 2))
        seen.clear()
        model(batch(2))
    numbers = [n for n in (range(2), range(2, 4)) if _fits(seen, plan, n)]
    assert len(numbers) == 1


def _fits(seen, plan, numbers):
    return all(same_bits(c.after, faulty(plan, c, 7, numbers)) for c in seen.of("0.act_quant"))


class Checkpointed(nn.Module):
    """A network whose inner part is computed again in the backward pass."""

    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


def gradients(model, x):
    model.zero_grad()
    model(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("faults", MODELS)
def test_a_recomputed_part_sees_the_same_faults(faults, reentrant):
    plain, model = (nn.Sequential(build("power_of_two")).train() for _ in range(2))
    again, seen = Checkpointed(model[0], reentrant).train(), Seen()
    with inject(plain, [f.model_copy(update={"sites": f.sites}) for f in MODELS[faults]], seed=7):
        expected = [gradients(plain, batch(4, seed=i).requires_grad_()) for i in range(2)]
    with inject(again, MODELS[faults], seed=7, observe=seen):
        found = [gradients(again, batch(4, seed=i).requires_grad_()) for i in range(2)]
    assert len(expected[0]) > 1
    for one, other in zip(expected, found, strict=True):
        # the names differ ("0.0...", "inner.0..."), and so the faults; what must hold is that both runs see the same
        assert {k.split(".", 1)[1] for k in one} == {k.split(".", 1)[1] for k in other}
    runs = seen.of("inner.1.weight_quant")
    assert len(runs) == 4
    assert same_bits(runs[0].after, runs[1].after)
    assert same_bits(runs[2].after, runs[3].after)
    assert not torch.equal(runs[0].after, runs[2].after)
    for name in {call.name for call in seen}:
        calls = seen.of(name)
        assert same_bits(calls[0].after, calls[1].after), name


def test_a_recomputed_model_has_the_gradients_of_a_plain_one():
    class Whole(nn.Module):
        def __init__(self, again):
            super().__init__()
            self.inner, self.again = build("power_of_two"), again

        def forward(self, x):
            return checkpoint(self.inner, x, use_reentrant=False) if self.again else self.inner(x)

    found = []
    for again in (False, True):
        model = Whole(again).train()
        with inject(model, MODELS["asymmetric"], seed=7):
            found.append([gradients(model, batch(4, seed=i)) for i in range(3)])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_the_injected_model_itself(reentrant):
    model, seen = build("power_of_two").train(), Seen()
    with inject(model, FLIPS, seed=7, observe=seen) as injection:
        for i in range(2):
            x = batch(4, seed=i).requires_grad_()
            checkpoint(model, x, use_reentrant=reentrant).square().sum().backward()
        assert injection.clock.steps == 2
        assert injection.first_sample == 8
    for name in {call.name for call in seen}:
        calls = seen.of(name)
        assert same_bits(calls[0].after, calls[1].after), name
        assert same_bits(calls[2].after, calls[3].after), name


@pytest.mark.parametrize("reentrant", [False, True])
def test_two_forwards_before_what_is_recomputed_of_them(reentrant):
    """As Injection says: a recomputation cannot know its forward, so it is to run before the next one."""
    model = Checkpointed(build("power_of_two"), reentrant).train()
    with inject(model, FLIPS, seed=7):
        loss = sum(model(batch(4, seed=i).requires_grad_()).square().sum() for i in range(2))
        with pytest.raises(PlanError, match=r"2 forwards with gradients .* run the backward pass of each forward"):
            loss.backward()


def test_gradient_accumulation_without_recomputation():
    model = build("power_of_two").train()
    with inject(model, MODELS["asymmetric"], seed=7) as injection:
        model.zero_grad()
        (model(batch(4, seed=0)).square().sum() + model(batch(4, seed=1)).square().sum()).backward()
        both = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        injection.first_sample, injection.clock.steps = 0, 0
        model.zero_grad()
        for i in range(2):
            model(batch(4, seed=i)).square().sum().backward()
        apart = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(both, apart, strict=True))


def test_numbers_set_in_inference_mode_serve_training():
    model = build("cnn")
    with inject(model, [BitFlips(p01=0.05, p10=0.01)], seed=7) as injection:
        with torch.inference_mode():
            model(batch())
            injection.seed, injection.first_sample, injection.clock.steps = 8, 3, 2
            injection.plan = resolve(sites(model), [BitFlips(p01=0.01, p10=0.05)])
            model(batch())
        model.train()(batch()).sum().backward()
        with torch.inference_mode():
            model.train()(batch())
        model.train()(batch()).sum().backward()
    assert model[1].weight.grad is not None


def test_attaching_in_inference_mode_serves_training():
    model = build("cnn").train()
    with torch.inference_mode():
        injection = inject(model, FLIPS, seed=7)
    model(batch()).sum().backward()
    injection.remove()
    assert model[1].weight.grad is not None


def test_a_layer_that_folds_other_axes_into_the_batch():
    from brevitas import nn as qnn

    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = qnn.QuantIdentity(), qnn.QuantIdentity()

        def forward(self, x):  # (batch, 2, 6, 6) -> (batch * 2, 36)
            return self.second(self.first(x).reshape(-1, 36))

    model, seen = Folded().eval(), Seen()
    plan = resolve(sites(model, batch(2)), FLIPS)
    with inject(model, plan, seed=7, observe=seen):
        model(batch(4))
        model(batch(4))
    assert plan.at("second.act_quant").site.shape == (2, 36)
    for name in ("first.act_quant", "second.act_quant"):
        for call, numbers in zip(seen.of(name), [range(4), range(4, 8)], strict=True):
            assert same_bits(call.after, faulty(plan, call, 7, numbers))
    with inject(model, resolve(sites(model), FLIPS), seed=7), pytest.raises(PlanError, match="values of 'second"):
        model(batch(4))
