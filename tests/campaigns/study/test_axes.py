"""Sweeps along axes that there are not, and how likely two faults are where single ones were tried."""

import math

import pytest

from hwfault.campaigns.kept import KeptTask
from hwfault.campaigns.page.sites import several_told
from hwfault.campaigns.study.records import Study
from hwfault.errors import ModelError


def sweep(axis):
    return {"network": "run", "questions": {"q": {"sweep": {axis: [0.001]}}}}


def test_a_misspelt_axis():
    with pytest.raises(ModelError, match="the axis 'bre': did you mean 'ber'") as caught:
        Study.parse(sweep("bre"), "study.yaml")
    assert "voltage_v" in str(caught.value), "the others that exist are listed"
    with pytest.raises(ModelError, match="the axis 'voltage_v': it goes with the `faults` of a profile"):
        Study.parse(sweep("voltage_v"), "study.yaml")
    with pytest.raises(ModelError, match="did you mean 'temperature_c'"):
        Study.parse(sweep("temprature_c"), "study.yaml")


def task(name, labels, expected=None):
    return KeptTask("q", name, labels, None, "seeds", None, None, None, expected=expected)


def test_two_or_more_faults_are_told_for_rates_and_for_profiles():
    tasks = [
        task("b", {"ber": 0.01}),
        task("a", {"ber": 0.001}),
        task("volts 0.5", {}, 0.1),
        task("volts 0.4", {}, 0.5),
    ]
    found = several_told(100, tasks)
    assert [name for name, _, _ in found] == ["the rate 0.001", "the rate 0.01", "volts 0.5", "volts 0.4"]
    assert [above for _, _, above in found] == [False, True, False, True]
    of_rate = 1 - 0.999**100 - 100 * 0.001 * 0.999**99
    of_mean = 1 - math.exp(-0.1) * 1.1
    assert [told for _, told, _ in found][::2] == [f"{100 * p:.3g}\u00a0%" for p in (of_rate, of_mean)]
    assert several_told(100, [task("flips", {})]) == []
