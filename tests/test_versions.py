"""Which versions are installed, told without importing what is told of."""

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import hwfault
from hwfault import versions


def test_python_hwfault_and_what_it_computes_with_are_told():
    found = versions.installed_versions()
    assert (found["python"], found["hwfault"]) == (platform.python_version(), hwfault.__version__)
    for package in ("torch", "brevitas", "lightning", "numpy", "onnx", "onnxruntime", "qonnx"):
        assert found[package] == version(package)


def test_what_is_not_installed_is_left_out(monkeypatch):
    def only_torch(package):
        if package != "torch":
            raise PackageNotFoundError(package)
        return "2.x"

    monkeypatch.setattr(versions, "version", only_torch)
    assert versions.installed_versions().keys() == {"python", "hwfault", "torch"}


def test_nothing_is_imported_for_it():
    told = "import sys; from hwfault.versions import installed_versions; print(*installed_versions(), *sys.modules)"
    modules = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.split()
    assert modules.count("torch") == 1, "named once, as a version, and not among the modules"
