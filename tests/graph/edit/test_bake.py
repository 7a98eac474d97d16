"""Faults of parameters baked into constants: a plain graph with the outputs of the faulted one, to the last bit."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import helper, load, numpy_helper, save

from hwfault.cli import main
from hwfault.errors import GraphError
from hwfault.graph.edit.bake import BAKED, BAKED_SEED, bake, bake_faults
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.ops import QUANT_DOMAIN
from hwfault.graph.read.qonnxgraph import Constants, metadata
from hwfault.graph.read.sites import sites
from hwfault.graph.read.struck import fault_nodes
from hwfault.graph.run.session import run, run_without_inputs, session
from hwfault.laws.models import AccumulatorFormat, BitFlips, CellFaults, ProfileFaults
from hwfault.plan.fault_plan import resolve
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.networks import ALL, batch, network
from tests.helpers.graph.running import by_qonnx, clean, copied, tidied
from tests.slowly import slow

BRAM = {"profile": "bram28-kintex7-kc705b-undervolt", "at": {"voltage_v": 0.54}}
SECDED = Protection(kind="secded", data_bits=32)


def parameters(graph):
    return [site.name for site in sites(graph) if not site.batched and site.kind != "accumulator"]


def struck(graph, **law):
    """The graph with bit flips, unless told otherwise, in each of its parameters."""
    law = law or {"probability": 0.1}
    return insert_faults(graph, resolve(sites(graph), [BitFlips(**law, sites={"name": n}) for n in parameters(graph)]))


def stuck(graph, faults):
    return insert_faults(graph, resolve(sites(graph), faults))


def assert_plain(graph):
    """Nothing of hwfault computes in a graph, and it has no inputs of faults."""
    assert {node.domain for node in graph.graph.node} <= {"", QUANT_DOMAIN}
    assert all(entry.domain != "hwfault" for entry in graph.opset_import)
    assert not any(info.name.startswith("hwfault") for info in graph.graph.input)
    names = {tensor.name for tensor in graph.graph.initializer}
    read = {name for node in graph.graph.node for name in node.input}
    assert names <= read | {info.name for info in graph.graph.output}  # no constant is left behind


def assert_same_outputs(faulted, baked, x, seed=0):
    under_faults = run(session(faulted), x, seed=seed)
    plain = run(session(baked), x)
    assert [out.tobytes() for out in plain] == [out.tobytes() for out in under_faults]
    return plain


@pytest.mark.parametrize("name", [name if name in ("biased", "binary") else slow(name) for name in ALL])
def test_one_seed_of_every_network(name):
    before = clean(name)
    faulted = struck(before)
    baked = bake_faults(faulted, run_without_inputs, 3)
    assert_plain(baked)
    x = batch(name).numpy()
    plain = assert_same_outputs(faulted, baked, x, seed=3)
    assert [out.tobytes() for out in run(session(before), x)] != [out.tobytes() for out in plain]
    # it stays a quantized graph, of the same sites and no more nodes
    assert len(baked.graph.node) == len(before.graph.node)
    assert [site.name for site in sites(baked)] == [site.name for site in sites(before)]
    # the arithmetic of these networks is exact, so that an engine that knows nothing of hwfault finds the same bits
    assert np.array_equal(by_qonnx(tidied(baked, len(x)), batch(name)), plain[0])


def test_other_seeds_are_other_graphs():
    faulted = struck(clean("mlp"))
    baked = [bake_faults(faulted, run_without_inputs, seed) for seed in (3, 4)]
    assert metadata(baked[0])[BAKED_SEED] == "3"
    assert metadata(baked[0])[BAKED] == metadata(faulted)["hwfault.plan_sha256"]
    outs = [run(session(graph), batch("mlp").numpy())[0] for graph in baked]
    assert outs[0].tobytes() != outs[1].tobytes()


@pytest.mark.parametrize("protection", [None, SECDED])
def test_permanent_faults_need_no_seed(protection):
    law = ProfileFaults(**BRAM, protection=protection, sites={"kind": "weight"})
    faulted = stuck(clean("digits_cnn"), [law])
    baked = bake_faults(faulted, run_without_inputs)
    assert_plain(baked)
    assert BAKED_SEED not in metadata(baked)
    assert_same_outputs(faulted, baked, batch("digits_cnn").numpy(), seed=17)
    op = {entry.node.op_type for entry in fault_nodes(faulted)}
    assert op == ({"FaultMap"} if protection is None else {"ProtectedFaults"})


def test_the_codes_are_those_of_the_cells():
    """A cell that is stuck: its word alone is another, by its bit, and all that was trained beside it stays."""
    before = clean("mlp")
    name = parameters(before)[0]
    bits = next(site.bit_width for site in sites(before) if site.name == name)
    faulted = stuck(before, [CellFaults(cells=({"site": name, "word": 5, "bit": bits - 1, "kind": "flip"},))])
    baked = bake_faults(faulted, run_without_inputs)
    node = next(node for node in baked.graph.node if node.name == name)
    old = next(node for node in before.graph.node if node.name == name)
    values, trained = Constants(baked).get(node.input[0]), Constants(before).get(old.input[0])
    changed = np.flatnonzero(values.ravel() != trained.ravel())
    assert changed.tolist() == [5]
    scale = Constants(before).get(old.input[1])
    codes = [round(float(array.ravel()[5] / scale.ravel()[0])) for array in (trained, values)]
    assert (codes[0] ^ codes[1]) % (1 << bits) == 1 << (bits - 1)


def named_by_narrow(graph, value):
    """The quantizers whose attribute `narrow` is that."""
    return {node.name for node in graph.graph.node for a in node.attribute if (a.name, a.i) == ("narrow", value)}


def test_integers_that_the_quantizer_leaves_out():
    """Where faults make the lowest integer, which narrow quantizers do not have, narrow is taken back."""
    graph = clean("per_channel")
    narrow = named_by_narrow(graph, 1) & set(parameters(graph))
    assert narrow
    edit = bake(struck(graph, probability=0.2), run_without_inputs, 1)
    assert narrow & named_by_narrow(edit.model, 0)
    assert any("narrow = 0" in change for change in edit.changes)


def test_a_parameter_that_no_quantizer_holds():
    """An initializer of integers, as FINN leaves weights: it is the faulty one then, under its name."""
    graph = copied(clean("mlp"))
    constants = Constants(graph)
    name = parameters(graph)[0]
    quantizer = next(node for node in graph.graph.node if node.name == name)
    faulted = struck(graph)
    entry = next(entry for entry in fault_nodes(faulted) if entry.site == name)
    # no quantizer in front of the faults: what it made is a constant
    maker = next(node for node in faulted.graph.node if entry.before in node.output)
    scale = constants.get(quantizer.input[1])
    value = np.rint(constants.get(quantizer.input[0]) / scale).astype(np.float32) * scale
    faulted.graph.node.remove(maker)
    faulted.graph.initializer.remove(next(t for t in faulted.graph.initializer if t.name == maker.input[0]))
    faulted.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), entry.before))
    edit = bake(faulted, run_without_inputs, 2)
    assert_plain(edit.model)
    assert any(name in change and "without its quantizer" in change for change in edit.changes)
    assert_same_outputs(faulted, edit.model, batch("mlp").numpy(), seed=2)


def test_a_baked_graph_takes_faults_again():
    baked = bake_faults(struck(clean("mlp")), run_without_inputs, 3)
    again = insert_faults(baked, resolve(sites(baked), [BitFlips(probability=0.1)]))
    assert fault_nodes(again)
    x = batch("mlp").numpy()
    assert run(session(again), x, seed=1)[0].tobytes() != run(session(baked), x)[0].tobytes()


def refused(graph, seed=None):
    with pytest.raises(GraphError) as error:
        bake_faults(graph, run_without_inputs, seed)
    return str(error.value)


def test_what_is_refused():
    graph = clean("mlp")
    assert "has no faults" in refused(graph)
    assert "drawn by a seed" in refused(struck(graph))
    activations = resolve(sites(graph), [BitFlips(probability=0.1, sites={"kind": "input"})])
    assert "strike values that the graph computes" in refused(insert_faults(graph, activations), 1)
    sums = resolve(sites(graph), [AccumulatorFormat(width=12)])
    assert "strike values that the graph computes" in refused(insert_faults(graph, sums), 1)
    whole = export(network("mlp"), batch("mlp"), arithmetic="integer")
    assert "integer" in refused(struck(whole), 1)
    # fault nodes that a transformation folded away
    lost = struck(graph)
    entry = fault_nodes(lost)[0]
    lost.graph.node.remove(entry.nodes[-1])
    lost.graph.node.append(helper.make_node("Identity", [entry.nodes[-1].input[0]], [entry.after]))
    assert "are gone" in refused(lost, 1)


def command(*args):
    return CliRunner().invoke(main, ["bake", *map(str, args)])


def test_the_command(tmp_path):
    save(clean("mlp"), tmp_path / "g.onnx")
    out = tmp_path / "baked.onnx"
    done = command(tmp_path / "g.onnx", "--ber", 0.1, "--select", "*weight*", "--seed", 3, "-o", out)
    assert done.exit_code == 0, done.output
    assert "those of seed 3" in done.output
    expected = stuck(clean("mlp"), [BitFlips(probability=0.1, sites={"name": "*weight*"})])
    assert_same_outputs(expected, load(out), batch("mlp").numpy(), seed=3)
    # a graph that carries its faults, and JSON
    save(expected, tmp_path / "f.onnx")
    told = json.loads(command(tmp_path / "f.onnx", "--seed", 3, "-o", out, "--json").stdout)
    assert told["sites"] == sorted(parameters(clean("mlp")))
    assert told["seed"] == 3


def test_wrong_uses_of_the_command(tmp_path):
    save(clean("mlp"), tmp_path / "g.onnx")
    save(struck(clean("mlp")), tmp_path / "f.onnx")
    out = tmp_path / "baked.onnx"
    for args, said in [
        ((tmp_path / "g.onnx",), "has no faults"),
        ((tmp_path / "f.onnx",), "drawn by a seed"),
        ((tmp_path / "f.onnx", "--ber", 0.1), "carries faults already"),
        ((tmp_path / "f.onnx", "--seed", -1), "seed"),
        ((tmp_path / "g.onnx", "--ber", 0.1, "--seed", 1), "strike values that the graph computes"),
    ]:
        done = command(*args, "-o", out)
        assert done.exit_code in (1, 2), done.output
        assert said in done.output
        assert "Traceback" not in done.output
        assert not out.exists()
