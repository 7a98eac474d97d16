"""The public names: what `import hwfault as hf` offers, whatever else was imported."""

import json
import subprocess
import sys

import pytest

import hwfault as hf
from tests.slowly import slow
from tests.test_rooms import MODULES


def fresh(code):
    """What a fresh process prints, as JSON."""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_the_verbs_and_records_are_there():
    verbs = "sites resolve inject export session run replay evaluate campaign save load integer_arithmetic"
    records = (
        "BitFlips WordFaults Clusters ProfileFaults MapFaults FaultInjection FaultDriver FaultPlan Site HwfaultError"
    )
    assert {*verbs.split(), *records.split()} <= set(hf.__all__)


def test_dir_shows_the_public_names_and_nothing_else():
    assert dir(hf) == sorted([*hf.__all__, "__version__"])


@pytest.mark.parametrize("name", hf.__all__)
def test_each_public_name_is_no_module(name):
    found = getattr(hf, name)
    assert callable(found)
    assert type(found).__name__ != "module"


@pytest.mark.parametrize("which", ["named alike", slow("every")])
def test_importing_every_room_hides_no_public_name(which):
    """What can hide one is a module of the same name, which comes to be an attribute of the package."""
    modules = [f"hwfault.{module}" for module in MODULES if module != "__main__"]
    if which == "named alike":
        modules = [name for name in modules if name.split(".")[1] in hf.__all__]
    code = f"""
import importlib, json, types
import hwfault as hf
for module in {modules!r}:
    importlib.import_module(module)
for old in ("hwfault.inject", "hwfault.campaign", "hwfault.inject.attach", "hwfault.campaign.evaluate"):
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(old)
print(json.dumps([name for name in hf.__all__ if isinstance(getattr(hf, name), types.ModuleType)]))
"""
    assert fresh(code) == []


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="has no attribute 'bit_flips'"):
        hf.bit_flips  # noqa: B018
