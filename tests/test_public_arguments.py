"""Each wrong kind of argument of a public function is one sentence that says what was given and what was expected."""

import numpy as np
import pytest
import torch
from torch import nn

import hwfault as hf
from hwfault.train.networks import digits_cnn

FLIPS = hf.BitFlips(probability=0.01)
X = torch.zeros(2, 1, 8, 8)
Y = torch.zeros(2, dtype=torch.int64)


@pytest.fixture(scope="module")
def net():
    network = digits_cnn().eval()
    network(X)
    return network


@pytest.fixture(scope="module")
def plan(net):
    return hf.resolve(hf.sites(net, X), [FLIPS])


NETWORK = "expected a torch.nn.Module with Brevitas quantizers"
FAULT = r"expected a fault \(BitFlips"
SITES = "expected a network, or the list of its sites"
GRAPH = "expected an ONNX ModelProto"

WRONG = {
    "a text for a network": (lambda n, p: hf.sites("net"), f"the network is 'net', {NETWORK}"),
    "a class for a network": (lambda n, p: hf.inject(nn.Linear, FLIPS), f"the class 'Linear' itself, {NETWORK}"),
    "a plan for a network": (lambda n, p: hf.inject(p, FLIPS), f"of the type 'FaultPlan', {NETWORK}"),
    "a network for faults": (lambda n, p: hf.inject(n, n), f"of the type 'DigitsCNN' was given.*{FAULT}"),
    "a text for a network's arithmetic": (lambda n, p: hf.integer_arithmetic("net"), f"'net', {NETWORK}"),
    "an array for an example": (lambda n, p: hf.sites(n, np.zeros((1, 1, 8, 8))), "the example has tensors of"),
    "a number for faults": (lambda n, p: hf.resolve(n, 0.01), f"0.01 was given as faults; {FAULT}"),
    "nothing for faults": (lambda n, p: hf.inject(n, None), f"None was given as faults; {FAULT}"),
    "numbers among faults": (lambda n, p: hf.resolve(n, (FLIPS, 2)), f"2 was given as a fault; {FAULT}"),
    "a site for a fault": (lambda n, p: hf.inject(n, p.sites[0].site), f"type 'Site' was given.*{FAULT}"),
    "a plan for faults": (lambda n, p: hf.resolve(n, p), "a fault plan was given where faults are wanted"),
    "a wrong mapping": (lambda n, p: hf.inject(n, {"model": "flips"}), "flips"),
    "a text for sites": (lambda n, p: hf.resolve("net", FLIPS), f"given 'net' in the place of sites, {SITES}"),
    "names for sites": (lambda n, p: hf.resolve(["a"], FLIPS), f"type 'list' in the place of sites, {SITES}"),
    "a missing plan": (lambda n, p: hf.inject(n, "no/such.json"), "no/such.json: cannot be read"),
    "a profile that is none": (lambda n, p: hf.inject(n, "bram"), "no profile of the library is named 'bram'"),
    "a fraction for a seed": (
        lambda n, p: hf.inject(n, FLIPS, seed=1.5),
        "the seed is 1.5, expected an integer",
    ),
    "a number for an observer": (
        lambda n, p: hf.inject(n, FLIPS, observe=3),
        "the observer is 3, expected a fun",
    ),
    "a text for an axis": (lambda n, p: hf.inject(n, FLIPS, batch_axis="a"), "the batch axis is 'a', expected"),
    "a text for an axis of sites": (lambda n, p: hf.sites(n, X, "a"), "the batch axis is 'a', expected"),
    "a rule that is none": (
        lambda n, p: hf.inject(n, FLIPS, gradient="x"),
        "the gradient rule is 'x', expected",
    ),
    "an array to export": (
        lambda n, p: hf.export(n, X.numpy()),
        "'ndarray', expected a batch that the network accepts: a tensor",
    ),
    "a text to export": (lambda n, p: hf.export("net", X), f"the network is 'net', {NETWORK}"),
    "a number for a graph": (lambda n, p: hf.session(3), f"the graph is 3, {GRAPH}"),
    "a network for a graph": (lambda n, p: hf.session(n), f"of the type 'DigitsCNN', {GRAPH}"),
    "a path for a session": (lambda n, p: hf.run("g.onnx", X.numpy()), "the session is 'g.onnx', expected what"),
    "a number to replay": (lambda n, p: hf.replay(n, 3, [X], seeds=[1]), f"the graph is 3, {GRAPH}"),
    "a seed for seeds": (lambda n, p: hf.replay(n, "g.onnx", [X], seeds=1), "seeds is 1, expected a list"),
    "a batch for batches": (lambda n, p: hf.replay(n, "g.onnx", X, seeds=[1]), r"one tensor.*expected a list"),
    "an array to evaluate": (
        lambda n, p: hf.evaluate(n, X.numpy(), Y, FLIPS, seeds=[1]),
        "the inputs is an obj",
    ),
    "no labels": (
        lambda n, p: hf.evaluate(n, X, plan=FLIPS, seeds=[1]),
        "the labels is None, expected an int64",
    ),
    "one seed to evaluate": (
        lambda n, p: hf.evaluate(n, X, Y, FLIPS, seeds=1),
        "seeds is 1, expected fault seeds",
    ),
    "a list to a campaign": (
        lambda n, p: hf.campaign(n, X, Y, [FLIPS], seeds=[1]),
        "expected a mapping from nam",
    ),
    "nothing to a campaign": (
        lambda n, p: hf.campaign(n, X, Y, {}, seeds=[1]),
        "given no faults, expected a map",
    ),
    "a number to a driver": (lambda n, p: hf.FaultDriver(n, 0.1, seed=1), f"0.1 was given as faults; {FAULT}"),
    "a number to a callback": (lambda n, p: hf.FaultInjection(3), f"3 was given as faults; {FAULT}"),
    "a text for a configuration": (
        lambda n, p: hf.save("w.safetensors", n, "cfg"),
        "configuration is 'cfg', exp",
    ),
    "a number for a checkpoint": (lambda n, p: hf.load(3), "a file is 3, expected a path"),
    "a number for a list of faults": (lambda n, p: hf.load_faults(3), "a file is 3, expected a path"),
    "a number for a plan": (lambda n, p: hf.FaultPlan.load(3), "a file is 3, expected a path"),
    "a number for a map": (lambda n, p: hf.FaultMap.load(3), "a file is 3, expected a path"),
    "a number for a profile": (lambda n, p: hf.Profile.load(3), "a profile is 3, expected the name"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_one_sentence(case, net, plan):
    call, sentence = WRONG[case]
    with pytest.raises(hf.HwfaultError, match=sentence) as error:
        call(net, plan)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "given", ["record", "list", "tuple", "set", "generator", "mapping", "plan", "file", "faults file"]
)
def test_faults_are_taken_as_people_give_them(given, net, plan, tmp_path):
    plan.save(tmp_path / "plan.json")
    (tmp_path / "faults.yaml").write_text("faults: [{model: bit_flips, probability: 0.01}]")
    ways = {
        "record": FLIPS,
        "list": [FLIPS],
        "tuple": (FLIPS,),
        "set": {FLIPS},
        "generator": (fault for fault in [FLIPS]),
        "mapping": {"model": "bit_flips", "probability": 0.01},
        "plan": plan,
        "file": tmp_path / "plan.json",
        "faults file": str(tmp_path / "faults.yaml"),
    }
    with hf.inject(net, ways[given], example=X) as injection:
        assert injection.plan.faults == (FLIPS,)
        assert injection.plan.sites


def test_a_campaign_is_an_evaluation_for_each_name(net, tmp_path):
    faults = {"flips": FLIPS, "words": {"model": "word", "probability": 0.1}}
    found = hf.campaign(net, X, Y, faults, seeds=range(3), store=tmp_path / "trials.jsonl")
    for name, given in faults.items():
        alone = hf.evaluate(net, X, Y, given, seeds=range(3))
        assert found[name].correct == alone.correct
        assert found[name].labels == {"faults": name}
    assert [path.name for path in tmp_path.iterdir()] == ["trials.sqlite"]
    again = hf.campaign(net, X, Y, faults, seeds=range(3), store=str(tmp_path / "trials.sqlite"))
    assert again == found
    with pytest.raises(hf.HwfaultError, match="holds the trials of another question"):
        hf.campaign(net, X, Y, {"flips": FLIPS}, seeds=range(3), store=tmp_path / "trials.jsonl")


def test_a_graph_is_exported_with_faults_that_were_not_resolved(net, plan):
    with_plan = hf.export(net, X, plan=plan)
    with_faults = hf.export(net, X, plan=FLIPS)
    assert {p.key: p.value for p in with_plan.metadata_props} == {p.key: p.value for p in with_faults.metadata_props}
