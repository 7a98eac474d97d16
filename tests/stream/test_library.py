"""A native library that is missing, broken or of another time: one clear error each."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hwfault
from hwfault.errors import HwfaultError, NativeLibraryError
from hwfault.stream import native


@pytest.fixture
def source(tmp_path):
    """The package as a folder without its library."""
    shutil.copytree(
        Path(native.__file__).parents[2], tmp_path / "hwfault", ignore=shutil.ignore_patterns("_native", "__pycache__")
    )
    return tmp_path


def run(source, code):
    """stdout of a fresh process that imports hwfault from a source folder."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(source), *(p for p in sys.path if p)])}
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=source, capture_output=True, text=True, timeout=60)


CODE = """
import hwfault
hwfault.__path__[:] = [p for p in hwfault.__path__ if p.startswith({source!r})]
from hwfault.errors import NativeLibraryError
from hwfault.stream import native
assert native.__file__.startswith({source!r}), native.__file__
for call in (native.library_path, native.library, hwfault.onnxruntime_library, lambda: native.philox([0] * 4, 0)):
    try:
        call()
    except NativeLibraryError as error:
        print(error)
    else:
        print("no error")
"""


def errors(source):
    done = run(source, f"import sys; sys.meta_path[:] = sys.meta_path[-3:]\n{CODE.format(source=str(source))}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")


def test_the_library_is_there():
    assert native.library_path().is_file()
    assert hwfault.onnxruntime_library() == native.onnxruntime_library() == str(native.library_path())
    assert native.library() is native.library()


def test_a_source_folder_whose_library_was_never_built(source):
    lines = errors(source)
    assert len(lines) == 4
    for line in lines:
        assert str(source) in line
        assert "its native library was never built" in line
        assert "pip install ." in line


LIGHT = """
from hwfault import BitFlips, Site, resolve
from hwfault.stream import hits
resolve([Site(name="a", kind="bias", bit_width=4, signed=True)], [BitFlips(probability=0.1)]).program("a")
hits(seed=1, site=2, sample=3, words=4, plane=0, probability=0.1, engine="reference")
"""


def test_reading_plans_needs_no_library(source):
    assert run(source, LIGHT).returncode == 0


def test_a_library_that_cannot_be_loaded(source):
    (source / "hwfault" / "_native").mkdir()
    (source / "hwfault" / "_native" / "libhwfault.so").write_bytes(b"not a library")
    lines = errors(source)
    assert lines[0] == "no error", "its path is known"
    assert "cannot be loaded" in lines[1]
    assert "pip install ." in lines[1]


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_library_of_another_version(source):
    (source / "hwfault" / "_native").mkdir()
    names = ["philox", "hits", "inject", "zero_faulty", "faulty_words", "inject_codes", "apply_map", "error_text"]
    text = "long long hwfault_abi_version(void) { return 1000; }\n"
    text += "".join(f"void hwfault_{name}(void) {{}}\n" for name in names)
    (source / "other.c").write_text(text)
    library = source / "hwfault" / "_native" / "libhwfault.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source / "other.c"], check=True)
    lines = errors(source)
    assert "is of another version of hwfault; run `pip install .` again" in lines[1]


def test_a_missing_library_is_an_error_of_both_families():
    assert issubclass(NativeLibraryError, HwfaultError)
    assert issubclass(NativeLibraryError, ImportError)
