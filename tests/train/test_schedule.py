"""Schedules of faults: known answers for every condition, and how they combine."""

import math
from fractions import Fraction

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, chi2

from hwfault.errors import ModelError
from hwfault.laws.models import (
    AccumulatorFormat,
    BitFlips,
    BypassedElements,
    Clusters,
    LateBits,
    MapFaults,
    ProfileFaults,
    StuckElement,
    WordFaults,
)
from hwfault.records import Record
from hwfault.train.schedule import FaultModel, Schedule, ScheduledFault, last_epoch, schedule_faults

FLIPS = BitFlips(probability=0.01)
ARRAY = {"kind": "weight_stationary", "rows": 4, "columns": 8}
STUCK = StuckElement(pe=1, bit=5, value=1, mapping=ARRAY)


class Run(Record):
    """A configuration that holds faults."""

    faults: tuple[ScheduledFault, ...] = ()


def on(schedule, epochs, steps=1, seed=0, k=0):
    """The (epoch, step) at which a fault strikes."""
    moments = [(epoch, step) for epoch in range(1, epochs + 1) for step in range(steps)]
    return [moment for moment in moments if schedule.factor(*moment, seed, k) > 0]


def test_without_conditions_a_fault_always_strikes():
    assert {Schedule().factor(e, s, 3, 1) for e in range(1, 9) for s in range(9)} == {1.0}
    assert {Schedule().eval_factor(e) for e in range(1, 9)} == {1.0}


@pytest.mark.parametrize(
    ("conditions", "epochs"),
    [
        ({"from_epoch": 3}, [3, 4, 5, 6, 7]),
        ({"until_epoch": 2}, [1, 2]),
        ({"from_epoch": 3, "until_epoch": 5}, [3, 4, 5]),
        ({"from_epoch": 4, "until_epoch": 4}, [4]),
        ({"every_epochs": 2}, [1, 3, 5, 7]),
        ({"every_epochs": 3}, [1, 4, 7]),
        ({"from_epoch": 2, "every_epochs": 2}, [2, 4, 6]),
        ({"from_epoch": 2, "until_epoch": 5, "every_epochs": 2}, [2, 4]),
    ],
)
def test_epochs(conditions, epochs):
    assert [epoch for epoch, _ in on(Schedule(**conditions), 7)] == epochs


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3, 4, 5, 6]), (2, [0, 2, 4, 6]), (5, [0, 5]), (9, [0])])
def test_steps_are_counted_anew_in_each_epoch(every, steps):
    found = on(Schedule(every_steps=every), 3, 7)
    assert found == [(epoch, step) for epoch in (1, 2, 3) for step in steps]


def test_conditions_of_one_fault_must_all_hold():
    """Every second epoch and every third step: the third step of every second epoch, and none besides."""
    found = on(Schedule(every_epochs=2, every_steps=3, from_epoch=2, until_epoch=4), 6, 7)
    assert found == [(epoch, step) for epoch in (2, 4) for step in (0, 3, 6)]


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 5), st.integers(0, 5), st.floats(0.1, 1))
def test_conditions_combine_as_an_intersection(every_epochs, every_steps, first, more, share):
    each = [
        {"from_epoch": first, "every_epochs": every_epochs},
        {"every_steps": every_steps},
        {"until_epoch": first + more},
        {"share": share},
    ]
    together = Schedule(**{key: value for part in each for key, value in part.items()})
    alone = [set(on(Schedule(**part), 12, 6, seed=7, k=2)) for part in each]
    assert set(on(together, 12, 6, seed=7, k=2)) == set.intersection(*alone)


def test_faults_do_not_share_their_conditions():
    first, second = Schedule(every_epochs=2), Schedule(every_steps=2)
    assert on(first, 3, 3) == [(1, 0), (1, 1), (1, 2), (3, 0), (3, 1), (3, 2)]
    assert on(second, 3, 3) == [(e, s) for e in (1, 2, 3) for s in (0, 2)]


SHARES = {
    # (seed, fault): the steps 0 to 23 of epoch 1 at a share of 0.5
    (0, 0): [2, 4, 6, 7, 8, 10, 13, 15, 16, 17, 21],
    (0, 1): [5, 7, 9, 11, 14, 15, 16, 17, 19, 20, 22],
    (2**64 - 1, 0): [0, 1, 2, 3, 4, 5, 8, 10, 11, 16, 17, 19],
}


@pytest.mark.parametrize(("seed", "k"), SHARES)
def test_the_share_of_steps_is_the_same_everywhere(seed, k):
    assert [step for _, step in on(Schedule(share=0.5), 1, 24, seed, k)] == SHARES[seed, k]


@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.97])
def test_the_share_is_the_share(share):
    hits = len(on(Schedule(share=share), 40, 500, seed=5))
    low, high = binom.ppf([1e-7, 1 - 1e-7], 20_000, share)
    assert low <= hits <= high


@pytest.mark.parametrize("what", ["step", "epoch", "seed", "fault"])
def test_draws_of_steps_are_independent(what):
    """Pairs of draws that differ in one number alone fall into the four cells as independent ones do."""
    schedule, cells = Schedule(share=0.5), [0, 0, 0, 0]
    for i in range(8000):
        one = {"epoch": 1 + i // 100, "step": 2 * (i % 100), "seed": 2 * i, "k": 2 * (i % 7)}
        other = dict(one)
        other[{"fault": "k"}.get(what, what)] += 1
        cells[2 * int(schedule.factor(**one) > 0) + int(schedule.factor(**other) > 0)] += 1
    statistic = sum((n - 2000) ** 2 / 2000 for n in cells)
    assert statistic < chi2.ppf(1 - 1e-6, 3)


def test_a_larger_share_only_adds_steps():
    small, large = (set(on(Schedule(share=share), 5, 100)) for share in (0.2, 0.6))
    assert small < large


@pytest.mark.parametrize("epochs", [1, 2, 3, 10])
def test_linear_ramps(epochs):
    """As many epochs below the full rate as were asked for, none of them at 0, then the full rate."""
    schedule = Schedule(ramp="linear", ramp_epochs=epochs)
    found = [schedule.factor(epoch, 0, 0, 0) for epoch in range(1, epochs + 4)]
    assert found == [float(Fraction(i, epochs + 1)) for i in range(1, epochs + 1)] + [1.0, 1.0, 1.0]


def test_a_linear_ramp_over_three_epochs():
    schedule = Schedule(ramp="linear", ramp_epochs=3)
    assert [schedule.ramp_factor(e) for e in range(1, 6)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_a_cosine_ramp_over_three_epochs():
    schedule = Schedule(ramp="cosine", ramp_epochs=3)
    expected = [(1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1.0, 1.0]
    assert [schedule.ramp_factor(e) for e in range(1, 6)] == pytest.approx(expected, abs=1e-15)
    assert [schedule.ramp_factor(e) for e in (4, 5)] == [1.0, 1.0]


def test_a_ramp_begins_with_the_fault():
    schedule = Schedule(ramp="linear", ramp_epochs=1, from_epoch=4)
    assert [schedule.factor(e, 0, 0, 0) for e in range(1, 7)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]


@given(st.sampled_from(["linear", "cosine"]), st.integers(1, 30), st.integers(1, 5))
def test_ramps_rise(ramp, epochs, first):
    schedule = Schedule(ramp=ramp, ramp_epochs=epochs, from_epoch=first)
    factors = [schedule.factor(first + i, 0, 0, 0) for i in range(epochs + 2)]
    assert all(a < b for a, b in zip([0.0, *factors[:-2]], factors[:-1], strict=True))
    assert factors[-2:] == [1.0, 1.0]
    assert sum(f < 1 for f in factors) == epochs


def test_evaluation_has_the_full_rate_during_warm_up():
    schedule = Schedule(ramp="linear", ramp_epochs=5, every_epochs=3, every_steps=7, share=0.1)
    assert [schedule.eval_factor(e) for e in range(1, 9)] == [1.0] * 8


def test_evaluation_follows_the_epochs_of_the_fault():
    assert [Schedule(from_epoch=2, until_epoch=3).eval_factor(e) for e in range(1, 6)] == [0.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(("during", "train", "evaluate"), [("train", 1, 0), ("eval", 0, 1), ("both", 1, 1)])
def test_phases(during, train, evaluate):
    schedule = Schedule(during=during)
    assert (schedule.factor(2, 3, 0, 0), schedule.eval_factor(2)) == (train, evaluate)


def test_periods_of_held_faults():
    assert [Schedule(refresh_epochs=1).period(e) for e in range(1, 5)] == [0, 1, 2, 3]
    assert [Schedule(refresh_epochs=3).period(e) for e in range(1, 8)] == [0, 0, 0, 1, 1, 1, 2]
    assert Schedule().period(5) is None


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({"from_epoch": 0}, "from_epoch"),
        ({"from_epoch": 1.5}, "from_epoch"),
        ({"from_epoch": True}, "from_epoch"),
        ({"from_epoch": 4, "until_epoch": 3}, "until_epoch is 3, expected from_epoch \\(4\\) or later"),
        ({"every_epochs": 0}, "every_epochs"),
        ({"every_steps": -1}, "every_steps"),
        ({"share": 0}, "share"),
        ({"share": 1.1}, "share"),
        ({"share": math.nan}, "share"),
        ({"ramp": "linear"}, "ramp is 'linear' over ramp_epochs 0"),
        ({"ramp_epochs": 3}, "ramp is 'none' over ramp_epochs 3"),
        ({"ramp": "square", "ramp_epochs": 3}, "ramp"),
        ({"during": "test"}, "during"),
        ({"refresh_epochs": 0}, "refresh_epochs"),
        ({"ramp_epoch": 3}, "unknown key 'ramp_epoch': did you mean 'ramp_epochs'"),
    ],
)
def test_schedules_that_are_none(conditions, words):
    with pytest.raises(ModelError, match=words):
        Schedule(**conditions)


RAMP = {"ramp": "linear", "ramp_epochs": 2}


@pytest.mark.parametrize(
    "fault",
    [
        FLIPS,
        BitFlips(p10=0.1),
        WordFaults(probability=0.1),
        Clusters(probability=0.1),
        ProfileFaults(profile="sram-undervolting"),
        MapFaults(file="map.safetensors"),
        LateBits(probability=0.1, bits=2),
    ],
)
def test_faults_with_a_probability_can_ramp(fault: FaultModel):
    given = ScheduledFault(fault=fault, schedule=RAMP)
    assert given.fault.scaled(0.5) != fault
    assert given.fault.scaled(1.0) == fault


@pytest.mark.parametrize("fault", [AccumulatorFormat(width=16), STUCK, BypassedElements(mapping=ARRAY, elements=[1])])
@pytest.mark.parametrize(
    ("schedule", "words"), [(RAMP, "no probability to scale"), ({"refresh_epochs": 2}, "nothing is drawn")]
)
def test_faults_that_are_on_or_off(fault, schedule, words):
    with pytest.raises(ModelError, match=words):
        ScheduledFault(fault=fault, schedule=schedule)
    assert ScheduledFault(fault=fault, schedule={"every_steps": 2, "share": 0.5, "from_epoch": 2}).fault == fault


def test_a_map_ramps_by_how_often_its_cells_show():
    assert MapFaults(file="map", p_active=0.5).scaled(0.5).p_active == 0.25


YAML = """
faults:
  - {model: bit_flips, probability: 0.01}
  - {model: word, probability: 0.02, effect: msb, schedule: {from_epoch: 3, ramp: cosine, ramp_epochs: 4}}
  - fault: {model: word, probability: 0.03}
    schedule: {during: eval}
"""


def test_yaml():
    assert Run.parse(yaml.safe_load(YAML), "run").faults == (
        ScheduledFault(fault=FLIPS),
        ScheduledFault(
            fault=WordFaults(probability=0.02, effect="msb"),
            schedule=Schedule(from_epoch=3, ramp="cosine", ramp_epochs=4),
        ),
        ScheduledFault(fault=WordFaults(probability=0.03), schedule=Schedule(during="eval")),
    )


def test_what_is_written_is_read():
    run = Run.parse(yaml.safe_load(YAML), "run")
    assert Run.model_validate_json(run.model_dump_json()) == run
    assert Run(**run.model_dump(exclude_none=True)) == run


def test_bare_faults():
    given = (FLIPS, ScheduledFault(fault=FLIPS, schedule=RAMP))
    assert Run(faults=given).faults == schedule_faults(given) == (ScheduledFault(fault=FLIPS), given[1])


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"model": "bit_flip", "probability": 0.1}, "bit_flip"),
        ({"probability": 0.1}, "model"),
        ({"model": "bit_flips", "probability": 1.1}, "1.1"),
        ({"model": "bit_flips", "probability": 0.1, "from_epoch": 3}, "unknown key 'from_epoch'"),
        ({"model": "bit_flips", "probability": 0.1, "schedule": {"from": 3}}, "unknown key 'from'"),
        ({"fault": {"model": "bit_flips", "probability": 0.1}, "schedules": {}}, "unknown key 'schedules'"),
        (3, "faults.0"),
    ],
)
def test_scheduled_faults_that_are_none(fault, words):
    with pytest.raises(ModelError, match=words):
        Run(faults=[fault])


def at(**conditions):
    return ScheduledFault(fault=FLIPS, schedule=Schedule(**conditions))


@pytest.mark.parametrize(
    ("faults", "epoch"),
    [
        ([], 1),
        ([at()], 1),
        ([at(from_epoch=7)], 7),
        ([at(until_epoch=10), at(from_epoch=11, until_epoch=20)], 20),
        ([at(until_epoch=10), at(from_epoch=5)], 11),
        ([at(until_epoch=10), at(from_epoch=11, until_epoch=20), at(from_epoch=21)], 21),
    ],
)
def test_the_end_of_all_schedules(faults, epoch):
    assert last_epoch(faults) == epoch
    open_ended = [fault for fault in faults if fault.schedule.until_epoch is None]
    strike = [fault for fault in faults if fault.schedule.eval_factor(epoch)]
    assert strike == (open_ended or faults[-1:])
