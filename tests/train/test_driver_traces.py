"""What a driver leaves and goes on with: clean blocks, resumed runs, plans, weights, and no trace at the end."""

import pytest
import torch
from scipy.stats import binom

from hwfault.errors import HwfaultError
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.plan.fault_plan import resolve
from hwfault.train import driver as driver_module
from hwfault.train.driver import FaultDriver
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import same_bits
from tests.helpers.injection.snapshot import snapshot
from tests.helpers.train.driven import ACT, ACTS, WEIGHTS, Loop, at, masks


def test_clean_forwards_have_no_faults_and_do_not_count():
    loop, other = Loop([ACTS, at(WEIGHTS, refresh_epochs=1)]), Loop([ACTS, at(WEIGHTS, refresh_epochs=1)])
    for step in range(3):
        loop.driver.train_step(1, step)
        with loop.driver.clean(), torch.no_grad():
            loop.seen.clear()
            assert same_bits(loop.model.eval()(batch()), _clean(loop.model, batch()))
            assert loop.seen == []
        one, two = loop.step(1, step), other.step(1, step)
        assert [call.name for call in one] == [call.name for call in two]
        assert all(same_bits(a.after, b.after) for a, b in zip(one, two, strict=True))
    assert loop.driver.state_dict() == other.driver.state_dict() == {"steps": 3, "samples": 12}


def _clean(model, x):
    twin = build("cnn").eval()
    twin.load_state_dict(model.state_dict())
    return twin(x)


def test_an_exception_in_a_clean_block_brings_the_faults_back():
    loop = Loop([ACTS])
    with pytest.raises(ZeroDivisionError), loop.driver.clean():
        raise ZeroDivisionError
    assert loop.step(1, 0)
    loop.driver.injections[0].enabled = False
    with loop.driver.clean():
        pass
    assert not loop.step(1, 1)  # what was off before stays off


@pytest.mark.parametrize("order", ["clean first", "faulty first"])
def test_the_average_of_clean_and_faulty_loss(order):
    """Its gradient is the average of both gradients, each as if taken alone."""

    def gradient(parts):
        model = build("power_of_two")  # in evaluation mode, where its scales do not move with each forward
        with FaultDriver(model, [BitFlips(probability=0.1)], seed=7) as driver:
            driver.train_step(1, 0)
            losses = []
            for part in parts:
                if part == "clean":
                    with driver.clean():
                        losses.append(model(batch()).square().sum())
                else:
                    losses.append(model(batch()).square().sum())
            (sum(losses) / len(losses)).backward()
        return {key: p.grad for key, p in model.named_parameters() if p.grad is not None}

    parts = ["clean", "faulty"] if order == "clean first" else ["faulty", "clean"]
    both, clean, faulty_ = (gradient(p) for p in (parts, ["clean"], ["faulty"]))
    for weight in ("1.weight", "4.weight"):
        assert not torch.equal(clean[weight], faulty_[weight])
        assert torch.allclose(both[weight], (clean[weight] + faulty_[weight]) / 2, rtol=1e-5, atol=1e-6)


def test_a_run_that_is_resumed_goes_on_with_the_same_faults():
    whole, first, second = (Loop([ACTS, at(WEIGHTS, refresh_epochs=2)]) for _ in range(3))
    expected = [whole.step(e, s) for e in (1, 2) for s in range(3)]
    for moment in ((1, 0), (1, 1), (1, 2), (2, 0)):
        first.step(*moment)
    state = first.driver.state_dict()
    assert state == {"steps": 4, "samples": 16}
    second.model.load_state_dict(first.model.state_dict())
    second.driver.load_state_dict(state)
    for moment, calls in zip(((2, 1), (2, 2)), expected[4:], strict=True):
        again = second.step(*moment)
        (one,), (two,) = calls.of(ACT), again.of(ACT)
        assert torch.equal(*((call.before != call.after) for call in (one, two)))
    assert second.driver.state_dict() == whole.driver.state_dict()


@pytest.mark.parametrize(
    "state", [{}, {"steps": 1}, {"steps": 1, "samples": 2, "more": 3}, None, {"steps": -1, "samples": 0}]
)
def test_states_that_are_none(state):
    with pytest.raises(HwfaultError, match=r"`steps` and `samples`|number of steps is -1"):
        Loop([ACTS]).driver.load_state_dict(state)


def test_plans_are_resolved_once(monkeypatch):
    made = []
    monkeypatch.setattr(driver_module, "resolve", lambda *a, **k: made.append(k["factors"]) or resolve(*a, **k))
    loop = Loop([at(ACTS, share=0.5), at(WEIGHTS, every_steps=2)])
    for epoch in range(1, 4):
        for step in range(8):
            loop.step(epoch, step)
        loop.evaluate(epoch)
    assert len(made) == len(set(made)) <= 4


def test_steps_never_wait_for_the_device(monkeypatch):
    """Nothing between two forwards reads a tensor."""
    loop = Loop([at(ACTS, ramp="linear", ramp_epochs=2), at(WEIGHTS, refresh_epochs=1, share=0.5)])

    def refused(*_):
        raise AssertionError("a tensor was read")

    for name in ("item", "tolist", "__int__", "__float__", "__bool__", "__index__", "numpy", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, refused)
    for epoch in (1, 2, 3):
        for step in range(3):
            loop.driver.train_step(epoch, step)
        with loop.driver.clean():
            loop.driver.evaluate(epoch)


def test_a_hundred_steps_leave_weights_clean_and_the_rate_as_set():
    """Without a learning rate every parameter is what it was, to the bit; and 1 % stays 1 %."""
    loop = Loop([WordFaults(probability=0.01, effect="msb", sites="*weight*")], "mlp")
    loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
    parameters = {key: p.detach().clone() for key, p in loop.model.named_parameters() if "weight" in key}
    struck = [int(masks(loop.step(1, step), "1.weight_quant")[0].sum()) for step in range(100)]
    for part in (struck[:50], struck[50:]):
        low, high = binom.ppf([1e-7, 1 - 1e-7], 50 * 576, 0.01)
        assert low <= sum(part) <= high
    loop.driver.remove()
    after = dict(loop.model.named_parameters())
    assert parameters.keys() >= {"1.weight", "2.weight", "3.weight"}
    assert all(same_bits(p, after[key].detach()) for key, p in parameters.items())


def test_a_state_dict_after_faults_is_that_of_a_clean_run():
    """The last layer's faults reach no statistics: the whole state is a clean run's, to the bit."""
    faults = [WordFaults(probability=0.3, sites={"kind": "weight", "index": -1})]
    states = []
    for given in (faults, []):
        loop = Loop(given)
        loop.optimizer = torch.optim.SGD(loop.model.parameters(), lr=0.0)
        assert bool([loop.step(1, step) for step in range(30)][-1]) == bool(given)
        loop.driver.remove()
        states.append(loop.model.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(same_bits(one, states[1][key]) for key, one in states[0].items() if one.is_floating_point())


@pytest.mark.parametrize("name", ["cnn", "biased", "shared", "twice"])
def test_removing_restores_the_network(name):
    model = build(name)
    before = snapshot(model)
    faults = [BitFlips(probability=0.1), at(WEIGHTS, refresh_epochs=2, during="train")]
    with FaultDriver(model, faults, seed=7) as driver:
        driver.train_step(1, 0)
        driver.evaluate(1)
        assert snapshot(model) != before
    assert snapshot(model) == before
    driver.remove()
