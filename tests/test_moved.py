"""The import paths of 0.4.0 still work, and say where things are now."""

import importlib
import sys

import pytest

from hwfault import BitFlips, FaultPlan
from hwfault.moved import MOVED

HELD = {
    "hwfault.inject": "inject sites attached Injection ProtectionCounts exact_on_cuda FaultInjectionFunction",
    "hwfault.plan": "FaultPlan Site SitePlan Process resolve",
    "hwfault.campaign": "Campaign Point Trial Trials evaluate sweep write_results",
    "hwfault.graph.export": "export",
    "hwfault.graph.qonnxgraph": "Constants attribute site_name",
    "hwfault.graph.upgrade": "upgrade",
    "hwfault.stream.array": "accumulate accumulate_arrays",
    "hwfault.profiles.models": "BitFlips WordFaults Clusters ProfileFaults MapFaults Select load_faults named_faults",
}
STILL_THERE = ("hwfault.plan", "hwfault.graph.export", "hwfault.stream.array")
"""Rooms that have other content now."""


@pytest.fixture
def forgotten():
    """Old names are imported anew, as a program that has just begun would."""
    for name in [name for name in sys.modules if name in MOVED and name not in STILL_THERE]:
        del sys.modules[name]


@pytest.mark.parametrize("old", [old for old, now in MOVED.items() if len(now) == 1 and old not in STILL_THERE])
def test_an_old_module_is_the_new_one(old, forgotten):
    (now,) = MOVED[old]
    with pytest.warns(DeprecationWarning, match=f"^{old} is {now} now"):
        held = importlib.import_module(old)
    assert held is importlib.import_module(now)


@pytest.mark.parametrize(("old", "name"), [(old, name) for old, names in HELD.items() for name in names.split()])
def test_an_old_room_answers_for_what_it_held(old, name, forgotten):
    module = importlib.import_module(old)
    with pytest.warns(DeprecationWarning, match=f"^{old}.{name} is hwfault"):
        found = getattr(module, name)
    assert found.__name__ == name


def test_what_is_found_on_the_old_way_is_the_very_same(forgotten):
    from hwfault.profiles import models

    with pytest.warns(DeprecationWarning, match="FaultPlan is hwfault.plan"):
        assert importlib.import_module("hwfault.plan").FaultPlan is FaultPlan
    with pytest.warns(DeprecationWarning, match="BitFlips is hwfault.laws"):
        assert models.BitFlips is BitFlips


def test_names_of_domains_are_found_where_the_ops_are():
    held = importlib.import_module("hwfault.graph.qonnxgraph")
    with pytest.warns(DeprecationWarning, match="hwfault.graph.qonnxgraph.QUANT_DOMAIN is hwfault.graph.ops"):
        assert held.QUANT_DOMAIN == "qonnx.custom_op.general"


@pytest.mark.parametrize("old", ["hwfault.campaign", "hwfault.campaign.store"])
def test_what_is_gone_says_what_to_do(old, forgotten):
    with pytest.raises(ImportError, match=rf"^{old}.Store is gone: .* give its path to evaluate as `store`"):
        importlib.import_module(old).Store  # noqa: B018


def test_what_never_was_there_is_not():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hwfault.injector")
    with pytest.raises(ImportError, match="no_such"):
        from hwfault.plan import no_such  # noqa: F401
