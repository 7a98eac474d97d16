"""Files that hwfault 0.4.0 wrote (make_0_4_0.py): they load, with the same faults, or are refused with the reason."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model

import hwfault as hf
from hwfault.campaigns.database import Database
from hwfault.cli import main
from hwfault.errors import GraphError, PlanError
from hwfault.graph.edit import carried
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.edit.strip import strip_faults
from hwfault.graph.run.session import load_model
from hwfault.plan.listing import faults_at

from . import cases, networks, seen

FOLDER = Path(__file__).parent / "0.4.0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
PLANS, GRAPHS, REFUSED = EXPECTED["plans"], EXPECTED["graphs"], EXPECTED["refused"]
DEVICES = {name: device for name, (_, device) in cases.DEVICES.items()}


@pytest.fixture(scope="module")
def network():
    return networks.network("chain")


@pytest.fixture(scope="module")
def listed(network):
    return hf.sites(network, networks.example("chain"))


def plan_of(name):
    return hf.FaultPlan.load(FOLDER / "plans" / f"{name}.json")


def command(*arguments):
    """The exit code and what was printed."""
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return done.exit_code, done.output


# plans


def test_every_plan_is_tested():
    assert {path.stem for path in (FOLDER / "plans").iterdir()} == {*PLANS, "trained", "integer"}


@pytest.mark.every(11)
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_strikes_the_same_words(name, network):
    again = seen.injected(hf.inject, network, plan_of(name), networks.example("chain"), seen.DRAWS)
    assert again == PLANS[name]["runs"]


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_written_as_it_was_read(name):
    """Its digest stands in graphs and bundles."""
    plan = plan_of(name)
    assert plan.to_json() == (FOLDER / "plans" / f"{name}.json").read_text()
    assert plan.digest == PLANS[name]["digest"]


@pytest.mark.parametrize("name", [name for name in PLANS if name != "without_shapes"])
def test_its_faults_make_the_same_plan_again(name, listed, monkeypatch):
    monkeypatch.chdir(FOLDER)  # where the profiles and the map lie
    plan = plan_of(name)
    again = hf.resolve(listed, plan.faults, device=DEVICES.get(name, 0), factors=plan.factors)
    assert without_provenance(again) == without_provenance(plan)


def without_provenance(plan):
    """What a plan says of sites and tables; where a map comes from may be told in other words."""
    told = json.loads(plan.to_json())
    for process in (process for entry in told["sites"] for process in entry["processes"]):
        if "map" in process:
            del process["map"]["provenance"]
    return {key: told.get(key) for key in ("sites", "tables", "device", "factors")}


@pytest.mark.parametrize("name", [name for name in PLANS if "listed" in PLANS[name]])
def test_a_plan_lists_the_same_faults(name):
    plan, found = plan_of(name), {}
    for entry in plan.sites:
        faults = faults_at(plan, entry.site.name, seed=1, sample=2 if entry.site.batched else 0)
        rows = [[f.process, f.word, -1 if f.bit is None else f.bit] for f in faults]
        found[entry.site.name] = {"faults": len(rows), "rows": seen.digest(np.array(rows)), "first": rows[: seen.FIRST]}
    assert found == PLANS[name]["listed"]


@pytest.mark.parametrize("name", cases.LATE_BEYOND)
def test_late_bits_that_took_a_wrong_word_are_refused(name):
    with pytest.raises(PlanError, match=r"in several passes; .* took another word, resolve it again"):
        hf.FaultPlan.load(FOLDER / "refused" / f"{name}.json")


# training and arithmetic


@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_steps_of_training_have_the_same_faults_and_gradients(gradient):
    expected = EXPECTED["network"]["trained"][gradient]
    fresh, inputs = networks.network("chain"), networks.example("chain")
    again = seen.trained(hf.inject, fresh, plan_of("trained"), inputs, seed=expected["seed"], gradient=gradient)
    assert again == expected


def test_integer_arithmetic_gives_the_same_outputs(network):
    with torch.no_grad(), hf.integer_arithmetic(network), hf.inject(network, plan_of("integer"), seed=1):
        assert seen.digest(network(networks.example("chain")).numpy()) == EXPECTED["network"]["integer_arithmetic"]


# networks that mean more today than 0.4.0 knew

AXIS = r"the plan takes the samples of 'chain.input.act_quant' to lie otherwise .* resolve the faults again"
RUNS = r"'act.act_quant' runs at least 2 times in one forward, .* resolve the faults again"
READERS = (
    r"do not agree on who reads the memory of 'first.weight_quant': .* resolve the faults against this network again"
)


def inject_old(name, **rules):
    network, inputs = networks.network(name), networks.example(name)
    plan = hf.FaultPlan.load(FOLDER / "refused" / f"{name}.json")
    return seen.injected(hf.inject, network, plan, inputs, seen.DRAWS, **rules)


@pytest.mark.parametrize(("name", "sentence"), [("frames", AXIS), ("twice", RUNS), ("tied", READERS)])
def test_a_plan_whose_axis_runs_or_readers_were_wrong_is_refused(name, sentence):
    with pytest.raises(PlanError, match=sentence):
        inject_old(name, example=networks.example(name), batch_axis=0)


def test_without_an_example_the_first_forward_refuses_a_wrong_axis():
    with pytest.raises(PlanError, match=r"holds 8 samples .*, but the inputs hold 4; give an example of the inputs"):
        inject_old("frames")


def test_of_layers_that_share_a_quantizer_the_first_alone_is_struck():
    for again, before in zip(inject_old("shared"), REFUSED["shared"]["runs"], strict=True):
        first, _of_the_second_layer = before["sites"]["first.weight_quant"]
        assert again["sites"] == {"first.weight_quant": [first]}


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("frames", PlanError, AXIS),
        (
            "twice",
            GraphError,
            r"the same faults at 2 runs of the site 'act.act_quant', .* put them into the graph anew",
        ),
        ("shared", GraphError, r"the words of the site 'first.weight_quant' lie in another order .* export it anew"),
        ("tied", PlanError, READERS),
    ],
)
def test_a_graph_of_such_a_network_is_not_replayed(name, error, sentence):
    with pytest.raises(error, match=sentence):
        hf.replay(
            networks.network(name),
            load_model(FOLDER / "refused" / f"{name}.onnx"),
            [networks.example(name)],
            seeds=(1,),
        )


def test_sites_says_of_a_graph_with_a_shared_quantizer_to_export_it_anew():
    code, printed = command("sites", FOLDER / "refused" / "shared.onnx")
    assert code == 0
    assert "of layers that share a quantizer, are one site 'first.weight_quant'; export it anew" in printed


# graphs


def graph_of(name):
    return load_model(FOLDER / "graphs" / f"{name}.onnx")


FAULTED = [name for name in cases.GRAPHS if name in GRAPHS]
"""Graphs of float arithmetic, as they were exported."""


def plan_in(name):
    return carried.plan_of(graph_of(name))


def test_there_is_a_graph_of_every_op():
    found = {node.op_type for name in GRAPHS for node in graph_of(name).graph.node if node.domain == "hwfault"}
    assert found == {
        "TransientFaults", "FaultMap", "IntermittentFaults", "ProtectedFaults", "ArrayFaults", "Affine"
    }  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_gives_the_same_codes(name):
    check_graph(name, graph_of(name))


def check_graph(name, graph):
    assert seen.ran(hf.session, hf.run, graph, networks.example("chain"), seen.DRAWS) == GRAPHS[name]


@pytest.mark.every(2)
@pytest.mark.parametrize("name", GRAPHS)
def test_qonnx_and_a_session_of_one_seed_give_the_same_outputs(name):
    inputs = networks.example("chain").numpy()
    tidy = ModelWrapper(graph_of(name))
    if name != "channels_last":  # which is made of a graph that was tidied
        tidy = cleanup_model(tidy, override_inpsize=len(inputs))
    (output,) = {"output", "global_out"} & GRAPHS[name][0].keys()
    for (seed, first_sample), expected in zip(seen.DRAWS, GRAPHS[name], strict=True):
        given = (inputs, np.array(seed).astype(np.int64), np.array(first_sample))
        feeds = dict(zip([info.name for info in tidy.graph.input], given, strict=False))
        (value,) = execute_onnx(tidy, feeds).values()
        assert seen.digest(value) == expected[output]
    seed, first_sample = seen.DRAWS[0]
    of_one_seed = hf.session(graph_of(name), fast=True, seed=seed)
    (value,) = hf.run(of_one_seed, inputs, seed=seed, first_sample=first_sample)
    assert seen.digest(value) == GRAPHS[name][0][output]


@pytest.mark.parametrize("name", [name for name in GRAPHS if name != "clean"])
def test_the_plan_of_a_graph_is_its_own(name):
    graph = graph_of(name)
    digest = next(entry.value for entry in graph.metadata_props if entry.key == "hwfault.plan_sha256")
    assert carried.plan_of(graph).digest == digest


@pytest.mark.parametrize("name", FAULTED)
def test_faults_are_taken_out_and_put_in_again(name):
    clean = strip_faults(graph_of(name))
    assert clean.SerializeToString(deterministic=True) == (FOLDER / "graphs" / "clean.onnx").read_bytes()
    check_graph(name, insert_faults(clean, plan_in(name)))


@pytest.mark.parametrize("name", FAULTED)
def test_graph_and_network_agree(name, network):
    report = hf.replay(network, graph_of(name), [networks.example("chain")], seeds=(1, 2))
    assert report.verdict == "pass"


# bundles, runs, and what is beside them


def test_a_bundle_replays():
    code, printed = command("replay", FOLDER / "bundle")
    assert (code, "Replay: pass. 4 samples, 3 runs, 4 sites" in printed) == (0, True)


def test_a_bundle_in_a_zip_file_with_arrays_and_protected_memories_replays():
    code, printed = command("replay", FOLDER / "bundle.zip")
    assert (code, "Replay: pass. 4 samples, 3 runs, 11 sites" in printed) == (0, True)


def test_the_graph_of_a_run_replays_beside_it():
    code, printed = command("replay", FOLDER / "run.onnx", FOLDER / "run", "--seeds", "0-1")
    assert (code, "Replay: pass." in printed) == (0, True)


def test_a_checkpoint_holds_the_same_network():
    network, config = hf.load(FOLDER / "chain.safetensors", network="tests.compatibility.networks:Chain")
    assert config.network == "tests.compatibility.networks:Chain"
    with torch.no_grad():
        assert seen.digest(network(networks.example("chain")).numpy()) == EXPECTED["network"]["clean"]


def test_the_checkpoint_of_a_run_gives_the_same_outputs():
    network, config = hf.load(FOLDER / "run" / "checkpoint.safetensors")
    assert (config.epochs, config.device, len(config.faults)) == (2, 3, 1)
    with torch.no_grad(), hf.integer_arithmetic(network):
        output = network(networks.images(16))
    assert output.argmax(1).tolist() == EXPECTED["run"]["predictions"]
    assert seen.digest(output.numpy()) == EXPECTED["run"]["output"]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(tmp_path):
    shutil.copytree(FOLDER / "stopped", tmp_path / "run")
    code, _ = command("train", "--out", tmp_path / "run", "--resume")
    assert code == 0
    (again, _), (before, _) = (hf.load(folder / "run" / "checkpoint.safetensors") for folder in (tmp_path, FOLDER))
    for key, weights in before.state_dict().items():  # a processor of another kind may round otherwise
        torch.testing.assert_close(again.state_dict()[key], weights, rtol=1e-3, atol=1e-3)


def test_kept_trials_are_gone_on_with(tmp_path):
    shutil.copytree(FOLDER / "store", tmp_path / "store")
    lines = tmp_path / "store" / "trials.jsonl"
    before = lines.read_bytes()
    more = ("--rates", "0,0.02,0.05", "--seeds", "0-3", "--json", "--quiet")  # progress tells the time
    code, printed = command("evaluate", FOLDER / "run", *more, "--out", tmp_path / "store")
    assert (code, lines.read_bytes()) == (0, before)
    assert command("evaluate", FOLDER / "run", *more) == (0, printed)
    with Database(tmp_path / "store" / "campaign.sqlite", readonly=True) as database:
        kept = [row for task in database.tasks() for row in database.rows(task)]
    # three of the six were run again; of the other three no more is known than how many answers were right
    assert (len(kept), sum(row.answers is None for row in kept)) == (12, 3)


def test_kept_trials_that_come_to_something_else_are_refused(tmp_path):
    shutil.copytree(FOLDER / "store", tmp_path / "store")
    lines = tmp_path / "store" / "trials.jsonl"
    lines.write_text(lines.read_text().replace('"correct": 117', '"correct": 118'))
    code, printed = command("evaluate", FOLDER / "run", *SWEEP, "--out", tmp_path / "store")
    assert code == 1
    assert "the trial of {'ber': 0.02} under seed 1 came to correct 118 there and comes to 117 now" in printed


def test_measured_anew_the_trials_are_the_same(tmp_path):
    code, _ = command("evaluate", FOLDER / "run", *SWEEP, "--out", tmp_path)
    assert code == 0
    again = []
    for point in json.loads((tmp_path / "results.json").read_text())["points"]:
        for seed, correct in zip(point["seeds"], point["correct"], strict=True):
            again.append({"point": json.dumps({"ber": point["ber"]}), "seed": seed, "correct": correct})
    assert again == EXPECTED["run"]["trials"]


SWEEP = ("--rates", "0,0.02", "--seeds", "0-2")


@pytest.mark.parametrize("path", sorted((FOLDER / "profiles").iterdir()), ids=lambda path: path.stem)
def test_a_profile_is_one(path):
    assert hf.Profile.load(path).name == f"compatibility-{path.stem}"


def test_a_fault_map_is_read_and_drawn_again(tmp_path, monkeypatch):
    monkeypatch.chdir(FOLDER)
    read = hf.FaultMap.load(cases.MAP)
    assert (read.bit_width, read.words, len(read)) == (32, 512, 436)
    drawn = ("profiles/permanent.yaml@p=0.05", "--device", 5, "--rows", 512)
    assert command("profiles", "draw", *drawn, "-o", tmp_path / "again.safetensors")[0] == 0
    again = hf.FaultMap.load(tmp_path / "again.safetensors")
    assert all(np.array_equal(getattr(again, key), getattr(read, key)) for key in ("word", "and_mask", "xor_mask"))
