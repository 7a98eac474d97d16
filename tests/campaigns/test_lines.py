"""Files of lines in which 0.4.0 kept trials: read, tried again in part, taken over, and refused by the line."""

import json

import pytest
import torch

from hwfault.campaigns.campaign import Campaign, Kept
from hwfault.campaigns.database import Database
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.lines import read_lines
from hwfault.campaigns.points import Point, at_rates
from hwfault.campaigns.trials import Trial
from hwfault.errors import FileError
from hwfault.injection.site_statistics import ProtectionCounts, SiteStatistics
from hwfault.laws.models import ProfileFaults
from hwfault.stream.protection_scheme import Protection
from tests.helpers.train import small

HEADER = {"format": "hwfault-trials/1", "question": {"network": "n", "points": []}}
SEEDS = (0, 1, 2, 2**64 - 1)
RATES = at_rates([0.0, 0.3])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "trials.jsonl"


def write(path, *lines):
    path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    return path


def lines_of(campaign, points, seeds, *, version="0.5.0"):
    """What `version` has kept of trials; 0.4.0 does not say which fault stream it has, and has no notes."""
    question = campaign.question(points, {}, of_0_4_0=version == "0.4.0")
    yield {"format": "hwfault-trials/1", "question": question}
    for point, found in zip(points, campaign.measure(points, seeds), strict=True):
        for place, seed in enumerate(seeds):
            line = {"point": point.key, "seed": seed, "correct": found.correct[place]}
            if found.protection:
                line |= {"protection": found.protection[place]._asdict(), "due": found.due[place]}
            if campaign.statistics and not point.silent:
                (alone,) = campaign.measure([point], [seed])
                line["statistics"] = [record.to_data() for record in alone.statistics]
            yield line


def campaign(seed=5, **how):
    """Of a network of whose answers faults change many."""
    torch.manual_seed(seed)
    return Campaign(small.network(width=16).eval(), small.data().test, **how)


@pytest.fixture(scope="module")
def measured():
    return campaign()


@pytest.fixture
def ran(monkeypatch):
    """The seeds of the trials that were run."""
    seen, plain = [], TorchEngine.run

    def run(self, trials, images=None):
        for trial, found in zip(trials, plain(self, trials, images), strict=True):
            seen.append(trial.seed)
            yield found

    monkeypatch.setattr(TorchEngine, "run", run)
    return seen


def kept_in(path):
    return Kept(path.with_suffix(".sqlite"), path)


# reading


def test_what_a_line_says(path):
    full = {"correct": 4, "protection": {"corrected": 1, "detected": 2, "miscorrected": 3}, "due": True}
    seen = {"site": "s", "words": 3, "faulty": 1, "ones": [1], "zeros": [0], "squared_change": 0.5, "rate": 0.3}
    second = {"point": "p", "seed": 2, **full, "statistics": [seen]}
    write(path, HEADER, {"point": "p", "seed": 1, "correct": 3}, second)
    found = read_lines(path)
    assert found.question == HEADER["question"]
    assert found.trials["p", 1] == Trial(seed=1, correct=3)
    site = SiteStatistics(site="s", words=3, faulty=1, ones=(1,), zeros=(0,), squared_change=0.5)
    counts = ProtectionCounts(1, 2, 3)
    assert found.trials["p", 2] == Trial(seed=2, correct=4, protection=counts, due=True, statistics=(site,))


def test_a_file_cut_anywhere_has_the_lines_that_are_whole(path):
    write(path, HEADER, *({"point": "p", "seed": seed, "correct": 3} for seed in range(3)))
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        found = read_lines(path)
        whole = sum(end <= length for end in ends)
        assert (0 if found is None else 1 + len(found.trials)) == whole
    assert read_lines(path.with_name("none")) is None


@pytest.mark.parametrize(
    "line",
    [
        "x\n",
        "{}\n",
        "[1]\n",
        '{"point": "p", "seed": 1}\n',
        '{"point": "p", "seed": 1, "correct": 1, "statistics": [{}]}\n',
        '{"point": "p", "seed": 1, "correct": 1, "protection": {"a": 1}}\n',
        '{"point": "p", "seed": 1, "correct": 1, "more": 1}\n',
    ],
)
def test_a_damaged_line_is_named_by_its_number(path, line):
    write(path, HEADER, {"point": "p", "seed": 0, "correct": 1}, line, {"point": "p", "seed": 3, "correct": 1})
    with pytest.raises(FileError, match="line 3 is no trial of hwfault evaluate"):
        read_lines(path)


OTHER_FORMAT = '{"format": "hwfault-trials/2", "question": {}}\n'


@pytest.mark.parametrize(
    "text",
    ["x\n", "{}\n", "[]\n", OTHER_FORMAT, "\0\n", "my notes", "{}", OTHER_FORMAT + "and more", OTHER_FORMAT[:30]],
)
def test_files_that_are_no_trials_are_left_alone(path, text):
    write(path, text)
    with pytest.raises(FileError, match=r"trials\.jsonl"):
        read_lines(path)
    assert path.read_text() == text


# going on


@pytest.mark.parametrize("version", ["0.4.0", "0.5.0"])
def test_a_file_is_taken_over_and_gone_on_with(path, measured, ran, version):
    write(path, *lines_of(measured, RATES, SEEDS[:3], version=version))
    before, whole = path.read_bytes(), measured.measure(RATES, SEEDS)
    ran.clear()
    assert measured.measure(RATES, SEEDS, kept=kept_in(path)) == whole
    # three are tried again, of those that faults have changed, and two are new
    assert (ran[:3], ran[3:]) == ([0, 1, 2], [2**64 - 1, 2**64 - 1])
    ran.clear()
    assert measured.measure(RATES, SEEDS, kept=kept_in(path)) == whole
    assert ran == []
    assert path.read_bytes() == before


def test_trials_of_protected_memories_with_statistics(path):
    fault = ProfileFaults(
        profile="uniform-flips", at={"ber": 0.1}, protection=Protection(kind="parity", data_bits=8, on_detected="due")
    )
    measured = campaign(statistics=True)
    points = [Point.of([fault], labels={"faults": "parity"}), Point(labels={"faults": "none"})]
    write(path, *lines_of(measured, points, SEEDS, version="0.4.0"))
    whole = measured.measure(points, SEEDS)
    assert whole[0].protection
    assert any(whole[0].due)
    assert whole[0].statistics
    assert measured.measure(points, SEEDS, kept=kept_in(path)) == whole
    with Database(path.with_suffix(".sqlite"), readonly=True) as database:
        task = database.tasks()[0]
        assert sum(row.answers is None for row in database.rows(task)) == 1, "three of four were run again"


def test_seeds_that_are_not_asked_for_now_are_taken_over_too(path, measured, ran):
    write(path, *lines_of(measured, RATES, SEEDS))
    measured.measure(RATES, SEEDS[:1], kept=kept_in(path))
    ran.clear()
    assert measured.measure(RATES, SEEDS, kept=kept_in(path)) == measured.measure(RATES, SEEDS)
    assert len(ran) == 8, "those without a store"


def test_a_sweep_that_has_grown_since(path, measured, ran):
    write(path, *lines_of(measured, RATES, SEEDS, version="0.4.0"))
    more = at_rates([0.3, 0.1, 0.0])
    whole = measured.measure(more, SEEDS)
    ran.clear()
    assert measured.measure(more, SEEDS, kept=kept_in(path)) == whole
    assert len(ran) == 3 + len(SEEDS)


def test_a_trial_that_comes_to_something_else_is_named(path, measured):
    header, *lines = lines_of(measured, RATES, SEEDS, version="0.4.0")
    lines[5]["correct"] += 1
    write(path, header, *lines)
    before, right = path.read_bytes(), lines[5]["correct"]
    told = f"'ber': 0.3.* under seed 1 came to correct {right} there and comes to {right - 1} now"
    for _ in range(2):
        with pytest.raises(FileError, match=told):
            measured.measure(RATES, SEEDS, kept=kept_in(path))
    assert path.read_bytes() == before


def test_other_questions_are_refused(path, measured):
    write(path, *lines_of(measured, RATES, SEEDS, version="0.4.0"))
    with pytest.raises(FileError, match=r"trials\.jsonl: holds the trials of another question(.|\n)*probability: 0.3"):
        measured.measure(at_rates([0.0, 0.2]), SEEDS, kept=kept_in(path))
    with pytest.raises(FileError, match="network digest: "):
        campaign(6).measure(RATES, SEEDS, kept=kept_in(path))
    assert [file.name for file in path.parent.iterdir()] == ["trials.jsonl"]


def test_another_fault_stream_is_another_question(path, measured):
    header, *lines = lines_of(measured, RATES, SEEDS)
    header["question"]["fault stream"] = "fault-stream v9"
    write(path, header, *lines)
    with pytest.raises(FileError, match=r"fault stream: fault-stream v9 there, fault-stream v1\.1 now"):
        measured.measure(RATES, SEEDS, kept=kept_in(path))


def test_what_0_4_0_said_of_a_plan(measured):
    profile = [ProfileFaults(profile="uniform-flips", at={"ber": 0.1})]
    now, then = (measured.question([Point.of(profile)], {}, of_0_4_0=old) for old in (False, True))
    assert {"fault stream", "plans digest", "faults"} == {key for key in now if now[key] != then.get(key)}, (
        "the digest of the profile's file"
    )
    assert "digest" in now["faults"][0][0]
    # as a file has it that 0.4.0 wrote of this profile
    assert then["faults"] == [[{"model": "profile", "profile": "uniform-flips", "at": {"ber": 0.1}}]]
