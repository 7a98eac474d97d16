"""The family of errors, and the hint at a known name."""

import pytest

from hwfault import errors
from hwfault.errors import HwfaultError, nearest


def test_every_error_is_hwfaults():
    children = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, Exception)]
    assert len(children) >= 6
    assert all(issubclass(child, HwfaultError) for child in children)
    assert issubclass(errors.NativeLibraryError, ImportError)
    assert issubclass(errors.ModelError, ValueError)


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("probabilty", ["p01", "probability"], "did you mean 'probability'?"),
        ("conv1.weight", ["conv2.bias", "conv1.weight_quant"], "did you mean 'conv1.weight_quant'?"),
        ("xyz", ["alpha", "beta"], "known are: 'alpha', 'beta'"),
        ("xyz", [], "known are: none"),
        ("a", (name for name in ("b", "c")), "known are: 'b', 'c'"),
    ],
)
def test_nearest(name, known, hint):
    assert nearest(name, known) == hint
