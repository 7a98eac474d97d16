"""What the tests know of the ops on integers, on a build of the library with sanitizers; see `make fuzz`.

Known answers, the stream's specification, qonnx's executor, and the oldest onnxruntime where the environment names it.
"""

import sys

import pytest

from tests.fuzz.worker import use_given_library

TESTS = ("tests/graph/run/test_integer_ops.py", "tests/graph/run/test_oldest_onnxruntime.py")

if __name__ == "__main__":
    use_given_library()
    sys.exit(pytest.main(["-n", "0", "-q", "-p", "no:cacheprovider", "-m", "", "-k", "integer", *TESTS, *sys.argv[1:]]))
