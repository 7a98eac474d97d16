"""Bundles and replays of networks of several inputs: what is recorded, what is asked, what is refused."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from hwfault.errors import FileError, GraphError, HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.run.graph_input import InputArrays, Samples
from hwfault.graph.run.session import run, session
from hwfault.proof.check import bundled_graph, check
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, FAULTED_GRAPH, INPUTS, seed_file
from hwfault.proof.record import write_bundle
from hwfault.proof.record_graph import write_graph_bundle
from hwfault.proof.replay import replay
from tests.helpers.graph import several
from tests.helpers.graph.running import copied
from tests.helpers.graph.several import arrays, batch, plan, reader
from tests.helpers.proof.bundles import copied as copied_bundle
from tests.helpers.proof.bundles import opened, with_manifest, with_tensors, written

N, SEEDS = 5, (2**63 + 1,)


def record(path, inputs=None, **options):
    labels = torch.arange(N) % 5
    given = batch(N) if inputs is None else inputs
    write_bundle(path, reader(), given, labels=labels, plan=plan(), seeds=SEEDS, batch_size=2, **options)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return record(tmp_path_factory.mktemp("several") / "b")


def test_a_bundle_says_its_inputs_and_passes(bundle):
    found = opened(bundle)
    told = [(entry.name, entry.dtype, entry.shape) for entry in found.manifest.inputs]
    assert told == [("ids", "int64", (6,)), ("mask", "float32", (6,)), ("steps", "int32", ())]
    held = load(found.read(INPUTS))
    assert held.keys() == {"input.ids", "input.mask", "input.steps", "label"}
    for name, values in arrays(N).items():
        assert held[f"input.{name}"].dtype == values.dtype
        assert np.array_equal(held[f"input.{name}"], values)
    report = check(found)
    assert report.verdict == "pass"
    assert sum(site.faults_seen for site in report.sites) > 20


@pytest.mark.slow
def test_the_graph_alone_records_what_the_network_does(bundle, tmp_path):
    theirs = opened(bundle)
    graph = bundled_graph(theirs, CLEAN_GRAPH)
    given = Samples(InputArrays(arrays(N)), np.arange(N) % 5)
    write_graph_bundle(tmp_path / "g", graph, given, plan=plan(), seeds=SEEDS, batch_size=2)
    ours = opened(tmp_path / "g")
    assert ours.manifest.inputs == theirs.manifest.inputs
    for file in (INPUTS, CLEAN, *map(seed_file, SEEDS)):
        mine, other = load(ours.read(file)), load(theirs.read(file))
        assert mine.keys() == other.keys()
        assert all(np.array_equal(mine[key], other[key]) for key in mine)


def test_a_runner_is_given_each_input_by_its_name(bundle):
    found = opened(bundle)
    made = session(bundled_graph(found, FAULTED_GRAPH))
    asked = []

    def runner(given):
        asked.append({name: (values.dtype.name, values.shape) for name, values in given.items()})
        seed = given.pop("hwfault_seed", np.array(0)).view(np.uint64)
        first = given.pop("hwfault_first_sample", np.array(0))
        return run(made, given, seed=int(seed), first_sample=int(first))[0]

    report = check(found, which="faulty", runner=runner)
    assert report.verdict == "pass"
    numbers = {"hwfault_seed": ("int64", ()), "hwfault_first_sample": ("int64", ())}
    words = {"ids": ("int64", (2, 6)), "mask": ("float32", (2, 6)), "steps": ("int32", (2,))}
    assert asked[0] == words | numbers


def renamed(graph, names):
    out = copied(graph)
    for info in out.graph.input:
        info.name = names.get(info.name, info.name)
    for node in out.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("names", [{"ids": "global_in", "mask": "global_in_1", "steps": "global_in_2"}, {"mask": "m"}])
def test_renamed_inputs_are_taken_in_their_order(bundle, names):
    assert check(opened(bundle), graph=renamed(several.graph(), names)).verdict == "pass"


def test_a_graph_of_fewer_inputs_is_refused(bundle):
    graph = renamed(several.graph(), {"ids": "words"})
    del graph.graph.input[2]
    with pytest.raises(GraphError):
        check(opened(bundle), graph=graph)


@pytest.mark.slow
def test_one_input_of_integers(tmp_path):
    """Its tensor is called `input`, as that of float32 is, and its type is told."""
    from tests.graph.export.test_several_inputs import Table

    network, ids = Table().eval(), torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    write_bundle(tmp_path / "b", network, ids)
    (entry,) = opened(tmp_path / "b").manifest.inputs
    assert (entry.name, entry.dtype, entry.shape) == ("input", "int64", (3,))
    assert load(opened(tmp_path / "b").read(INPUTS)).keys() == {"input"}
    assert check(opened(tmp_path / "b")).verdict == "pass"


@pytest.mark.slow
def test_bundles_of_one_float_input_say_nothing_new(tmp_path):
    path = written(tmp_path / "b", "mlp")
    assert '"inputs"' not in (path / "manifest.json").read_text()


def changed(tensors, name, change):
    tensors[name] = change(tensors[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("input.mask"), "holds no tensor 'input.mask'"),
        (
            lambda t: changed(t, "input.mask", lambda v: v[:4]),
            r"'input.mask' is float32 of the shape \(4, 6\), float32",
        ),
        (lambda t: changed(t, "input.ids", lambda v: v[:, :5]), r"'input.ids' is int64 of the shape \(5, 5\), int64"),
        (lambda t: changed(t, "input.ids", lambda v: v.astype(np.int32)), "'input.ids' is int32 of the shape"),
        (lambda t: changed(t, "input.steps", lambda v: v.astype(np.float32)), "'input.steps' is float32 of the shape"),
    ],
)
def test_inputs_that_are_not_what_the_manifest_says(bundle, tmp_path, change, words):
    folder = copied_bundle(bundle, tmp_path / "b")
    with_tensors(folder, INPUTS, change)
    with pytest.raises(FileError, match=words):
        check(opened(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m["inputs"].append(m["inputs"][0]), "a name is listed twice"),
        (lambda m: m["inputs"][0].update(dtype="float64"), "dtype"),
        (lambda m: m["inputs"][0].update(shape=[-1]), "shape"),
        (lambda m: m.update(inputs=[]), "inputs"),
    ],
)
def test_manifests_with_other_inputs(bundle, tmp_path, change, words):
    folder = copied_bundle(bundle, tmp_path / "b")
    with_manifest(folder, change)
    with pytest.raises(FileError, match=words):
        opened(folder)


@pytest.mark.slow
def test_inputs_of_different_lengths_have_no_bundle(tmp_path):
    wrong = batch(N) | {"steps": torch.zeros(1, dtype=torch.int32)}
    with pytest.raises(HwfaultError, match="ids has 5, mask has 5, steps has 1; expected a row for each sample"):
        record(tmp_path / "b", wrong)


BATCHES = {
    "dicts": lambda b: b,
    "dicts in another order": lambda b: dict(reversed(b.items())),
    "tuples": lambda b: tuple(b.values()),
    "as of a loader": lambda b: [*b.values(), torch.zeros(2)],
    "inputs and labels": lambda b: (b, torch.zeros(2)),
    "tuples and labels": lambda b: (tuple(b.values()), torch.zeros(2)),
}


@pytest.mark.every(6)
@pytest.mark.parametrize("form", BATCHES.values(), ids=BATCHES.keys())
def test_replay_takes_batches_of_every_form(form):
    graph = insert_faults(several.graph(), plan())
    report = replay(reader(), graph, [form(batch(3)), form(batch(2, seed=8))], seeds=[1])
    assert (report.verdict, report.samples) == ("pass", 5)
    assert sum(site.faults_seen for site in report.sites) > 5


def test_replay_of_too_few_tensors():
    graph = insert_faults(several.graph(), plan())
    with pytest.raises(HwfaultError, match="a batch holds 2 tensors, expected one for each of the graph's inputs"):
        replay(reader(), graph, [tuple(batch(3).values())[:2]], seeds=[1])
