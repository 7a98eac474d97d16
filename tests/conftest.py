"""What all tests share: repeatable hypothesis runs, one thread, Triton's interpreter in place of a GPU, and a run."""

import gc
import os

import pytest
from hypothesis import HealthCheck, settings

from tests.slowly import put_long_files_first, thin

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")

# each of pytest's workers has a core; more threads there wait for one another, and everything takes twice as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads this when it is first imported, which torch may do; 0 runs the kernels on a GPU
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with run/, clean.onnx, faulted.onnx, plan.json: one tiny training run, its graphs and a plan."""
    from tests.cli.conftest import good

    folder = tmp_path_factory.mktemp("made")
    good("train", "--epochs", 2, "--ber", 0.01, "--out", folder / "run")
    good("export", folder / "run", "--out", folder / "clean.onnx")
    good("faults", folder / "run", "--ber", 0.02, "--save", folder / "plan.json")
    good("export", folder / "run", "--plan", folder / "plan.json", "--out", folder / "faulted.onnx")
    return folder


@pytest.fixture(scope="session")
def run(made):
    return made / "run"


def pytest_collection_finish():
    """What the collected tests hold is not looked through for garbage again and again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items):
    thin(items)
    put_long_files_first(items)
