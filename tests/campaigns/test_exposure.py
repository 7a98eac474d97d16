"""Failures in time, by hand."""

import pytest

from hwfault.campaigns.exposure import fit_of, fit_of_exposure, fit_of_flips
from hwfault.campaigns.statistics.estimates import exact_estimate
from hwfault.campaigns.statistics.proportions import estimate_rate
from hwfault.errors import HwfaultError

SDC = estimate_rate(5, 1000, sequential=False)


def test_by_flips():
    # half a Mbit at 950 FIT per Mbit, of whose flips 5 in 1,000 are wrong
    found = fit_of_flips(SDC, 1 << 19, 950)
    assert found.value == pytest.approx(475 * 0.005)
    assert found.ends == pytest.approx([475 * end for end in SDC.ends])
    assert (found.confidence, found.by) == (SDC.confidence, SDC.by)
    assert fit_of_flips(exact_estimate(0.25, 8), 1 << 20, 4).ends is None


def test_by_exposure():
    assert fit_of_exposure(SDC, 24).value == pytest.approx(0.005 / 24 * 1e9)


def test_which_way():
    assert fit_of(SDC, {"exposure_h": 24}, None, None) == fit_of_exposure(SDC, 24)
    assert fit_of(SDC, {}, 1 << 20, 950) == fit_of_flips(SDC, 1 << 20, 950)
    assert fit_of(SDC, {"ber": 0.1}, None, 950) is None
    assert fit_of(SDC, {}, 1 << 20, None) is None
    assert fit_of(SDC, {"exposure_h": 0}, None, None) is None
    assert fit_of(None, {}, 1 << 20, 950) is None


@pytest.mark.parametrize(("bits", "fit"), [(0, 950), (8, 0), (8, float("nan"))])
def test_refused(bits, fit):
    with pytest.raises(HwfaultError, match="expected both above 0"):
        fit_of_flips(SDC, bits, fit)
    with pytest.raises(HwfaultError, match="expected more than 0"):
        fit_of_exposure(SDC, bits - 8)
