import csv
import os
from types import SimpleNamespace

import pytest
import torch
from scipy.stats import t

from hwfault.campaigns.evaluate import evaluate, sweep
from hwfault.campaigns.tables import write_results
from hwfault.campaigns.trials import Trials
from hwfault.errors import FileError, HwfaultError, ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_hook import attached
from hwfault.laws.models import BitFlips, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.train import build
from hwfault.train.data import MemorySplit, digits
from tests.helpers.train import small


@pytest.fixture(scope="module")
def network():
    return build("digits_cnn", seed=1)


X, Y = digits().test_x[:100], digits().test_y[:100]
FAULTS = bit_errors(0.05)


def test_results_do_not_depend_on_the_batch_size(network):
    whole, parts, ones = (evaluate(network, X, Y, FAULTS, seeds=range(4), batch_size=size) for size in (1000, 33, 1))
    assert whole == parts == ones
    assert len(set(whole.correct)) > 1


def test_each_seed_is_a_trial_of_its_own(network):
    together = evaluate(network, X, Y, FAULTS, seeds=[5, 2**64 - 1])
    alone = evaluate(network, X, Y, FAULTS, seeds=[2**64 - 1])
    assert together.correct[1] == alone.correct[0]


def test_no_faults_is_the_golden_accuracy(network):
    with torch.no_grad():
        golden = int((network.eval()(X).argmax(1) == Y).sum())
    assert evaluate(network, X, Y, (), seeds=[0]).correct == (golden,)
    assert evaluate(network, X, Y, bit_errors(0.0), seeds=[0, 1]).correct == (golden, golden)


def test_the_model_is_left_as_it_was(network):
    network.train()
    network.features[0].eval()
    evaluate(network, X, Y, FAULTS, seeds=[0])
    assert network.training
    assert not network.features[0].training
    assert not attached(network)
    assert torch.is_grad_enabled()


def test_networks_that_return_quant_tensors():
    network, data = small.network(), small.data()
    expected = evaluate(network, data.test_x, data.test_y, (), seeds=[0])

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network

        def forward(self, x):
            return SimpleNamespace(value=self.inner(x))

    assert evaluate(Wrapped(), data.test_x, data.test_y, (), seeds=[0]) == expected


@pytest.mark.parametrize("correct", [(90, 80, 85, 88) * 6, (100, 99) * 10, (50, *range(40, 70))])
def test_mean_and_interval_are_students(correct):
    trials = Trials(seeds=range(len(correct)), correct=correct, samples=100)
    values = torch.tensor(correct, dtype=torch.float64) / 100
    n = len(correct)
    half = float(t.ppf(0.975, n - 1) * values.std() / n**0.5)
    assert trials.mean == pytest.approx(float(values.mean()))
    assert trials.interval == pytest.approx((max(0, trials.mean - half), min(1, trials.mean + half)))


def test_one_trial_tells_nothing_about_the_spread():
    assert Trials(seeds=(1,), correct=(7,), samples=10).interval == (0, 1)


def test_a_sweep_point_stands_alone(network):
    seen = []
    points = sweep(network, X, Y, [0.0, 0.01, 0.05], seeds=range(3), progress=seen.append)
    assert tuple(seen) == points
    assert [point.ber for point in points] == [0.0, 0.01, 0.05]
    assert points[2].correct == evaluate(network, X, Y, FAULTS, seeds=range(3)).correct
    assert len(set(points[0].correct)) == 1


def test_a_sweep_of_other_faults(network):
    only_weights = [point.correct for point in sweep(network, X, Y, [0.05], seeds=range(3), faults_at=weights)]
    assert only_weights[0] == evaluate(network, X, Y, weights(0.05), seeds=range(3)).correct


def weights(rate):
    return (BitFlips(probability=rate, sites={"kind": "weight"}),)


def test_the_table(tmp_path):
    points = [Trials(seeds=(1, 2), correct=(5, 7), samples=10, ber=0.01), Trials(seeds=(1,), correct=(9,), samples=10)]
    write_results(tmp_path / "results.csv", {"a, b": points})
    with open(tmp_path / "results.csv", newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["network"], first["ber"], first["trials"], first["accuracy"]) == ("a, b", "0.01", "2", "0.6")
    assert 0 < float(first["low"]) < 0.05, "two trials tell next to nothing"
    assert (first["interval_by"], first["events"]) == ("bound", "")
    assert (second["ber"], second["accuracy"]) == ("", "0.9")
    with pytest.raises(FileError):
        write_results(tmp_path / "none" / "results.csv", {"a": points})
    assert os.listdir(tmp_path) == ["results.csv"]


def test_wrong_input(network):
    for x, y, seeds, size in [(X, Y, [], 10), (X[:0], Y[:0], [1], 10), (X, Y[:5], [1], 10), (X, Y, [1], 0)]:
        with pytest.raises(HwfaultError, match="expected at least one of each"):
            evaluate(network, x, y, FAULTS, seeds=seeds, batch_size=size)
    with pytest.raises(HwfaultError, match="2\\^64"):
        evaluate(network, X, Y, FAULTS, seeds=[2**64])
    with pytest.raises(ModelError):
        sweep(network, X, Y, [1.5], seeds=[1])
    with pytest.raises(PlanError):
        evaluate(small.network(), X, Y, resolve(sites(network), FAULTS), seeds=[1])
    assert not attached(network)


class Last(torch.nn.Module):
    """A network whose answers go through one more function."""

    def __init__(self, inner, function):
        super().__init__()
        self.inner = inner
        self.function = function

    def forward(self, x):
        return self.function(self.inner(x))


def ruled_out(out):
    """All classes but the first of the largest."""
    return torch.where(out < out.max(1, keepdim=True).values, -torch.inf, out)


def test_a_network_whose_outputs_are_not_all_finite():
    torch.manual_seed(5)
    network, data = small.network(width=16), small.data()
    plain, endless = (
        evaluate(Last(network, last), data.test, plan=bit_errors(0.1), seeds=range(3))
        for last in (torch.nn.Identity(), ruled_out)
    )
    assert plain.correct == endless.correct
    assert len(set(plain.correct)) > 1


def test_a_network_of_bfloat16():
    torch.manual_seed(5)
    network, data = small.network(width=16).to(torch.bfloat16).eval(), small.data()
    split = MemorySplit(data.test_x.to(torch.bfloat16), data.test_y)
    found = evaluate(network, split.stored, split.labels, bit_errors(0.1), seeds=[3])
    with torch.no_grad(), inject(network, bit_errors(0.1), seed=3, example=split.stored[:1]):
        out = network(split.stored)
    assert found.correct == (int((getattr(out, "value", out).argmax(1) == split.labels).sum()),)
