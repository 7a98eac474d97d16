from itertools import pairwise

import pytest
import torch

from hwfault.errors import ModelError
from hwfault.laws.models import bit_errors
from hwfault.train import TrainConfig, build, train
from hwfault.train.phases import phases_of
from tests.helpers.train import small
from tests.train.test_loop import masks, same

RISING = {"model": "bit_flips", "probability": 0.1, "schedule": {"ramp": "linear", "ramp_epochs": 2}}


def trained(**changes):
    config = TrainConfig(**{"epochs": 2, "batch_size": 16} | changes)
    network, seen = build("tests.helpers.train.small:network"), []

    def note(_epoch):
        seen.append({key: tensor.clone() for key, tensor in network.state_dict().items()})

    return network, train(network, small.data(), config, progress=note), seen


def test_epochs_are_counted_over_all_phases():
    _, history, _ = trained(phases=[{}, {"epochs": 3, "learning_rate": 0.1, "schedule": "constant"}])
    assert [(e.epoch, e.epochs, e.phase) for e in history] == [(1, 5, 1), (2, 5, 1), (3, 5, 2), (4, 5, 2), (5, 5, 2)]
    assert [e.learning_rate for e in history][2:] == [0.1] * 3


def test_schedules_count_from_where_the_faults_are_given():
    phases = [{}, {}, {"epochs": 3, "faults": [RISING]}, {"epochs": 1}, {"epochs": 1, "faults": []}]
    _, history, _ = trained(faults=[RISING], phases=phases)
    assert [e.ramp for e in history] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1 / 3, 2 / 3, 1, 1, 0])


def test_a_layer_is_frozen_in_its_phase_alone():
    network, _, seen = trained(phases=[{"epochs": 1}, {"epochs": 1, "freeze": ["0"]}, {"epochs": 1}])
    weights = [state["0.weight"] for state in seen]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert not torch.equal(seen[0]["3.weight"], seen[1]["3.weight"])
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_the_optimiser_begins_afresh():
    """A first step of Adam has the size of the learning rate, whatever went before."""
    rate, still = 1e-3, {"weight_decay": 0, "schedule": "constant", "batch_size": 48, "optimizer": "adam"}
    _, _, seen = trained(epochs=1, **still, learning_rate=rate, phases=[{}, {}, {}])
    sizes = [float((b["3.bias"] - a["3.bias"]).abs().max()) for a, b in pairwise(seen)]
    assert sizes == pytest.approx([rate, rate], rel=0.01)


def test_no_phase_repeats_the_faults_of_another(monkeypatch):
    alone = [mask for _, mask in masks(monkeypatch, epochs=2)]
    shared = [mask for _, mask in masks(monkeypatch, epochs=1, phases=[{}, {}])]
    apart = [mask for _, mask in masks(monkeypatch, epochs=1, phases=[{}, {"faults": []}, {}])]
    assert alone == shared, "faults of the run go on as if there were no phases"
    assert apart == alone, "also over a phase without any"
    assert len(set(alone)) == 6
    own = {"faults": bit_errors(0.2, "0.weight_quant")}
    assert len({mask for _, mask in masks(monkeypatch, epochs=1, phases=[{}, own, own])}) == 9


def test_every_phase_is_evaluated_under_the_same_seed():
    phases = phases_of(TrainConfig(faults=[RISING], phases=[{}, {"faults": [RISING]}, {"faults": [RISING]}]))
    assert len({phase.evaluation_seed for phase in phases}) == 1
    assert len({phase.fault_seed for phase in phases}) == 3
    assert phases[0].fault_seed == 0


def test_data_come_in_another_order_in_each_phase():
    once = trained(epochs=1, phases=[{"learning_rate": 1e-30}, {}])[2][-1]
    other = trained(epochs=1, phases=[{}, {"learning_rate": 1e-30}])[2][-1]
    assert not all(torch.equal(once[key], other[key]) for key in once)


def test_phases_of_unlike_keys_are_refused_before_the_first():
    with pytest.raises(ModelError, match="freeze: no parameter matches 'features'"):
        trained(phases=[{}, {"freeze": ["features"]}])
    with pytest.raises(ModelError, match="no site matches"):
        trained(phases=[{}, {"faults": bit_errors(0.1, "features.*")}])
    with pytest.raises(ModelError, match="monitor is 'faulty_loss'"):
        trained(phases=[{}, {"monitor": "faulty_loss"}])


def test_one_phase_is_a_run():
    assert same(trained()[0], trained(phases=[{}])[0])
