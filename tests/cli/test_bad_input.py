"""Each mistake is one clear error with exit code 1 or 2, without a traceback, and nothing half-written."""

import os
import pickle
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwfault.train import TrainConfig, build, checkpoint

from .conftest import good, hwfault

TOO_LARGE = str(2**64)


def files(folder):
    """Every file below a folder with its bytes."""
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(*arguments, words, code=1):
    """The command fails with one error that says `words`, and prints nothing on stdout."""
    done = hwfault(*arguments)
    assert done.code == code, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("Error: ") == 1
    assert "Traceback" not in done.stderr
    message = " ".join(done.stderr.split("Error: ")[1].split())
    for text in [words] if isinstance(words, str) else words:
        assert text in message
    return message


@pytest.fixture
def out(tmp_path):
    """A folder in which no file must appear."""
    folder = tmp_path / "out"
    folder.mkdir()
    yield folder
    assert files(folder) == {}


@pytest.fixture
def kept(tmp_path):
    """A folder with an old file that must stay as it was."""
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / "old.onnx").write_bytes(b"old")
    yield folder / "old.onnx"
    assert files(folder) == {(folder / "old.onnx").relative_to(folder): b"old"}


RATES = ["1.5", "-0.1", "nan", "inf", "3"]


@pytest.mark.parametrize("rate", RATES)
def test_probabilities_outside_0_to_1(run, out, kept, rate):
    words = ["expected a number in [0, 1]"]
    refused("train", f"--ber={rate}", "--out", out / "run", words=words)
    refused("evaluate", run, f"--ber={rate}", "--out", out, words=words)
    refused("evaluate", run, f"--rates=0,{rate}", "--out", out, words=words)
    refused("export", run, f"--ber={rate}", "--out", kept, words=words)
    refused("faults", run, f"--ber={rate}", "--save", kept, words=words)
    assert not (out / "run").exists()


@pytest.mark.parametrize("rate", ["1.5", ".nan", "-1", "yes", "many", "[0.1, 2, 0, 0]", "[]", "null", "{}"])
def test_probabilities_in_a_file(run, out, kept, tmp_path, rate):
    path = tmp_path / "f.yaml"
    path.write_text(f"faults: [{{model: bit_flips, probability: {rate}}}]")
    for command in (["train", "--out", out / "run"], ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=str(path))


def test_probabilities_too_small_to_be_drawn(run, kept):
    refused("export", run, "--ber", "1e-14", "--out", kept, words=["too small to be drawn", "site 'input.act_quant'"])


@pytest.mark.parametrize(
    ("selector", "nearest"),
    [
        ("features.0.wieght_quant", "did you mean 'features.0.weight_quant'"),
        ("nothing", "no site matches"),
        ("", "no site"),
    ],
)
def test_unknown_selectors(run, out, kept, selector, nearest):
    refused("train", "--ber", 0.1, f"--select={selector}", "--out", out / "run", words=nearest)
    refused("evaluate", run, "--ber", 0.1, f"--select={selector}", "--out", out, words=nearest)
    refused("evaluate", run, "--rates", "0,0.1", f"--select={selector}", "--out", out, words=nearest)
    refused("export", run, "--ber", 0.1, f"--select={selector}", "--out", kept, words=nearest)
    refused("faults", run, "--ber", 0.1, f"--select={selector}", "--save", kept, words=nearest)


def test_a_process_wider_than_the_word(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: word, probability: 0.1, effect: 16}]")
    words = ["fault 0 at site 'features.0.weight_quant'", "mask 0x10 does not fit words of 4 bits, expected 1 to 0xf"]
    refused("train", "--faults", path, "--out", out / "run", words=words)
    refused("evaluate", run, "--faults", path, "--out", out, words=words)
    refused("export", run, "--faults", path, "--out", kept, words=words)
    path.write_text("faults: [{model: bit_flips, probability: [0.1, 0.1, 0.1, 0.1]}]")
    words = "4 probabilities were given for words of 8 bits"
    refused("export", run, "--faults", path, "--out", kept, words=["site 'input.act_quant'", words])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("faults: [{model: bit_flips, probabilty: 0.1}]", "unknown key 'probabilty': did you mean 'probability'"),
        ("faults: [{model: bit_flips, probability: 0.1, sites: {knd: weight}}]", "did you mean 'kind'"),
        ("falts: []", "unknown key 'falts': did you mean 'faults'"),
        ("faults: [{model: bitflips, probability: 0.1}]", "bit_flips"),
        ("faults: {model: bit_flips}", "faults"),
        ("- 1", "expected a mapping"),
        ("", "expected a mapping"),
        ("a: [", "not a YAML file"),
        ("{3: 4}", "unknown key 3"),
        ("faults: [!!python/object/apply:os.system ['true']]", "not a YAML file"),
        ("\x00", "not a YAML file"),
    ],
)
def test_files_of_faults_that_are_none(run, out, kept, tmp_path, text, words):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    for command in (["train", "--out", out / "run"], ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=[str(path), words])


def test_a_file_without_faults_is_not_taken_for_clean(run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: []")
    for command in (["train", "--out", out / "run"], ["evaluate", run, "--out", out], ["export", run, "--out", kept]):
        refused(*command, "--faults", path, words=[str(path), "fault"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3", "unknown key 'epoch': did you mean 'epochs'"),
        ("epochs: none", "epochs"),
        ("network: digit_cnn", "did you mean 'digits_cnn'"),
        ("network_args: {bits: 9}", "bits is 9, expected 2 to 8"),
        ("network_args: {bit: 4}", "bit"),
        ("data: digit", "did you mean 'digits'"),
        ("[]", "expected a mapping"),
        ("faults: 3", "faults"),
        ("faults: [{model: word, probability: 0.1, effect: rnd}]", "effect"),
        ("gradient: straight", "straight_through"),
    ],
)
def test_configurations_that_are_none(out, tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    refused("train", "--config", path, "--out", out / "run", words=words)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--epochs", "0", "epochs"),
        ("--batch-size", "0", "batch_size"),
        ("--learning-rate", "-1", "learning_rate"),
        ("--learning-rate", "nan", "learning_rate"),
        ("--weight-decay", "inf", "weight_decay"),
        ("--ramp", "2", "ramp"),
        ("--optimizer", "adam", "optimizer"),
        ("--gradient", "zeros", "gradient"),
        ("--seed", TOO_LARGE, "seed"),
        ("--seed", "-1", "seed"),
    ],
)
def test_options_of_training(out, option, value, words):
    refused("train", option, value, "--out", out / "run", words=[words, value if option != "--weight-decay" else ""])
    assert not (out / "run").exists()


def test_training_that_diverges_says_so(tmp_path):
    refused(
        "train", "--epochs", 2, "--learning-rate", "1e30", "--optimizer", "sgd", "--out", tmp_path / "run", words="loss"
    )


def test_names_of_files_that_are_not_there(run, made, out, kept, tmp_path):
    nowhere = tmp_path / "nowhere"
    refused("evaluate", nowhere, "--out", out, words=[f"{nowhere}: cannot be read", "expected a checkpoint"])
    refused("export", nowhere, "--out", kept, words="cannot be read")
    refused("export", run, "--plan", nowhere, "--out", kept, words=[f"{nowhere}: cannot be read", "fault plan"])
    refused("export", run, "--faults", nowhere, "--out", kept, words=[f"{nowhere}: cannot be read", "YAML"])
    refused("train", "--config", nowhere, "--out", out / "run", words="cannot be read")
    refused("replay", nowhere, run, "--out", kept, words=[f"{nowhere}: cannot be read", "ONNX file"])
    refused("replay", made / "faulted.onnx", nowhere, "--out", kept, words="cannot be read")
    refused("sites", f"{nowhere}.onnx", words="cannot be read")
    refused("sites", nowhere, words="is unknown")
    refused("faults", f"{nowhere}.json", "--site", "x", words="cannot be read")
    refused("train", "--data", f"{nowhere}.npz", "--out", out / "run", words=f"{nowhere}.npz: there is no such file")


def test_folders_and_devices_in_the_place_of_files(run, made, out, kept, tmp_path):
    refused("replay", tmp_path, run, words="cannot be read")
    refused("export", run, "--plan", tmp_path, "--out", kept, words="cannot be read")
    refused("evaluate", tmp_path, "--out", out, words="cannot be read")
    refused("train", "--config", tmp_path, "--out", out / "run", words="cannot be read")


def save_other(path, network, config):
    checkpoint.save(path, network, config)
    return path


def test_a_checkpoint_of_another_network(out, kept, tmp_path):
    wider = save_other(tmp_path / "a.safetensors", build("digits_cnn", bits=3), TrainConfig())
    words = ["is another network's", "3 bit"]
    refused("evaluate", wider, "--out", out, words=words)
    refused("export", wider, "--out", kept, words=words)
    other = save_other(tmp_path / "b.safetensors", build("tests.train.small:network"), TrainConfig())
    refused("evaluate", other, "--out", out, words="is another network's")


def test_a_truncated_checkpoint(run, out, kept, tmp_path):
    whole = (run / "checkpoint.safetensors").read_bytes()
    path = tmp_path / "c.safetensors"
    for length in (0, 5, 200, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused("evaluate", path, "--out", out, words=[str(path), "may be truncated"])
        refused("export", path, "--out", kept, words="may be truncated")


def test_a_pickle_is_not_run(out, kept, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    path = tmp_path / "c.pt"
    for write in (lambda: path.write_bytes(pickle.dumps(Bomb())), lambda: torch.save(Bomb(), path)):
        write()
        refused("evaluate", path, "--out", out, words=[str(path), "is a pickle", "expected a safetensors checkpoint"])
        refused("export", path, "--out", kept, words="is a pickle")
    np.savez(tmp_path / "d.npz", x_train=np.array([Bomb()], object), y_train=[0], x_test=[[0.0]], y_test=[0])
    refused("train", "--data", tmp_path / "d.npz", "--out", out / "run", words="x_train is object, expected numbers")
    assert not (tmp_path / "boom").exists()


def test_code_that_a_file_names_is_not_run(out, tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, build("digits_cnn"), TrainConfig(network="antigravity:fly"))
    refused("evaluate", path, "--out", out, words=["code that a file names is not run", "--network antigravity:fly"])
    checkpoint.save(path, build("digits_cnn"), TrainConfig(data="antigravity:fly"))
    refused("evaluate", path, "--out", out, words=["code that a file names is not run", "--data antigravity:fly"])
    refused("sites", path, words="code that a file names is not run")


def small_graph(nodes, *, opsets=(("", 17),), initializers=()):
    value = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4])
    out = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph(nodes, "g", [value], [out], initializer=list(initializers))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(*o) for o in opsets], ir_version=10)


def test_onnx_files_that_are_none(run, kept, tmp_path):
    path = tmp_path / "g.onnx"
    for content in (b"", b"not a graph", b"\x80\x04pickle", bytes(1000), b"PK\x03\x04", b"{}"):
        path.write_bytes(content)
        refused("replay", path, run, "--out", kept, words=[str(path), "not an ONNX file"])
        refused("sites", path, words="not an ONNX file")
        refused("faults", path, "--ber", 0.1, words="not an ONNX file")


def test_a_truncated_graph(made, run, kept, tmp_path):
    whole = (made / "faulted.onnx").read_bytes()
    path = tmp_path / "g.onnx"
    for length in (10, 1000, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        refused("replay", path, run, "--out", kept, words=str(path))


def test_a_graph_without_quantizers(run, kept, tmp_path):
    path = tmp_path / "g.onnx"
    onnx.save(small_graph([helper.make_node("Relu", ["input"], ["output"])]), path)
    words = "the graph has none of the nodes Quant, IntQuant, BipolarQuant"
    refused("sites", path, words=words)
    refused("faults", path, "--ber", 0.1, words=words)
    refused("replay", path, run, "--out", kept, words="carries no fault plan")


def test_a_graph_with_an_op_that_nobody_registered(made, run, kept, tmp_path):
    graph = onnx.load(made / "faulted.onnx")
    graph.opset_import.append(helper.make_opsetid("acme", 1))
    last = graph.graph.node[-1]
    before, last.output[0] = last.output[0], "before_acme"
    graph.graph.node.append(helper.make_node("Frobnicate", ["before_acme"], [before], name="frob", domain="acme"))
    onnx.save(graph, tmp_path / "g.onnx")
    words = ["nobody registered the op 'Frobnicate' of domain 'acme'", "the node 'frob'"]
    refused("replay", tmp_path / "g.onnx", run, "--out", kept, words=words)


def test_a_clean_graph_has_nothing_to_replay(made, run, kept):
    refused("replay", made / "clean.onnx", run, "--out", kept, words="carries no fault plan")
    refused("faults", made / "clean.onnx", words="carries no fault plan")


def test_a_plan_for_other_sites(run, kept, tmp_path):
    good("faults", "tests.train.small:network", "--ber", 0.1, "--save", tmp_path / "p.json")
    refused(
        "export",
        run,
        "--plan",
        tmp_path / "p.json",
        "--out",
        kept,
        words="strikes the site '0.weight_quant', which the",
    )
    good("faults", "digits_cnn", "--ber", 0.1, "--save", tmp_path / "q.json")
    text = (tmp_path / "q.json").read_text()
    (tmp_path / "q.json").write_text(text.replace('"signed":true', '"signed":false'))
    refused(
        "export", run, "--plan", tmp_path / "q.json", "--out", kept, words="resolve the faults against this one again"
    )


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": "hwfault-plan/2"}', "[" * 10000, "\x00", "3"])
def test_plans_that_are_none(run, kept, tmp_path, content):
    path = tmp_path / "p.json"
    path.write_text(content)
    refused("export", run, "--plan", path, "--out", kept, words=[str(path), "not a fault plan"])
    refused("faults", path, words="not a fault plan")


def test_a_graph_of_another_run(made, kept, tmp_path):
    other = tmp_path / "other"
    good("train", "--epochs", 1, "--seed", 3, "--out", other)
    refused("replay", made / "faulted.onnx", other, "--out", kept, words="was exported with other values of the site")


def tampered(made, tmp_path, change):
    graph = onnx.load(made / "faulted.onnx")
    change(graph)
    onnx.save(graph, tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def metadata(graph, key):
    return next(entry for entry in graph.metadata_props if entry.key == key)


def fault_node(graph):
    return next(node for node in graph.graph.node if node.op_type == "TransientFaults")


def edit_plan(graph):
    metadata(graph, "hwfault.plan").value = metadata(graph, "hwfault.plan").value.replace("0.02", "0.03", 1)


def edit_hash(graph):
    metadata(graph, "hwfault.plan_sha256").value = "0" * 64


def edit_program(graph):
    program = next(a for a in fault_node(graph).attribute if a.name == "program")
    program.ints[-1] -= 1


def edit_width(graph):
    next(a for a in fault_node(graph).attribute if a.name == "bit_width").i = 4


def drop_node(graph):
    node = fault_node(graph)
    for other in graph.graph.node:
        other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
    graph.graph.node.remove(node)


@pytest.mark.parametrize("change", [edit_plan, edit_hash, edit_program, edit_width, drop_node])
def test_a_graph_that_does_not_agree_with_its_plan(made, run, kept, tmp_path, change):
    path = tampered(made, tmp_path, change)
    words = "export it anew"
    refused("replay", path, run, "--out", kept, words=words)
    refused("faults", path, words=words)


def bypass(graph):
    """The layers read what the quantizer gave, and the fault node's output ends nowhere."""
    node = fault_node(graph)
    for other in graph.graph.node:
        if other is not node:
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]


def other_scale(graph):
    graph.graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), "other_scale"))
    fault_node(graph).input[1] = "other_scale"


def fixed_seed(graph):
    graph.graph.initializer.append(numpy_helper.from_array(np.array(9, np.int64), "nine"))
    fault_node(graph).input[3] = "nine"


@pytest.mark.parametrize("change", [bypass, other_scale, fixed_seed])
def test_a_graph_whose_fault_nodes_are_wired_otherwise(made, run, kept, tmp_path, change):
    """Its program is the plan's, but its faults do not strike as the plan says: never exit code 0."""
    path = tampered(made, tmp_path, change)
    done = hwfault("replay", path, run, "--seeds", "1")
    assert done.code in (1, 3), done.stdout


@pytest.mark.parametrize("seed", [TOO_LARGE, "-1", "1.5", "x", "", "5-1", "1,,2", f"0-{2**64}", "0-99999999"])
def test_seeds_that_do_not_fit(made, run, out, kept, seed):
    refused("evaluate", run, "--ber", 0.1, f"--seeds={seed}", "--out", out, words="--seeds", code=2)
    refused("replay", made / "faulted.onnx", run, f"--seeds={seed}", "--out", kept, words="--seeds", code=2)


def test_seeds_of_the_listing(run, kept):
    for seed in (TOO_LARGE, "-1"):
        refused(
            "faults", run, "--ber", 0.1, "--site", "input.act_quant", "--seed", seed, "--save", kept,
            words=["the seed is", "expected an integer from 0 to 2^64 - 1"],
        )  # fmt: skip


@pytest.mark.parametrize("where", ["file", "proc", "long"])
def test_output_folders_that_cannot_be_written(made, run, tmp_path, where):
    (tmp_path / "file").write_text("old")
    folder = {"file": tmp_path / "file" / "out", "proc": "/proc/hwfault", "long": tmp_path / ("x" * 300)}[where]
    words = ["choose another"]
    refused("train", "--epochs", 1, "--out", folder, words=words)
    refused("evaluate", run, "--rates", "0", "--seeds", 0, "--out", folder, words=words)
    refused("demo", "--out", folder, words=words)
    refused("export", run, "--out", f"{folder}/g.onnx", words=words)
    refused("faults", run, "--ber", 0.1, "--save", f"{folder}/p.json", words=words)
    refused("replay", made / "faulted.onnx", run, "--seeds", 0, "--out", f"{folder}/r.json", words=words)
    assert (tmp_path / "file").read_text() == "old"
    assert files(tmp_path).keys() == {(tmp_path / "file").relative_to(tmp_path)}


def test_a_file_in_the_place_of_the_output_folder(run, tmp_path):
    (tmp_path / "out").write_text("old")
    refused("train", "--epochs", 1, "--out", tmp_path / "out", words=f"{tmp_path}/out: not a folder to write in")
    refused("demo", "--out", tmp_path / "out", words="not a folder to write in")
    assert (tmp_path / "out").read_text() == "old"


def test_contradicting_options(made, run, out, kept, tmp_path):
    path = tmp_path / "f.yaml"
    path.write_text("faults: [{model: bit_flips, probability: 0.1}]")
    both = ["--faults", path, "--ber", 0.1]
    refused("train", *both, "--out", out / "run", words="expected one of them", code=2)
    refused("evaluate", run, *both, "--out", out, words="expected one of them", code=2)
    refused("evaluate", run, "--rates", "0", "--ber", 0.1, "--out", out, words="expected one of them", code=2)
    refused(
        "export", run, "--plan", made / "plan.json", "--ber", 0.1, "--out", kept, words="expected one of them", code=2
    )
    refused("faults", made / "plan.json", "--ber", 0.1, "--save", kept, words="expected one of them", code=2)
    refused("evaluate", run, "--select", "x", "--out", out, words="--select goes with --ber", code=2)
    refused("faults", run, "--save", kept, words="no faults were named")


def test_an_unknown_site_in_the_listing(made, run):
    refused(
        "faults", made / "plan.json", "--site", "classifer.weight_quant", words="did you mean 'classifier.weight_quant'"
    )
    refused("faults", run, "--ber", 0.1, "--site", "x", words="the plan has no site 'x'")


@pytest.mark.parametrize("rates", ["", "a", "0,,1", "0;1"])
def test_rates_that_are_none(run, out, rates):
    refused("evaluate", run, f"--rates={rates}", "--out", out, words="--rates", code=2)


@pytest.mark.parametrize("batch", ["0", "-1", "x"])
def test_batch_sizes_that_are_none(made, run, out, kept, batch):
    refused("evaluate", run, f"--batch-size={batch}", "--out", out, words="--batch-size", code=2)
    refused("replay", made / "faulted.onnx", run, f"--batch-size={batch}", "--out", kept, words="--batch-size", code=2)


@pytest.mark.parametrize(
    "spec", ["no.such:thing", "json:loads", "tests.train.small:not_a_network", ":", "tests.train.small:", "os"]
)
def test_networks_and_data_that_are_none(out, spec):
    refused("sites", spec, words="")
    refused("train", "--network", spec, "--epochs", 1, "--out", out / "run", words="network")
    refused("train", "--data", spec, "--epochs", 1, "--out", out / "run", words="data")


def test_data_that_does_not_fit_the_network(run, out, kept):
    refused("evaluate", run, "--data", "tests.train.small:data", "--out", out, words="")
    refused("export", run, "--data", "tests.train.small:data", "--out", kept, words="")


def test_a_run_without_its_checkpoint(run, out, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    (copied / "checkpoint.safetensors").unlink()
    refused("evaluate", copied, "--out", out, words="checkpoint.safetensors: cannot be read")


def test_an_interrupted_write_leaves_the_old_file(run, kept, monkeypatch):
    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    refused("export", run, "--out", kept, words="No space left on device")
    refused("faults", run, "--ber", 0.1, "--save", kept, words="No space left on device")


def test_errors_are_the_same_with_json(run, out):
    refused("evaluate", run, "--ber", 2, "--json", "--out", out, words="expected a number in [0, 1]")
