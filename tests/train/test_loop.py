import logging
import os
import signal
import warnings
from dataclasses import replace

import pytest
import torch
from brevitas import nn as qnn
from torch import nn

from hwfault.campaigns.evaluate import evaluate
from hwfault.errors import HwfaultError, ModelError
from hwfault.injection.attach import inject_at
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips, MapFaults, bit_errors
from hwfault.stream.fault_map import FaultMap
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from hwfault.train.learning import LearningRate, Plateau
from hwfault.train.phases import phases_of
from tests.helpers.train import small

STEP = {"epochs": 1, "batch_size": 48, "optimizer": "sgd", "momentum": 0, "weight_decay": 0, "schedule": "constant"}


def trained(progress=None, data=None, network_args=None, **changes):
    config = TrainConfig(**{"epochs": 12, "batch_size": 16, "learning_rate": 0.02} | changes)
    network = build("tests.helpers.train.small:network", seed=config.seed, **(network_args or {}))
    return network, train(network, data or small.data(), config, progress=progress)


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


def with_validation():
    data = small.data()
    held_out = small.data(seed=5)
    return replace(data, validation_x=held_out.test_x, validation_y=held_out.test_y)


@pytest.mark.every(2)
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
@pytest.mark.parametrize("faults", [(), bit_errors(0.01)], ids=["clean", "faults"])
def test_it_learns(faults, optimizer):
    network, history = trained(epochs=30, learning_rate=0.05, faults=faults, optimizer=optimizer)
    assert history[-1].loss < history[0].loss
    x, y = small.data().test_x, small.data().test_y
    assert evaluate(network, x, y, (), seeds=[0]).mean > 0.9
    assert not network.training
    assert not attached(network)


def test_it_learns_by_the_squared_hinge_loss():
    network, _ = trained(epochs=30, learning_rate=0.05, loss="squared_hinge")
    assert evaluate(network, small.data().test_x, small.data().test_y, (), seeds=[0]).mean > 0.9


@pytest.mark.parametrize("faults", [(), bit_errors(0.05)], ids=["clean", "faults"])
def test_the_seed_fixes_everything_and_nothing_outside_changes(faults):
    state = torch.get_rng_state()
    one, history = trained(faults=faults, seed=3)
    torch.manual_seed(99)
    again, again_history = trained(faults=faults, seed=3)
    other, _ = trained(faults=faults, seed=4)
    assert same(one, again)
    assert history == again_history
    assert not same(one, other)
    torch.set_rng_state(state)
    filters, level = list(warnings.filters), logging.getLogger("lightning.pytorch").level
    network, _ = trained(faults=faults, freeze=["0"])
    assert torch.equal(torch.get_rng_state(), state)
    assert (list(warnings.filters), logging.getLogger("lightning.pytorch").level) == (filters, level)
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_it_says_nothing(capfd):
    trained(epochs=1)
    assert capfd.readouterr() == ("", "")


def test_faults_change_what_is_learnt_and_the_gradient_rule_matters():
    clean, zero, through = (
        trained(faults=faults, gradient=gradient)[0]
        for faults, gradient in [((), "zero"), (bit_errors(0.1), "zero"), (bit_errors(0.1), "straight_through")]
    )
    assert not same(clean, zero)
    assert not same(zero, through)


def test_figures_of_the_training_data_without_faults():
    """The mean over samples, not over batches: with 20 a batch the last of 48 has 8."""
    frozen = {"network_args": {"dropout": 0.0}, "batch_size": 20, "learning_rate": 1e-30, "weight_decay": 0}
    network, (epoch,) = trained(epochs=1, **frozen)
    logits = network.train()(small.data().train_x)
    assert epoch.loss == pytest.approx(nn.functional.cross_entropy(logits, small.data().train_y).item(), rel=0.05)
    assert epoch.accuracy * 48 == pytest.approx(round(epoch.accuracy * 48))


def test_figures_of_the_validation_data_are_those_of_an_evaluation():
    data, faults = with_validation(), bit_errors(0.1)
    network, history = trained(data=data, faults=faults, epochs=3)
    (phase,) = phases_of(TrainConfig(faults=faults))
    x, y = data.validation_x, data.validation_y
    assert history[-1].validation_accuracy == evaluate(network, x, y, (), seeds=[0]).mean
    faulty = evaluate(network, x, y, faults, seeds=[phase.evaluation_seed]).mean
    assert history[-1].faulty_accuracy == faulty != history[-1].validation_accuracy
    assert history[-1].validation_loss == pytest.approx(nn.functional.cross_entropy(network(x), y).item(), rel=1e-6)


def test_validation_leaves_training_alone():
    faults = bit_errors(0.05)
    with_it, history = trained(data=with_validation(), faults=faults)
    without, other = trained(faults=faults)
    assert same(with_it, without)
    assert [epoch.loss for epoch in history] == [epoch.loss for epoch in other]
    assert {epoch.faulty_accuracy for epoch in other} == {None}


def test_faults_that_strike_in_training_alone_are_not_in_the_validation():
    schedule = {"during": "train"}
    _, history = trained(data=with_validation(), faults=[{"fault": bit_errors(0.1)[0], "schedule": schedule}], epochs=1)
    assert history[0].validation_accuracy is not None
    assert history[0].faulty_accuracy is None


def test_validation_is_kept_from_training():
    _, history = trained(validation=12, epochs=1)
    assert history[0].validation_accuracy * 12 == pytest.approx(round(history[0].validation_accuracy * 12))
    with pytest.raises(HwfaultError, match="validation is 48, expected a share between 0 and 1"):
        trained(validation=48)


def moved(**changes):
    """How one step of plain descent moves the weights of the first layer."""
    network, _ = trained(**STEP, learning_rate=0.5, network_args={"dropout": 0.0}, **changes)
    return network[0].weight.detach() - build("tests.helpers.train.small:network").get_parameter("0.weight")


def test_the_averaged_loss_is_the_mean_of_clean_and_faulty():
    clean, faulty, average = (moved(faults=bit_errors(0.1), loss_on=how) for how in ("clean", "faulty", "average"))
    assert not torch.allclose(clean, faulty, rtol=0.01)
    assert torch.allclose(average, (clean + faulty) / 2, atol=1e-6)


def test_the_clean_loss_knows_nothing_of_the_faults():
    assert same(trained(faults=bit_errors(0.1), loss_on="clean")[0], trained()[0])


@pytest.mark.parametrize(("batch_size", "accumulate", "equal"), [(16, 3, True), (8, 6, True), (16, 1, False)])
def test_gradients_that_are_accumulated_are_those_of_a_larger_batch(batch_size, accumulate, equal):
    ends = []
    for given in ({}, {"batch_size": batch_size, "accumulate": accumulate}):
        torch.manual_seed(0)
        layer = nn.Linear(4, 3)
        train(layer, small.data(), TrainConfig(**STEP | given, learning_rate=0.5))
        ends.append(layer.weight.detach())
    assert torch.allclose(*ends, atol=1e-6) == equal


def masks(monkeypatch, **changes):
    """Which weights of the first layer the faults changed, by (epoch, forward) in training."""
    seen = []

    def watched(*arguments, **options):
        def note(name, before, after, *_rest):
            if name == "0.weight_quant" and made._model.training:
                seen.append((made.clock.epoch, (before != after).numpy().tobytes()))

        made = inject_at(*arguments, **options | {"observe": note})
        return made

    monkeypatch.setattr("hwfault.train.driver.inject_at", watched)
    trained(faults=[{"model": "bit_flips", "probability": 0.2, "sites": "0.weight_quant"}], **changes)
    return seen


def test_every_draw_batch_and_epoch_has_faults_of_its_own(monkeypatch):
    seen = masks(monkeypatch, epochs=2, draws=3, accumulate=2, loss_on="average")
    assert len(seen) == len({mask for _, mask in seen}) == 2 * 3 * 3
    assert {epoch for epoch, _ in seen} == {1, 2}


def test_clipped_weights():
    clipped, _ = trained(clip_weights=0.1)
    free, _ = trained()
    assert max(float(free[k].weight.detach().abs().max()) for k in (0, 3)) > 0.11
    assert max(float(clipped[k].weight.detach().abs().max()) for k in (0, 3)) <= 0.1 + 1e-8
    assert float(clipped[3].bias.detach().abs().max()) > 0.1, "biases are not clipped"


def test_clipped_gradients():
    assert moved().norm() > 0.011
    assert moved(clip_gradient=0.01).norm() <= 0.5 * 0.01 * 1.001


def test_frozen_layers_stay_as_they_are():
    network, _ = trained(freeze=["0", "1"])
    before = build("tests.helpers.train.small:network").state_dict()
    after = network.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("0."))
    assert not torch.equal(before["3.weight"], after["3.weight"])


def normalised():
    return nn.Sequential(
        qnn.QuantLinear(4, 8, bias=True, weight_bit_width=4),
        nn.BatchNorm1d(8),
        qnn.QuantReLU(bit_width=4),
        qnn.QuantLinear(8, 3, bias=True, weight_bit_width=4),
    )


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("freeze", [[], ["1"]])
def test_statistics_of_frozen_layers_stay_as_they_are(freeze, held_out):
    """In every epoch, also after an evaluation."""
    network = build("tests.train.test_loop:normalised")
    before = network[1].running_mean.clone()
    train(network, with_validation() if held_out else small.data(), TrainConfig(epochs=2, batch_size=16, freeze=freeze))
    assert torch.equal(network[1].running_mean, before) == bool(freeze)


def test_the_learning_rate_of_each_epochs_last_step():
    _, history = trained(epochs=4, schedule={"name": "exponential", "gamma": 0.5}, warmup_epochs=1, learning_rate=0.1)
    assert [epoch.learning_rate for epoch in history] == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_a_plateau_sees_the_monitored_figure():
    plateau = Plateau(patience=0, gamma=0.5)
    _, history = trained(data=with_validation(), schedule=plateau, learning_rate=0.001)
    rate = LearningRate(plateau, epochs=12, steps=3)
    for epoch in history:
        assert epoch.learning_rate == pytest.approx(0.001 * rate.factor(0))
        rate.observe(epoch.epoch, epoch.validation_accuracy, smaller=False)
    assert 0 < rate.factor(0) < 0.5


@pytest.mark.parametrize(("monitor", "best"), [(None, max), ("validation_accuracy", max), ("validation_loss", min)])
def test_training_stops_early(monitor, best):
    _, history = trained(learning_rate=1e-30, epochs=40, data=with_validation(), early_stopping=2, monitor=monitor)
    figures = [getattr(epoch, monitor or "validation_accuracy") for epoch in history]
    assert len(figures) < 40
    assert figures.index(best(figures)) == len(figures) - 3, "the best, and two that were not better"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"monitor": "faulty_accuracy"}, "give `validation` and faults"),
        ({"monitor": "validation_loss"}, "give `validation`"),
        ({"monitor": "faulty_loss", "validation": 0.5}, "give faults that strike in evaluation"),
        ({"freeze": ["features"]}, "freeze: no parameter matches 'features'"),
        ({"precision": "16-mixed"}, "precision is '16-mixed', which needs a GPU"),
        ({"devices": 4096}, "devices is 4096, but there are"),
        ({"augment": "flip"}, "flip"),
        ({"augment": "tests.helpers.train.small:CONSTANT"}, "CONSTANT"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(given, words):
    with pytest.raises(HwfaultError) as error:
        trained(**given, progress=pytest.fail)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_less_precise_arithmetic_keeps_float32_parameters():
    network, history = trained(precision="bf16-mixed", faults=bit_errors(0.02), epochs=3)
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert not same(network, trained(faults=bit_errors(0.02), epochs=3)[0])
    assert history[-1].loss < 2


def test_progress_sees_each_epoch():
    seen = []
    _, history = trained(progress=seen.append, epochs=3)
    assert tuple(seen) == history
    assert [(epoch.epoch, epoch.epochs) for epoch in seen] == [(1, 3), (2, 3), (3, 3)]


def test_the_ramp_is_in_the_history():
    schedule = {"ramp": "linear", "ramp_epochs": 3, "from_epoch": 2}
    _, history = trained(epochs=6, faults=[{"fault": bit_errors(0.04)[0], "schedule": schedule}])
    assert [epoch.ramp for epoch in history] == [0, 0.25, 0.5, 0.75, 1, 1]


def test_a_loss_that_is_not_finite_stops_training():
    network = build("tests.helpers.train.small:network")
    config = TrainConfig(batch_size=16, faults=bit_errors(0.01))

    def poison(epoch):
        if epoch.epoch == 2:
            network[3].bias.data.fill_(float("nan"))

    with pytest.raises(
        HwfaultError, match=r"the loss is nan in epoch 3 of 40, step 1 of 3.*lower learning_rate \(0.02\)"
    ):
        train(network, small.data(), config, progress=poison)
    assert not attached(network)


def test_interrupts_are_exceptions_as_ever():
    def interrupt(_epoch):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    network = build("tests.helpers.train.small:network")
    with pytest.raises(KeyboardInterrupt):
        train(network, small.data(), TrainConfig(faults=bit_errors(0.01)), progress=interrupt)
    assert signal.getsignal(signal.SIGINT) == before
    assert not attached(network)


def test_being_asked_to_end_is_an_error():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(HwfaultError, match="stopped by SIGTERM; a run in a folder goes on with --resume"):
        trained(progress=lambda _epoch: os.kill(os.getpid(), signal.SIGTERM))
    assert signal.getsignal(signal.SIGTERM) == before


def test_too_few_outputs():
    with pytest.raises(HwfaultError, match=r"shape \(16, 2\) for a batch of 16, expected \(16, classes\).*3 classes"):
        train(small.network(classes=2), small.data(), TrainConfig(batch_size=16))


def test_faults_that_fit_no_site():
    with pytest.raises(ModelError, match="no site matches"):
        trained(faults=(BitFlips(probability=0.1, sites="features.*"),))


def test_fault_aware_training_pays_on_the_digits():
    data = digits()
    accuracy = {}
    for name, faults in (("clean", ()), ("faulty", bit_errors(0.03))):
        config = TrainConfig(epochs=8, faults=faults)
        network = build(config.network, seed=config.seed)
        train(network, data, config)
        accuracy[name] = evaluate(network, data.test_x, data.test_y, bit_errors(0.03), seeds=range(5)).mean
    assert accuracy["faulty"] > accuracy["clean"] + 0.08


def test_intermittent_faults_come_and_go_with_the_epochs(tmp_path, monkeypatch):
    """The clock has each epoch's number (counted from 1), so that cells of refresh: epoch are drawn anew in each."""
    FaultMap.from_cells(32, 4, range(32), [0] * 32, [0] * 32).save(tmp_path / "m")
    fault = MapFaults(file=str(tmp_path / "m"), sites="0.weight_quant", p_active=0.5, refresh="epoch")
    seen = []

    def watched(*arguments, **options):
        def note(_name, before, after, *_rest):
            seen.append((made.clock.epoch, (before != after).numpy().tobytes()))

        made = inject_at(*arguments, **options | {"observe": note})
        return made

    monkeypatch.setattr("hwfault.train.driver.inject_at", watched)
    trained(epochs=3, faults=[fault])
    found = {epoch: {mask for at, mask in seen if at == epoch} for epoch in (1, 2, 3)}
    assert [len(found[epoch]) for epoch in (1, 2, 3)] == [1, 1, 1]
    assert len(set.union(*found.values())) == 3


def test_faults_of_activations_at_addresses(tmp_path):
    """Which need the shapes of activations, known from the data."""
    path = str(tmp_path / "m")
    FaultMap.from_cells(8, 4, range(8), [3] * 8, [1] * 8).save(path)
    struck, history = trained(epochs=2, faults=[MapFaults(file=path, sites={"kind": "activation"})])
    assert len(history) == 2
    assert not same(struck, trained(epochs=2)[0])
