"""What a trial comes to, against the golden run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hwfault.campaigns.outcomes import CriterionError, Judge
from hwfault.errors import HwfaultError

GOLDEN = np.array([[3, 1, 0, 0, 0, 0, -1], [0, 5, 5, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6, 7]], np.float32)
LABELS = np.array([0, 2, 6])
ALL = ("top1", "top5", "confidence10", "confidence20", "due")


def judged(outputs, names=ALL, **rest):
    return Judge(names, GOLDEN, LABELS, **rest).judge(np.asarray(outputs, np.float32))


def test_the_golden_run_itself_is_masked():
    found = judged(GOLDEN)
    assert {name: mask.tolist() for name, mask in found.masks.items()} == {
        "correct": [True, False, True],  # of equal outputs the first is the largest
        **{name: [False] * 3 for name in ALL},
    }


def test_known_answers():
    outputs = GOLDEN.copy()
    outputs[0, 1] = 3.5  # another class
    outputs[1, [0, 3, 4, 5, 6]] = 9  # five others are ahead
    outputs[2, 6] = 6.9  # the same class, less sure
    found = judged(outputs).masks
    assert found["top1"].tolist() == [True, True, False]
    assert found["top5"].tolist() == [False, True, False]
    assert found["correct"].tolist() == [False, False, True]
    assert found["due"].tolist() == [False, False, False]


def test_a_tie_that_was_before_counts():
    # class 1 and 2 are equal: 1 is the golden answer, and four others with equal outputs behind it are not ahead
    outputs = GOLDEN.copy()
    outputs[1] = 5
    assert judged(outputs).masks["top5"].tolist() == [False] * 3
    outputs[1, 0] = 6
    assert judged(outputs).masks["top1"].tolist() == [False, True, False]


def probability(logits, place):
    raised = [np.exp(float(value)) for value in logits]
    return raised[place] / sum(raised)


@given(st.floats(0, 14))
def test_confidence(value):
    outputs = GOLDEN.copy()
    outputs[0, 0] = value
    was, now = probability(GOLDEN[0], 0), probability(outputs[0], 0)
    for share in (10, 20):
        margin = abs(abs(now - was) - share / 100 * was)
        if margin > 1e-6:
            expected = abs(now - was) > share / 100 * was
            assert bool(judged(outputs).masks[f"confidence{share}"][0]) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_due(value):
    outputs = GOLDEN.copy()
    outputs[1, 4] = value
    found = judged(outputs).masks
    for name in ALL:
        assert found[name].tolist() == [False, True, False]


def test_out_of_range_is_due():
    outputs = GOLDEN.copy()
    outputs[0, 6] = -14.5
    assert judged(outputs, due_range=2.0).masks["due"].tolist() == [True, False, False]
    assert judged(outputs, due_range=2.1).masks["due"].tolist() == [False, False, False]
    assert not judged(outputs).masks["due"].any()


def test_what_is_detected_is_due_for_all_samples():
    found = Judge(ALL, GOLDEN, LABELS).judge(GOLDEN, detected=True)
    assert found.masks["due"].all()


def test_some_samples():
    found = Judge(("top1",), GOLDEN, LABELS).judge(GOLDEN[[2, 1]], np.array([2, 0]))
    assert found.masks["top1"].tolist() == [False, True]
    assert found.masks["correct"].tolist() == [True, False]


def wrong_by_half(golden, outputs, labels):
    return np.abs(outputs - golden).max(1) > 0.5


def psnr(golden, outputs, labels):
    return -np.square(outputs - golden).mean(1)


def raises(golden, outputs, labels):
    raise ValueError("out of luck")


def of_another_shape(golden, outputs, labels):
    return np.zeros(1, bool)


def nan(golden, outputs, labels):
    return np.full(len(outputs), np.nan)


HERE = "tests.campaigns.test_outcomes"


def test_own_criteria():
    outputs = GOLDEN.copy()
    outputs[2, 0] = 2
    found = judged(outputs, (f"{HERE}:wrong_by_half", f"{HERE}:psnr"))
    assert found.masks[f"{HERE}:wrong_by_half"].tolist() == [False, False, True]
    assert found.metrics[f"{HERE}:psnr"].tolist() == pytest.approx([0, 0, -1 / 7])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "raised ValueError: out of luck"),
        ("of_another_shape", r"returned bool of shape \(1,\), expected an array \(3,\)"),
        ("nan", "returned NaN"),
    ],
)
def test_own_criteria_that_fail(name, told):
    with pytest.raises(CriterionError, match=told):
        judged(GOLDEN, (f"{HERE}:{name}",))


def test_no_classes():
    images = np.zeros((3, 2, 4, 4), np.float32)
    with pytest.raises(HwfaultError, match="the outcome 'top1' is one of classes"):
        Judge(("top1",), images, None)
    found = Judge(("due", f"{HERE}:flat"), images, None).judge(images + 1)
    assert "correct" not in found.masks
    assert found.masks[f"{HERE}:flat"].all()


def flat(golden, outputs, labels):
    return (outputs != golden).reshape(len(outputs), -1).any(1)


def test_a_broken_golden_run():
    with pytest.raises(HwfaultError, match="golden run's outputs hold NaN"):
        Judge(("top1",), np.full((2, 3), np.nan, np.float32), None)
    # which answers are right does not depend on the golden run's
    endless = np.array([[0, -np.inf], [-np.inf, 0]], np.float32)
    found = Judge(("due",), endless, np.array([0, 0])).judge(endless)
    assert (found.masks["correct"].tolist(), found.masks["due"].tolist()) == ([True, False], [True, True])


@given(arrays(np.float32, (3, 7), elements=st.floats(-8, 8, width=32)))
def test_top5_implies_top1(outputs):
    found = judged(outputs).masks
    assert not (found["top5"] & ~found["top1"]).any()
