"""Trials that a file lists: what strikes in each, that all are run and told exactly, and files that are none."""

import json

import numpy as np
import pytest

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.study.records import Study
from hwfault.errors import ModelError
from hwfault.graph.read.sites import sites
from hwfault.graph.run.session import load_model
from hwfault.laws.cell_table import read_trials
from hwfault.laws.cells import CellFaults
from hwfault.plan.fault_plan import resolve
from tests.campaigns.wide.small import write_study
from tests.cli.conftest import good, hwfault

LINES = """trial,site,word,bit,kind,sample
b,4.weight_quant,7,3,flip,
a,1.weight_quant,0,3,stuck_1,
b,4.weight_quant,8,2,flip,
b,1.bias_quant,1,15,flip,
a,2.act_quant,5,3,stuck_0,4
c,4.bias_quant,0,0,flip,
"""
ORDER = ("b", "a", "c")


def study(folder, lines=LINES, **given):
    (folder / "faults.csv").write_text(lines)
    questions = {"listed": {"flips": {"file": str(folder / "faults.csv")}}}
    return write_study(folder, questions=questions, stop={"max_trials": 2}, **given)


def test_every_trial_is_run_with_its_faults_together(tmp_path):
    path = study(tmp_path)
    good("campaign", "run", path, "--out", tmp_path / "out")
    with Database(tmp_path / "out" / FILE, readonly=True) as database:
        (task,) = kept_tasks(database)
        rows = list(database.rows(task.stored))
        figure = task.figure(database)
    assert [row.key for row in rows] == [0, 1, 2], "no limit of trials ends a list"
    assert [row.faults for row in rows] == [3, 2, 1]

    # each trial by the fault model `cells`, with a table of its own
    graph = load_model(tmp_path / "graph.onnx")
    engine = GraphEngine(graph, np.load(tmp_path / "data.npz")["x"])
    golden = engine.golden().argmax(1)
    header, *lines = LINES.splitlines()
    wrong = []
    for name, row in zip(ORDER, rows, strict=True):
        mine = [line.partition(",")[2] for line in lines if line.startswith(f"{name},")]
        (tmp_path / "cells.csv").write_text("\n".join([header.partition(",")[2], *mine]))
        plan = resolve(sites(graph), (CellFaults(file=str(tmp_path / "cells.csv")),))
        differs = engine.outputs(plan, [0])[0].argmax(1) != golden
        assert np.array_equal(row.answers[1], differs)
        wrong.append(differs)
    assert (figure.sdc.value, figure.sdc.ends, figure.why) == (np.mean(wrong), None, "exact, all 3")
    assert np.any(wrong), "or nothing was compared"


def test_what_is_told_of_a_list(tmp_path):
    path = study(tmp_path)
    (told,) = good("campaign", "plan", path, "--json").json
    assert (told["way"], told["least"], told["most"]) == ("a listed trial", 3, 3)
    good("campaign", "run", path, "--out", tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "under each of 3 listed trials on 12 images" in page
    assert "3 trials that a file lists (SHA-256 " in page
    assert "every listed trial is run" in page
    assert "no single flips" in hwfault("campaign", "harden", tmp_path / "out").stderr
    found = good("campaign", "explain", tmp_path / "out", "listed", "0", "4", "--json").json
    assert found["agrees"]
    assert [len(site["faults"]) for site in found["sites"] if site["faults"]] == [1, 2]
    done = hwfault("campaign", "explain", tmp_path / "out", "listed", "3", "4")
    assert "trial 3, expected 0 to 2: so many are listed" in done.stderr
    # another list is another task
    study(tmp_path, LINES + "d,4.bias_quant,1,0,flip,\n")
    good("campaign", "run", path, "--out", tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [one["trials"] for one in results] == [4]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a,nowhere,0,0,flip,", "line 8: no site is called 'nowhere'"),
        ("a,4.weight_quant,320,0,flip,", "line 8: word 320, expected 0 to 319"),
        ("a,4.weight_quant,3,4,flip,", "line 8: bit 4, expected 0 to 3"),
        ("a,4.weight_quant,3,1,flip,2", "line 8: sample 2 of a weight"),
        ("b,4.weight_quant,7,3,flip,", "line 8"),
        ("a,4.weight_quant,3,1,twist,", "line 8: the kind 'twist'"),
        ("a,4.weight_quant,x,1,flip,", "line 8: 'x' as word"),
        ("a,4.weight_quant,3,1", "line 8: 4 values, expected 6"),
        (",4.weight_quant,3,1,flip,", "line 8: the trial has 0 characters, expected 1 to 64"),
        ("a" * 65 + ",4.weight_quant,3,1,flip,", "line 8: the trial has 65 characters"),
        ("a,4.weight_quant,3,1,flip," + " " * 5000, "line 8: 5"),
    ],
)
def test_lines_that_are_none(tmp_path, line, told):
    done = hwfault("campaign", "plan", study(tmp_path, f"{LINES}{line}\n"))
    assert done.code in (1, 2)
    assert told in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no header, expected the line trial,site,word,bit,kind"),
        (b"trial,site,word,bit,kind\n", "no trial behind the header"),
        (b"site,word,bit,kind\na,0,0,flip\n", "expected trial,site,word,bit,kind"),
        (b"trail,site,word,bit,kind\n", "did you mean 'trial'"),
        (b"trial,site\xff", "line 1: not UTF-8 text"),
        (b'trial,site,word,bit,kind\n"a,x,0,0,flip\n', "line 2"),
    ],
)
def test_files_that_are_none(content, told):
    from hwfault.errors import FileError

    with pytest.raises(FileError) as caught:
        read_trials(content, "faults.csv")
    assert told in str(caught.value)
    assert "faults.csv" in str(caught.value)


def test_a_cell_in_two_trials_is_none_twice(tmp_path):
    lines = "trial,site,word,bit,kind\na,4.weight_quant,7,3,flip\nb,4.weight_quant,7,3,flip\n"
    (told,) = good("campaign", "plan", study(tmp_path, lines), "--json").json
    assert told["most"] == 2


@pytest.mark.parametrize("more", [{"seeds": [1]}, {"sites": "conv1"}, {"faults": "x"}])
def test_what_does_not_go_with_a_list(more):
    with pytest.raises(ModelError):
        Study.parse({"network": "run", "questions": {"q": {"flips": {"file": "f.csv"}} | more}}, "study")
