"""Gradient checkpointing: what is recomputed is what it was, run by run, or an error."""

import pytest
import torch
from brevitas import nn as qnn
from torch import nn
from torch.utils.checkpoint import CheckpointError, checkpoint

from hwfault.errors import PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve

# what torch says of a checkpoint within another one, whose forward has no gradients
pytestmark = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True:UserWarning")
FAULTS = [BitFlips(p01=0.05, p10=0.1)]  # the gradient depends on the codes that are stored


class Unrolled(nn.Module):
    """One quantizer and one layer that run three times, in segments as `way` says."""

    def __init__(self, way, reentrant):
        super().__init__()
        self.start = nn.Linear(12, 12)
        self.q = qnn.QuantReLU(bit_width=4)
        self.layer = qnn.QuantLinear(12, 12, bias=False, weight_bit_width=4)
        self.way, self.reentrant = way, reentrant

    def step(self, x):
        return self.layer(self.q(x))

    def two(self, x):
        return self.step(self.step(x))

    def nested(self, x):
        return self.saved(self.step, self.saved(self.step, x))

    def saved(self, part, x):
        return checkpoint(part, x, use_reentrant=self.reentrant)

    def forward(self, x):
        return WAYS[self.way](self, self.start(x))


WAYS = {
    "plain": lambda m, x: m.step(m.two(x)),
    "run 1 only": lambda m, x: m.step(m.saved(m.step, m.step(x))),
    "each run": lambda m, x: m.saved(m.step, m.saved(m.step, m.saved(m.step, x))),
    "two together": lambda m, x: m.step(m.saved(m.two, x)),
    "the last two": lambda m, x: m.saved(m.two, m.step(x)),
    "nested": lambda m, x: m.step(m.saved(m.nested, x)),
    "nested around all": lambda m, x: m.saved(lambda y: m.step(m.nested(y)), x),
}


def made(way, reentrant=False):
    torch.manual_seed(0)
    model = Unrolled(way, reentrant)
    model(inputs())
    return model.train()


def inputs(seed=0):
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(seed))


def gradients(model, faults, call=None, steps=3):
    """The gradients of each of several training steps, each backward before the next forward."""
    found = []
    with inject(model, faults, seed=5):
        for seed in range(steps):
            model.zero_grad()
            (call or model)(inputs(seed)).square().sum().backward()
            found.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    return found


def close(one, other):
    """Equal but for the order in which gradients are added up; other faults move them by a tenth and more."""
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(one.abs().max()))


def plan_for(model, faults=FAULTS):
    return resolve(sites(model, inputs()), faults)


@pytest.mark.every(2)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", sorted(set(WAYS) - {"plain"}))
def test_gradients_are_those_without_checkpoints(way, reentrant):
    plain, model = made("plain"), made(way, reentrant)
    expected = gradients(plain, plan_for(plain))
    found = gradients(model, plan_for(plain))
    for one, other in zip(expected, found, strict=True):
        assert len(one) == len(other) > 2
        assert all(close(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.every(2)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", ["plain", "run 1 only", "nested"])
def test_the_whole_model_in_a_checkpoint(way, reentrant):
    plain, model = made("plain"), made(way, reentrant)
    expected = gradients(plain, plan_for(plain))

    def call(x):
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant)

    found = gradients(model, plan_for(plain), call)
    assert all(close(a, b) for o, f in zip(expected, found, strict=True) for a, b in zip(o, f, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_accumulators_of_several_runs(reentrant):
    faults = [WordFaults(probability=0.3, sites="*.accumulator")]
    plain, model = made("plain"), made("each run", reentrant)
    plain.start.requires_grad_(True)
    plan = plan_for(plain, faults)
    assert plan.names == tuple(f"layer.accumulator{run}" for run in ("", "#1", "#2"))
    for one, other in zip(gradients(plain, plan), gradients(model, plan), strict=True):
        assert all(close(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_backward_pass_twice_over_one_graph(reentrant):
    found = []
    for way in ("plain", "two together"):
        model = made(way, reentrant)
        with inject(model, plan_for(made("plain")), seed=5):
            loss = model(inputs()).square().sum()
            loss.backward(retain_graph=True)
            loss.backward()
        found.append([p.grad for p in model.parameters()])
    assert all(close(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_two_forwards_before_their_backward_passes(whole, reentrant):
    model = made("plain" if whole else "run 1 only", reentrant)

    def call(x):
        return checkpoint(model, x.requires_grad_(), use_reentrant=reentrant) if whole else model(x)

    with inject(model, plan_for(made("plain")), seed=5):
        loss = call(inputs(0)).sum() + call(inputs(1)).sum()
        with pytest.raises(PlanError, match="2 forwards with gradients"):
            loss.backward()
        # and one after the other, the earlier last
        first, second = call(inputs(0)).sum(), call(inputs(1)).sum()
        with pytest.raises(PlanError, match="forwards with gradients"):
            second.backward()
        with pytest.raises(PlanError, match="recomputed"):
            first.backward()


def test_a_backward_pass_of_an_earlier_forward():
    """The last forward had none, or had its own backward pass already."""
    model = made("run 1 only")
    with inject(model, plan_for(made("plain")), seed=5):
        loss = model(inputs()).sum()
        with torch.no_grad():
            model(inputs(1))
        with pytest.raises(PlanError, match="is not the one that is recomputed"):
            loss.backward()


class Inward(nn.Module):
    """Goes back over a part of itself before its forward ends, as gradient penalties do."""

    def __init__(self, way):
        super().__init__()
        self.inner = made(way)

    def forward(self, x):
        with torch.enable_grad():
            x = x.requires_grad_()
            (slope,) = torch.autograd.grad(self.inner(x).square().sum(), x)
        return slope


def test_a_backward_pass_within_a_forward():
    plain, saved = Inward("plain"), Inward("run 1 only")
    found = []
    for model in (plain, saved):
        with inject(model, resolve(sites(plain, inputs()), FAULTS), seed=5):
            found.append(model(inputs()))
    assert close(*found)
    # of an earlier forward, whose backward pass is still to come, it would have other numbers
    with inject(saved.inner, plan_for(made("plain")), seed=5):
        open_one = saved.inner(inputs())

        def late(_module, _args, output):
            torch.autograd.grad(open_one.sum(), saved.inner.start.weight)

        handle = saved.inner.layer.register_forward_hook(late)
        with pytest.raises(PlanError, match="2 forwards with gradients"):
            saved.inner(inputs(1))
        handle.remove()


def test_forwards_without_gradients_between_steps():
    plain, model = made("plain"), made("run 1 only")
    found = []
    for network in (plain, model):
        with inject(network, plan_for(plain), seed=5):
            network.zero_grad()
            network(inputs()).sum().backward()
            with torch.no_grad():
                network(inputs(1))
            network(inputs(2)).sum().backward()
            found.append([p.grad for p in network.parameters()])
    assert all(close(a, b) for a, b in zip(*found, strict=True))


def test_a_forward_that_is_not_recomputed_first():
    """A backward pass is noticed also where nothing is recomputed in it."""
    model = made("run 1 only")
    with inject(model, plan_for(made("plain")), seed=5):
        model.way = "plain"
        model(inputs()).sum().backward()
        model.way = "run 1 only"
        model(inputs()).sum().backward()


def test_a_recomputation_that_cannot_be_told_is_an_error():
    """Checkpointing of another make, and the first forward without an example."""

    class Own(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, part):
            ctx.part = part
            ctx.save_for_backward(x)
            with torch.no_grad():
                return part(x)

        @staticmethod
        def backward(ctx, gradient):
            (x,) = ctx.saved_tensors
            x = x.detach().requires_grad_()
            with torch.enable_grad():
                out = ctx.part(x)
            out.backward(gradient)
            return x.grad, None

    model = made("plain")
    model.saved = Own.apply
    model.forward = lambda x: model.step(Own.apply(model.start(x), model.step))
    with (
        inject(model, plan_for(made("plain")), seed=5),
        pytest.raises(PlanError, match="which run it is cannot be told"),
    ):
        model(inputs()).sum().backward()
    other = made("two together")
    with inject(other, FAULTS, seed=5), pytest.raises(PlanError, match="cannot be told"):
        other(inputs()).sum().backward()


def test_no_activation_lives_longer():
    """What tells segments apart holds none of their tensors."""
    import gc
    import weakref

    model, kept = made("each run"), []
    handle = model.q.register_forward_hook(lambda _m, _a, out: kept.append(weakref.ref(out)))
    with inject(model, plan_for(made("plain")), seed=5):
        model(inputs()).sum().backward()
        gc.collect()
        assert all(reference() is None for reference in kept)
    handle.remove()


ANEW = {
    "seed": lambda i, plan: setattr(i, "seed", 6),
    "plan": lambda i, plan: setattr(i, "plan", plan),
    "hold": lambda i, plan: setattr(i, "hold", 3),
    "samples": lambda i, plan: setattr(i, "samples", torch.arange(16) + 40),
    "enabled": lambda i, plan: setattr(i, "enabled", False),
    "disabled": lambda i, plan: i.disable("q*"),
}


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", ["each run", "two together"])
@pytest.mark.parametrize("what", ANEW)
def test_rules_that_are_set_before_the_backward_pass_are_an_error(what, way, reentrant):
    model = made(way, reentrant)
    listed = sites(model, inputs())
    plan, other = resolve(listed, FAULTS), resolve(listed, [BitFlips(probability=0.3)])
    with inject(model, plan, seed=5) as injection:
        out = model(inputs())
        ANEW[what](injection, other)
        with pytest.raises(PlanError, match=r"'q.act_quant.*' is recomputed .* was set anew since its forward"):
            out.sum().backward()


@pytest.mark.parametrize("what", ANEW)
def test_rules_that_are_set_between_two_steps_are_no_error(what):
    model = made("each run")
    listed = sites(model, inputs())
    with inject(model, resolve(listed, FAULTS), seed=5) as injection:
        model(inputs()).sum().backward()
        ANEW[what](injection, resolve(listed, [BitFlips(probability=0.3)]))
        model(inputs()).sum().backward()


@pytest.mark.parametrize("way", ["each run", "plain"])
def test_rules_that_are_set_to_what_they_are_change_nothing(way):
    model = made(way)
    with inject(model, resolve(sites(model, inputs()), FAULTS), seed=5) as injection:
        out = model(inputs())
        injection.seed, injection.plan, injection.enabled, injection.hold = 5, injection.plan, True, None
        injection.samples = None
        injection.first_sample = 100
        out.sum().backward()


def test_what_is_not_recomputed_keeps_its_rules():
    """The backward pass of an ordinary forward is its own, whatever was set since."""
    found = []
    for seed in (5, 6):
        model = made("plain")
        with inject(model, resolve(sites(model, inputs()), FAULTS), seed=5) as injection:
            out = model(inputs())
            injection.seed = seed
            out.sum().backward()
        found.append([p.grad for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("way", ["run 1 only", "each run", "two together", "nested around all"])
def test_faults_that_are_removed_before_the_backward_pass_are_an_error(way, reentrant):
    """Torch itself says so where it compares what is computed again."""
    model = made(way, reentrant)
    with inject(model, resolve(sites(model, inputs()), FAULTS), seed=5):
        out = model(inputs())
    raised = (PlanError, CheckpointError)
    with pytest.raises(raised, match=r"removed before the backward pass|during the original forward"):
        out.sum().backward()


@pytest.mark.parametrize("frozen", [False, True])
def test_an_ordinary_forward_goes_back_without_its_hooks(frozen):
    found = []
    for inside in (True, False):
        model = made("plain")
        before = model.two
        model.two = torch.no_grad()(before) if frozen else before
        with inject(model, resolve(sites(model, inputs()), FAULTS), seed=5):
            out = model(inputs())
            if inside:
                out.sum().backward()
        if not inside:
            out.sum().backward()
        found.append([p.grad for p in model.layer.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
