"""Every single flip of activations through the command, where `exhaustive: auto` finds that affordable."""

import numpy as np
import pytest

import hwfault as hf
from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.study.space import fault_space
from hwfault.laws.cells import CellFaults
from hwfault.program.selectors import Select
from hwfault.train.data import digits
from tests.campaigns.test_studies import by_injection, np_index, write
from tests.cli.conftest import good

SAMPLES = 120
QUESTIONS = {"values": {"flips": "single", "sites": {"kind": "activation"}, "exhaustive": "auto"}}
CHECKED = 25


@pytest.mark.slow
def test_a_census_of_activations(run, tmp_path):
    study = write(tmp_path, run, samples={"first": SAMPLES}, questions=QUESTIONS, stop={"max_trials": 100})
    network, _ = hf.load(run / "checkpoint.safetensors")
    network.eval()
    split = digits().test
    space = fault_space(hf.sites(network, split.inputs(np_index([0]))), [Select(kind="activation")])
    planned = good("campaign", "plan", study).stdout
    assert f"{space.size:,} single flips, all of which are tried as sparse changes of integers" in planned

    out = tmp_path / "out"
    assert "exact, all" in good("campaign", "run", study, "--out", out).stdout
    with Database(out / FILE, readonly=True) as database:
        (task,) = kept_tasks(database)
        rows = list(database.rows(task.stored))
    assert task.draw == "all"
    assert [row.key for row in rows] == list(range(space.size))
    assert any(row.answers[1].any() for row in rows)
    for cell in np.random.default_rng(0).choice(space.size, CHECKED, replace=False).tolist():
        correct, wrong = by_injection(network, split, CellFaults(cells=(space.cell(cell),)), 0, range(SAMPLES))
        assert np.array_equal(rows[cell].answers[:2], [correct, wrong])

    assert good("campaign", "verify", out, "--fraction", "0.001").code == 0
    worst = max(rows, key=lambda row: row.answers[1].sum())
    sample = int(np.flatnonzero(worst.answers[1])[0])
    told = good("campaign", "explain", out, "values", worst.key, sample).stdout
    assert space.cell(worst.key).site in told
    advised = good("campaign", "harden", out).stdout
    assert f"every flip of {space.size:,} bits was tried on all samples: exact" in advised
