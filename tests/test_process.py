"""The helpers of tests that look at processes: what is another package's, and what memory is one's own."""

import subprocess
import sys

from tests.process import mapped_memory, own_words, peak_memory

OTHERS = """\
/site-packages/torch/cuda/__init__.py:65: FutureWarning: The pynvml package is deprecated. Please install another.
  import pynvml  # type: ignore[import]
<frozen importlib._bootstrap>:241: some.module.LoudWarning: what it says
[W1129 15:00:00.123456789 CUDAFunctions.cpp:88] Warning: no driver (function operator())
E0000 00:00:1732891234.1 42 cuda_dnn.cc:8310] Unable to register cuDNN factory
"""


def test_warnings_of_others_are_no_words_of_a_command():
    own = "Error: run.yaml: cannot be read (x.py:3: no Warning); expected a file\n"
    assert own_words(own) == own
    assert own_words(OTHERS) == ""
    assert own_words(OTHERS + own + OTHERS) == own
    traceback = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: nothing\n'
    assert own_words(OTHERS + traceback) == traceback


def test_memory_is_counted_from_a_process_s_own_begin():
    """What this process holds is none of its child's."""
    held = bytearray(300 << 20)
    held[:: 1 << 12] = b"x" * len(range(0, len(held), 1 << 12))
    code = "from tests.process import *; a = peak_memory(); m = mapped_memory(); b = b'x' * (64 << 20); "
    code += "print(a, peak_memory() - a, mapped_memory() - m)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    whole, taken, mapped = map(int, done.stdout.split())
    assert whole < 200 << 20 < peak_memory()
    assert 64 << 20 <= mapped < 80 << 20
    assert 60 << 20 <= taken < 80 << 20
    assert mapped_memory() > len(held)
