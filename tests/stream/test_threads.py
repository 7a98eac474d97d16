"""Work shared out to threads: the host's OpenMP pool where it has one, as torch does, and new threads elsewhere."""

import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest

from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from hwfault.program.processes import Site
from hwfault.stream import native

BATCH, WORDS = 3, 1024 * 1024 + 17  # over a thousand blocks for each of 3 threads


def struck(threads: int) -> str:
    """The hash of 4 bit values with faults."""
    x = (np.arange(BATCH * WORDS) % 16).astype(np.float32)
    site = Site(name="a", kind="activation", bit_width=4, signed=False)
    program = np.array(resolve([site], [BitFlips(probability=1e-3)]).steps("a")[0].program)
    samples, one, zero, out = np.arange(BATCH), np.ones(1), np.zeros(1), np.empty_like(x)
    draw = native.draw(5, samples.ctypes.data, BATCH, WORDS, program.ctypes.data, program.size)
    grid = native.format(one.ctypes.data, 1, 1, zero.ctypes.data, 1, 1, 4, False)
    changed = native.inject(0, x.ctypes.data, out.ctypes.data, draw, grid, threads)
    assert changed == np.count_nonzero(x != out) > 1000
    return sha256(out.tobytes()).hexdigest()


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_the_number_of_threads_changes_nothing(threads):
    import torch  # noqa: F401  brings its pool along

    assert struck(threads) == struck(1)


def test_new_threads_where_the_host_has_no_pool():
    code = (
        "import ctypes, sys; from tests.stream.test_threads import struck; found = struck(3); "
        "assert 'torch' not in sys.modules; print(hasattr(ctypes.CDLL(None), 'GOMP_parallel'), found)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pool, found = ran.stdout.split()
    assert pool == "False"
    assert found == struck(1)
