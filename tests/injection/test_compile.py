"""Compiled networks: the same values as eager ones, wherever Brevitas' own networks compile.

Compiling takes seconds, so there are few of these; `aot_eager` traces all that `inductor` does and generates no code.
"""

import pytest
import torch
from brevitas.export.inference import quant_inference_mode
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import FAULTS, Seen, faulty, same_bits
from tests.helpers.injection.snapshot import snapshot
from tests.helpers.torch_ops import operators
from tests.slowly import slow
from tests.torch_ops.test_ops import arguments

# dynamo warns about itself and about Brevitas, differently in each version of torch
pytestmark = pytest.mark.filterwarnings("ignore")
FLIPS = [BitFlips(probability=0.05), BitFlips(p01=0.02, p10=0.1)]


@pytest.fixture(autouse=True)
def _fresh():
    """Dynamo as it is in a fresh process: it does not look for hooks that come and go."""
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=True):
        yield
    torch._dynamo.reset()


def no_breaks():
    return not counters["graph_break"]


@torch.no_grad()
def eager(name, faults, seed, batches):
    model = build(name)
    with inject(model, faults, seed=seed):
        return [model(x) for x in batches]


@pytest.mark.parametrize("name", ["compiled_soon", slow("power_of_two"), slow("binary")])
@torch.no_grad()
def test_evaluation_equals_eager_and_is_one_graph(name):
    model, backend = build(name), CompileCounterWithBackend("aot_eager")
    batches = [batch(4, seed=i) for i in range(3)]
    plain = [model(x) for x in batches]
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    assert same_bits(compiled(batches[0]), plain[0])
    before = snapshot(model)
    with inject(compiled, FLIPS, seed=3) as injection:  # after compiling
        assert attached(compiled)
        struck = [compiled(x) for x in batches]
        injection.seed, injection.first_sample = 4, 0
        other = [compiled(x) for x in batches]
        graphs = backend.frame_count
        for seed in range(5, 8):
            injection.seed, injection.first_sample = seed, 0
            again = [compiled(x) for x in batches]
            assert not torch.equal(again[0], other[0])
            assert injection.first_sample == 12
        assert backend.frame_count == graphs  # seeds and numbers are data
    assert not torch.equal(struck[0], plain[0])
    assert all(same_bits(one, two) for one, two in zip(struck, eager(name, FLIPS, 3, batches), strict=True))
    assert all(same_bits(one, two) for one, two in zip(other, eager(name, FLIPS, 4, batches), strict=True))
    assert not attached(model)
    assert {k: v["hooks"] for k, v in snapshot(model).items()} == {k: v["hooks"] for k, v in before.items()}
    assert same_bits(compiled(batches[0]), plain[0])  # removing takes effect, too
    assert no_breaks()


@pytest.mark.slow
@torch.no_grad()
def test_inductor_and_another_plan():
    model, x = build("power_of_two"), batch()
    compiled = torch.compile(model, fullgraph=True)
    with inject(model, FLIPS, seed=3) as injection:
        assert same_bits(compiled(x), eager("power_of_two", FLIPS, 3, [x])[0])
        other = [BitFlips(probability=0.2)]
        injection.plan, injection.first_sample = resolve(sites(model), other), 0
        assert same_bits(compiled(x), eager("power_of_two", other, 3, [x])[0])
    assert same_bits(compiled(x), model(x))
    assert no_breaks()


@pytest.mark.slow
@torch.no_grad()
def test_batches_of_other_sizes():
    model = build("power_of_two")
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    batches = [batch(n, seed=n) for n in (4, 7, 3)]
    with inject(model, FLIPS, seed=3):
        struck = [compiled(x) for x in batches]
    assert all(same_bits(one, two) for one, two in zip(struck, eager("power_of_two", FLIPS, 3, batches), strict=True))
    assert no_breaks()


@pytest.mark.parametrize("name", ["compiled_soon", slow("power_of_two"), slow("per_channel")])
@torch.no_grad()
def test_inference_mode_of_brevitas(name):
    """Quantizers answer with bare tensors there; their scales are known from a forward before."""
    model, x = build(name), batch()
    expected = eager(name, FLIPS, 3, [x])[0]
    with inject(model, FLIPS, seed=3) as injection, quant_inference_mode(model):
        assert same_bits(model(x), expected)
        injection.first_sample = 0
        assert same_bits(model(x), expected)
        injection.first_sample = 0
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert same_bits(compiled(x), expected)
        assert no_breaks()
    assert same_bits(model(x), build(name)(x))


@torch.no_grad()
def test_attaching_inside_inference_mode_of_brevitas():
    model, x, seen = build("per_channel"), batch(), Seen()
    plan = resolve(sites(model), FLIPS)
    with quant_inference_mode(model, cache_quant_weight=True):
        plain = model(x)
        with inject(model, plan, seed=3, observe=seen):
            model(x)
        assert same_bits(model(x), plain)
    assert {call.name for call in seen} == set(plan.names)
    assert all(same_bits(call.after, faulty(plan, call, 3, range(4))) for call in seen)


@pytest.mark.parametrize("name", ["bits", "asymmetric"])
def test_the_operator_compiles_with_its_gradient(name):
    args = arguments(name)

    def loss(x):
        return operators.inject(x, *args[1:]).square().sum()

    found = []
    for run in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True)):
        x = args[0].detach().requires_grad_()
        run(x).backward()
        found.append(x.grad)
    assert torch.equal(*found)
    assert no_breaks()


@pytest.mark.parametrize("name", ["compiled_soon", slow("power_of_two")])
def test_training_of_a_compiled_network_sees_the_same_faults(name):
    """Brevitas' own training forwards break graphs; the values must not care."""
    found = []
    for compiled in (False, True):
        model = build(name).train()
        run = torch.compile(model, backend="aot_eager") if compiled else model
        with inject(model, [WordFaults(probability=0.05)], seed=3):
            for i in range(2):
                run(batch(4, seed=i)).square().sum().backward()
        found.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for key in found[0]:
        assert torch.allclose(found[0][key], found[1][key], rtol=1e-4, atol=1e-5), key


def test_export_of_torch_is_refused():
    from hwfault.errors import GraphError

    model = build("power_of_two")
    with inject(model, FAULTS["bits"], seed=3), pytest.raises(GraphError, match="faults attached while it is exported"):
        torch.export.export(model, (batch(),))


@pytest.mark.slow
@torch.no_grad()
def test_control_of_a_compiled_network():
    """Parts of a plan, sites switched off and held faults take effect; going back to what was compiles nothing."""
    model, twin, x = build("power_of_two"), build("power_of_two"), batch()
    faults = [BitFlips(probability=0.1, sites=glob) for glob in ("*act*", "*weight*")]
    backend = CompileCounterWithBackend("aot_eager")
    found = sites(model)
    whole, acts, nothing = (resolve(found, faults, factors=each) for each in ((1, 1), (1, 0), (0, 0)))
    compiled = torch.compile(model, backend=backend, fullgraph=True)

    def states(injection):
        for plan in (whole, acts, nothing):
            injection.plan = plan
            yield
        injection.plan, injection.enabled = whole, False
        yield
        injection.enabled = True
        injection.disable("0.*")
        yield
        injection.enable()
        injection.hold = 3
        yield
        injection.hold = None
        injection.clock.world = 2
        yield
        injection.clock.world = 1

    with inject(model, whole, seed=3) as injection, inject(twin, whole, seed=3) as other:
        graphs = []
        for _ in range(2):
            for _ in zip(states(injection), states(other), strict=True):
                injection.first_sample = other.first_sample = 0
                assert same_bits(compiled(x), twin(x))
            graphs.append(backend.frame_count)
        assert graphs[0] == graphs[1]
    assert no_breaks()


@torch.no_grad()
def test_a_ramp_on_a_compiled_network_compiles_a_few_times_only():
    model, backend = build("compiled_soon"), CompileCounterWithBackend("aot_eager")
    faults, found = [BitFlips(probability=0.1)], sites(model)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    with inject(model, resolve(found, faults), seed=3) as injection:
        for i in range(1, 13):
            injection.plan, injection.first_sample = resolve(found, faults, factors=[i / 12]), 0
            compiled(batch())
    assert backend.frame_count <= 4
    assert no_breaks()
