"""Profiles and measured maps on the commands, as a user types them, and what is said to wrong ones."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwfault.campaigns.database import Database
from hwfault.campaigns.evaluate import evaluate
from hwfault.graph.edit.carried import plan_of
from hwfault.graph.read.struck import fault_nodes
from hwfault.laws.models import MapFaults, ProfileFaults
from hwfault.network.sites import sites as sites_of
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import MapProcess
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.train import TrainConfig, checkpoint
from hwfault.train.data import digits
from hwfault.train.schedule import schedule_faults
from tests.cli.conftest import files, good, hwfault, refused

KC705 = "bram28-kintex7-kc705b-undervolt"
UNDERVOLT, SRAM = f"{KC705}@voltage_v=0.53", "sram14-ibm-7points@operating_point=0"
WEIGHTS = ["features.0.weight_quant", "features.2.weight_quant", "features.4.weight_quant", "classifier.weight_quant"]


@pytest.fixture(scope="session")
def device(tmp_path_factory):
    """A measured map that is large enough for the digits network."""
    path = tmp_path_factory.mktemp("device") / "device.safetensors"
    rng = np.random.default_rng(0)
    word, bit = np.nonzero(rng.random((4000, 32)) < 0.02)
    FaultMap.from_cells(4000, 32, word, bit, rng.integers(0, 3, word.size), {"board": "mine"}).save(path)
    return path


@pytest.fixture(scope="session")
def network(run):
    model, _ = checkpoint.load(run / "checkpoint.safetensors")
    return model


def plan_for(network, *faults, device=0):
    return resolve(sites_of(network, digits().test_x[:1]), faults, device=device)


def test_evaluate_under_a_profile(run, network):
    done = good("evaluate", run, "--faults", UNDERVOLT, "--seeds", "0-2", "--json")
    (point,) = done.json
    data, fault = digits(), ProfileFaults(profile=KC705, at={"voltage_v": 0.53})
    expected = evaluate(network, data.test_x, data.test_y, [fault], seeds=[0, 1, 2])
    assert (point["seeds"], point["correct"]) == ([0, 1, 2], list(expected.correct))
    table = good("evaluate", run, "--faults", UNDERVOLT, "--seeds", "0-2").stdout
    assert f"{UNDERVOLT} " in table
    assert f"{expected.mean:.2%}" in table


def correct(run, *arguments):
    return good("evaluate", run, *arguments, "--samples", 90, "--json").json[0]["correct"]


def test_each_seed_is_another_device_unless_one_is_named(run):
    each = correct(run, "--faults", SRAM, "--seeds", "0-3")
    assert len(set(each)) > 1
    for number in (0, 3):
        assert correct(run, "--faults", SRAM, "--device", number, "--seeds", "0-3") == [each[number]] * 4
    assert correct(run, "--faults", SRAM, "--seeds", "2") == [each[2]]
    assert correct(run, "--faults", SRAM, "--device", 2**64 - 1, "--seeds", "1,2") != each[1:3]


def test_a_measured_map_is_the_same_under_every_seed(run, device):
    found = correct(run, "--faults", f"map:{device}", "--seeds", "0-2")
    assert len(set(found)) == 1
    assert found != correct(run, "--seeds", "0-2")
    some = correct(run, "--faults", f"map:{device}", "--select", "classifier.*", "--seeds", "0-2")
    assert some != found


def test_faults_prints_the_plan_and_its_cells(run, network):
    text = good("faults", run, "--faults", SRAM).stdout
    assert "fault 0: profile profile=sram14-ibm-7points" in text
    assert all(f"{name} " in text for name in WEIGHTS)
    fault = ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})
    plan = FaultPlan.from_json(good("faults", run, "--faults", SRAM, "--device", 5, "--json").stdout)
    assert plan == plan_for(network, fault, device=5)
    listed = good("faults", run, "--faults", SRAM, "--device", 5, "--site", WEIGHTS[2], "--json").json
    (process,) = plan.at(WEIGHTS[2]).processes
    word, bit, kind = process.map.cells()
    effects = np.array(["flip", "stuck at 0", "stuck at 1"])[kind].tolist()
    assert [(f["word"], f["bit"], f["effect"]) for f in listed] == list(
        zip(word.tolist(), bit.tolist(), effects, strict=True)
    )
    table = good("faults", run, "--faults", SRAM, "--device", 5, "--site", WEIGHTS[2]).stdout
    assert f"{len(listed)} faults at {WEIGHTS[2]}" in table
    assert "None" not in table


def test_without_a_device_it_is_the_seeds(run):
    listing = ("faults", run, "--faults", SRAM, "--site", WEIGHTS[2], "--json")
    seven = good(*listing, "--seed", 7).json
    assert seven == good(*listing, "--device", 7).json != good(*listing, "--seed", 8).json
    assert good(*listing, "--seed", 8, "--device", 7).json == seven


def test_select(run, device):
    for faults in (SRAM, UNDERVOLT, f"map:{device}", "uniform-flips@ber=0.01"):
        plan = FaultPlan.from_json(
            good("faults", run, "--faults", faults, "--select", "features.*.weight_quant", "--json").stdout
        )
        assert list(plan.names) == WEIGHTS[:3]


def test_export_and_replay(run, device, few, tmp_path):
    for i, faults in enumerate((SRAM, f"map:{device}")):
        graph = tmp_path / f"{i}.onnx"
        done = good("export", run, "--faults", faults, "--device", 3, "--out", graph)
        assert "faults at 4 sites" in done.stdout
        proto = onnx.load(graph)
        assert {node.op_type for entry in fault_nodes(proto) for node in entry.nodes} == {"FaultMap"}
        assert [info.name for info in proto.graph.input] == ["input"]
        assert plan_of(proto).device == (3 if i == 0 else None)
        assert "Replay: pass." in good("replay", graph, run, "--data", few, "--seeds", "0-1").stdout
        text = good("faults", graph).stdout
        assert f"plan {plan_of(proto).digest[:12]}" in text


def test_a_list_of_mixed_faults(run, device, few, tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(
        "faults:\n"
        f"  - {{model: profile, profile: {KC705}, at: {{voltage_v: 0.53}}}}\n"
        "  - {model: bit_flips, probability: 0.01}\n"
        f"  - {{model: map, file: {device}, p_active: 0.5, refresh: batch}}\n"
    )
    graph = tmp_path / "g.onnx"
    good("export", run, "--faults", path, "--out", graph)
    report = good("replay", graph, run, "--data", few, "--seeds", "1,2", "--batch-size", 10, "--json").json
    assert report["verdict"] == "pass"
    assert {node.op_type for entry in fault_nodes(onnx.load(graph)) for node in entry.nodes} == {
        "FaultMap", "TransientFaults", "IntermittentFaults",
    }  # fmt: skip
    assert len(correct(run, "--faults", path, "--seeds", "0-1")) == 2


def test_replay_of_a_changed_map_fails(run, tmp_path):
    graph = tmp_path / "g.onnx"
    good("export", run, "--faults", SRAM, "--out", graph)
    proto = onnx.load(graph)
    node = next(n for entry in fault_nodes(proto) for n in entry.nodes)
    tensor = next(t for t in proto.graph.initializer if t.name == node.input[5])
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) ^ 1, tensor.name))
    onnx.save(proto, graph)
    refused("replay", graph, run, "--seeds", 0, words=["does not do what the graph's plan says", "export it anew"])


def test_replay_tells_a_difference_by_its_exit_code(run, tmp_path, monkeypatch):
    """The reference without a single one of the map's words."""
    graph = tmp_path / "g.onnx"
    good("export", run, "--faults", SRAM, "--out", graph)
    monkeypatch.setattr(FaultMap, "apply", lambda _self, codes: codes.copy())
    done = hwfault("replay", graph, run, "--seeds", 0)
    assert done.code == 3
    assert "Replay: faults differ." in done.stdout


def test_a_saved_plan(run, tmp_path):
    plan, graph = tmp_path / "p.json", tmp_path / "g.onnx"
    good("faults", run, "--faults", SRAM, "--device", 9, "--save", plan)
    good("export", run, "--plan", plan, "--out", graph)
    assert plan_of(onnx.load(graph)) == FaultPlan.load(plan)
    assert FaultPlan.load(plan).device == 9
    site = ("--site", WEIGHTS[1], "--json")
    assert good("faults", plan, *site).json == good("faults", graph, *site).json


def test_train_under_a_profile_and_a_map(tmp_path, device):
    good("train", "--epochs", 1, "--faults", SRAM, "--device", 4, "--seed", 1, "--out", tmp_path / "one")
    config = TrainConfig.load(tmp_path / "one" / "config.json")
    assert config.faults == schedule_faults([ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})])
    assert (config.device, config.seed) == (4, 1)
    good("train", "--config", tmp_path / "one" / "config.json", "--out", tmp_path / "again")
    one, again = (tmp_path / name / "checkpoint.safetensors" for name in ("one", "again"))
    assert same_weights(one, again)
    good(
        "train",
        "--epochs",
        1,
        "--faults",
        f"map:{device}",
        "--select",
        "features.*.weight_quant",
        "--out",
        tmp_path / "map",
    )
    (fault,) = TrainConfig.load(tmp_path / "map" / "config.json").faults
    assert fault.fault == MapFaults(file=str(device), sites=[Select(name="features.*.weight_quant")])


def same_weights(one, other):
    states = [checkpoint.load(path)[0].state_dict() for path in (one, other)]
    return all((states[0][key] == states[1][key]).all() for key in states[0])


def test_a_profile_of_ones_own(run, tmp_path):
    path = tmp_path / "mine.yaml"
    content = {
        "schema_version": 1, "name": "mine", "title": "mine", "component": "weight_memory",
        "rate": {"quantity": "faulty_cells", "free": ["p"]}, "effect": {"stuck_at_1": 1.0},
        "spatial": {"kind": "independent"},
        "persistence": {"kind": "intermittent", "p_active": 0.25, "refresh": "power_cycle"},
    }  # fmt: skip
    path.write_text(json.dumps(content))
    plan = FaultPlan.from_json(good("faults", run, "--faults", f"{path}@p=0.05", "--json").stdout)
    processes = [p for name in plan.names for p in plan.at(name).processes]
    assert all(isinstance(p, MapProcess) and p.threshold == 2**30 for p in processes)
    assert good("evaluate", run, "--faults", f"{path}@p=0.05", "--seeds", "0-1").code == 0


def everywhere(run, out, kept, *faults, words, code=(1, 2)):
    """Every command that takes faults says the same of wrong ones, and leaves no file behind."""
    refused("train", "--epochs", 1, *faults, "--out", out / "run", words=words, code=code)
    refused("evaluate", run, *faults, "--seeds", 0, "--out", out, words=words, code=code)
    refused("export", run, *faults, "--out", kept, words=words, code=code)
    refused("faults", run, *faults, "--save", kept, words=words, code=code)


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ("bram28-kintex7-kc705b-undervlt@voltage_v=0.53", f"did you mean '{KC705}'"),
        (
            f"{KC705}@voltage_v=0.52",
            ["voltage_v = 0.52 lies beyond the measured range, 0.53 to 0.59 V", "crashes below 0.53"],
        ),
        (f"{KC705}@voltage=0.55", "did you mean 'voltage_v'"),
        (KC705, ["the operating point lacks voltage_v", "0.53 to 0.59 V are measured", "NAME@voltage_v=0.53"]),
        (f"{KC705}@voltage_v=low", "is not an operating point, expected NAME@axis=value"),
        (f"{KC705}@voltage_v", "is not an operating point"),
        (f"{KC705}@voltage_v=0.53,voltage_v=0.54", "voltage_v is given twice"),
        ("sram14-ibm-7points@operating_point=7", "expected one of"),
        ("uniform-flips@ber=2", "expected a number in [0, 1]"),
        ("map:nowhere.safetensors", ["nowhere.safetensors: cannot be read", "expected a fault map"]),
        ("map:", "cannot be read"),
        ("", "no profile"),
    ],
)
def test_faults_that_are_none(run, out, kept, faults, words):
    everywhere(run, out, kept, f"--faults={faults}", words=words)


@pytest.mark.parametrize("content", [b"", b"word,bit,kind\n1,2,0\n", b"\x80\x04cos\nsystem\n", bytes(64)])
def test_files_that_are_no_map(run, out, kept, tmp_path, content):
    (tmp_path / "foreign.map").write_bytes(content)
    everywhere(run, out, kept, "--faults", f"map:{tmp_path}/foreign.map", words="foreign.map: not a fault map")


def test_a_network_in_the_place_of_a_map(run, out, kept):
    everywhere(run, out, kept, "--faults", f"map:{run}/checkpoint.safetensors", words="but no fault map")


def test_a_folder_in_the_place_of_a_map(run, out, kept, tmp_path):
    everywhere(run, out, kept, "--faults", f"map:{tmp_path}", words=f"{tmp_path}: cannot be read")


def test_a_map_that_is_too_small(run, out, kept, tmp_path):
    FaultMap.from_cells(10, 32, [1], [1], [1]).save(tmp_path / "small.map")
    everywhere(run, out, kept, "--faults", f"map:{tmp_path}/small.map", words=["320", "expected"])


def test_assumptions_are_refused_where_asked(run, out, kept):
    assert good("faults", run, "--faults", UNDERVOLT, "--strict-sources").code == 0
    strict = ("--strict-sources", "--faults")
    everywhere(run, out, kept, *strict, "sram65-lowvdd-sun2017@voltage_v=0.5", words=["strict sources", "assumption"])
    everywhere(run, out, kept, *strict, "uniform-flips@ber=0.1", words=["strict sources", "free parameter"])


def test_assumptions_in_a_list_are_refused_too(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: profile, profile: sram65-lowvdd-sun2017, at: {voltage_v: 0.5}}]")
    everywhere(run, out, kept, "--strict-sources", "--faults", path, words="strict sources")


def test_options_that_would_say_nothing(run, out, kept):
    everywhere(run, out, kept, "--strict-sources", "--ber", 0.1, words="--strict-sources goes with", code=2)
    refused("train", "--strict-sources", "--out", out / "run", words="--strict-sources goes with", code=2)
    refused("evaluate", run, "--strict-sources", "--rates", "0,0.1", "--out", out, words="--strict-sources", code=2)


def test_contradicting_options(run, out, kept, device):
    both = ("--faults", UNDERVOLT, "--ber", 0.1)
    everywhere(run, out, kept, *both, words="--faults and --ber were both given", code=2)
    refused("evaluate", run, "--faults", UNDERVOLT, "--rates", "0", "--out", out, words="expected one of them", code=2)
    everywhere(run, out, kept, "--select", "*", words="--select goes with --ber, or with a profile or map", code=2)


def test_selectors_that_match_nothing(run, out, kept, device):
    for faults in (SRAM, f"map:{device}"):
        everywhere(
            run, out, kept, "--faults", faults, "--select", "classifer.weight_quant",
            words="did you mean 'classifier.weight_quant'",
        )  # fmt: skip


def test_a_list_names_its_sites_itself(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: bit_flips, probability: 0.1}]")
    everywhere(run, out, kept, "--faults", path, "--select", "*", words="each fault has its `sites:`", code=2)


@pytest.mark.parametrize("number", ["-1", str(2**64), "1.5", "x"])
def test_devices_that_are_none(run, out, kept, number):
    everywhere(run, out, kept, "--faults", SRAM, f"--device={number}", words="--device", code=2)


def test_a_profiles_file_that_is_wrong(run, out, kept, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("schema_version: 1\nname: mine\ntitel: mine\n")
    everywhere(run, out, kept, "--faults", path, words=[str(path), "did you mean 'title'"])


def test_sites_of_a_bare_network_have_no_addresses(kept):
    refused(
        "faults",
        "digits_cnn",
        "--faults",
        f"{SRAM}",
        "--select",
        "*act*",
        "--save",
        kept,
        words="the shape of the site",
    )


def test_the_files_of_a_command(run, device, tmp_path):
    """A map is only read."""
    before = device.read_bytes()
    good("evaluate", run, "--faults", f"map:{device}", "--seeds", "0", "--out", tmp_path / "out")
    assert device.read_bytes() == before
    assert {str(path) for path in files(tmp_path / "out")} == {"results.csv", "results.json", "campaign.sqlite"}


def test_a_pattern_where_it_does_not_hold_is_told_once_and_kept(made, run, tmp_path):
    milder = f"{KC705}@voltage_v=0.54"
    done = good("evaluate", run, "--faults", milder, "--seeds", "0-2", "--samples", 20, "--out", tmp_path, "--json")
    assert done.stderr.count("warning: ") == 1
    assert f"warning: {KC705} at voltage_v=0.54" in done.stderr
    assert "drawn and measured: 19 % and 13 %" in done.stderr
    (point,) = done.json
    (note,) = point["notes"]
    assert "holds at voltage_v=0.53 only" in note
    with Database(tmp_path / "campaign.sqlite", readonly=True) as database:
        assert json.loads(database.said("question"))["notes"] == [note]
    assert json.loads((tmp_path / "results.json").read_text())["points"][0]["notes"] == [note]
    plan = tmp_path / "plan.json"
    assert good("faults", run, "--faults", milder, "--save", plan).stderr.count("warning: ") == 1
    assert FaultPlan.load(plan).notes == (note,)
    graph = tmp_path / "faulted.onnx"
    assert "warning: " in good("insert", made / "clean.onnx", "--plan", plan, "-o", graph).stderr
    assert plan_of(onnx.load(graph)).notes == (note,)


def test_nothing_is_told_of_a_pattern_that_holds(run):
    done = good("evaluate", run, "--faults", UNDERVOLT, "--seeds", "0-1", "--samples", 20, "--json")
    assert "warning" not in done.stderr
    assert "notes" not in done.json[0]


def test_profiles_say_where_their_pattern_holds(tmp_path):
    told = " ".join(good("profiles", "show", f"{KC705}@voltage_v=0.54").stdout.split())
    assert "holds at voltage_v 0.53 alone, elsewhere block_share was 0.1292 at voltage_v 0.54;" in told
    assert f"{KC705} at voltage_v=0.54: the pattern of its faults" in told
    assert good("profiles", "show", UNDERVOLT, "--json").json["resolved"]["note"] is None
    for command in (["draw", "--blocks", 10, "-o", tmp_path / "d.safetensors"], ["plot", "--out", tmp_path / "p.png"]):
        done = good("profiles", command[0], f"{KC705}@voltage_v=0.55", *command[1:])
        assert done.stderr.count("warning: ") == 1
