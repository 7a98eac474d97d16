"""Modules of the current folder run where the user names them, and nowhere else."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hwfault import own_code
from hwfault.errors import HwfaultError
from hwfault.own_code import OwnModules, call_named, modules_of_current_folder
from tests.slowly import slow

OPTIONAL = ("org", "cuda", "dill", "pandas", "regex", "tabulate", "click", "numpy", "rich", "yaml", "torch", "onnx")


@pytest.fixture
def hostile(tmp_path):
    """A folder whose modules say that they ran: names that installed packages ask for."""
    for name in OPTIONAL:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'RAN')!r}, 'a').write({name!r})\n")
    return tmp_path


@pytest.mark.parametrize("start", ["script", slow("module")])
@pytest.mark.parametrize("words", [["replay", "."], slow(["sites", "digits_cnn"]), ["profiles", "list"]])
def test_nothing_of_the_folder_runs_by_itself(hostile, start, words):
    script = Path(sys.executable).with_name("hwfault")
    if start == "script" and not script.exists():
        pytest.skip("hwfault is not installed here, only importable")
    command = [str(script)] if start == "script" else [sys.executable, "-m", "hwfault"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run([*command, *words], cwd=hostile, env=environment, capture_output=True, text=True, check=False)
    assert not (hostile / "RAN").exists(), (hostile / "RAN").read_text()
    assert done.returncode == (1 if words[0] == "replay" else 0), done.stderr


def test_what_is_named_runs_and_finds_its_own_helpers_only(hostile, monkeypatch):
    (hostile / "hwfault_mine.py").write_text(
        "import hwfault_helper, sys\n"
        "def now(): return hwfault_helper.five, str(__file__)\n"
        "def later():\n    import hwfault_lazy\n    return hwfault_lazy.six\n"
        "def missing():\n    import hwfault_stranger\n    return hwfault_stranger.look()\n"
    )
    (hostile / "hwfault_helper.py").write_text("five = 5\n")
    (hostile / "hwfault_lazy.py").write_text("six = 6\n")
    (hostile / "hwfault_optional.py").write_text("raise SystemExit('ran')\n")
    elsewhere = hostile / "installed"
    elsewhere.mkdir()
    (elsewhere / "hwfault_stranger.py").write_text(
        "def look():\n    try:\n        import hwfault_optional\n    except ImportError:\n        return 'none'\n"
    )
    monkeypatch.syspath_prepend(elsewhere)
    monkeypatch.chdir(hostile)
    before, finders = list(sys.path), list(sys.meta_path)
    with modules_of_current_folder():
        assert call_named("thing", "hwfault_mine:now", {}, {}) == (5, str(hostile / "hwfault_mine.py"))
        assert call_named("thing", "hwfault_mine:later", {}, {}) == 6
        assert call_named("thing", "hwfault_mine:missing", {}, {}) == "none"
        assert sys.path == before
    assert sys.meta_path == finders
    for name in ("mine", "helper", "lazy", "stranger"):
        monkeypatch.delitem(sys.modules, f"hwfault_{name}")
    with pytest.raises(HwfaultError, match="cannot be imported"):
        call_named("thing", "hwfault_mine:now", {}, {})
    assert not (hostile / "RAN").exists()


def test_packages_and_folders_of_modules(tmp_path, monkeypatch):
    for folder in ("hwfault_pack", "hwfault_space/below"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "part.py").write_text("from . import other\ndef seven(): return other.seven\n")
        (tmp_path / folder / "other.py").write_text("seven = 7\n")
    (tmp_path / "hwfault_pack" / "__init__.py").write_text("")
    monkeypatch.chdir(tmp_path)
    with modules_of_current_folder():
        assert call_named("thing", "hwfault_pack.part:seven", {}, {}) == 7
        assert call_named("thing", "hwfault_space.below.part:seven", {}, {}) == 7


def test_installed_modules_come_first(hostile, monkeypatch):
    monkeypatch.chdir(hostile)
    (hostile / "json.py").write_text("def dumps(): return 'mine'\n")
    monkeypatch.delitem(sys.modules, "json")
    with modules_of_current_folder():
        assert call_named("thing", "json:dumps", {}, {"obj": [1]}) == "[1]"
    assert not (hostile / "RAN").exists()


def test_a_folder_that_was_removed(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with modules_of_current_folder():
        assert own_code._FINDERS == []
    monkeypatch.chdir(tmp_path)


def _call(_modules, function, answers):
    answers.put(function())


def test_workers_that_are_started_anew_find_the_users_modules(tmp_path, monkeypatch):
    (tmp_path / "hwfault_worker.py").write_text("def eight(): return 8\n")
    monkeypatch.chdir(tmp_path)
    context = multiprocessing.get_context("spawn")
    with modules_of_current_folder():
        function = own_code.named("thing", "hwfault_worker:eight")
        answers = context.SimpleQueue()
        worker = context.Process(target=_call, args=(OwnModules(), function, answers))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
        assert answers.get() == 8
        answers.close()
