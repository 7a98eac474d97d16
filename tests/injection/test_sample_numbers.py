"""Numbers from 2^32 on, which would have the faults of others: refused where they are set, and where reached."""

import numpy as np
import pytest
import torch

from hwfault.errors import HwfaultError
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.torch_ops import held
from hwfault.train.callback import FaultDriver
from hwfault.train.schedule import Schedule, ScheduledFault
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import same_bits

FLIPS = [BitFlips(probability=0.05)]
FIRST_NOT = 2**32
BEYOND = (FIRST_NOT, FIRST_NOT + 3, 2**40, 2**63 - 1, 2**64)


class Seven:
    """An integer of a type of its own, as Python knows them."""

    def __index__(self):
        return 7


SETTERS = {
    "first_sample": lambda i, n: setattr(i, "first_sample", n),
    "hold": lambda i, n: setattr(i, "hold", n),
    "epoch": lambda i, n: setattr(i.clock, "epoch", n),
    "steps": lambda i, n: setattr(i.clock, "steps", n),
    "resumed steps": lambda i, n: i.clock.resume(n, 0),
    "resumed samples": lambda i, n: i.clock.resume(0, n),
}


@pytest.mark.parametrize("number", BEYOND)
@pytest.mark.parametrize("setter", SETTERS.values(), ids=SETTERS)
def test_numbers_are_refused_where_they_are_set(setter, number):
    model, x = build("cnn"), batch()
    with inject(model, FLIPS, seed=1) as injection:
        struck = model(x)
        injection.first_sample = 0
        with pytest.raises(HwfaultError, match=rf"is {number}, expected an integer from 0 to 2\^32 - 1"):
            setter(injection, number)
        assert same_bits(model(x), struck), "nothing was set"
        for fine in (0, FIRST_NOT - 1, np.int64(7), Seven()):
            setter(injection, fine)


@pytest.mark.parametrize("number", [-1, -FIRST_NOT, True, False, 1.0, "1", None, np.float64(3)])
@pytest.mark.parametrize("name", SETTERS)
def test_what_is_no_number_is_refused_too(name, number):
    if name == "hold" and number is None:
        return  # numbers run on
    model = build("cnn")
    with inject(model, FLIPS, seed=1) as injection:
        refused = pytest.raises(HwfaultError, match=r", expected an integer from 0 to 2\^32 - 1")
        with refused:
            SETTERS[name](injection, number)


def test_training_that_is_resumed_begins_its_evaluation_anew():
    model, x = build("cnn"), batch(3)
    with inject(model, FLIPS, seed=1) as injection, torch.no_grad():
        model(x)
        clock = injection.clock
        clock.resume(8, 5)
        assert (clock.steps, clock.next_sample(True), clock.next_sample(False)) == (8, 5, 0)


@pytest.mark.parametrize("number", [FIRST_NOT, 2**63 - 1, -1, -(2**32)])
@pytest.mark.parametrize("given", [torch.tensor, list, np.array, lambda n: torch.tensor(n, dtype=torch.int64)])
def test_samples_one_by_one(given, number):
    model, x = build("cnn"), batch(3)
    with inject(model, FLIPS, seed=1) as injection:
        injection.samples = given([FIRST_NOT - 1, 0, 5])
        struck = model(x)
        with pytest.raises(HwfaultError, match=f"`samples` holds the number {number}, but the fault stream"):
            injection.samples = given([3, number, 5])
        assert same_bits(model(x), struck)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([True, False, True, False], "booleans"),
        (torch.ones(4, dtype=torch.bool), "booleans"),
        (torch.arange(4.0), "floating-point numbers"),
        (torch.arange(4).half(), "floating-point numbers"),
    ],
)
def test_samples_that_are_no_integers(given, kind):
    with inject(build("cnn"), FLIPS, seed=1) as injection:
        with pytest.raises(HwfaultError, match=f"`samples` are {kind}, expected integers"):
            injection.samples = given
        injection.samples = torch.arange(4)
        injection.samples = []


@pytest.mark.parametrize("training", [False, True])
def test_batches_that_run_past_the_last_number(training):
    model, x = build("cnn").train(training), batch(4)
    with inject(model, FLIPS, seed=1) as injection:
        injection.first_sample = FIRST_NOT - 6
        model(x)
        with pytest.raises(HwfaultError, match=r"numbers up to 4294967297, but the fault stream .* set first_sample"):
            model(x)
        injection.first_sample = FIRST_NOT - 4
        model(x)  # with the last number
        with pytest.raises(HwfaultError, match="numbers up to 4294967299"):
            model(x)
        injection.first_sample = 0
        model(x)


def test_training_steps_that_run_past_the_last_number():
    model, x = build("cnn").train(), batch(4)
    plan = resolve(sites(model), [BitFlips(probability=0.05, sites=[{"kind": "weight"}])])
    with inject(model, plan, seed=1) as injection:
        injection.clock.steps = FIRST_NOT - 1
        model(x)
        with pytest.raises(HwfaultError, match=r"a training step has the number 4294967296, .* set clock.steps"):
            model(x)
        model.eval()(x)  # whose number is 0


def test_numbers_that_ranks_share_out():
    model, x = build("cnn"), batch(4)
    for rank, first, fine in ((0, 2**30, False), (3, 2**30 - 4, True), (3, 2**30 - 3, False)):
        with inject(model, FLIPS, seed=1) as injection:
            injection.clock.rank, injection.clock.world = rank, 4
            injection.first_sample = first
            if fine:
                model(x)
                continue
            with pytest.raises(HwfaultError, match="the samples of a batch have numbers up to 429496"):
                model(x)
    with inject(model.train(), FLIPS, seed=1) as injection:
        injection.clock.rank, injection.clock.world = 1, 2
        injection.clock.steps = 2**31
        with pytest.raises(HwfaultError, match="a training step has the number 4294967297"):
            model(x)


def test_a_driver_s_held_numbers_and_its_state():
    held_faults = [ScheduledFault(fault=FLIPS[0], schedule=Schedule(refresh_epochs=1))]
    with FaultDriver(build("cnn"), held_faults, seed=1, rank=1, world=2) as driver:
        driver.train_step(2**31, 0)
        with pytest.raises(HwfaultError, match="the sample number is 4294967297"):
            driver.train_step(2**31 + 1, 0)
    with FaultDriver(build("cnn"), FLIPS, seed=1) as driver:
        for state in ({"steps": FIRST_NOT, "samples": 0}, {"steps": 0, "samples": FIRST_NOT}):
            with pytest.raises(HwfaultError, match=r"is 4294967296, expected an integer from 0 to 2\^32 - 1"):
                driver.load_state_dict(state)


def test_periods_of_a_batch():
    """A map that comes and goes by the batch: the period is its first sample's number."""
    model = build("cnn")
    with inject(model, FLIPS, seed=1) as injection:
        clock = injection.clock
        injection.first_sample = FIRST_NOT - 2
        clock.tick(model)
        assert clock.of_periods(3, "batch").tolist() == [FIRST_NOT - 2] * 3
        clock.world, clock.rank = 2, 0
        with pytest.raises(HwfaultError, match="numbers up to 8589934588"):
            clock.of_periods(3, "batch")
        with pytest.raises(HwfaultError, match="numbers up to 8589934588"):
            clock.of_periods(None, "batch")
        assert clock.of_periods(3, "power_cycle").tolist() == [0, 0, 0]


@pytest.mark.parametrize("sample", [FIRST_NOT, -1, 2**40])
def test_lists_of_faults(sample):
    plan = resolve(sites(build("cnn")), FLIPS)
    with pytest.raises(HwfaultError, match=rf"the sample number is {sample}, expected an integer from 0 to 2\^32 - 1"):
        faults_at(plan, "1.weight_quant", seed=1, sample=sample)
    assert faults_at(plan, "0.act_quant", seed=1, sample=FIRST_NOT - 1, words=1000)
    with pytest.raises(HwfaultError, match=f"sample {FIRST_NOT - 1} of the weight .* the same for all samples"):
        faults_at(plan, "1.weight_quant", seed=1, sample=FIRST_NOT - 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_networks():
    torch.compiler.reset()
    model, x = build("cnn"), batch(4)
    with inject(model, FLIPS, seed=1) as injection, torch.no_grad():
        injection.first_sample = FIRST_NOT - 4
        expected = model(x)
        compiled = torch.compile(model, backend="aot_eager")
        injection.first_sample = FIRST_NOT - 4
        assert same_bits(compiled(x), expected)
        with pytest.raises(HwfaultError, match="numbers up to 4294967299"):
            compiled(x)
    torch.compiler.reset()


def test_a_device_asserts_once_a_forward_and_is_not_waited_for(monkeypatch):
    """The CPU stands in for a GPU: the operator is the same, and its error comes at once."""
    model, x, asserted = build("cnn"), batch(4), []
    with inject(model, FLIPS, seed=1) as injection:
        model(x)
        monkeypatch.setattr(held, "asserts", lambda number: True)
        with monkeypatch.context() as patch:
            patch.setattr(torch, "_assert_async", lambda *args: asserted.append(args))
            model(x)
            assert len(asserted) == 1
            model.train()(x)
            assert len(asserted) == 3, "samples, and the step"
        injection.first_sample = FIRST_NOT - 1
        with pytest.raises(RuntimeError, match="the samples of a batch have numbers up to another, but the fault"):
            model.eval()(x)
        with pytest.raises(RuntimeError, match="`samples` holds the number another"):
            injection.samples = torch.tensor([0, FIRST_NOT])
