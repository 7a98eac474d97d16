"""The commit that a run was started at, and nothing that the repository's configuration names is run for it."""

import os
import shutil
import subprocess

import pytest

from hwfault.train.commit import commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git to make repositories")


def git(*words, folder):
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    named = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *named, *words], cwd=folder, env={**os.environ, **alone}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A working copy with one commit, in which we are."""
    folder = tmp_path / "copy"
    (folder / "below").mkdir(parents=True)
    git("init", "-q", "-b", "main", folder=folder)
    (folder / "file").write_text("one\n")
    (folder / "below" / "other").write_text("two\n")
    git("add", ".", folder=folder)
    git("commit", "-q", "-m", "first", folder=folder)
    monkeypatch.chdir(folder)
    return folder


def known(folder, dirty=False):
    return {"commit": git("rev-parse", "HEAD", folder=folder), "dirty": dirty}


def test_clean_changed_and_staged(copy, monkeypatch):
    index = (copy / ".git" / "index").read_bytes()
    assert commit() == known(copy)
    (copy / "untracked").write_text("x")
    assert commit() == known(copy)
    monkeypatch.chdir(copy / "below")
    assert commit() == known(copy)
    assert (copy / ".git" / "index").read_bytes() == index
    (copy / "file").write_text("changed\n")
    assert commit() == known(copy, dirty=True)
    git("add", "file", folder=copy)
    assert commit() == known(copy, dirty=True)
    git("commit", "-q", "-m", "second", folder=copy)
    assert commit() == known(copy)
    (copy / "file").unlink()
    assert commit() == known(copy, dirty=True)


def test_branches_that_are_packed_heads_without_one_and_worktrees(copy, tmp_path, monkeypatch):
    git("pack-refs", "--all", folder=copy)
    git("gc", "-q", folder=copy)
    assert commit() == known(copy)
    git("checkout", "-q", "--detach", folder=copy)
    assert commit() == known(copy)
    git("worktree", "add", "-q", "-b", "feature/x", str(tmp_path / "tree"), folder=copy)
    monkeypatch.chdir(tmp_path / "tree")
    (tmp_path / "tree" / "file").write_text("there\n")
    assert commit() == known(tmp_path / "tree", dirty=True)
    git("commit", "-q", "-a", "-m", "there", folder=tmp_path / "tree")
    assert commit() == known(tmp_path / "tree")


def test_where_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert commit() is None
    git("init", "-q", folder=tmp_path)
    assert commit() is None
    (tmp_path / ".git" / "HEAD").write_text("ref: ../../etc/passwd\n")
    assert commit() is None


def test_nothing_of_the_configuration_runs(copy, tmp_path):
    """Every way that git has to run a command while it looks at a working copy."""
    ran = tmp_path / "RAN"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $0 $* >> {ran}\ncat\n")
    program.chmod(0o755)
    hooks = copy / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "fsmonitor-watchman", "query-watchman", "reference-transaction"):
        shutil.copy(program, hooks / name)
    for key in (
        "core.fsmonitor", "core.pager", "core.sshCommand", "core.gitProxy", "core.editor", "diff.external",
        "filter.x.clean", "filter.x.smudge", "diff.x.textconv", "diff.x.command", "pager.status", "alias.status",
        "gpg.program", "credential.helper", "core.alternateRefsCommand",
    ):  # fmt: skip
        value = f"!{program}" if key.startswith(("alias", "credential")) else str(program)
        git("config", key, value, folder=copy)
    git("config", "filter.y.process", str(program), folder=copy)
    git("config", "core.hooksPath", str(hooks), folder=copy)
    git("config", "core.attributesFile", str(copy / ".git" / "info" / "attributes"), folder=copy)
    (copy / ".git" / "info").mkdir(exist_ok=True)
    for place in (copy / ".gitattributes", copy / ".git" / "info" / "attributes"):
        place.write_text("file filter=x diff=x\nbelow/other filter=y\n")
    for name in ("file", "below/other"):
        os.utime(copy / name, (1, 1))  # what git has to look into
    ran.unlink(missing_ok=True)
    found = commit()
    assert not ran.exists(), ran.read_text()
    head = (copy / ".git" / "refs" / "heads" / "main").read_text().strip()
    assert found == {"commit": head, "dirty": False}
    subprocess.run(["git", "status"], cwd=copy, capture_output=True, check=False)
    assert ran.exists(), "git itself would have run them"
