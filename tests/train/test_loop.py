import pytest
import torch

from hwfault.campaign import evaluate
from hwfault.errors import HwfaultError, ModelError
from hwfault.inject import attached, inject
from hwfault.profiles.faultmap import FaultMap
from hwfault.profiles.models import BitFlips, MapFaults, bit_errors
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits
from hwfault.train.loop import ramp_factor
from tests.train import small


def trained(progress=None, **changes):
    config = TrainConfig(**{"epochs": 12, "batch_size": 16, "learning_rate": 0.02} | changes)
    network = build("tests.train.small:network", seed=config.seed)
    return network, train(network, small.data(), config, progress=progress)


def same(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("faults", [(), bit_errors(0.01)], ids=["clean", "faults"])
def test_it_learns(faults, optimizer):
    network, history = trained(epochs=30, learning_rate=0.05, faults=faults, optimizer=optimizer)
    assert history[-1].loss < history[0].loss
    x, y = small.data().test_x, small.data().test_y
    assert evaluate(network, x, y, (), seeds=[0]).mean > 0.9
    assert not network.training
    assert not attached(network)


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
    trained(faults=faults)
    assert torch.equal(torch.get_rng_state(), state)


def test_faults_change_what_is_learnt_and_the_gradient_rule_matters():
    clean, zero, through = (
        trained(faults=faults, gradient=gradient)[0]
        for faults, gradient in [((), "zero"), (bit_errors(0.1), "zero"), (bit_errors(0.1), "straight_through")]
    )
    assert not same(clean, zero)
    assert not same(zero, through)


def test_the_ramp_is_linear_over_its_share_and_reaches_one():
    config = TrainConfig(epochs=9, ramp=1 / 3)
    assert [ramp_factor(epoch, config) for epoch in (1, 2, 3, 4, 9)] == [1 / 3, 2 / 3, 1, 1, 1]
    assert ramp_factor(1, TrainConfig(epochs=9, ramp=0)) == 1
    assert ramp_factor(1, TrainConfig(epochs=1, ramp=1)) == 1


def test_the_plan_follows_the_ramp(monkeypatch):
    rates = []

    def spy(sites, faults, device):
        rates.append(faults[0].probability)
        return resolve(sites, faults, device=device)

    from hwfault.train import loop

    resolve = loop.resolve
    monkeypatch.setattr(loop, "resolve", spy)
    _, history = trained(epochs=8, ramp=0.5, faults=(BitFlips(probability=0.04, sites="0.weight_quant"),))
    assert rates == pytest.approx([0.04, 0.01, 0.02, 0.03, 0.04]), "once to begin with, then as the ramp goes"
    assert [epoch.ramp for epoch in history] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


def test_progress_sees_each_epoch():
    seen = []
    _, history = trained(progress=seen.append, epochs=3)
    assert tuple(seen) == history
    assert [(epoch.epoch, epoch.epochs) for epoch in seen] == [(1, 3), (2, 3), (3, 3)]


def test_a_loss_that_is_not_finite_stops_training():
    network = build("tests.train.small:network")
    config = TrainConfig(batch_size=16, faults=bit_errors(0.01))

    def poison(epoch):
        if epoch.epoch == 2:
            network[3].bias.data.fill_(float("nan"))

    with pytest.raises(
        HwfaultError, match=r"the loss is nan in epoch 3 of 40, step 1 of 3.*lower learning_rate \(0.02\)"
    ):
        train(network, small.data(), config, progress=poison)
    assert not attached(network)


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

        made = inject(*arguments, **options, observe=note)
        return made

    monkeypatch.setattr("hwfault.train.loop.inject", watched)
    trained(epochs=3, faults=[fault])
    masks = {epoch: {mask for at, mask in seen if at == epoch} for epoch in (1, 2, 3)}
    assert [len(masks[epoch]) for epoch in (1, 2, 3)] == [1, 1, 1]
    assert len(set.union(*masks.values())) == 3


def test_faults_of_activations_at_addresses(tmp_path):
    """Which need the shapes of activations, known from the data."""
    path = str(tmp_path / "m")
    FaultMap.from_cells(8, 4, range(8), [3] * 8, [1] * 8).save(path)
    struck, history = trained(epochs=2, faults=[MapFaults(file=path, sites={"kind": "activation"})])
    assert len(history) == 2
    assert not same(struck, trained(epochs=2)[0])
