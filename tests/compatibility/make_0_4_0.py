"""Writes the files of tests/compatibility/0.4.0. To be run with hwfault 0.4.0, which alone writes them as it did:

    PYTHON_OF_0_4_0 tests/compatibility/make_0_4_0.py [FOLDER]

Run again it writes the same numbers (on one kind of machine: those of a trained network are its processor's); the order
of a checkpoint's metadata, and the names that qonnx gives to tensors, are others each time.
"""
# ruff: noqa: I001  (some of these modules are not there today, which the order would tell)

import json
import os
import shutil
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import cases
import hwfault
import networks
import numpy as np
import seen
import torch
from click.testing import CliRunner
from hwfault.bundle.record import write_bundle
from hwfault.cli import main as command_line
from hwfault.graph.channels_last import to_channels_last
from hwfault.graph.export import export
from hwfault.graph.session import run, session
from hwfault.inject import inject, sites
from hwfault.inject.integer_arithmetic import integer_arithmetic
from hwfault.listing import faults_at
from hwfault.plan import resolve
from hwfault.profiles.models import FaultList
from hwfault.train import checkpoint
from hwfault.train.config import TrainConfig
from hwfault.train.run import train_into
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.util.cleanup import cleanup_model

PROFILE = """\
schema_version: 1
name: compatibility-{name}
title: {title}
component: weight_memory
rate: {{quantity: faulty_cells, free: [p]}}
effect: {effect}
spatial: {spatial}
persistence: {persistence}
mapping: {mapping}
"""
STUCK, ROWS = "{flip: 0.4, stuck_at_0: 0.3, stuck_at_1: 0.3}", "{kind: linear, row_bits: 32}"
BLOCKS = (
    "{kind: block_column, block_rows: 64, column_period: 2, block_share: 0.4, dispersion: 0.1, column_share: 0.6,"
    " at_rate: 0.01}"
)
CONFIG = {
    "network": "mlp",
    "network_args": {"size": 8, "hidden": [12], "weight_bits": 4, "act_bits": 4, "scale": "power_of_two"},
    "data": "digits",
    "validation": 0.1,
    "faults": [{"model": "bit_flips", "probability": 0.01, "schedule": {"ramp": "linear", "ramp_epochs": 1}}],
    "epochs": 2,
    "learning_rate": 0.01,
    "device": 3,
}
LISTED = ("flips", "flips_directed", "word_random", "cluster_word", "map", "profile_permanent", "bypassed", "late")
"""Plans whose listings 0.4.0 had right: of what the stream draws, and of permanent maps."""


def main(folder):
    if hwfault.__version__ != "0.4.0" or find_spec("hwfault.moved") is not None:
        sys.exit(f"hwfault in {Path(hwfault.__file__).parent} is not 0.4.0, expected that version")
    torch.set_num_threads(1)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)  # plans name files as they are given
    write_names()
    write_profiles()
    expected = {"plans": write_plans(), "refused": write_refused(), "graphs": write_graphs()}
    expected |= {"network": write_network(), "run": write_run()}
    Path("expected.json").write_text(one_line_each(expected))


def write_names():
    """The modules of this version, and the first example of its README."""
    package = Path(hwfault.__file__).parent
    paths = sorted(path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py"))
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths]
    Path("modules.txt").write_text("".join(f"{name}\n" for name in names))
    readme = (package.parent / "README.md").read_text()
    Path("ten_lines.txt").write_text(readme.split("## Ten lines\n\n```python\n")[1].split("```")[0])


def write_profiles():
    Path("profiles").mkdir()
    plain = {"effect": STUCK, "spatial": "{kind: independent}", "mapping": ROWS}
    kinds = {
        "uniform": {"effect": "{flip: 1.0}", "persistence": "{kind: transient}"},
        "transient": {
            "persistence": "{kind: transient}\nbit_weights: [1.0, 1.0, 2.0, 4.0]",
            "mapping": "{kind: linear, row_bits: 32, representation: offset_binary}",
        },
        "permanent": {"persistence": "{kind: permanent}"},
        "blocks": {"persistence": "{kind: permanent}", "spatial": BLOCKS},
    }
    for refresh in ("inference", "batch", "epoch", "power_cycle"):
        persistence = f"{{kind: intermittent, p_active: 0.5, refresh: {refresh}}}"
        kinds[f"intermittent_{refresh}"] = {"persistence": persistence}
    for name, own in kinds.items():
        text = PROFILE.format(name=name, title=f"A memory with faults, {name}", **plain | own)
        Path(f"profiles/{name}.yaml").write_text(text)
    command("profiles", "draw", "profiles/permanent.yaml@p=0.05", "--device", "5", "--rows", "512", "-o", cases.MAP)


def write_plans():
    """The plans of one network, and what each does there."""
    network, inputs = networks.network("chain"), networks.example("chain")
    wanted = {name: (faults, {}) for name, faults in cases.PLANS.items()}
    wanted |= {name: (faults, {"factors": factors}) for name, (faults, factors) in cases.FACTORS.items()}
    wanted |= {name: (faults, {"device": device}) for name, (faults, device) in cases.DEVICES.items()}
    Path("plans").mkdir()
    expected = {}
    for name, (faults, rest) in wanted.items():
        plan = resolve(sites(network, inputs), parsed(faults), **rest)
        plan.save(f"plans/{name}.json")
        expected[name] = done_by(plan, network, inputs)
        if name in LISTED:
            expected[name]["listed"] = listed(plan)
    plan = resolve(sites(network), parsed(cases.PLANS["flips"]))
    plan.save("plans/without_shapes.json")
    expected["without_shapes"] = done_by(plan, network, inputs)
    return expected


def done_by(plan, network, inputs):
    runs = seen.injected(inject, network, plan, inputs, seen.DRAWS)
    changed = sum(site["changed"] for done in runs for found in done["sites"].values() for site in found)
    assert changed or any(entry.array is not None for entry in plan.sites), "a plan without a fault shows nothing"
    return {"digest": plan.digest, "runs": runs}


def listed(plan):
    """The faults at each site in sample 2, or 0 of a parameter: how many, a digest of all words and bits, the first."""
    found = {}
    for entry in plan.sites:
        faults = faults_at(plan, entry.site.name, seed=1, sample=2 if entry.site.batched else 0)
        rows = [[f.process, f.word, -1 if f.bit is None else f.bit] for f in faults]
        found[entry.site.name] = {"faults": len(rows), "rows": seen.digest(np.array(rows)), "first": rows[: seen.FIRST]}
    return found


def write_refused():
    """Plans and graphs that are refused today, or mean less."""
    network, inputs = networks.network("chain"), networks.example("chain")
    Path("refused").mkdir()
    for name, faults in cases.LATE_BEYOND.items():
        resolve(sites(network, inputs), parsed(faults)).save(f"refused/{name}.json")
    expected = {}
    for name, faults in cases.OTHER_NETWORKS.items():
        network, inputs = networks.network(name), networks.example(name)
        plan = resolve(sites(network, inputs), parsed(faults))
        plan.save(f"refused/{name}.json")
        expected[name] = done_by(plan, network, inputs)
        save_graph(export(network, inputs, plan=plan), f"refused/{name}.onnx")
    return expected


def write_graphs():
    network, inputs = networks.network("chain"), networks.example("chain")
    Path("graphs").mkdir()
    graphs = {}
    for name, faults in cases.GRAPHS.items():
        graphs[name] = export(network, inputs, plan=resolve(sites(network, inputs), parsed(faults)))
    plan = resolve(sites(network, inputs), parsed(cases.GRAPHS["arrays"]))
    graphs["clean"] = export(network, inputs)
    graphs["integer"] = export(network, inputs, arithmetic="integer", plan=plan)
    plan = resolve(sites(network, inputs), parsed(cases.GRAPHS["arrays_float64"]))
    graphs["integer_float64"] = export(network, inputs, arithmetic="integer", plan=plan)
    tidy = cleanup_model(ModelWrapper(graphs.pop("channels_first")), override_inpsize=len(inputs)).model
    graphs["channels_last"] = to_channels_last(tidy)
    expected = {}
    for name, graph in graphs.items():
        save_graph(graph, f"graphs/{name}.onnx")
        expected[name] = seen.ran(session, run, graph, inputs, seen.DRAWS)
    return expected


def write_network():
    """A bundle and a checkpoint of the network itself, two steps of its training, and its integer arithmetic."""
    network, inputs = networks.network("chain"), networks.example("chain")
    checkpoint.save("chain.safetensors", network, TrainConfig(network="tests.compatibility.networks:Chain"))
    plan = resolve(sites(network, inputs), parsed(cases.GRAPHS["arrays"] + cases.PLANS["map_secded_inference"]))
    plan.save("plans/integer.json")
    write_bundle("bundle.zip", network, inputs, plan=plan, seeds=(1, 5), batch_size=2)
    with torch.no_grad(), integer_arithmetic(network), inject(network, plan, seed=1):
        exact = seen.digest(network(inputs).numpy())
    with torch.no_grad():
        clean = seen.digest(network(inputs).numpy())
    plan = resolve(sites(network, inputs), parsed(cases.PLANS["flips_directed"] + cases.PLANS["word_random"]))
    plan.save("plans/trained.json")
    gradients = ("zero", "straight_through")
    steps = {gradient: seen.trained(inject, network, plan, inputs, seed=1, gradient=gradient) for gradient in gradients}
    return {"clean": clean, "integer_arithmetic": exact, "trained": steps}


def write_run():
    """A run of `hwfault train`, one that was stopped, and what is measured and exported of the first."""
    config = TrainConfig.parse(CONFIG, "the configuration")
    train_into("run", config, lambda _what, _steps: lambda: None)
    stop_in_second_epoch("stopped", config)
    for folder in ("run", "stopped"):
        shutil.rmtree(f"{folder}/tensorboard")  # names the machine
        Path(folder, "environment.json").unlink()  # so does this
    integer = ["--ber", "0.02", "--arithmetic", "integer"]
    command("export", "run", "--bundle", *integer, "--samples", "4", "--seeds", "0-1", "--out", "bundle")
    command("export", "run", *integer, "--out", "run.onnx")
    command("evaluate", "run", "--rates", "0,0.02", "--seeds", "0-2", "--out", "store")
    Path("store/accuracy.png").unlink()
    network, _ = checkpoint.load("run/checkpoint.safetensors")
    with torch.no_grad(), integer_arithmetic(network):
        output = network(networks.images(16))
    trials = [json.loads(line) for line in Path("store/trials.jsonl").read_text().splitlines()[1:]]
    return {"output": seen.digest(output.numpy()), "predictions": output.argmax(1).tolist(), "trials": trials}


def stop_in_second_epoch(folder, config):
    """Leaves what a run that was killed amid its second epoch leaves."""

    class StopError(Exception):
        pass

    def begin(_what, steps):
        left = iter(range(3 * steps // 4))

        def step():
            if next(left, None) is None:
                raise StopError

        return step

    try:
        train_into(folder, config, begin)
    except StopError:
        return
    raise AssertionError("the run was not stopped")


def parsed(faults):
    return FaultList.parse({"faults": faults}, "the faults").faults


def save_graph(graph, path):
    Path(path).write_bytes(graph.SerializeToString(deterministic=True))


def command(*arguments):
    done = CliRunner().invoke(command_line, list(arguments))
    if done.exit_code:
        sys.exit(f"hwfault {' '.join(arguments)}: {done.output}")


def one_line_each(expected):
    """JSON with a line for each plan, graph and other thing."""
    blocks = []
    for part, things in expected.items():
        lines = [f"  {json.dumps(name)}: {json.dumps(thing, separators=(',', ':'))}" for name, thing in things.items()]
        blocks.append(f" {json.dumps(part)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(blocks) + "\n}\n"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "0.4.0").absolute())
