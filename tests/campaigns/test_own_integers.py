"""Studies of a QDQ graph alone: every kind of question, its trials those of NumPy; explained, and hardened."""

import numpy as np
import onnx
import pytest
import yaml

from hwfault.campaigns.database import FILE, Database
from hwfault.campaigns.kept import kept_tasks
from hwfault.campaigns.study.space import fault_space
from hwfault.graph.read.sites import sites
from hwfault.program.selectors import Select
from tests.cli.conftest import good, hwfault
from tests.helpers.graph.qdq import evaluate, inputs, quantized

pytestmark = pytest.mark.slow

SAMPLES, WEIGHT = 6, "conv.weight"
LISTED = "trial,site,word,bit,kind\na,conv.weight,3,7,flip\na,fc2.weight,49,6,flip\nb,fc1.bias,9,31,stuck_1\n"
QUESTIONS = {
    "curve": {"sweep": {"ber": [0.002, 0.02]}, "sites": [{"kind": "weight"}, {"kind": "activation"}]},
    "every": {"flips": "single", "sites": WEIGHT, "exhaustive": "always"},
    "one": {"flips": "single", "sites": {"kind": "weight"}, "exhaustive": "never", "stop": {"max_trials": 20}},
    "four": {"flips": 4, "stop": {"max_trials": 20}},
    "listed": {"flips": {"file": "listed.csv"}},
    "first": {"sweep": {"ber": [0.001, 0.003, 0.01]}, "sites": "conv", "first_turn": True},
}


@pytest.fixture(scope="module", params=["QDQ", "QOperator uint8"])
def answered(request, tmp_path_factory):
    """A folder with the answers of all kinds of questions, and the graph that they are about."""
    folder, graph = tmp_path_factory.mktemp("study"), quantized(request.param)
    onnx.save(graph, folder / "q.onnx")
    np.savez(folder / "x.npz", x=inputs(SAMPLES))
    (folder / "listed.csv").write_text(LISTED)
    questions = {name: dict(question) for name, question in QUESTIONS.items()}
    questions["listed"]["flips"] = {"file": str(folder / "listed.csv")}
    study = {"graph": str(folder / "q.onnx"), "data": str(folder / "x.npz"), "questions": questions}
    study |= {"outcomes": ["top1"], "stop": {"max_trials": 20}, "seed": 5}
    (folder / "study.yaml").write_text(yaml.safe_dump(study, sort_keys=False))
    good("campaign", "run", folder / "study.yaml", "--out", folder / "out")
    return folder / "out", graph


def rows_of(folder, question):
    with Database(folder / FILE, readonly=True) as database:
        for task in kept_tasks(database):
            if task.question == question:
                yield from database.rows(task.stored)


def answers_with(graph, cells):
    """The classes of all samples where bits (tensor, word, bit) of constants are flipped."""

    def strike(name, values):
        own = [(word, bit) for tensor, word, bit in cells if tensor == name]
        if not own:
            return values
        words = values.copy().ravel()
        unsigned = words.view(np.dtype(f"u{words.dtype.itemsize}"))
        for word, bit in own:
            unsigned[word] ^= 1 << bit
        return words.reshape(values.shape)

    return evaluate(graph, inputs(SAMPLES), strike)["y"].argmax(1)


def test_every_flip_of_a_site_is_that_of_numpy(answered):
    folder, graph = answered
    golden = answers_with(graph, [])
    rows = {row.key: row.answers[0] for row in rows_of(folder, "every")}
    space = fault_space(sites(graph), [Select(name=WEIGHT)])
    assert len(rows) == 4 * 9 * 8
    turned = 0
    for key in range(0, len(rows), 5):
        cell = space.cell(key)
        found = answers_with(graph, [(f"{WEIGHT}_quantized", cell.word, cell.bit)]) != golden
        np.testing.assert_array_equal(rows[key], found)
        turned += int(found.sum())
    assert turned


def test_listed_faults_are_those_of_numpy(answered):
    folder, graph = answered
    golden = answers_with(graph, [])
    first, second = (row.answers[0] for row in rows_of(folder, "listed"))
    cells = [("conv.weight_quantized", 3, 7), ("fc2.weight_quantized", 49, 6)]
    np.testing.assert_array_equal(first, answers_with(graph, cells) != golden)
    assert second.shape == first.shape  # a struck bias takes the sums past 32 bits, which engines wrap or not


def test_every_question_is_answered_and_told(answered):
    folder, _ = answered
    told = good("campaign", "report", folder, "--json").json
    names = {figure["question"] for figure in told}
    assert names == set(QUESTIONS)
    assert (folder / "report.html").exists()


def test_a_trial_is_explained_site_by_site(answered):
    """Of one flip of a weight: the word that it strikes by one integer, and what becomes of it."""
    folder, graph = answered
    key = next(row.key for row in rows_of(folder, "every") if row.answers[0].any())
    cell = fault_space(sites(graph), [Select(name=WEIGHT)]).cell(key)
    told = good("campaign", "explain", folder, "every", key, 0, "--json").json
    assert told["agrees"]
    assert told["began"] == WEIGHT
    site = next(site for site in told["sites"] if site["name"] == WEIGHT)
    assert (site["own"], site["largest"]) == (1, 1 << cell.bit)
    assert [(hit["word"], hit["bit"]) for hit in site["faults"]] == [(cell.word, cell.bit)]


def test_a_graph_is_hardened(answered):
    folder, _ = answered
    done = hwfault("campaign", "harden", folder, "--question", "one", "--rate", 1e-5, "--require", "sdc < 0.5")
    assert done.code == 0, done.stderr
    assert "weight" in done.stdout
