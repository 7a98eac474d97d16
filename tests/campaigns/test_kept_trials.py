"""Trials of a network that is there already, kept in a store: what is stopped anywhere goes on to the same results."""

import json

import numpy as np
import pytest
import torch

from hwfault.campaigns.campaign import Campaign, Kept
from hwfault.campaigns.database import Database, Row
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.points import Point, at_rates
from hwfault.campaigns.subject import network_digest
from hwfault.campaigns.trials import Trial
from hwfault.differences import differences
from hwfault.errors import FileError, HwfaultError
from hwfault.injection.site_statistics import ProtectionCounts, SiteStatistics
from hwfault.laws.models import MapFaults, ProfileFaults
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from tests.helpers.train import small

SEEDS = (1, 2, 2**64 - 1, 4)
FULL = Trial(
    seed=2**64 - 1,
    correct=4,
    protection=ProtectionCounts(1, 2, 3),
    due=True,
    statistics=(SiteStatistics(site="s", words=3, faulty=1, ones=(1,), zeros=(0,), squared_change=0.1),),
)


@pytest.fixture
def kept(tmp_path):
    return Kept(tmp_path / "campaign.sqlite")


def network(seed=5):
    """One of whose answers faults change many."""
    torch.manual_seed(seed)
    return small.network(width=16).eval()


def campaign(given=None, **how):
    return Campaign(network() if given is None else given, small.data().test, **how)


def asked(campaign, points):
    return campaign.question(points, {})


def count(kept):
    with Database(kept.store, readonly=True) as database:
        return sum(len(database.keys(task)) for task in database.tasks())


@pytest.fixture
def ran(monkeypatch):
    """The trials that were run, in their order."""
    seen, plain = [], TorchEngine.run

    def run(self, trials, images=None):
        for trial, found in zip(trials, plain(self, trials, images), strict=True):
            seen.append(trial)
            yield found

    monkeypatch.setattr(TorchEngine, "run", run)
    return seen


def test_a_trial_of_which_a_count_alone_is_known_is_kept_and_read_again(tmp_path):
    with Database(tmp_path / "c.sqlite") as database:
        task = database.task({"a": 1}, samples=9, masks=("correct", "top1"))
        database.put(task, [FULL.to_row(), Trial(seed=1, correct=3).to_row()])
        assert [Trial.of_row(row, task.masks) for row in database.rows(task)] == [FULL, Trial(seed=1, correct=3)]


def test_right_answers_are_counted_in_their_mask():
    answers = np.array([[1, 1, 0, 1], [0, 0, 0, 0]], bool)
    assert Trial.of_row(Row(5, answers), ("correct", "top1")) == Trial(seed=5, correct=3)
    assert Trial.of_row(Row(5, answers[::-1]), ("top1", "correct")) == Trial(seed=5, correct=3)
    with pytest.raises(HwfaultError, match="seed 5 has no answer \\(no memory\\)"):
        Trial.of_row(Row(5, None, failed="no memory"), ("correct",))


@pytest.mark.parametrize("left", [0, 1, 4, 7])
def test_a_stopped_campaign_goes_on_to_the_same_results_without_running_a_trial_twice(kept, ran, monkeypatch, left):
    measured, points = campaign(statistics=True), at_rates([0.05, 0.3])
    whole = measured.measure(points, SEEDS)
    ran.clear()
    put = Database.put

    def stops(self, task, rows):
        if count_rows(self) + len(rows) > left:
            raise KeyboardInterrupt
        put(self, task, rows)

    # a trial a job, as if each took a second
    monkeypatch.setattr("hwfault.campaigns.driver._JOB_SECONDS", 0.0)
    monkeypatch.setattr("hwfault.campaigns.driver._LEAST_SECONDS", 0.0)
    with monkeypatch.context() as stopping:
        stopping.setattr(Database, "put", stops)
        with pytest.raises(KeyboardInterrupt):
            measured.measure(points, SEEDS, kept=kept)
    assert count(kept) == left
    ran.clear()
    advanced = []
    assert len({trials.correct for trials in whole}) == 2
    assert measured.measure(points, SEEDS, kept=kept, progress=lambda: advanced.append(1)) == whole
    assert len(ran) == 8 - left
    assert len(advanced) == 8
    assert campaign(measured.model, statistics=True).measure(points, SEEDS, kept=kept) == whole
    assert len(ran) == 8 - left


def count_rows(database):
    return sum(len(database.keys(task)) for task in database.tasks())


def test_more_seeds_and_more_points_add_trials(kept, ran):
    measured = campaign()
    measured.measure(at_rates([0.2]), (1, 2), kept=kept)
    more = measured.measure(at_rates([0.1, 0.2]), (0, 1, 2), kept=kept)
    assert len(ran) == count(kept) == 6
    assert more == campaign(measured.model).measure(at_rates([0.1, 0.2]), (0, 1, 2))
    assert measured.measure(at_rates([0.1, 0.2]), (2, 0), kept=kept) == campaign(measured.model).measure(
        at_rates([0.1, 0.2]), (2, 0)
    )


def test_the_same_point_and_the_same_seed_twice_are_run_once(ran):
    (one, two) = campaign().measure(at_rates([0.2, 0.2]), (7, 3, 7))
    assert one == two
    assert one.seeds == (7, 3, 7)
    assert one.correct[0] == one.correct[2]
    assert [trial.seed for trial in ran] == [7, 3]


def test_another_question_is_refused_and_what_differs_is_listed(kept):
    measured = campaign()
    measured.measure(at_rates([0.1]), (1,), kept=kept._replace(told={"network": "n"}))
    with pytest.raises(FileError) as refused:
        measured.measure(at_rates([0.2]), (1,), kept=kept._replace(told={"network": "m" * 200, "more": 1}))
    text = str(refused.value)
    assert f"network: n there, {'m' * 77}... now" in text
    assert "faults.0.0.probability: 0.1 there, 0.2 now" in text
    assert "more: - there, 1 now" in text
    assert "--out" in text
    with pytest.raises(FileError, match="samples: 48 there, 5 now"):
        campaign(measured.model, indices=range(5)).measure(at_rates([0.1]), (1,), kept=kept)
    with pytest.raises(FileError, match="statistics: false there, true now"):
        campaign(measured.model, statistics=True).measure(at_rates([0.1]), (1,), kept=kept)
    assert count(kept) == 1
    measured.measure(at_rates([0.1]), (1,), kept=kept)


def test_a_store_of_a_study_and_a_damaged_question_are_refused(kept):
    with Database(kept.store) as database:
        database.task({"a": 1}, samples=9, masks=("correct",))
    with pytest.raises(FileError, match="is a campaign of `hwfault campaign run`"):
        campaign().measure(at_rates([0.1]), (1,), kept=kept)
    with Database(kept.store) as database:
        database.say("question", "[")
    with pytest.raises(FileError, match="its question cannot be read"):
        campaign().measure(at_rates([0.1]), (1,), kept=kept)


def test_questions_tell_networks_samples_faults_and_ways_apart():
    first = asked(campaign(), at_rates([0.1]))
    assert asked(campaign(batch_size=3), at_rates([0.1])) == first
    others = {
        "network digest": asked(campaign(network(6)), at_rates([0.1])),
        "samples digest": asked(Campaign(network(), small.data(seed=1).test), at_rates([0.1])),
        "samples": asked(campaign(indices=range(5)), at_rates([0.1])),
        "statistics": asked(campaign(statistics=True), at_rates([0.1])),
        "device": asked(campaign(device=3), at_rates([0.1])),
        "faults.0.0.probability": asked(campaign(), at_rates([0.2])),
    }
    for key, other in others.items():
        assert key in differences(first, other), key
    assert first["network digest"] == network_digest(network())
    assert json.loads(json.dumps(first)) == first


def test_where_numbers_depend_on_batches_their_size_is_part_of_the_question(tmp_path, kept):
    fault = ProfileFaults(
        profile="uniform-flips", at={"ber": 0.1}, protection=Protection(kind="parity", data_bits=8, on_detected="due")
    )
    assert "batch size" not in asked(campaign(), [Point.of([fault])])
    FaultMap.from_cells(40, 32, [1], [2], [0]).save(tmp_path / "m.safetensors")

    def point(**rest):
        return Point.of([MapFaults(file=str(tmp_path / "m.safetensors"), **rest)])

    def asked_of(**rest):
        return asked(campaign(batch_size=5), [point(**rest)])

    assert asked_of(p_active=0.5, refresh="batch")["batch size"] == 5
    # all samples of a batch share a weight, so that its cells come and go with batches
    assert asked_of(p_active=0.5, refresh="inference", sites="0.weight_quant")["batch size"] == 5
    for rest in ({"p_active": 0.5, "refresh": "epoch"}, {}):
        assert "batch size" not in asked_of(**rest), rest
    # each sample has its own inputs
    assert "batch size" not in asked_of(p_active=0.5, sites="1.act_quant")
    changing = point(p_active=0.5, refresh="batch")
    campaign(batch_size=5).measure([changing], (1,), kept=kept)
    with pytest.raises(FileError, match="batch size: 5 there, 7 now"):
        campaign(batch_size=7).measure([changing], (1,), kept=kept)


def test_what_was_told_is_in_the_store_however_it_is_stopped(kept, ran):
    """Ctrl-C may come at any moment: a trial is told only when it can be read from the disk."""
    told = 0

    def tell():
        nonlocal told
        told += 1
        assert count(kept) >= told
        if told == 3:
            raise KeyboardInterrupt

    points = at_rates([0.01, 0.1])
    with pytest.raises(KeyboardInterrupt):
        campaign().measure(points, SEEDS, kept=kept, progress=tell)
    there = count(kept)
    assert there >= told == 3
    before = len(ran)
    campaign().measure(points, SEEDS, kept=kept)
    assert len(ran) == before + len(SEEDS) * len(points) - there
