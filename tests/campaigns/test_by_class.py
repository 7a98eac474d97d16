"""Silent wrong answers by class: known answers, intervals that are true at once, ties, and what is kept and told."""

import csv

import numpy as np
import pytest

from hwfault.campaigns.by_class import keep_labels, kept_labels, lines_of, most_harmed, with_classes
from hwfault.campaigns.classes import Labels
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.figures import Asked, Trials, decide, make_figure
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.campaigns.study.records import Stop
from hwfault.campaigns.study.space import FaultSpace, draw_pair
from hwfault.campaigns.study.strata import Strata
from hwfault.errors import FileError
from tests.campaigns.wide.small import write_study
from tests.cli.conftest import good

LABELS = Labels(np.array([0, 0, 1, 1, 1, 3]), 4)


def figure(wrong, draw, *, claim="these", total=None, strata=None, ends=None, keys=None, labels=LABELS):
    keys = np.arange(len(wrong)) if keys is None else keys
    seen = Trials(np.asarray(keys, np.uint64), wrong, np.zeros_like(wrong), None, 0, None)
    stop = Stop(max_trials=max(20, len(wrong)))
    asked = Asked("q", "q", {}, draw, total, stop, claim, None, strata=strata, ends=ends)
    decision = decide(seen, stop, draw, claim, 0.0, total, strata)
    return with_classes(make_figure(asked, seen, decision, None), asked, seen, labels)


def by_label(found):
    return {one.label: one for one in found.classes}


def test_a_census_by_class_is_exact():
    wrong = np.zeros((8, 6), bool)
    wrong[:4, 5] = True
    wrong[0, 2] = True
    found = by_label(figure(wrong, "all", total=8))
    assert {label: one.rate and one.rate.value for label, one in found.items()} == {0: 0, 1: 1 / 24, 2: None, 3: 0.5}
    assert all(one.rate is None or one.rate.ends is None for one in found.values())
    assert [(found[label].first, found[label].last) for label in (3, 1, 0, 2)] == [(1, 1), (2, 2), (3, 3), (0, 0)]
    assert found[2].samples == 0
    assert list(found) == [3, 1, 0, 2], "the most harmed first, those without samples last"


def test_means_over_seeds_are_true_at_once():
    rng = np.random.default_rng(2)
    wrong = rng.random((80, 6)) < np.array([0.05, 0.05, 0.1, 0.1, 0.1, 0.9])
    found = figure(wrong, "seeds")
    three = by_label(found)[3]
    assert three.rate.value == pytest.approx(wrong[:, 5].mean())
    alone = figure(wrong, "seeds", labels=Labels(np.array([0, 0, 0, 0, 0, 3]), 1))
    other = by_label(alone)[3]
    assert other.rate.ends[0] > three.rate.ends[0], "two at once are narrower than three"
    assert (three.first, three.last, three.tied) == (1, 1, ())
    assert by_label(found)[0].tied == (1,), "these are not told apart"
    assert three.rate.confidence == 0.95
    assert (
        most_harmed(found) == f"most silent wrong answers in class 3 ({three.rate.value:.3g}); no sample is of class 2"
    )


def test_drawn_pairs_are_counted_with_the_class_of_their_sample():
    ends = (40,)
    keys = np.arange(300)
    samples = np.array([draw_pair(FaultSpace((), ends), 6, int(key))[1] for key in keys])
    wrong = (samples == 5)[:, np.newaxis]
    found = by_label(figure(wrong, "pairs", ends=ends, keys=keys))
    count = int((samples == 5).sum())
    expected = estimate_rate(count, count, 1 - 0.05 / 3, sequential=True)
    assert found[3].rate.ends == pytest.approx(expected.ends)
    assert (found[0].rate.value, found[1].rate.value) == (0, 0)


def test_strata_keep_their_weights_in_each_class():
    strata = Strata((40,), (2,), (1 << 20, 1 << 18), 6, 0)
    keys = np.arange(400)
    bits = strata.of_keys(keys)
    wrong = (bits == 1)[:, np.newaxis]  # bit 1 is always wrong, and has a fifth of the trials
    found = by_label(figure(wrong, "strata", strata=strata, keys=keys))
    for label in (0, 1, 3):
        assert found[label].rate.value == pytest.approx(0.5), "half of the bits"
        low, high = found[label].rate.ends
        assert low < 0.5 < high


def test_labels_in_a_store(tmp_path):
    with Database(tmp_path / FILE) as database:
        assert kept_labels(database) is None
        keep_labels(database, None)
        assert kept_labels(database) is None
        keep_labels(database, LABELS)
        found = kept_labels(database)
        assert (found.of.tolist(), found.classes, found.right) == (LABELS.of.tolist(), 4, None)
        right = [True, False, True, True, False, True]
        keep_labels(database, LABELS._replace(right=np.array(right)))
        assert kept_labels(database).right.tolist() == right
        few = '{"labels": [1, 1], "classes": 2, "right": [1]}'
        for damaged in ("x", "[]", '{"labels": [[1]], "classes": 2}', '{"labels": ["a"], "classes": 2}', few):
            database.say("labels", damaged)
            with pytest.raises(FileError, match=r"labels .* damaged"):
                kept_labels(database)


def test_without_labels_nothing_is_told():
    found = figure(np.ones((30, 6), bool), "seeds", labels=None)
    assert (found.classes, most_harmed(found), lines_of([found])) == ((), None, [])


def test_the_command_tells_classes(tmp_path):
    path = write_study(tmp_path, questions={"curve": {"sweep": {"ber": [0.02]}}}, stop={"max_trials": 20})
    done = good("campaign", "run", path, "--out", tmp_path / "out")
    assert "curve ber=0.02: most silent wrong answers in class" in done.stdout
    again = good("campaign", "report", tmp_path / "out")
    assert again.stdout == done.stdout.rpartition("the page:")[0]
    assert "most silent wrong answers in class" in good("campaign", "status", tmp_path / "out").stdout
    with (tmp_path / "out" / "classes.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["class"]) for line in lines if line["sdc"] == ""] == [
        int(line["class"]) for line in lines if line["samples"] == "0"
    ]
    page = (tmp_path / "out" / "report.html").read_text()
    assert 'id="classes"' in page
    assert "classes.csv" in page
