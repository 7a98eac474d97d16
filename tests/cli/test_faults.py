"""`hwfault faults` at one site: samples, steps, batches and the codes that are stored."""

import numpy as np
import pytest

from hwfault.laws.models import BitFlips, MapFaults
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap
from tests.cli.conftest import good, refused

WEIGHT = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(40, 5))
ACT = Site(name="a", kind="activation", bit_width=4, signed=False, shape=(200,))


@pytest.fixture
def plan(tmp_path):
    """A plan in a file, of flips in one direction and of cells that come and go with batches."""
    rng = np.random.default_rng(0)
    word, bit = np.nonzero(rng.random((200, 4)) < 0.2)
    FaultMap.from_cells(200, 4, word, bit, rng.integers(0, 3, word.size)).save(tmp_path / "map.safetensors")
    cells = MapFaults(file=str(tmp_path / "map.safetensors"), sites="a", p_active=0.3, refresh="batch")
    made = resolve([WEIGHT, ACT], [BitFlips(p01=0.1), cells])
    made.save(tmp_path / "plan.json")
    return made


def at(tmp_path, name, *more):
    return ("faults", tmp_path / "plan.json", "--site", name, *more)


def test_a_parameter_has_no_samples(tmp_path, plan):
    message = refused(*at(tmp_path, "w", "--sample", 7), words="sample 7 of the weight 'w'", code=2)
    assert "the same for all samples; expected a training step, or nothing in evaluation" in message
    refused(*at(tmp_path, "a", "--step", 1), words="step 1 of the activation 'a'", code=2)
    assert good(*at(tmp_path, "w", "--sample", 0)).stdout == good(*at(tmp_path, "w")).stdout


def test_a_training_step(tmp_path, plan):
    found = good(*at(tmp_path, "w", "--step", 3, "--json")).json
    expected = faults_at(plan, "w", seed=0, step=3)
    assert [(f["word"], f["bit"]) for f in found] == [(f.word, f.bit) for f in expected] != []
    assert "seed 0, sample 0, step 3; expected" in good(*at(tmp_path, "w", "--step", 3)).stdout


def test_a_batch_that_begins_elsewhere(tmp_path, plan):
    rows = {}
    for sample, first in ((2, 0), (5, 4), (6, 4)):
        given = at(tmp_path, "a", "--sample", sample, "--first-sample", first)
        found = good(*given, "--json").json
        rows[sample, first] = [(f["word"], f["bit"]) for f in found if f["process"] == 1]
        assert f"sample {sample}, in the batch that begins with sample {first}; " in good(*given).stdout
    assert rows[2, 0] != rows[5, 4] == rows[6, 4]


def test_what_depends_on_the_codes_is_said_or_decided(tmp_path, plan):
    codes = np.arange(200) % 16
    np.save(tmp_path / "codes.npy", codes.reshape(40, 5))
    np.savez(tmp_path / "codes.npz", w=codes, other=np.zeros(3))
    open_ones = good(*at(tmp_path, "w", "--json")).json
    assert all(f["conditional"] for f in open_ones)
    assert "if stored otherwise" in good(*at(tmp_path, "w")).stdout
    expected = [(f["word"], f["bit"]) for f in open_ones if not codes[f["word"]] >> f["bit"] & 1]
    assert 0 < len(expected) < len(open_ones)
    for file in ("codes.npy", "codes.npz"):
        decided = good(*at(tmp_path, "w", "--codes", tmp_path / file, "--json")).json
        assert [(f["word"], f["bit"]) for f in decided] == expected
        assert not any("conditional" in f for f in decided)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"codes": np.zeros(200, np.int64)}, "holds no array named 'w'"),
        ({"w": np.zeros(199, np.int64)}, "expected 200 integers"),
        ({"w": np.full(200, 16)}, "expected code words of 4 bits"),
        ({"w": np.zeros(200, np.float32)}, "codes of type float32"),
        ({"w": np.zeros(9000, np.int64)}, "expected at most 67136"),
    ],
)
def test_codes_that_are_not_the_sites(tmp_path, plan, content, words):
    np.savez(tmp_path / "codes.npz", **content)
    refused(*at(tmp_path, "w", "--codes", tmp_path / "codes.npz"), words=words)


def test_codes_go_with_a_site_and_exist(tmp_path, plan):
    np.save(tmp_path / "codes.npy", np.zeros(200, np.int64))
    refused("faults", tmp_path / "plan.json", "--codes", tmp_path / "codes.npy", words="name it with --site", code=2)
    refused(*at(tmp_path, "w", "--codes", tmp_path / "none.npy"), words="there is no such file")
    (tmp_path / "codes.npy").write_bytes(b"nonsense")
    refused(*at(tmp_path, "w", "--codes", tmp_path / "codes.npy"), words="not a readable .npy or .npz file")
