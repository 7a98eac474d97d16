import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.train import TrainConfig
from hwfault.train.learning import Constant, Cosine, Exponential, LearningRate, MultiStep, Plateau, Step
from hwfault.train.phases import phases_of


def factors(schedule, epochs=6, steps=2, **given):
    rate = LearningRate(schedule, epochs=epochs, steps=steps, **given)
    return [rate.factor(step) for step in range(epochs * steps)]


def by_epoch(*values):
    return pytest.approx([value for value in values for _ in range(2)])


def test_known_rates():
    assert factors(Constant()) == [1] * 12
    assert factors(Step(step_size=2)) == by_epoch(1, 1, 0.1, 0.1, 0.01, 0.01)
    assert factors(MultiStep(milestones=(1, 4), gamma=0.5)) == by_epoch(1, 0.5, 0.5, 0.5, 0.25, 0.25)
    assert factors(Exponential(gamma=0.5)) == by_epoch(1, 1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32)
    assert factors(Cosine()) == pytest.approx([(1 + math.cos(math.pi * k / 12)) / 2 for k in range(12)])
    assert factors(Cosine(floor=0.5))[6] == 0.75


def test_the_rate_rises_first_and_the_cosine_begins_after_that():
    assert factors(Constant(), warmup=2)[:5] == [0.25, 0.5, 0.75, 1, 1]
    cosine = factors(Cosine(), warmup=2)
    assert cosine[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert cosine[4:] == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])
    assert factors(Exponential(gamma=0.5), warmup=1)[:4] == [0.5, 1, 0.5, 0.5], "the epochs of the rise count"


def test_a_frozen_schedule_stands_still():
    assert factors(Exponential(gamma=0.5), frozen=2) == by_epoch(1, 1, 1, 1 / 2, 1 / 4, 1 / 8)
    assert factors(Step(step_size=2), frozen=3) == by_epoch(1, 1, 1, 1, 1, 0.1)
    cosine = factors(Cosine(), frozen=2)
    assert cosine[:5] == [1] * 5
    assert cosine[4:] == pytest.approx([(1 + math.cos(math.pi * k / 8)) / 2 for k in range(8)])


def observed(plateau, figures, *, smaller=True, **given):
    rate = LearningRate(plateau, epochs=99, steps=1, **given)
    seen = []
    for epoch, figure in enumerate(figures, 1):
        rate.observe(epoch, figure, smaller=smaller)
        seen.append(rate.factor(epoch))
    return seen


def test_a_plateau():
    figures = [3, 2, 2, 2, 1, 1, 1]
    assert observed(Plateau(gamma=0.5, patience=1), figures) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert observed(Plateau(gamma=0.5, patience=0, floor=0.3), figures) == [1, 1, 0.5, 0.3, 0.3, 0.3, 0.3]
    rising = [-figure for figure in figures]
    assert observed(Plateau(gamma=0.5, patience=1), rising, smaller=False) == [1, 1, 1, 0.5, 0.5, 0.5, 0.25]
    assert observed(Plateau(gamma=0.5, patience=0), [2] * 4, frozen=2) == [1, 1, 1, 0.5], "frozen epochs do not count"
    assert observed(Plateau(gamma=0.5, patience=0, threshold=0.5), [2, 1.1, 0.9]) == [1, 0.5, 0.5]


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12), st.data())
def test_a_plateau_goes_on_from_its_state(figures, data):
    cut = data.draw(st.integers(1, len(figures) - 1))
    plateau = Plateau(gamma=0.5, patience=1)
    first = LearningRate(plateau, epochs=99, steps=1)
    for epoch, figure in enumerate(figures[:cut], 1):
        first.observe(epoch, figure, smaller=True)
    second = LearningRate(plateau, epochs=99, steps=1)
    second.load_state_dict(first.state_dict())
    for epoch, figure in enumerate(figures[cut:], cut + 1):
        second.observe(epoch, figure, smaller=True)
    assert second.factor(0) == observed(plateau, figures)[-1]


def test_a_name_is_enough_where_no_key_must_be_given():
    assert TrainConfig(schedule="plateau").schedule == Plateau()
    with pytest.raises(ModelError, match=r"schedule\.step: step_size: Field required"):
        TrainConfig(schedule="step")
    with pytest.raises(ModelError, match=r"'cosin' found .*'cosine'"):
        TrainConfig(schedule="cosin")
    with pytest.raises(ModelError, match="unknown key 'gama': did you mean 'gamma'"):
        TrainConfig(schedule={"name": "exponential", "gama": 0.5})


def ramping(from_epoch, ramp_epochs):
    schedule = {"ramp": "linear", "ramp_epochs": ramp_epochs, "from_epoch": from_epoch}
    return {"model": "bit_flips", "probability": 0.1, "schedule": schedule}


def test_the_schedule_waits_for_the_last_ramp():
    config = TrainConfig(
        faults=[ramping(1, 2), ramping(2, 3)], epochs=8, schedule={"name": "exponential", "gamma": 0.5}
    )
    frozen = config.model_copy(update={"freeze_schedule": True})
    (free,), (waits,) = phases_of(config), phases_of(frozen)
    assert [free.learning_rate(1).factor(epoch) for epoch in range(6)] == [2.0**-epoch for epoch in range(6)]
    assert [waits.learning_rate(1).factor(epoch) for epoch in range(6)] == [1, 1, 1, 1, 1, 0.5]


def test_the_schedule_of_a_phase_waits_for_what_is_left_of_a_ramp():
    shared = {"schedule": {"name": "exponential", "gamma": 0.5}, "freeze_schedule": True, "epochs": 3}
    config = TrainConfig(faults=[ramping(1, 4)], **shared, phases=[{}, {}, {"faults": [ramping(1, 1)]}])
    rates = [[phase.learning_rate(1).factor(step) for step in range(3)] for phase in phases_of(config)]
    assert rates == [[1, 1, 1], [1, 1, 0.5], [1, 1, 0.5]]
