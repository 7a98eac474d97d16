"""What all tests share: repeatable hypothesis runs, one thread, and Triton's interpreter in place of a GPU."""

import os

import pytest
from hypothesis import HealthCheck, settings

from tests.slowly import thin

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("repeatable")

# each of pytest's workers has a core; more threads there wait for one another, and everything takes twice as long
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Triton reads this when it is first imported, which torch may do; 0 runs the kernels on a GPU
os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.hookimpl(tryfirst=True)  # before pytest leaves out what is slow
def pytest_collection_modifyitems(items):
    thin(items)
