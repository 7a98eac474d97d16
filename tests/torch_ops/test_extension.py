"""Where the C++ extension is looked for, which file is taken, and what is said where there is none."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hwfault
from hwfault import fast
from hwfault.errors import NativeLibraryError
from hwfault.notices import spoken
from hwfault.torch_ops import extension as ext

BUILT = ext._loaded() is not None
needs_extension = pytest.mark.skipif(not BUILT, reason="the C++ extension is not built")


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two folders in place of those where the extension may lie, and nothing loaded yet."""
    found = [tmp_path / "native", tmp_path / "cache"]
    for folder in found:
        folder.mkdir()
    monkeypatch.setattr(ext, "folders", lambda: found)
    monkeypatch.setattr(fast, "folders", lambda: found)
    monkeypatch.delenv(ext.SWITCH, raising=False)
    ext._loaded.cache_clear()
    yield found
    ext._loaded.cache_clear()


def told(call=ext.extension):
    """What a call says by the log, and what it answers."""
    said = []
    with spoken(said.append):
        answer = call()
    return answer, said


@needs_extension
def test_it_is_loaded_once_where_it_was_built(monkeypatch):
    monkeypatch.delenv(ext.SWITCH, raising=False)
    module = ext.extension()
    assert module is ext.extension() is not None
    assert torch.__version__.startswith(module.TORCH_VERSION)


@needs_extension
def test_it_can_be_switched_off(monkeypatch):
    monkeypatch.delenv(ext.SWITCH, raising=False)
    with ext.without_extension():
        assert ext.extension() is None
        with ext.without_extension():
            assert ext.extension() is None
        assert ext.extension() is None
    assert ext.extension() is not None
    monkeypatch.setenv(ext.SWITCH, "0")
    assert ext.extension() is None


def test_the_name_has_all_that_it_is_tied_to(monkeypatch, tmp_path):
    name = ext.file_name()
    assert f"-{torch.__version__}-cpython-{sys.version_info[0]}{sys.version_info[1]}" in name
    source = tmp_path / "hook.cc"
    names = []
    for text in ("one", "another"):
        source.write_text(text)
        monkeypatch.setattr(ext, "sources", lambda: [source])
        names.append(ext.file_name())
    monkeypatch.setattr(hwfault, "__version__", "another")
    names.append(ext.file_name())
    monkeypatch.setattr(torch, "__version__", "3.0.0")
    names.append(ext.file_name())
    assert len({name, *names}) == 5
    assert "-3.0.0-" in names[-1]


def test_the_sources_are_there():
    names = [path.name for path in ext.sources()]
    assert "module.cc" in names
    assert names[-1] == "hwfault.h"


def test_sources_that_are_not_there(monkeypatch, tmp_path):
    monkeypatch.setattr(hwfault, "__path__", [str(tmp_path)])
    with pytest.raises(NativeLibraryError, match="install hwfault again"):
        ext.sources()
    ext._loaded.cache_clear()
    assert told() == (None, [])


def test_without_the_extra_nothing_is_said(places, monkeypatch):
    monkeypatch.setattr(ext, "find_spec", lambda _name: None)
    assert told() == (None, [])


def test_with_the_extra_one_line_says_that_it_was_not_built(places, monkeypatch):
    monkeypatch.setattr(ext, "find_spec", lambda _name: object())
    answer, said = told()
    assert answer is None
    (line,) = said
    assert "was not built; run `python -m hwfault.fast`" in line
    assert told() == (None, []), "once"


def test_a_build_for_another_torch_is_never_loaded(places):
    (places[1] / f"{ext.MODULE}-1.0.0-cpython-311-0123.so").write_bytes(b"never read")
    answer, (line,) = told()
    assert answer is None
    assert "1.0.0" in line
    assert "built for other versions of torch, Python or hwfault" in line


def test_a_file_that_is_none_is_said_and_not_loaded(places):
    (places[0] / ext.file_name()).write_bytes(b"nothing that could be loaded")
    answer, (line,) = told()
    assert answer is None
    assert "cannot be loaded" in line


@needs_extension
def test_one_that_was_built_for_another_torch_under_a_wrong_name(places, monkeypatch):
    built = ext._load.__globals__["library_path"]().parent / ext.file_name()
    copied = places[0] / ext.file_name()
    copied.write_bytes(built.read_bytes())
    monkeypatch.setattr(ext, "_load", lambda path: ext.check_version(type("M", (), {"TORCH_VERSION": "1.0.0"})))
    answer, (line,) = told()
    assert answer is None
    assert "it was built for torch 1.0.0" in line


def compile_to(monkeypatch, content=b"compiled"):
    def compiled(scratch):
        (scratch / "made.so").write_bytes(content)
        return scratch / "made.so"

    monkeypatch.setattr(fast, "_compile", compiled)


def test_a_build_lies_beside_the_library_and_replaces_that_of_other_versions(places, monkeypatch):
    compile_to(monkeypatch)
    old = places[0] / f"{ext.MODULE}-1.0.0-cpython-311-0123.so"
    old.write_bytes(b"old")
    path = fast.build()
    assert path == places[0] / ext.file_name()
    assert path.read_bytes() == b"compiled"
    assert sorted(places[0].iterdir()) == [path]
    compile_to(monkeypatch, b"again")
    assert fast.build().read_bytes() == b"compiled", "it is there"


def test_a_build_goes_to_the_cache_where_the_library_s_folder_cannot_be_written(places, monkeypatch):
    compile_to(monkeypatch)
    other = places[1] / f"{ext.MODULE}-1.0.0-cpython-311-0123.so"
    other.write_bytes(b"another environment's")
    monkeypatch.setattr(os, "access", lambda folder, _mode: Path(folder) != places[0])
    assert fast.build().parent == places[1]
    assert other.is_file()
    monkeypatch.setattr(os, "access", lambda _folder, _mode: False)
    (places[1] / ext.file_name()).unlink()
    with pytest.raises(NativeLibraryError, match="can be written"):
        fast.build()


def test_a_compiler_that_is_not_there(places, monkeypatch):
    from torch.utils import cpp_extension

    def load(*_args, **_how):
        raise RuntimeError("Ninja is required")

    monkeypatch.setattr(cpp_extension, "load", load)
    with pytest.raises(NativeLibraryError, match=r"Ninja is required.*expected a C\+\+ compiler") as error:
        fast.build()
    assert "hwfault[fast]" in str(error.value)
    assert not list(places[0].iterdir())


def test_the_folder_of_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert ext.folders()[1] == tmp_path / "hwfault"


@pytest.mark.slow
@needs_extension
def test_the_command_prints_where_it_lies():
    run = subprocess.run([sys.executable, "-W", "ignore", "-m", "hwfault.fast"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert Path(run.stdout.strip()).name == ext.file_name()


def test_the_log_is_hwfault_s(places, monkeypatch, caplog):
    monkeypatch.setattr(ext, "find_spec", lambda _name: object())
    with caplog.at_level(logging.WARNING, "hwfault"), spoken(lambda _text: None):
        ext.extension()
    assert [record.name for record in caplog.records] == ["hwfault"]


def test_sources_of_the_project_go_before_installed_ones(monkeypatch, tmp_path):
    packages = [tmp_path / "installed" / "hwfault", tmp_path / "project" / "hwfault"]
    for export in (packages[0] / "_export", packages[1].parent / "export"):
        (export / "torch").mkdir(parents=True)
        (export / "include").mkdir()
        (export / "torch" / "module.cc").touch()
        (export / "include" / "hwfault.h").touch()
    monkeypatch.setattr(hwfault, "__path__", [str(package) for package in packages])
    assert ext.sources()[0] == packages[1].parent / "export" / "torch" / "module.cc"


def test_one_that_lacks_what_is_asked_of_it_is_said(places, monkeypatch):
    def lacking(_path):
        raise AttributeError("module 'hwfault_torch' has no attribute 'advance'")

    (places[0] / ext.file_name()).touch()
    monkeypatch.setattr(ext, "_load", lacking)
    found, said = told()
    assert found is None
    assert len(said) == 1
    assert "no attribute 'advance'); run `python -m hwfault.fast` again" in said[0]
