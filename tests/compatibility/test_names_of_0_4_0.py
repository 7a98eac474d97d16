"""The import paths of hwfault 0.4.0: each of its modules is there or says where it is now, and so is each name that its
README and documentation told to import."""

import json
import subprocess
import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import hwfault as hf
from hwfault.moved import MOVED

FOLDER = Path(__file__).parent / "0.4.0"
NOT_IMPORTED = {"hwfault.__main__"}
GONE = {"hwfault.inject.halves"}
"""What it held is no more: values of 16 bit types are struck as integers, wherever codes are made."""
MODULES = [name for name in (FOLDER / "modules.txt").read_text().split() if name not in GONE | NOT_IMPORTED]
PACKAGE = Path(hf.__file__).parent

PUBLIC = (
    "AccumulatorFormat BitFlips BypassedElements Clusters FaultMap FaultPlan HwfaultError LateBits MapFaults Profile "
    "ProfileFaults Select Site StuckElement WordFaults integer_arithmetic load_faults onnxruntime_library resolve "
    "session"
)
"""What `hwfault.__all__` was."""

TOLD = {
    "hwfault.bundle.manifest": "Manifest",
    "hwfault.bundle.engine": "Engine SiteTensor",
    "hwfault.bundle.report": "BundleReport SiteRecord",
    "hwfault.graph.report": "Place ReplayReport SiteReport",
    "hwfault.graph.channels_last": "to_channels_last",
    "hwfault.graph.export": "export",
    "hwfault.graph.integer": "left",
    "hwfault.graph.session": "load_model run session",
    "hwfault.graph.sites": "sites",
    "hwfault.graph.struck": "fault_nodes",
    "hwfault.graph.upgrade": "upgrade",
    "hwfault.inject": "FaultInjectionFunction QuantFaultInjectionLayer exact_on_cuda inject sites",
    "hwfault.inject.statistics": "SiteStatistics",
    "hwfault.plan": "FaultPlan Process Site SiteList SitePlan resolve",
    "hwfault.train.callback": "FaultInjection",
    "hwfault.train.driver": "FaultDriver",
    "hwfault.train.networks": "build digits_cnn tiny_cnn",
}
"""Names that its README, its pages and its docstrings told to import from these modules."""

IMPORT_ALL = """
import importlib, json, sys, warnings

told = {}
for name in json.load(sys.stdin):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        importlib.import_module(name)
    told[name] = [str(w.message) for w in heard if w.category is DeprecationWarning and str(w.message).startswith(name)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told():
    """What each module of 0.4.0 says as it is imported."""
    wanted = [
        name for name in MODULES if find_spec("triton") is not None or not name.startswith("hwfault.stream.cuda.")
    ]
    command = [sys.executable, "-W", "ignore", "-c", IMPORT_ALL]
    done = subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def stands(name):
    """Whether the module has a file of its own today."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_every_module_is_there_or_in_the_table():
    assert [name for name in MODULES if not stands(name) and name not in MOVED] == []


def test_every_module_that_moved_says_where_it_is_now(told):
    for name, heard in told.items():
        if not stands(name) and len(MOVED[name]) == 1:
            assert heard == [f"{name} is {MOVED[name][0]} now; the old name goes away in 1.0"]


def test_the_table_names_modules_of_0_4_0_that_lead_to_modules_of_today():
    assert MOVED.keys() - set(MODULES) == set()
    assert [now for leads in MOVED.values() for now in leads if not stands(now)] == []


@pytest.mark.parametrize("name", PUBLIC.split())
def test_a_public_name_is_one_today(name):
    assert name in hf.__all__
    assert getattr(hf, name) is not None


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in TOLD.items() for name in names.split()]
)
def test_a_name_that_people_were_told_is_found(module, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        found = getattr(import_module(module), name)
    assert callable(found)


def test_the_ten_lines_of_its_readme_run():
    code = compile((FOLDER / "ten_lines.txt").read_text(), "README.md", "exec")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        exec(code, {})  # they end with an assertion of their own
