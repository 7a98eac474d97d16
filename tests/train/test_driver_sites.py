"""A driver's faults that need more of a network than its quantizers, and drivers that are refused."""

import pytest
import torch

from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, MapFaults
from hwfault.stream.fault_map import FaultMap
from hwfault.train.driver import FaultDriver
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import same_bits
from tests.helpers.injection.snapshot import snapshot
from tests.helpers.train.driven import ACTS, WEIGHTS, Loop, at, masks

ADDED = {"kind": "accumulator"}


def test_faults_of_accumulators_come_and_go():
    faults = [
        at(AccumulatorFormat(width=9), from_epoch=2),
        at(LateBits(probability=0.5, bits=4, sites=ADDED), every_steps=2),
    ]
    model = build("biased")
    before, x = snapshot(model), batch()
    clean = model(x)
    with FaultDriver(model, faults, seed=7, example=x) as driver, torch.no_grad():
        outs = {}
        for moment in ((1, 0), (1, 1), (2, 0), (2, 1)):
            driver.train_step(*moment)
            outs[moment] = model(x)
    assert same_bits(outs[1, 1], clean)
    assert len({out.numpy().tobytes() for out in outs.values()}) == 4
    after = snapshot(model)
    assert {k: v["hooks"] for k, v in after.items()} == {k: v["hooks"] for k, v in before.items()}


def test_held_faults_beside_an_accumulators_format():
    format_, late = AccumulatorFormat(width=9), LateBits(probability=0.5, bits=4, sites=ADDED)
    model = build("biased")
    before = snapshot(model)
    with pytest.raises(ModelError, match=r"held by refresh_epochs, and others, .* 9 bits wide, are not"):
        FaultDriver(model, [format_, at(late, refresh_epochs=2)], seed=7, example=batch())
    assert {k: v["hooks"] for k, v in snapshot(model).items()} == {k: v["hooks"] for k, v in before.items()}
    FaultDriver(model, [at(late, refresh_epochs=2)], seed=7, example=batch()).remove()


@pytest.mark.parametrize(
    ("faults", "options", "error", "words"),
    [
        ([ACTS], {"rank": 2, "world": 2}, HwfaultError, "rank 2 of 2 processes, expected 0 to 1"),
        ([ACTS], {"seed": -1}, HwfaultError, "the seed is -1"),
        ([ACTS], {"eval_seed": 2**64}, HwfaultError, "the seed is"),
        ([ACTS], {"gradient": "none"}, HwfaultError, "gradient rule"),
        ([BitFlips(probability=0.1, sites="x")], {}, ModelError, "no site matches the selector 'x'"),
        ([AccumulatorFormat(width=9)], {}, ModelError, "accumulators are known once an example"),
        ([MapFaults(file="x.safetensors", sites=ADDED)], {}, ModelError, "no site matches|accumulators are known"),
    ],
)
def test_drivers_that_are_refused_leave_the_network_alone(tmp_path, monkeypatch, faults, options, error, words):
    monkeypatch.chdir(tmp_path)
    FaultMap.from_cells(100, 32, [], [], []).save("x.safetensors")
    model = build("cnn")
    before = snapshot(model)
    with pytest.raises(error, match=words):
        FaultDriver(model, [at(WEIGHTS, refresh_epochs=1), *faults], **{"seed": 7} | options)
    assert snapshot(model) == before


def test_activations_at_addresses_need_an_example(tmp_path):
    from hwfault.stream.fault_map import FaultMap

    FaultMap.from_cells(500, 8, [3, 99], [1, 0], [0, 0]).save(tmp_path / "m.safetensors")
    faults = [MapFaults(file=str(tmp_path / "m.safetensors"), sites="0.act_quant")]
    with pytest.raises(PlanError, match="example batch"):
        FaultDriver(build("cnn"), faults, seed=7)
    loop = Loop(faults, example=batch(1))
    (mask,) = masks(loop.step(1, 0), "0.act_quant")
    assert (mask.flatten(1).sum(1) <= 1).all()


def test_no_faults_at_all():
    loop = Loop([])
    assert loop.step(1, 0) == loop.evaluate(1) == []
    assert loop.driver.state_dict() == {"steps": 0, "samples": 0}
