"""One trial told site by site, against Brevitas' own quantizers, looked at and struck by plain forward hooks."""

import re
import sqlite3

import numpy as np
import pytest
import torch
import yaml
from brevitas.nn.mixin.base import QuantLayerMixin
from brevitas.proxy.parameter_quant import WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from brevitas.quant_tensor import IntQuantTensor

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.explain import explain
from hwfault.campaigns.measurement import Measurement, Trust
from hwfault.campaigns.study.records import kept_study
from hwfault.campaigns.study.space import draw_pair, fault_space
from hwfault.errors import HwfaultError
from hwfault.plan.listing import faults_at
from hwfault.program.selectors import Select
from hwfault.train.data import digits
from tests.cli.conftest import good, hwfault, refused

SAMPLES = 20
BATCH = 7
QUESTIONS = {
    "curve": {"sweep": {"ber": [0.02]}},
    "pair": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never"},
}


def study(folder, **content):
    content |= {"samples": {"first": SAMPLES}, "questions": QUESTIONS, "stop": {"max_trials": 20}, "seed": 3}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(content | {"batch_size": BATCH}))
    return path


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    where = tmp_path_factory.mktemp("explain")
    good("campaign", "run", study(where, network=str(run)), "--out", where / "out")
    return where / "out"


@pytest.fixture(scope="module")
def network(run):
    return hf.load(run / "checkpoint.safetensors")[0].eval()


def opened(folder):
    """The store of a campaign, and all that it is about."""
    database = Database(folder / FILE, readonly=True)
    return Measurement(kept_study(database.said("study"), str(folder)), Trust()), database


@pytest.fixture(scope="module")
def told(folder):
    """Explains a trial as the command does, with the network loaded once."""
    measurement, database = opened(folder)
    with database:
        yield lambda *arguments: explain(measurement, database, *arguments).to_data()


def seen_by_hooks(network, x, flip=None):
    """Integers of every quantizer in the order in which they run, and the outputs; `flip` a bit of one weight."""
    seen = {}

    def look(name):
        def hook(_module, _args, output):
            if not isinstance(output, IntQuantTensor) or output.value.dim() == 0:
                return None
            whole = torch.round(output.value / output.scale).to(torch.int64)
            seen[name] = whole
            if flip is None or flip[0] != name:
                return None
            _, word, bit, width = flip
            code = int(whole.flatten()[word]) & ((1 << width) - 1)
            code ^= 1 << bit
            struck = whole.clone().flatten()
            struck[word] = code - (1 << width) if code >> (width - 1) else code
            seen[name] = struck.reshape(whole.shape)
            return output.set(value=seen[name] * output.scale)

        return hook

    kinds = (WeightQuantProxyFromInjector, ActQuantProxyFromInjector)
    handles = [m.register_forward_hook(look(n)) for n, m in network.named_modules() if isinstance(m, kinds)]
    with torch.no_grad():
        out = network(x)
    for handle in handles:
        handle.remove()
    assert any(isinstance(m, QuantLayerMixin) for m in network.modules())
    return seen, getattr(out, "value", out)


def test_a_flipped_weight_against_forward_hooks(told, network):
    split = digits().test
    sites = hf.sites(network, split.inputs(torch.tensor([0])))
    space = fault_space(sites, [Select(kind="weight")])
    masked = reached = 0
    for key in range(3, 19):
        cell, sample = draw_pair(space, SAMPLES, key)
        struck = space.cell(cell)
        width = next(site.bit_width for site in sites if site.name == struck.site)
        x = split.inputs(torch.tensor([sample]))
        golden, expected = seen_by_hooks(network, x)
        faulty, outputs = seen_by_hooks(network, x, (struck.site, struck.word, struck.bit, width))
        found = told("pair", key)
        assert found["sample"] == sample
        assert [site["name"] for site in found["sites"]] == list(faulty)
        for site in found["sites"]:
            moved = (faulty[site["name"]] - golden[site["name"]]).abs()
            assert site["left"] == int((moved > 0).sum())
            assert site["largest"] == int(moved.max())
            own = [(struck.word, struck.bit)] if site["name"] == struck.site else []
            assert [(hit["word"], hit["bit"]) for hit in site["faults"]] == own
        assert (found["golden"], found["answer"]) == (int(expected.argmax()), int(outputs.argmax()))
        assert found["reached"] == (not torch.equal(outputs, expected))
        assert found["began"] == struck.site
        assert (found["masked"] is None) == found["reached"]
        masked += not found["reached"]
        reached += found["reached"]
    assert masked
    assert reached


def test_answers_are_those_of_the_store(told, folder):
    with Database(folder / FILE, readonly=True) as database:
        stored = database.tasks()[0]
        rows = {row.key: row for row in database.rows(stored)}
    for key, sample in ((3, 0), (9, 6), (9, 7), (22, 19)):
        found = told("1", key, sample)
        assert found["agrees"]
        assert list(found["answers"].values()) == rows[key].answers[:, sample].tolist()


def test_faults_are_those_of_the_listing(told, network):
    split = digits().test
    sites = hf.sites(network, split.inputs(torch.tensor([0])))
    plan = hf.resolve(sites, [hf.BitFlips(probability=0.02)])
    for site in told("curve ber=0.02", 5, 9)["sites"]:
        sample = 9 if site["kind"] != "weight" else 0
        hits = faults_at(plan, site["name"], seed=5, sample=sample)
        assert [(h["word"], h["bit"]) for h in site["faults"]] == [(h.word, h.bit) for h in hits]
        # a bit is hit at most once, so that a word with a hit is another
        assert site["own"] == len({hit.word for hit in hits})


def test_states_are_told_of_values_and_not_of_golden_parameters(told):
    for key in range(3, 9):
        found = told("pair", key)
        names = [site["name"] for site in found["sites"]]
        begun = names.index(found["began"])
        states = [site["state"] for site in found["sites"]]
        assert states[: begun + 1] == ["golden"] * begun + ["began here"]
        if not found["reached"]:
            again = names.index(found["masked"])
            assert states[again] == "golden again"
            assert set(states[again + 1 :]) <= {"golden"}
            assert found["verdict"] == "masked"
        for site in found["sites"]:
            assert site["kind"] != "weight" or site["state"] != "golden again"


def test_a_seed_that_the_store_has_not_is_run_and_said(folder):
    text = good("campaign", "explain", folder, "curve ber=0.02", 12345, 4).stdout
    assert "the store has no trial 12345" in text


def test_the_command_refuses(folder):
    refused("campaign", "explain", folder, "4", 3, 1, words="has no task '4'")


def test_text(folder):
    text = good("campaign", "explain", folder, "curve ber=0.02", 3, 1).stdout
    assert text.splitlines()[0].startswith("curve ber=0.02, trial 3, sample 1 (label ")
    assert "began at input.act_quant; reached the outputs" in text
    assert "faults more (--json lists all)" in text


def test_another_answer_in_the_store(folder, tmp_path):
    copy = tmp_path / FILE
    with sqlite3.connect(folder / FILE) as old, sqlite3.connect(copy) as new:
        old.backup(new)
        (answers,) = new.execute("SELECT answers FROM trial WHERE task = 1 AND key = 4").fetchone()
        wrong = bytes(255 - byte for byte in answers)
        new.execute("UPDATE trial SET answers = ? WHERE task = 1 AND key = 4", (wrong,))
    new.close()
    old.close()
    done = hwfault("campaign", "explain", tmp_path, "1", 4, 2)
    assert done.code == 3
    assert "the store has another answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("curv ber=0.02", 3, 1), "no task 'curv ber=0.02': did you mean 'curve ber=0.02'?"),
        (("4", 3, 1), "1 to 2"),
        (("1", 3, SAMPLES), f"sample {SAMPLES}, expected 0 to {SAMPLES - 1}"),
        (("1", 3), "say which of them"),
        (("pair", 3, SAMPLES), "leave SAMPLE out"),
    ],
)
def test_what_there_is_not(told, arguments, words):
    with pytest.raises(HwfaultError, match=re.escape(words)):
        told(*arguments)


def test_a_graph_tells_the_same(told, made, tmp_path):
    split = digits().test
    x = split.inputs(torch.arange(SAMPLES)).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=split.labels[:SAMPLES].numpy())
    path = study(tmp_path, graph=str(made / "clean.onnx"), data=str(tmp_path / "data.npz"))
    good("campaign", "run", path, "--out", tmp_path / "out")
    measurement, database = opened(tmp_path / "out")
    for arguments in (("pair", 3), ("curve ber=0.02", 5, 9)):
        ours = told(*arguments)
        theirs = explain(measurement, database, *arguments).to_data()
        by_name = {site["name"]: site for site in theirs["sites"]}
        for site in ours["sites"]:
            other = by_name[site["name"]]
            keys = ("words", "arrived", "own", "left", "largest", "faults")
            assert [site[key] for key in keys] == [other[key] for key in keys]
        assert theirs["answers"] == ours["answers"]
        assert theirs["agrees"]
    database.close()


def test_a_memory_that_detects_and_struck_accumulators(run, tmp_path):
    protection = {"kind": "parity", "on_detected": "due"}
    weights = {"model": "profile", "profile": "uniform-flips", "at": {"ber": 1e-5}, "sites": [{"kind": "weight"}]}
    sums = {"model": "bit_flips", "probability": 1e-3, "sites": [{"kind": "accumulator"}]}
    questions = {"memory": {"faults": [weights | {"protection": protection}]}, "sums": {"faults": [sums]}}
    content = {"network": str(run), "samples": {"first": 8}, "questions": questions, "stop": {"max_trials": 8}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    good("campaign", "run", tmp_path / "study.yaml", "--out", tmp_path / "out")
    measurement, database = opened(tmp_path / "out")
    with database:
        found = [explain(measurement, database, "memory", key, 2) for key in range(8)]
        assert all(one.agrees for one in found)
        assert {one.verdict for one in found if one.detected} == {"detected (DUE)"}
        assert any(one.detected for one in found)
        assert not all(one.detected for one in found)
        summed = explain(measurement, database, "sums", 3, 2)
    assert summed.agrees
    struck = [site for site in summed.sites if site.kind == "accumulator"]
    assert struck
    assert all(site.arrived is None and site.own == len({hit.word for hit in site.faults}) for site in struck)
    assert {site.state for site in struck} <= {"began here", "struck", "not compared"}
