"""Graphs with permanent, intermittent and transient faults on one site: the same bits, and a plan that is kept to."""

import json
from functools import cache
from itertools import pairwise

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from hwfault.errors import GraphError, HwfaultError, PlanError
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.read.qonnxgraph import set_metadata
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import load_model, run, session
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import MapStep
from hwfault.proof.replay import replay
from hwfault.stream.mapping import Linear
from tests.helpers.graph.networks import ALL, batch, network
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.running import by_pytorch, by_qonnx, clean, copied, tidied

SEEDS = (1, 2**63 + 5)
REFRESHES = ("inference", "batch", "epoch", "power_cycle")
SRAM = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0}, sites="*")
SMALL = ("biased", "twice", "binary", "mlp")


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """refresh -> the faults of a profile of independent cells, at every site, half of them active."""
    folder = tmp_path_factory.mktemp("profiles")

    def made(refresh, p=0.05, **options):
        content = {
            "schema_version": 1, "name": refresh, "title": refresh, "component": "weight_memory",
            "rate": {"quantity": "faulty_cells", "free": ["p"]},
            "effect": {"flip": 0.5, "stuck_at_0": 0.25, "stuck_at_1": 0.25}, "spatial": {"kind": "independent"},
            "persistence": {"kind": "intermittent", "p_active": 0.5, "refresh": refresh},
        }  # fmt: skip
        (folder / f"{refresh}.yaml").write_text(json.dumps(content))
        return ProfileFaults(profile=str(folder / f"{refresh}.yaml"), at={"p": p}, **{"sites": "*"} | options)

    return made


@cache
def found(name):
    return tuple(sites(network(name), batch(name)))


@pytest.fixture(scope="module")
def mixed(profile):
    """name -> (plan, graph): seven steps at each site."""

    @cache
    def made(name):
        coming = [profile(refresh) for refresh in REFRESHES]
        faults = [SRAM, BitFlips(probability=0.02), *coming, BitFlips(p01=0.01, p10=0.03)]
        plan = resolve(found(name), faults, device=3)
        return plan, insert_faults(clean(name), plan)

    return made


def graph_of(name, *faults, **options):
    plan = resolve(found(name), faults, **options)
    return plan, insert_faults(clean(name), plan)


def batches(name, sizes=(5, 1, 8), seed=3):
    return list(batch(name, sum(sizes), seed).split(list(sizes)))


def by_network(name, plan, x, seed, first_sample=0):
    with inject(network(name), plan, seed=seed) as injection:
        injection.first_sample = first_sample
        return by_pytorch(network(name), x)


def ops_of(graph):
    return [node.op_type for entry in fault_nodes(graph) for node in entry.nodes]


@pytest.mark.every(9)
@pytest.mark.parametrize("name", ALL)
def test_replay_is_exact(mixed, name):
    plan, graph = mixed(name)
    report = replay(network(name), graph, batches(name), seeds=SEEDS)
    assert report.verdict == "pass", report
    assert report.exit_code == 0
    struck = [site for site in report.sites if site.name in plan.names]
    assert {site.name for site in struck} == set(plan.names)
    assert all(site.faults_seen == site.faults_expected > 0 for site in struck if site.words > 300)
    assert report.plan_sha256 == plan.digest


@pytest.mark.parametrize("name", ALL)
def test_each_site_has_its_steps_in_a_row(mixed, name):
    plan, graph = mixed(name)
    expected = ["FaultMap", "TransientFaults", *["IntermittentFaults"] * 4, "TransientFaults"]
    for entry in fault_nodes(graph):
        assert [node.op_type for node in entry.nodes] == expected
        assert all(a.output[0] == b.input[0] for a, b in pairwise(entry.nodes))
        assert (entry.before, entry.after) == (entry.nodes[0].input[0], entry.nodes[-1].output[0])
        assert len(plan.steps(entry.site)) == len(entry.nodes)
    onnx.checker.check_model(graph, full_check=True)


@pytest.mark.parametrize("name", SMALL)
def test_the_graph_is_the_network_at_any_sample(mixed, name):
    plan, graph = mixed(name)
    held, x = session(graph, threads=1), batch(name, 6, seed=4)
    for seed, first in ((0, 0), (2**64 - 1, 7), (3, 2**32 - 6), (3, 2**31)):
        assert_same(run(held, x.numpy(), seed=seed, first_sample=first)[0], by_network(name, plan, x, seed, first))


def test_threads_and_optimization_do_not_matter(mixed):
    _, graph = mixed("convolutions")
    x = batch("convolutions", 32).numpy()
    (expected,) = run(session(graph, threads=1), x, seed=5)
    for options in ({"threads": 4}, {"graph_optimization": "none"}):
        assert_same(run(session(graph, **options), x, seed=5)[0], expected)


def test_a_batch_of_64_is_64_batches_of_one(profile):
    """With activations that come and go by the sample; stuck weights are the same for all."""
    active = profile("inference", p=0.2, sites={"kind": "input"})
    _, graph = graph_of("mlp", SRAM, active)
    held, x = session(graph, threads=1), batch("mlp", 64).numpy()
    (together,) = run(held, x, seed=5, first_sample=2**32 - 64)
    for i in range(64):
        assert_same(run(held, x[i : i + 1], seed=5, first_sample=2**32 - 64 + i)[0][0], together[i])
    same = np.repeat(x[:1], 64, axis=0)
    assert len(np.unique(run(held, same, seed=5)[0], axis=0)) > 32


def test_a_graph_of_permanent_faults_has_no_seed():
    plan, graph = graph_of("biased", SRAM, device=4)
    assert [info.name for info in graph.graph.input] == [clean("biased").graph.input[0].name]
    assert set(ops_of(graph)) == {"FaultMap"}
    held, x = session(graph, threads=1), batch("biased")
    outs = [run(held, x.numpy(), seed=seed, first_sample=n)[0] for seed, n in ((0, 0), (9, 100))]
    assert_same(outs[0], outs[1])
    assert_same(outs[0], by_network("biased", plan, x, 77))
    assert (outs[0] != by_pytorch(network("biased"), x)).any()
    report = replay(network("biased"), graph, batches("biased"), seeds=SEEDS)
    assert (report.verdict, plan_of(graph)) == ("pass", plan)


def test_a_graph_of_intermittent_faults_alone_has_one(profile):
    plan, graph = graph_of("biased", profile("batch", sites={"kind": "weight"}))
    assert [info.name for info in graph.graph.input[1:]] == ["hwfault_seed", "hwfault_first_sample"]
    held, x = session(graph, threads=1), batch("biased")
    assert len({run(held, x.numpy(), seed=1, first_sample=n)[0].tobytes() for n in range(6)}) > 1
    assert replay(network("biased"), graph, batches("biased"), seeds=SEEDS).verdict == "pass"
    assert plan_of(graph) == plan


@pytest.mark.parametrize("refresh", REFRESHES)
def test_weights_are_compared_in_every_batch_in_which_they_may_differ(profile, refresh):
    plan, graph = graph_of("biased", profile(refresh, sites="1.weight_quant"))
    report = replay(network("biased"), graph, batches("biased"), seeds=SEEDS)
    (site,) = [site for site in report.sites if site.name in plan.names]
    (step,) = plan.steps("1.weight_quant")
    periods = (0, 5, 6) if refresh in ("inference", "batch") else (0,)
    cells = [len(step.active(seed, period)) for seed in SEEDS for period in periods]
    assert site.words == plan.at("1.weight_quant").site.words * len(cells)
    assert 0 < site.faults_seen <= sum(cells)


def test_devices_give_other_graphs():
    (_, one), (_, other) = (graph_of("biased", SRAM, device=d) for d in (1, 2))
    x = batch("biased", 8).numpy()
    assert (run(session(one), x)[0] != run(session(other), x)[0]).any()
    assert plan_of(one).device == 1


@pytest.mark.every(2)
@pytest.mark.parametrize("representation", ["offset_binary", "sign_magnitude"])
def test_other_representations_replay_exactly(profile, representation):
    mapping = Linear(row_bits=32, representation=representation)
    flips = ProfileFaults(profile="uniform-flips", at={"ber": 0.05}, mapping=mapping, sites="*")
    faults = [SRAM.model_copy(update={"mapping": mapping}), flips, profile("inference", mapping=mapping)]
    for name in ("formats", "binary", "residual"):
        plan, graph = graph_of(name, *faults)
        report = replay(network(name), graph, batches(name), seeds=SEEDS)
        assert report.verdict == "pass", (name, report)
        assert by_network(name, plan, batch(name), 1).shape


class Zeros(torch.nn.Module):
    """A quantizer whose outputs are zeros of either sign, and a quantizer of its values behind it."""

    def __init__(self):
        super().__init__()
        from tests.helpers.graph.networks import signed

        self.one = signed(4)

    def forward(self, x):
        return self.one(x).value.flatten(1)


@pytest.mark.parametrize("representation", ["twos_complement", "sign_magnitude"])
def test_codes_that_go_and_come_back(profile, representation):
    """A bit that flips and is then stuck where it was: the code is the old one, the zero's sign is not."""
    model, x = Zeros().eval(), batch("biased", 64, seed=5) / 16
    mapping = Linear(row_bits=32, representation=representation)
    flips = ProfileFaults(profile="uniform-flips", at={"ber": 0.3}, mapping=mapping, sites="*")
    stuck = profile("power_cycle", p=0.6, mapping=mapping)
    plan = resolve(sites(model, x), [flips, stuck, flips])
    with torch.no_grad():
        assert (torch.signbit(model(x)) & (model(x) == 0)).any()
    report = replay(model, export(model, x, plan=plan), [x], seeds=SEEDS)
    assert report.verdict == "pass", report


# plans that are carried


def constant_of(graph, node, place):
    return next(tensor for tensor in graph.graph.initializer if tensor.name == node.input[place])


def changed_row(place, op, change):
    def alter(graph):
        node = next(
            n
            for entry in fault_nodes(graph)
            for n in entry.nodes
            if n.op_type == op and constant_of(graph, n, place).dims[0] > 1
        )
        tensor = constant_of(graph, node, place)
        values = change(numpy_helper.to_array(tensor).copy())
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    return alter


def bumped(values):
    values[-1] ^= 1
    return values


def changed_attribute(op, name, value):
    def alter(graph):
        node = next(n for entry in fault_nodes(graph) for n in entry.nodes if n.op_type == op)
        node.attribute.remove(next(a for a in node.attribute if a.name == name))
        node.attribute.append(onnx.helper.make_attribute(name, value))

    return alter


def added_representation(graph):
    fault_nodes(graph)[0].nodes[0].attribute.append(onnx.helper.make_attribute("representation", 1))


def without_a_step(graph):
    nodes = fault_nodes(graph)[0].nodes
    nodes[2].input[0] = nodes[1].input[0]
    graph.graph.node.remove(nodes[1])


def steps_swapped(graph):
    first, second = fault_nodes(graph)[0].nodes[2:4]
    first.name, second.name = second.name, first.name
    kept, other = list(first.input[3:]), list(second.input[3:])
    first.input[3:], second.input[3:] = other, kept
    for node, values in ((first, list(second.attribute)), (second, list(first.attribute))):
        copies = [onnx.AttributeProto.FromString(a.SerializeToString()) for a in values]
        node.ClearField("attribute")
        node.attribute.extend(copies)


def read_in_between(graph):
    graph.graph.output.append(onnx.helper.make_tensor_value_info(fault_nodes(graph)[0].nodes[3].output[0], 1, None))


def constants_computed(graph):
    node = fault_nodes(graph)[0].nodes[0]
    graph.graph.node.insert(0, onnx.helper.make_node("Abs", [node.input[3]], ["computed"]))
    fault_nodes(graph)[0].nodes[0].input[3] = "computed"


def too_few_inputs(graph):
    node = fault_nodes(graph)[0].nodes[0]
    del node.input[-1]


CHANGES = {
    "a word": changed_row(3, "FaultMap", bumped),
    "an and_mask": changed_row(4, "FaultMap", bumped),
    "an xor_mask": changed_row(5, "IntermittentFaults", bumped),
    "a row less": changed_row(4, "IntermittentFaults", lambda v: v[:-1]),
    "the threshold": changed_attribute("IntermittentFaults", "threshold", 5),
    "the site": changed_attribute("IntermittentFaults", "site", 5),
    "the refresh": changed_attribute("IntermittentFaults", "refresh", "held"),
    "the width": changed_attribute("FaultMap", "bit_width", 32),
    "whether it is batched": changed_attribute("FaultMap", "batched", 5),
    "the representation": added_representation,
    "a step less": without_a_step,
    "steps in another order": steps_swapped,
    "a value in between that is read": read_in_between,
    "constants that are computed": constants_computed,
    "an input less": too_few_inputs,
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_graphs_are_told(mixed, what):
    graph = copied(mixed("biased")[1])
    assert plan_of(graph) == mixed("biased")[0]
    CHANGES[what](graph)
    with pytest.raises(GraphError, match=r"export it anew|has 5 inputs, expected 6"):
        plan_of(graph)
    with pytest.raises(GraphError):
        replay(network("biased"), graph, batches("biased"), seeds=[1])


def test_a_graph_in_a_file(mixed, tmp_path):
    plan, graph = mixed("biased")
    onnx.save(graph, tmp_path / "g.onnx")
    assert plan_of(load_model(tmp_path / "g.onnx")) == plan
    assert replay(network("biased"), tmp_path / "g.onnx", batches("biased"), seeds=[1]).exit_code == 0


@pytest.mark.parametrize("name", SMALL)
def test_qonnxs_cleanup_leaves_it_working(mixed, name):
    plan, graph = mixed(name)
    tidy, x = tidied(graph, 4), batch(name, 4, seed=6)
    assert plan_of(tidy) == plan
    (expected,) = run(session(graph, threads=1), x.numpy(), seed=6, first_sample=9)
    assert_same(run(session(tidy, threads=1), x.numpy(), seed=6, first_sample=9)[0], expected)
    assert_same(by_qonnx(tidy, x, 6, 9), expected)


def test_cleanup_of_a_graph_of_permanent_faults():
    plan, graph = graph_of("biased", SRAM)
    tidy, x = tidied(graph, 4), batch("biased", 4)
    assert plan_of(tidy) == plan
    (expected,) = run(session(graph, threads=1), x.numpy())
    assert_same(run(session(tidy, threads=1), x.numpy())[0], expected)
    assert_same(by_qonnx(tidy, x), expected)


def test_quantizers_without_names_of_their_own():
    """Their constants must not be taken for each other's."""
    graph = copied(clean("biased"))
    for node in graph.graph.node:
        if node.op_type == "Quant":
            node.name = ""
    plan = resolve(found("biased"), [SRAM])
    struck = insert_faults(graph, plan)
    names = [tensor.name for tensor in struck.graph.initializer]
    assert len(set(names)) == len(names)
    assert plan_of(struck) == plan
    x = batch("biased")
    assert_same(run(session(struck, threads=1), x.numpy())[0], by_network("biased", plan, x, 0))


def test_another_plan_than_the_graphs(mixed):
    plan, graph = mixed("biased")
    other = resolve(found("biased"), plan.faults, device=4)
    with pytest.raises(PlanError, match="the graph carries the plan"):
        replay(network("biased"), graph, batches("biased"), seeds=[1], plan=other)
    assert replay(network("biased"), graph, batches("biased"), seeds=[1], plan=plan).exit_code == 0


def test_a_map_of_another_tensor(profile):
    """Weights of another shape, and activations of other sizes, are not struck by a plan that was made elsewhere."""
    small = [s.model_copy(update={"shape": (3, *s.shape[1:])}) for s in found("biased") if s.kind == "weight"]
    graph = copied(clean("biased"))
    for node in graph.graph.node:
        set_metadata(node, {"hwfault.words_sha256": ""} if node.op_type == "Quant" else {})
    with pytest.raises(PlanError, match="not those that were exported"):
        insert_faults(graph, resolve(small, [SRAM]))
    wide = [s.model_copy(update={"shape": (5, *s.shape)}) for s in found("biased") if s.kind == "activation"]
    graph = insert_faults(clean("biased"), resolve(wide, [SRAM]))
    with pytest.raises(HwfaultError, match="fault map"):
        run(session(graph, threads=1), batch("biased").numpy())


def test_a_step_of_a_map_without_rows():
    fault = ProfileFaults(profile="bram28-kintex7-kc705b-undervolt", at={"voltage_v": 0.61})
    plan, graph = graph_of("biased", fault)
    assert all(
        isinstance(step, MapStep) and len(step.process.map) == 0 for name in plan.names for step in plan.steps(name)
    )
    x = batch("biased")
    assert_same(run(session(graph, threads=1), x.numpy())[0], by_pytorch(network("biased"), x))
    assert replay(network("biased"), graph, batches("biased"), seeds=[1]).verdict == "pass"
