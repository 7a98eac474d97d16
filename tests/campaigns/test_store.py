"""Finished trials in a file: a campaign that is stopped anywhere goes on to the same results."""

import json

import pytest

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.points import Point, at_rates
from hwfault.campaigns.store import Store, network_digest, question
from hwfault.campaigns.trials import Trial
from hwfault.differences import differences
from hwfault.errors import FileError
from hwfault.injection.ready import ProtectionCounts
from hwfault.injection.statistics import SiteStatistics
from hwfault.laws.models import MapFaults, ProfileFaults
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.protection_scheme import Protection
from tests.helpers.train import small

POINT, OTHER = Point(ber=0.1, labels={"faults": "x"}), Point(ber=0.2)
ASKED = {"network": "n", "faults": [{"probability": 0.1}]}
FULL = Trial(
    seed=2**64 - 1,
    correct=4,
    protection=ProtectionCounts(1, 2, 3),
    due=True,
    statistics=(SiteStatistics(site="s", words=3, faulty=1, ones=(1,), zeros=(0,), squared_change=0.1),),
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


@pytest.fixture
def written(path):
    with Store(path, ASKED) as store:
        store.put(POINT, Trial(seed=1, correct=3))
        store.put(POINT, FULL)
        store.put(OTHER, Trial(seed=1, correct=9))
    return path


def test_what_is_put_is_there_again(written):
    with Store(written, ASKED) as store:
        assert len(store) == 3
        assert store.get(POINT, 1) == Trial(seed=1, correct=3)
        assert store.get(POINT, 2**64 - 1) == FULL
        assert store.get(OTHER, 1) == Trial(seed=1, correct=9)
        assert store.get(OTHER, 2) is None


def test_a_process_killed_at_any_byte_loses_the_trial_it_was_writing_and_no_other(written):
    content = written.read_bytes()
    ends = [i + 1 for i, byte in enumerate(content) if byte == ord("\n")]
    for length in sorted({*range(0, len(content), 9), *(end + i for end in ends for i in (-2, -1, 0, 1))}):
        written.write_bytes(content[:length])
        with Store(written, ASKED) as store:
            assert len(store) == max(0, sum(end <= length for end in ends) - 1)
            store.put(OTHER, Trial(seed=5, correct=5))
        with Store(written, ASKED) as store:
            assert store.get(OTHER, 5) == Trial(seed=5, correct=5)


def test_a_trial_is_in_the_file_when_put_returns(path):
    store = Store(path, ASKED)
    store.put(POINT, Trial(seed=1, correct=3))
    assert json.loads(path.read_text().splitlines()[1])["correct"] == 3
    store.close()


def test_another_question_is_refused_and_what_differs_is_listed(written):
    before = written.read_bytes()
    with pytest.raises(FileError) as refused:
        Store(written, {"network": "m", "faults": [{"probability": 0.2}], "more": 1})
    text = str(refused.value)
    assert "network: n there, m now" in text
    assert "faults.0.probability: 0.1 there, 0.2 now" in text
    assert "more: - there, 1 now" in text
    assert "--out" in text
    with pytest.raises(FileError, match=r"network: n there, x{77}\.\.\. now"):
        Store(written, ASKED | {"network": "x" * 200})
    assert written.read_bytes() == before
    Store(written, ASKED).close()


def test_trials_of_0_4_0_are_not_gone_on_with(path):
    """The same plan may strike other words there: those with zero points that are no integers, or of 16 bit types."""
    campaign = Campaign(small.network().eval(), small.data().test)
    now = question(campaign, at_rates([0.1]))
    before = {key: value for key, value in now.items() if key != "fault stream"}
    Store(path, before).close()
    with pytest.raises(FileError, match=r"fault stream: - there, fault-stream v1\.1 now"):
        Store(path, now)


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "{}",
        "[1]",
        '{"point": "p", "seed": 1}',
        '{"point": "p", "seed": 1, "correct": 1, "statistics": [{}]}',
        '{"point": "p", "seed": 1, "correct": 1, "protection": {"a": 1}}',
    ],
)
def test_lines_that_are_no_trials(path, line):
    Store(path, ASKED).close()
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(FileError, match="line 2 is no trial"):
        Store(path, ASKED)


OTHER_FORMAT = '{"format": "hwfault-trials/2", "question": {}}\n'


@pytest.mark.parametrize(
    "text",
    ["x\n", "{}\n", "[]\n", OTHER_FORMAT, "\0\n", "my notes", "{}", OTHER_FORMAT + "and more", OTHER_FORMAT[:30]],
)
def test_files_that_are_no_trials_are_left_alone(path, text):
    path.write_text(text)
    with pytest.raises(FileError, match=r"trials\.jsonl"):
        Store(path, ASKED)
    assert path.read_text() == text


def test_one_writer_at_a_time(path):
    with Store(path, ASKED), pytest.raises(FileError, match="another process writes its trials there"):
        Store(path, ASKED)
    Store(path, ASKED).close()


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        Store(tmp_path / "none" / "t.jsonl", ASKED)
    with pytest.raises(FileError, match="cannot be written"):
        Store(tmp_path, ASKED)


def campaign(**how):
    return Campaign(small.network().eval(), small.data().test, **how)


class Stops:
    """A keeper that is interrupted before it has kept so many trials."""

    def __init__(self, store, left):
        self.store, self.left = store, left

    def get(self, point, seed):
        return self.store.get(point, seed)

    def put(self, point, trial):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.store.put(point, trial)


@pytest.mark.parametrize("left", [0, 1, 4, 7])
def test_a_stopped_campaign_goes_on_to_the_same_results_without_running_a_trial_twice(path, monkeypatch, left):
    measured = campaign(statistics=True)
    points, seeds = at_rates([0.05, 0.3]), (1, 2, 3, 4)
    whole = [measured.run(point, seeds) for point in points]
    asked = question(measured, points)
    with Store(path, asked) as store:
        keeper = Stops(store, left)
        with pytest.raises(KeyboardInterrupt):
            [measured.run(point, seeds, keeper=keeper) for point in points]
    run, counted, advanced = Campaign._trial, [], []
    monkeypatch.setattr(Campaign, "_trial", lambda *a: counted.append(a) or run(*a))
    with Store(path, question(measured, points)) as store:
        again = [measured.run(p, seeds, keeper=store, progress=lambda: advanced.append(1)) for p in points]
    assert again == whole
    assert len(counted) == 8 - left
    assert len(advanced) == 8
    with Store(path, asked) as store:
        assert [measured.run(point, seeds, keeper=store) for point in points] == whole
    assert len(counted) == 8 - left


def test_more_seeds_add_trials(path):
    measured, (point,) = campaign(), at_rates([0.2])
    with Store(path, question(measured, [point])) as store:
        measured.run(point, (1, 2), keeper=store)
        more = measured.run(point, (0, 1, 2, 3), keeper=store)
        assert len(store) == 4
    assert more == Campaign(measured.model, small.data().test).run(point, (0, 1, 2, 3))


def test_questions_tell_networks_samples_faults_and_ways_apart():
    network = small.network().eval()
    first = question(Campaign(network, small.data().test), at_rates([0.1]))
    assert question(Campaign(network, small.data().test, batch_size=3), at_rates([0.1])) == first
    others = {
        "network digest": question(Campaign(small.network().eval(), small.data().test), at_rates([0.1])),
        "samples digest": question(Campaign(network, small.data(seed=1).test), at_rates([0.1])),
        "samples": question(Campaign(network, small.data().test, indices=range(5)), at_rates([0.1])),
        "statistics": question(Campaign(network, small.data().test, statistics=True), at_rates([0.1])),
        "device": question(Campaign(network, small.data().test, device=3), at_rates([0.1])),
        "faults.0.0.probability": question(Campaign(network, small.data().test), at_rates([0.2])),
    }
    for key, other in others.items():
        assert key in differences(first, other), key
    assert first["network digest"] == network_digest(network)


def test_where_numbers_depend_on_batches_their_size_is_part_of_the_question(tmp_path):
    network = small.network().eval()
    fault = ProfileFaults(
        profile="uniform-flips", at={"ber": 0.1}, protection=Protection(kind="parity", data_bits=8, on_detected="due")
    )
    plain = question(Campaign(network, small.data().test), [Point.of([fault])])
    assert "batch size" not in plain
    FaultMap.from_cells(40, 32, [1], [2], [0]).save(tmp_path / "m.safetensors")

    def asked(**rest):
        mapped = MapFaults(file=str(tmp_path / "m.safetensors"), **rest)
        return question(Campaign(network, small.data().test, batch_size=5), [Point.of([mapped])])

    assert asked(p_active=0.5, refresh="batch")["batch size"] == 5
    # all samples of a batch share a weight, so that its cells come and go with batches
    assert asked(p_active=0.5, refresh="inference", sites="0.weight_quant")["batch size"] == 5
    for rest in ({"p_active": 0.5, "refresh": "epoch"}, {}):
        assert "batch size" not in asked(**rest), rest
    # each sample has its own inputs
    assert "batch size" not in asked(p_active=0.5, sites="1.act_quant")
