"""Studies through the command: what is asked, answered, kept, grown, and refused."""

import csv
import json

import numpy as np
import pytest
import yaml
from pyarrow import parquet

import hwfault as hf
from hwfault.campaigns.database import FILE, Database, Row
from hwfault.campaigns.figures import Trials, columns_of, decide
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.study.records import Stop, Study, read_study
from hwfault.campaigns.study.space import draw_cells, draw_pair, fault_space
from hwfault.laws.cells import CellFaults
from hwfault.program.selectors import Select
from hwfault.stream.check import signed64
from hwfault.train.data import digits
from tests.cli.conftest import good, hwfault

SAMPLES = 24
QUESTIONS = {
    "curve": {"sweep": {"ber": [0.003, 0.03]}},
    "four": {"flips": 4},
    "one": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never", "stop": {"max_trials": 23}},
    "every": {"flips": "single", "sites": "features.0.weight_quant", "exhaustive": "always"},
}


def write(folder, run, **changes):
    content = {
        "network": str(run),
        "samples": {"first": SAMPLES},
        "questions": QUESTIONS,
        "stop": {"max_trials": 20},
        "seed": 5,
    }
    path = folder / "study.yaml"
    path.write_text(
        yaml.safe_dump({key: value for key, value in (content | changes).items() if value is not None}, sort_keys=False)
    )
    return path


@pytest.fixture(scope="module")
def answered(run, tmp_path_factory):
    """A folder with the answers of all four kinds of question, and the network that they are about."""
    folder = tmp_path_factory.mktemp("study")
    good("campaign", "run", write(folder, run), "--out", folder / "out")
    network, _ = hf.load(run / "checkpoint.safetensors")
    return folder / "out", network.eval(), digits().test


def rows_of(folder, question):
    with Database(folder / FILE, readonly=True) as database:
        for task in kept_tasks(database):
            if task.question == question:
                yield task, list(database.rows(task.stored))


def by_injection(network, split, faults, seed, chosen=range(SAMPLES)):
    """Which answers differ and are right, by the public way, one sample at a time."""
    x, y = split.inputs(np_index(chosen)), split.labels[np_index(chosen)]
    clean = network(x)
    with hf.inject(network, faults, seed=seed, example=split.inputs(np_index([0]))) as injection:
        injection.samples = np_index(chosen)
        out = network(x)
    clean, out = (getattr(values, "value", values).detach() for values in (clean, out))
    return (out.argmax(1) == y).numpy(), (out.argmax(1) != clean.argmax(1)).numpy()


def np_index(chosen):
    import torch

    return torch.tensor(list(chosen))


def test_rates(answered):
    folder, network, split = answered
    for task, rows in rows_of(folder, "curve"):
        assert [row.key for row in rows] == list(range(5, 25))
        for row in rows[:3]:
            faults = hf.BitFlips(probability=task.labels["ber"])
            correct, wrong = by_injection(network, split, faults, row.key)
            assert np.array_equal(row.answers, [correct, wrong, np.zeros(SAMPLES, bool)])


def test_exactly_four_flips(answered):
    folder, network, split = answered
    sites = hf.sites(network, split.inputs(np_index([0])))
    space = fault_space(sites, [Select()])
    ((_, rows),) = rows_of(folder, "four")
    for row in rows[:5]:
        cells = tuple(space.cell(number) for number in draw_cells(space, 4, row.key))
        correct, wrong = by_injection(network, split, CellFaults(cells=cells), 0)
        assert np.array_equal(row.answers[:2], [correct, wrong])
        assert row.faults == 4


def test_pairs_of_a_flip_and_a_sample(answered):
    folder, network, split = answered
    sites = hf.sites(network, split.inputs(np_index([0])))
    space = fault_space(sites, [Select(kind="weight")])
    ((task, rows),) = rows_of(folder, "one")
    assert task.draw == "pairs"
    assert len(rows) == 23
    for row in rows[:6]:
        cell, sample = draw_pair(space, SAMPLES, row.key)
        correct, wrong = by_injection(network, split, CellFaults(cells=(space.cell(cell),)), 0, [sample])
        assert np.array_equal(row.answers[:2], [correct, wrong])


def test_every_flip(answered):
    folder, network, split = answered
    sites = hf.sites(network, split.inputs(np_index([0])))
    space = fault_space(sites, [Select(name="features.0.weight_quant")])
    ((task, rows),) = rows_of(folder, "every")
    assert task.draw == "all"
    assert len(rows) == space.size == task.total
    for row in rows[:: len(rows) // 6]:
        correct, wrong = by_injection(network, split, CellFaults(cells=(space.cell(row.key),)), 0)
        assert np.array_equal(row.answers[:2], [correct, wrong])
    results = json.loads((folder / "results.json").read_text())
    (found,) = [one for one in results if one["question"] == "every"]
    assert found["why"] == f"exact, all {space.size:,}"
    assert found["sdc"]["ends"] is None
    assert found["sdc"]["value"] == pytest.approx(np.mean([row.answers[1] for row in rows]))


def test_report_says_what_run_said(answered):
    folder, _, _ = answered
    before = (folder / "results.json").read_text()
    told = good("campaign", "report", folder, "--json").json
    assert told == json.loads(before)
    assert (folder / "results.json").read_text() == before


def test_nothing_is_run_twice_and_sweeps_grow(answered, tmp_path, run):
    folder, _, _ = answered
    with Database(folder / FILE, readonly=True) as database:
        before = sum(len(database.keys(task)) for task in database.tasks())
    grown = QUESTIONS | {"curve": {"sweep": {"ber": [0.003, 0.01, 0.03]}}}
    good("campaign", "run", write(tmp_path, run, questions=grown), "--out", folder)
    with Database(folder / FILE, readonly=True) as database:
        after = sum(len(database.keys(task)) for task in database.tasks())
    assert after == before + 20
    good("campaign", "run", write(tmp_path, run), "--out", folder)  # as it was


def test_verify(answered):
    folder, _, _ = answered
    told = good("campaign", "verify", folder, "--fraction", 0.05, "--json").json
    assert [one["differ"] for one in told] == [[]] * 5
    assert [one["again"] for one in told] == [1, 1, 1, 1, 29]


def test_verify_finds_a_wrong_answer(answered, tmp_path):
    import shutil

    folder, _, _ = answered
    shutil.copytree(folder, tmp_path / "wrong")
    with Database(tmp_path / "wrong" / FILE) as database:
        task = kept_tasks(database)[0].stored
        wrong = b"\xff" * 9
        database._connection.execute("UPDATE trial SET answers = ? WHERE task = ?", (wrong, task.id))
    done = hwfault("campaign", "verify", tmp_path / "wrong", "--fraction", 0.05)
    assert done.code == 3
    assert "curve ber=0.003: other answers under the keys" in done.stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"samples": {"first": 12}}, "holds the trials of another study: samples"),
        ({"outcomes": ["top1", "top5", "due"]}, "holds the trials of another study: outcomes"),
    ],
)
def test_a_store_of_another_study(answered, tmp_path, run, changes, told):
    folder, _, _ = answered
    done = hwfault("campaign", "run", write(tmp_path, run, **changes), "--out", folder)
    assert done.code == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network": None}, "expected either `network`, the folder of a run, or `graph`"),
        ({"network": None, "graph": "g.onnx"}, "a graph holds no data"),
        ({"questions": {}}, "expected at least one question"),
        ({"questions": {"q": {}}}, "expected one of sweep"),
        ({"questions": {"q": {"flips": 4, "sweep": {"ber": [0.1]}}}}, "found flips and sweep ber"),
        ({"questions": {"q": {"flips": 4, "faults": "x"}}}, "found flips and faults"),
        ({"questions": {"q": {"points": [], "seeds": [1]}}}, "`points` are at least one"),
        ({"questions": {"q": {"points": [{"ber": 0.1}, {"ber": 0.1}]}}}, "each with labels of its own"),
        ({"questions": {"q": {"points": [{}], "sites": "x"}}}, "go without `points`"),
        ({"questions": {"q": {"points": [{}], "flips": 4}}}, "found flips and points"),
        ({"questions": {"q": {"flips": 4, "seeds": [1, 1]}}}, "`seeds` are at least one, each once"),
        ({"questions": {"q": {"flips": "single", "seeds": [1]}}}, "have no say in flips that are tried one by one"),
        ({"questions": {"q": {"sweep": {"ber": []}}}}, "`sweep` has one axis with at least one value"),
        ({"questions": {"q": {"sweep": {"ber": [0.1, 0.1]}}}}, "has a value twice"),
        ({"questions": {"q": {"sweep": {"ber": [1.5]}}}}, "probability"),
        ({"questions": {"q": {"flips": "single", "sites": "nothing"}}}, "the fault space is empty"),
        ({"questions": {"q": {"flips": 10**8}}}, "100000000 flips a trial, expected 1 to"),
        ({"questions": {"q": {"faults": "no-such-profile"}}}, "no-such-profile"),
        ({"questions": {"a b": {"flips": 1}}}, "questions"),
        ({"outcomes": ["top2"]}, "outcomes: 'top2', expected top1, top5"),
        ({"outcomes": ["os:system"]}, "code that a file names is not run, so name it yourself (--criterion os:system)"),
        ({"stop": {"require": "sdc small"}}, "sdc small"),
        ({"stop": {"relativ": 0.1}}, "relative"),
        ({"workers": "many"}, "cluster"),
    ],
)
def test_studies_that_are_none(tmp_path, run, changes, told):
    done = hwfault("campaign", "run", write(tmp_path, run, **changes), "--out", tmp_path / "out")
    assert done.code in (1, 2), done.stdout
    assert told in " ".join(done.stderr.split())


def test_plan_runs_nothing_that_is_kept(tmp_path, run):
    told = good("campaign", "plan", write(tmp_path, run), "--json").json
    assert [one["most"] for one in told][:4] == [20, 20, 20, 23]
    assert [one["way"] for one in told][3:] == ["a flip and a sample", "every single flip"]
    assert all(one["seconds"] > 0 for one in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["study.yaml"]


def test_trials_as_tables(answered, tmp_path):
    folder, _, _ = answered
    for name in ("trials.csv", "trials.parquet"):
        good("campaign", "export", folder, "--out", tmp_path / name)
    with (tmp_path / "trials.csv").open() as file:
        lines = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "trials.parquet").to_pylist()
    assert len(lines) == len(table)
    for task, rows in rows_of(folder, "curve"):
        mine = [line for line in lines if line["question"] == "curve" and float(line["ber"]) == task.labels["ber"]]
        its = [line for line in table if line["question"] == "curve" and line["ber"] == task.labels["ber"]]
        assert [int(line["key"]) for line in mine] == [row.key for row in rows] == [line["key"] for line in its]
        for line, other, row in zip(mine, its, rows, strict=True):
            assert int(line["top1"]) == other["top1"] == row.answers[1].sum()
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(line["top1_mask"]), np.uint8), count=SAMPLES)
            assert np.array_equal(bits, row.answers[1])
    done = hwfault("campaign", "export", folder, "--out", tmp_path / "trials.xlsx")
    assert done.code == 2
    assert "expected a name that ends in .csv or .parquet" in done.stderr


SEEDS = (7, 2**64 - 1, 3)


def test_points_and_seeds_that_are_named(answered, tmp_path, run):
    """Each point alone, a part of its faults, or a saved plan; of the seeds all are run, and no other."""
    _, network, split = answered
    plan = hf.resolve(hf.sites(network, split.inputs(np_index([0]))), hf.BitFlips(probability=0.02))
    flips = {"faults": [{"model": "bit_flips", "probability": 0.03}]}
    points = [
        {"labels": {"of": "all"}, **flips},
        {"labels": {"of": "highest"}, **flips, "bit": 3, "site": "features.0.weight_quant"},
        {"labels": {"of": "saved"}, "plan": json.loads(plan.to_json())},
        {"labels": {"of": "nothing"}},
    ]
    file = write(tmp_path, run, questions={"q": {"points": points, "seeds": list(SEEDS)}})
    study = read_study(file)
    assert Study.parse(json.loads(json.dumps(study.to_data())), "a copy") == study
    done = good("campaign", "run", file, "--out", tmp_path / "out")
    assert done.stdout.count("3 seeds, as they were named") == 4
    for task, rows in rows_of(tmp_path / "out", "q"):
        assert [row.key for row in rows] == sorted(SEEDS, key=signed64)
        point = next(point for point in study.questions["q"].points if point.labels == task.labels)
        faults = plan if point.plan is not None else point.faults
        struck = point.part(hf.resolve(plan_sites(plan), faults) if faults is not plan else plan)
        for row in rows:
            correct, wrong = by_injection(network, split, struck, row.key)
            assert np.array_equal(row.answers[:2], [correct, wrong])
    figures = good("campaign", "report", tmp_path / "out", "--json").json
    assert [figure["trials"] for figure in figures] == [3] * 4


def plan_sites(plan):
    return [entry.site for entry in plan.sites]


def test_only_the_trials_that_are_asked_for_are_counted():
    rows = [Row(key, np.zeros((1, 4), bool)) for key in (1, 2, 3, 2**64 - 1)]
    assert columns_of(rows, ("top1",), 4, range(2, 9)).keys.tolist() == [2, 3]
    assert columns_of(rows, ("top1",), 4, (2**64 - 1, 1)).keys.tolist() == [1, 2**64 - 1]


@pytest.mark.slow
def test_trials_of_other_seeds_in_a_store_are_not_counted(tmp_path, run):
    small = {"questions": {"q": {"sweep": {"ber": [0.03]}}}, "samples": {"first": 4}, "stop": {"max_trials": 3}}
    out = tmp_path / "out"
    for seed in (0, 2):
        (figure,) = good("campaign", "run", write(tmp_path, run, **small, seed=seed), "--out", out, "--json").json
        assert figure["trials"] == 3
        (kept,) = good("campaign", "report", out, "--json").json
        assert kept["trials"] == 3
    assert [row.key for _, rows in rows_of(out, "q") for row in rows] == [0, 1, 2, 3, 4]


def table_of(wrong, failed=0):
    keys = np.arange(len(wrong), dtype=np.uint64)
    return Trials(keys, wrong, np.zeros_like(wrong), None, failed, None)


def test_a_census_with_trials_that_failed_is_not_exact():
    wrong = np.zeros((8, 10), bool)
    wrong[0] = True
    found = decide(table_of(wrong, failed=2), Stop(), "all", "these", 0.0, 10)
    assert found.stop
    assert found.estimate.ends == pytest.approx((1 / 10, 3 / 10))
    assert "2 of 10 have no answer" in found.why
    whole = decide(table_of(wrong), Stop(), "all", "these", 0.0, 8)
    assert (whole.estimate.value, whole.estimate.ends, whole.why) == (1 / 8, None, "exact, all 8")


def test_a_census_of_random_images_is_an_estimate():
    wrong = np.random.default_rng(0).random((50, 200)) < 0.3
    found = decide(table_of(wrong), Stop(), "all", "population", 0.0, 50)
    low, high = found.estimate.ends
    assert low < wrong.mean() < high
    assert "new images" in found.estimate.covers


def test_the_same_faults_under_every_seed_are_told_exactly():
    wrong = np.array([[True, False, False, False]])
    found = decide(table_of(wrong), Stop(), "seeds", "these", 0.0, 1)
    assert found.stop
    assert (found.estimate.value, found.estimate.ends) == (0.25, None)
    assert found.why == "every seed has the same faults, so that one trial tells all"


def test_what_is_detected_is_not_silent():
    masks = ("correct", "top1", "due")
    answers = np.array([[1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]], bool)
    found = columns_of([Row(3, answers)], masks, 4)
    assert found.wrong.tolist() == [[False, True, False, False]]
    assert found.due.tolist() == [[False, False, True, True]]
    assert found.correct.tolist() == [[True, False, False, True]]
