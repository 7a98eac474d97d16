"""CUDA graphs, as far as that can be shown without CUDA: replayed forwards and training steps go on counting."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from hwfault.arithmetic.integer_layer import IntegerLayer
from hwfault.errors import HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.clock import Clock
from hwfault.injection.layer import QuantFaultInjectionLayer
from hwfault.injection.strike import Strike
from hwfault.laws.models import BitFlips, LateBits, WordFaults
from hwfault.network.grids import known_scale
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Seen, same_bits
from tests.helpers.injection.replay import WAITS, Recorded

FAULTS = [BitFlips(probability=0.03), BitFlips(p01=0.01, p10=0.05), WordFaults(probability=0.02)]
NAMES = ("cnn", "power_of_two", "per_channel", "residual")


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_replayed_evaluation_sees_the_next_samples(name):
    model, twin = build(name), build(name)
    x = batch(4)
    with inject(model, FAULTS, seed=3) as injection, inject(twin, FAULTS, seed=3):
        with Recorded() as graph:
            out = model(x)
        for i in range(4):
            if i:
                x.copy_(batch(4, seed=i))
                graph.replay()
            assert same_bits(out, twin(batch(4, seed=i)))
            assert injection.first_sample == 4 * (i + 1)
        injection.first_sample = 8  # numbers can be set between replays
        x.copy_(batch(4, seed=2))
        graph.replay()
        again = out.clone()
        injection.first_sample, injection.clock.epoch = 8, 5
        graph.replay()
        assert same_bits(out, again)


def steps(model, optimizer, x, target):
    optimizer.zero_grad(set_to_none=False)
    nn.functional.mse_loss(model(x), target).backward()
    optimizer.step()


def learner(name):
    model = build(name).train()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    return model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.every(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_replayed_training_step_is_the_next_step(name):
    """Forward, backward and optimizer: the backward finds the faults of its own forward."""
    found = []
    for replayed in (False, True):
        model, optimizer = learner(name)
        x, target = batch(4), torch.zeros(4, 5)
        with inject(model, FAULTS, seed=3) as injection:
            steps(model, optimizer, x, target)  # the momentum comes to be in the first step
            with Recorded() as graph:
                steps(model, optimizer, x, target)
            for i in range(3):
                x.copy_(batch(4, seed=i))
                if replayed:
                    graph.replay()
                else:
                    steps(model, optimizer, x, target)
            assert (injection.clock.steps, injection.first_sample) == (5, 20)
        found.append([t.detach().clone() for t in (*model.parameters(), *model.buffers())])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("name", NAMES)
def test_faults_add_no_wait_for_the_device(name):
    waits = []
    for faults in ([], FAULTS):
        model, optimizer = learner(name)
        with inject(model, faults, seed=3) if faults else torch.enable_grad(), Recorded() as graph:
            steps(model, optimizer, batch(4), torch.zeros(4, 5))
        assert not faults or graph.names.count("strike") >= 3
        waits.append(sorted(n for n in graph.names if n in WAITS or n == "_to_copy"))
    assert waits[0] == waits[1]


def test_numbers_that_a_forward_keeps_are_never_written():
    """Two forwards, numbers set in between, then both backward passes."""
    grads = []
    for apart in (False, True):
        model = build("power_of_two").train()
        with inject(model, [BitFlips(p01=0.05, p10=0.1)], seed=3) as injection:
            losses = []
            for i in range(2):
                losses.append(model(batch(4, seed=i)).square().sum())
                if apart:
                    losses.pop().backward()
                injection.first_sample, injection.clock.steps, injection.clock.epoch = 50 * i, 7, 3
            for loss in losses:
                loss.backward()
        grads.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in zip(*grads, strict=True))


def test_counters_that_would_begin_anew_at_every_replay(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(HwfaultError, match="run one forward before the capture"):
        Clock(torch.device("cuda"))


@torch.no_grad()
def test_held_faults_can_be_moved_between_replays():
    model, x, seen = build("cnn"), batch(4), Seen()
    with inject(model, FAULTS, seed=3) as injection:
        injection.hold = 2
        with Recorded() as graph:
            out = model(x)
        injection.hold = 9
        graph.replay()
        moved = out.clone()
    twin = build("cnn")
    with inject(twin, FAULTS, seed=3, observe=seen) as injection:
        injection.hold = 9
        assert same_bits(twin(x), moved)


@torch.no_grad()
def test_named_samples_can_be_written_between_replays():
    model, twin, x = build("cnn"), build("cnn"), batch(4)
    with inject(model, FAULTS, seed=3) as injection, inject(twin, FAULTS, seed=3) as other:
        numbers = torch.tensor([3, 1, 4, 1])
        injection.samples = numbers
        with Recorded() as graph:
            out = model(x)
        numbers.copy_(torch.tensor([7, 7, 2, 0]))
        graph.replay()
        other.samples = torch.tensor([7, 7, 2, 0])
        assert same_bits(out, twin(x))


def test_the_layer():
    from brevitas import nn as qnn

    def layer():
        faults = QuantFaultInjectionLayer([BitFlips(probability=0.1)], name="x", seed=5)
        return nn.Sequential(qnn.QuantIdentity(bit_width=4, return_quant_tensor=True), faults).eval()

    model, twin, x = layer(), layer(), batch(4)
    model(x), twin(x)  # a layer's counters come to be in its first forward
    with torch.no_grad(), Recorded() as graph:
        out = model(x).value
    assert same_bits(out, twin(x).value.detach())
    graph.replay()
    assert same_bits(out, twin(x).value.detach())


@pytest.mark.filterwarnings("ignore")  # dynamo warns about itself and about Brevitas
def test_compilers_are_told_that_the_counters_stay_where_they_are():
    """So that `mode="reduce-overhead"` captures graphs that advance them."""
    marked = []

    def backend(module, inputs):
        kinds = [n.meta.get("tensor_dict", {}) for n in module.graph.nodes if n.op == "placeholder"]
        marked.extend(k.get("_dynamo_static_input_type") for k in kinds)
        return module

    torch._dynamo.reset()
    model = build("compiled_soon")
    try:
        with torch.no_grad(), inject(model, FAULTS, seed=3) as injection:
            torch.compile(model, backend=backend, fullgraph=True)(batch())
            assert injection.first_sample == 4
    finally:
        torch._dynamo.reset()
    assert marked.count("unguarded") >= 1


def test_plans_that_are_no_programs_are_refused_where_they_are_attached():
    model = build("cnn")
    plan = resolve(sites(model), FAULTS)
    broken = plan.model_copy(update={"tables": ((3, 5), *plan.tables[1:])})
    with pytest.raises(HwfaultError, match="fault program"):
        Strike(broken, broken.sites[0], torch.device("cpu"))


@torch.no_grad()
def test_late_bits_of_another_layer_are_refused_by_the_host():
    """A kernel would read behind the values."""
    model = build("cnn")
    faults = [LateBits(probability=0.2, bits=3, sites={"kind": "accumulator"})]
    plan = resolve(sites(model, batch()), faults)
    first = plan.at("1.accumulator")
    strike = Strike(plan, first, torch.device("cpu"))
    clock, seed = Clock(torch.device("cpu")), torch.tensor(3)
    grid = (torch.tensor(1.0), torch.tensor(0.0))
    whole = (-1.0) ** torch.arange(2 * first.site.words).reshape(2, *first.site.shape)  # high bits that change
    assert not torch.equal(strike(whole, clock, seed, *grid, False), whole)
    with pytest.raises(PlanError, match=r"the late bits of '1.accumulator' are those of 4 channels of 16 words, but"):
        strike(whole[:, :, :3], clock, seed, *grid, False)


@torch.no_grad()
def test_faults_at_accumulators_add_no_wait_for_the_device_either():
    """But that a layer looks at its inputs' grid and both zero points: always on the CPU, else in its first forward."""
    model, x = build("power_of_two"), batch()
    plan = resolve(sites(model, x), [BitFlips(probability=0.05, sites={"kind": "accumulator"})])
    with inject(model, plan, seed=3), Recorded() as graph:
        model(x)
    assert graph.names.count("strike") == 2
    assert graph.names.count("equal") == 3 * 2  # the CPU looks each time
    assert not set(graph.names) & (set(WAITS) - {"equal"})


def test_a_layer_on_a_device_looks_at_its_grid_once():
    layer = IntegerLayer("x", build("cnn")[1], known_scale)
    with FakeTensorMode():
        x = torch.ones(2, device="cuda")
        with pytest.raises(DataDependentOutputException):  # it asks whether two tensors are equal
            layer._check_grid(x, x, x)
        layer._check_grid(x, x, x)
