"""Checkpoints, plans and graphs that are not what a command needs: one clear error each, and nothing half-written."""

import json
import os
import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from hwfault.plan.fault_plan import FaultPlan
from hwfault.train import TrainConfig, build, checkpoint
from tests.cli.conftest import good, hwfault, refused


def save_other(path, network, config):
    checkpoint.save(path, network, config)
    return path


def test_a_checkpoint_of_another_network(out, kept, tmp_path):
    wider = save_other(tmp_path / "a.safetensors", build("digits_cnn", bits=3), TrainConfig())
    words = ["is another network's", "3 bit"]
    refused("evaluate", wider, "--out", out, words=words)
    refused("export", wider, "--out", kept, words=words)
    other = save_other(tmp_path / "b.safetensors", build("tests.helpers.train.small:network"), TrainConfig())
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
        refused(
            "evaluate", path, "--out", out, words=[str(path), "is a pickle", "expected a checkpoint of hwfault train"]
        )
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
    good("faults", "tests.helpers.train.small:network", "--ber", 0.1, "--save", tmp_path / "p.json")
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


def test_a_graph_that_was_changed_together_with_its_plan(made, run, tmp_path):
    """Another draw than the rate's, but the same in the plan, its hash and the nodes: both engines follow it."""

    def change(graph):
        stored = json.loads(metadata(graph, "hwfault.plan").value)
        stored["tables"] = [[t[0], *(n // 2 for n in t[1:])] for t in stored["tables"]]
        plan = FaultPlan.from_json(json.dumps(stored))
        metadata(graph, "hwfault.plan").value = plan.to_json()
        metadata(graph, "hwfault.plan_sha256").value = plan.digest
        for node in (node for node in graph.graph.node if node.op_type == "TransientFaults"):
            program = next(a for a in node.attribute if a.name == "program")
            program.ints[:] = plan.program(metadata(node, "hwfault.site").value)

    path = tampered(made, tmp_path, change)
    report = good("replay", path, run, "--seeds", "1", "--json").json
    assert report["verdict"] == "pass"
    original = good("replay", made / "faulted.onnx", run, "--seeds", "1", "--json").json
    seen = [sum(site["faults_seen"] for site in found["runs"][0]["sites"]) for found in (report, original)]
    assert seen[0] > seen[1]


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
