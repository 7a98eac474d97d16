"""What surrounds the package says what the package says: citation, public CI, issue forms, Dockerfile."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import hwfault

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
PYTHONS = ["3.11", "3.12", "3.13"]


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version():
    cited = read("CITATION.cff")
    assert cited["cff-version"] == "1.2.0"
    assert cited["version"] == PROJECT["version"] == hwfault.__version__
    assert cited["license"] == PROJECT["license"]
    assert cited["type"] == "software"
    assert cited["authors"] == [{"name": "The hwfault developers"}]
    assert all(isinstance(cited[key], str) and cited[key] for key in ("message", "title", "abstract"))
    assert cited.keys() <= {
        *("abstract", "authors", "cff-version", "doi", "keywords", "license", "message", "title", "type", "url"),
        *("date-released", "repository-code", "version"),
    }


def commands(workflow):
    """What each step of a workflow runs, and for which Pythons."""
    for job in workflow["jobs"].values():
        pythons = job.get("strategy", {}).get("matrix", {}).get("python", [])
        yield from ((step["run"], pythons) for step in job["steps"] if "run" in step)


def test_public_ci_runs_the_checks_of_a_submission_on_each_python():
    checks = [pythons for run, pythons in commands(read(".github/workflows/ci.yml")) if run == "bash .ci/run"]
    assert checks == [PYTHONS]
    ours = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in ours if line.startswith("make ")] == ["make lint", "make test"]
    assert "    make test " in (ROOT / "README.md").read_text(encoding="utf-8")
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert {f"Programming Language :: Python :: {version}" for version in PYTHONS} <= set(PROJECT["classifiers"])


def test_what_public_ci_makes_are_targets():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    workflows = [read(path.relative_to(ROOT)) for path in (ROOT / ".github" / "workflows").glob("*.yml")]
    made = {name for flow in workflows for run, _ in commands(flow) for name in re.findall(r"^make ([\w-]+)", run)}
    assert {"wheel", "test-wheel"} <= made <= targets


@pytest.mark.parametrize("path", [form for form in FORMS if form.name != "config.yml"], ids=lambda path: path.stem)
def test_issue_forms(path):
    form = read(path.relative_to(ROOT))
    assert form.keys() <= {"name", "description", "title", "labels", "body"}
    assert form["name"]
    assert form["description"]
    names = [part["id"] for part in form["body"]]
    assert len(set(names)) == len(names) > 0
    for part in form["body"]:
        assert part["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert part["attributes"]["label"]


def test_the_image_is_built_of_files_that_are_there():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert all((ROOT / name).exists() for name in copied + sent)
    needed = {"CMakeLists.txt", "LICENSE", "README.md", "export", "fault_models", "hwfault", "pyproject.toml"}
    assert needed <= set(sent)
    extras = re.search(r"^ARG EXTRAS=(\w+)", "\n".join(lines), re.MULTILINE)
    assert extras is not None
    assert extras[1] in PROJECT["optional-dependencies"]
