"""Which versions of Python, hwfault and what it computes with are there; nothing is imported to find out."""

import platform
from importlib.metadata import PackageNotFoundError, version

import hwfault

_PACKAGES = ("torch", "brevitas", "lightning", "numpy", "onnx", "onnxruntime", "qonnx")


def installed_versions() -> dict[str, str]:
    """Each version by its name; a package that is not installed is left out."""
    found = {"python": platform.python_version(), "hwfault": hwfault.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
