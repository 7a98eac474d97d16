"""`--sample` and `--first-sample`: numbers that the fault stream has, or one sentence and exit code 2."""

import numpy as np
import pytest

from hwfault.plan.fault_plan import FaultPlan
from hwfault.plan.listing import faults_at
from tests.cli.conftest import good, refused

LAST = 2**32 - 1
SITE = "features.1.act_quant"
BEYOND = [LAST + 1, LAST + 4, 2**40, 2**63 - 1, 2**63, 2**64, 10**30, -1, -(2**32)]
NONSENSE = ["", "five", "1.5", "1e3", "0x10", "nan", "1,2", "0-3"]


@pytest.fixture
def commands(made, tmp_path):
    """The command lines that take a number, but for it, and what each writes."""
    np.save(tmp_path / "x.npy", np.zeros((3, 1, 8, 8), np.float32))
    y = tmp_path / "y.npy"
    saved = tmp_path / "saved.json"
    listing = ("faults", made / "plan.json", "--site", SITE, "--save", saved, "--sample")
    running = ("run", made / "faulted.onnx", "--input", tmp_path / "x.npy", "--output", y, "--first-sample")
    return {"--sample": (listing, saved), "--first-sample": (running, y)}


@pytest.mark.parametrize("option", ["--sample", "--first-sample"])
def test_numbers_that_are_none(commands, option):
    command, out = commands[option]
    for number in BEYOND:
        message = refused(*command, number, words=f"Invalid value for '{option}'", code=2)
        assert message.endswith(f"{number} is not in the range 0<=x<=4294967295.")
    for text in NONSENSE:
        message = refused(*command, text, words=f"Invalid value for '{option}'", code=2)
        assert message.endswith(f"{text!r} is not a valid integer range.")
    assert not out.exists()


def test_the_last_number_of_a_sample(made, commands):
    command, out = commands["--sample"]
    found = good(*command, LAST, "--json").json
    assert out.exists()
    expected = faults_at(FaultPlan.load(made / "plan.json"), SITE, seed=0, sample=LAST)
    assert [(f["word"], f["bit"]) for f in found] == [(f.word, f.bit) for f in expected] != []


def test_a_batch_that_runs_past_the_last_number(commands):
    """Which is no mistake in the option alone: an error like others, exit code 1."""
    command, out = commands["--first-sample"]
    refused(*command, LAST - 1, words=f"number is {LAST - 1} for a batch of", code=1)
    assert not out.exists()
    good(*command, LAST - 2)
    assert np.load(out).shape == (3, 10)
