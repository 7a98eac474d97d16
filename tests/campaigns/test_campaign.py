"""Trials of a campaign: the same faults for the same samples, whatever is run before, beside or in which order."""

import numpy as np
import pytest
import torch
from PIL import Image

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.engines.torch_engine import TorchEngine
from hwfault.campaigns.evaluate import evaluate, sweep
from hwfault.campaigns.points import Point, at_operating_points, at_rates, each_bit, each_site, only_bit, only_site
from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.injection.attach import inject
from hwfault.injection.site_statistics import merged
from hwfault.injection.statistics import Statistics
from hwfault.laws.models import BitFlips, Clusters, ProfileFaults, WordFaults, bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site
from hwfault.train import build
from hwfault.train.data import MemorySplit, digits, image_folder
from tests.slowly import slow

KC705 = "bram28-kintex7-kc705b-undervolt"
SPLIT = MemorySplit(digits().test_x[:60], digits().test_y[:60])
SEEDS = (3, 2**64 - 1, 0)
FAULTS = bit_errors(0.05)


@pytest.fixture(scope="module")
def network():
    """Not trained, but with weights large enough for faults to change its mind."""
    return build("digits_cnn", seed=1).eval()


@pytest.fixture(scope="module")
def predictions(network):
    """What the network says to each sample under its own faults, one sample at a time, for two seeds."""
    plan = resolve(sites(network, SPLIT.inputs(torch.tensor([0]))), FAULTS)
    return {seed: predicted(network, plan, seed) for seed in SEEDS[:2]}


def predicted(network, plan, seed):
    with inject(network, plan, seed=seed) as injection, torch.no_grad():
        found = []
        for number in range(len(SPLIT.labels)):
            injection.first_sample = number
            found.append(int(network(SPLIT.inputs(torch.tensor([number]))).argmax()))
    return torch.tensor(found)


@pytest.mark.every(7)
@pytest.mark.parametrize(
    ("batch_size", "order"),
    [
        *[(size, "as it is") for size in (1, 7, 1000)],
        *[(7, "shuffled"), (60, "shuffled"), (7, "some"), (1000, "some")],
        *[slow(1, order) for order in ("shuffled", "some")],
        *[slow(60, "as it is"), slow(1000, "shuffled"), slow(60, "some")],
    ],
)
def test_samples_have_their_own_faults_at_any_batch_size_and_order(network, predictions, batch_size, order):
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(60))
    indices = {"as it is": None, "shuffled": shuffled, "some": shuffled[:25]}[order]
    numbers = range(60) if indices is None else sorted(indices.tolist())
    campaign = Campaign(network, SPLIT, indices=indices, batch_size=batch_size, statistics=True)
    trials = campaign.run(Point.of(FAULTS), SEEDS[:2])
    plan = resolve(sites(network, SPLIT.inputs(torch.tensor([0]))), FAULTS)
    for seed, correct in zip(SEEDS, trials.correct, strict=False):
        right = predictions[seed] == SPLIT.labels
        assert correct == int(right[list(numbers)].sum())
    assert trials.samples == len(numbers)
    # also the very words, wherever numbers do not depend on how often parameters are read
    statistics = Statistics(plan)
    for seed in SEEDS[:2]:
        with inject(network, plan, seed=seed, observe=statistics) as injection, torch.no_grad():
            injection.samples = torch.tensor(list(numbers))
            network(SPLIT.inputs(torch.tensor(list(numbers))))
    seen = {record.site: record for record in trials.statistics}
    assert all(seen[record.site] == record for record in statistics.read() if record.site == "input.act_quant")
    assert seen["input.act_quant"].faulty > 100


def test_a_batch_in_order_behind_one_that_is_not(network):
    """Whatever numbers the batch before was given one by one."""
    found = [
        Campaign(network, SPLIT, indices=[9, 3, 20, 21], batch_size=size, statistics=True).run(Point.of(FAULTS), [3])
        for size in (1, 2)
    ]
    one, two = ({record.site: record for record in trials.statistics}["input.act_quant"] for trials in found)
    assert one == two
    assert one.faulty > 0


def test_the_golden_run_is_the_network_itself_and_is_run_once(network, monkeypatch):
    campaign, runs = Campaign(network, SPLIT), []
    plain = TorchEngine._outputs
    monkeypatch.setattr(
        TorchEngine, "_outputs", lambda self, order, injection: runs.append(injection) or plain(self, order, injection)
    )
    points = [campaign.run(point, SEEDS) for point in at_rates([0.01, 0.1])]
    with torch.no_grad():
        golden = int((network(SPLIT.stored).argmax(1) == SPLIT.labels).sum())
    assert [point.golden for point in points] == [golden] * 2
    assert runs.count(None) == 1
    assert len(runs) == 1 + 2 * len(SEEDS)
    nothing = campaign.run(Point(), SEEDS)
    assert (nothing.correct, nothing.std, nothing.degradation) == ((golden,) * 3, 0, 0)
    assert len(runs) == 1 + 2 * len(SEEDS)


def test_sweep_points_are_independent_of_one_another(network):
    x, y = SPLIT.stored, SPLIT.labels
    rates = [0.0, 0.01, 0.05, 0.2]
    forward = sweep(network, x, y, rates, seeds=SEEDS)
    backward = sweep(network, x, y, rates[::-1], seeds=SEEDS)
    alone = [sweep(network, x, y, [rate], seeds=SEEDS)[0] for rate in rates]
    assert list(forward) == list(backward)[::-1] == alone
    assert len({point.correct for point in forward}) > 2


def test_operating_points_are_independent_of_one_another_and_are_what_they_are_alone(network):
    campaign = Campaign(network, SPLIT)
    points = at_operating_points({"x": [ProfileFaults(profile=KC705)]}, "voltage_v", [0.53, 0.54, 0.56])
    assert [point.labels for point in points] == [{"voltage_v": v} for v in (0.53, 0.54, 0.56)]
    found = {point.labels["voltage_v"]: campaign.run(point, SEEDS) for point in reversed(points)}
    for voltage, trials in found.items():
        faults = [ProfileFaults(profile=KC705, at={"voltage_v": voltage})]
        assert trials.correct == evaluate(network, SPLIT, plan=faults, seeds=SEEDS).correct
        plans = [campaign.plan(Point.of(faults), seed) for seed in SEEDS]
        assert len({plan.digest for plan in plans}) == 3, "each seed is a device of its own"


def test_operating_points_of_several_lists_keep_the_rest_of_theirs():
    cold = ProfileFaults(profile=KC705, at={"voltage_v": 0.6}, share=0.5)
    found = at_operating_points({"a": [cold], "b": [cold, *bit_errors(0.1)]}, "voltage_v", [0.53, 0.55])
    assert [point.labels for point in found] == [{"faults": n, "voltage_v": v} for n in "ab" for v in (0.53, 0.55)]
    assert found[0].faults == (cold.model_copy(update={"at": {"voltage_v": 0.53}}),)
    assert found[3].faults[1:] == bit_errors(0.1)


def test_each_site_alone_has_the_faults_it_has_in_the_whole_plan(network):
    campaign = Campaign(network, SPLIT)
    faults = [BitFlips(probability=0.02), WordFaults(probability=0.05, sites={"kind": "weight"})]
    whole = campaign.plan(Point.of(faults))
    points = each_site(faults, whole)
    assert [point.site for point in points] == list(whole.names)
    for point in points:
        plan = campaign.plan(point)
        assert plan.names == (point.site,)
        assert plan.at(point.site) == whole.at(point.site)
        assert plan.program(point.site) == whole.program(point.site)
    assert [p.site for p in each_site(faults, whole, "features.*.weight_quant")] == [
        f"features.{i}.weight_quant" for i in (0, 2, 4)
    ]
    with pytest.raises(ModelError, match="no site that matches 'nothing'"):
        each_site(faults, whole, "nothing")


def test_bit_planes_alone_add_up_to_the_whole_plan(network):
    """Flips of plane k under the k-th plan are those of plane k under the whole one, and there are no others."""
    x = SPLIT.inputs(torch.arange(20))
    faults = [BitFlips(p01=0.03, p10=0.01), WordFaults(probability=0.02, effect="full", sites="*weight*")]
    whole = resolve(sites(network, x[:1]), faults)

    def flips(plan):
        statistics = Statistics(whole)
        with inject(network, plan, seed=4, observe=statistics), torch.no_grad():
            network(x)
        return {record.site: record for record in statistics.read() if record.site in FIRST}

    together, alone = flips(whole), [flips(only_bit(whole, bit)) for bit in range(8)]
    for site in FIRST:
        planes = len(together[site].ones)
        for bit, found in enumerate(alone):
            own = tuple(n if k == bit else 0 for k, n in enumerate(together[site].flips))
            assert found[site].flips == own[:planes]
        assert sum(together[site].flips) > 0


FIRST = ("input.act_quant", "features.0.weight_quant", "features.2.weight_quant", "classifier.weight_quant")
"""Sites whose values before the faults do not depend on other sites."""


def test_bit_planes_of_maps(network):
    found = sites(network, SPLIT.inputs(torch.tensor([0])))
    whole = resolve(found, [ProfileFaults(profile=KC705, at={"voltage_v": 0.53})], device=3)
    merged_cells = []
    for bit in range(4):
        plan = only_bit(whole, bit)
        for entry in plan.sites:
            (process,) = entry.processes
            word, plane, kind = process.map.cells()
            assert set(plane.tolist()) <= {bit}
            cells = zip(word.tolist(), plane.tolist(), kind.tolist(), strict=True)
            merged_cells += [(entry.site.name, *cell) for cell in cells]
    expected = [
        (entry.site.name, *cell)
        for entry in whole.sites
        for cell in zip(*(column.tolist() for column in entry.processes[0].map.cells()), strict=True)
    ]
    assert sorted(merged_cells) == sorted(expected)
    assert expected


def test_the_bits_of_a_campaign_are_listed_from_the_highest(network):
    whole = resolve(sites(network), FAULTS)
    points = each_bit(FAULTS, whole)
    assert [point.labels["bit"] for point in points] == [7, 6, 5, 4, 3, 2, 1, 0]
    only = resolve(sites(network), bit_errors(0.1, "features.*"))
    assert len(each_bit(FAULTS, only)) == 4
    lsb = only_bit(resolve(sites(network), [WordFaults(probability=0.1, effect="lsb")]), 1)
    assert all(entry.processes == () for entry in lsb.sites)
    assert (
        Campaign(network, SPLIT).run(Point.of([WordFaults(probability=0.5, effect="lsb")], bit=1), [1]).degradation == 0
    )


@pytest.mark.parametrize("fault", [WordFaults(probability=0.1), Clusters(probability=0.1, sizes=(0.5, 0.5))])
def test_faults_that_have_no_bit_planes(network, fault):
    with pytest.raises(PlanError, match="strikes several bits at once"):
        only_bit(resolve(sites(network), [fault]), 0)
    only_bit(resolve(sites(network), [Clusters(probability=0.1, sizes=(0.5, 0.5), axis="word")]), 0)


def test_one_site_of_a_plan_that_it_does_not_have(network):
    with pytest.raises(PlanError, match=r"did you mean 'input\.act_quant'"):
        only_site(resolve(sites(network), FAULTS), "input.act_qant")


def test_parts_of_plans_that_need_more_of_the_stream():
    """Samples along another axis, further runs and shared parameters stay what they are in a part of the plan."""
    moved = {"kind": "activation", "shape": (5, 3), "batch": BatchAxis(axis=1)}
    listed = [
        Site(name="moved", bit_width=4, signed=True, **moved),
        Site(name="w", kind="weight", bit_width=4, signed=True),
    ]
    whole = resolve(listed, bit_errors(0.1), factors=[0.5])
    assert only_site(whole, "moved").at("moved") == whole.at("moved")
    assert only_bit(whole, 1).at("moved").site == whole.at("moved").site
    assert [only_site(whole, name).stream for name in ("moved", "w")] == ["1.1", None]
    assert only_site(whole, "w").factors == only_bit(whole, 1).factors == (0.5,)


def test_statistics_of_trials_are_those_of_each_seed(network):
    both = evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS, statistics=True)
    alone = [evaluate(network, SPLIT, plan=FAULTS, seeds=[seed], statistics=True).statistics for seed in SEEDS]
    assert both.statistics == merged(*alone)
    assert len({records[0].faulty for records in alone}) == 3
    assert both.correct == evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS).correct
    assert evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS).statistics == ()


def test_a_split_is_the_same_as_its_tensors(network):
    expected = evaluate(network, SPLIT.stored, SPLIT.labels, FAULTS, seeds=SEEDS)
    assert evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS, batch_size=11) == expected
    coded = MemorySplit((SPLIT.stored * 16).to(torch.uint8), SPLIT.labels)
    dimmed = evaluate(network, coded, plan=FAULTS, seeds=SEEDS)
    assert dimmed == evaluate(network, coded.inputs(torch.arange(60)), SPLIT.labels, FAULTS, seeds=SEEDS)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_of_a_folder_are_read_as_they_are_needed(tmp_path, workers):
    pixels = np.random.default_rng(0).integers(0, 256, (14, 32, 32, 3), dtype=np.uint8)
    for part in ("train", "val"):
        for i, image in enumerate(pixels):
            (tmp_path / part / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / part / "ab"[i % 2] / f"{i:02}.png")
    split = image_folder(tmp_path, 32).test
    tiny = build("tiny_cnn", seed=2, classes=2).train()
    tiny(split.inputs(torch.arange(14)))
    whole = evaluate(tiny, split.inputs(torch.arange(14)), split.labels, FAULTS, seeds=SEEDS)
    read = Campaign(tiny, split, workers=workers, batch_size=5).run(Point.of(FAULTS), SEEDS)
    assert read == whole.model_copy(update={"labels": {}})
    some = Campaign(tiny, split, workers=workers, batch_size=5, indices=[13, 2, 7]).run(Point.of(FAULTS), SEEDS)
    expected = Campaign(tiny, split, indices=[2, 7, 13]).run(Point.of(FAULTS), SEEDS)
    assert some == expected


def test_statistics_and_trials_in_inference_mode(network):
    with torch.inference_mode():
        inside = evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS[:2], statistics=True)
    assert inside == evaluate(network, SPLIT, plan=FAULTS, seeds=SEEDS[:2], statistics=True)


@pytest.mark.parametrize("indices", [[0, 60], [-1], [0.5], [[1, 2]], [True]])
def test_indices_that_are_none(network, indices):
    with pytest.raises(HwfaultError, match="the indices"):
        evaluate(network, SPLIT, plan=FAULTS, seeds=[1], indices=torch.tensor(indices))
    with pytest.raises(HwfaultError, match="expected at least one of each"):
        evaluate(network, SPLIT, plan=FAULTS, seeds=[1], indices=[])


def test_operating_points_that_are_none():
    with pytest.raises(HwfaultError, match=r"x: no profile has the axis 'voltage': did you mean 'voltage_v'\?"):
        at_operating_points({"x": [ProfileFaults(profile=KC705)]}, "voltage", [0.53])
    with pytest.raises(HwfaultError, match="x: has no operating point to sweep"):
        at_operating_points({"x": FAULTS}, "voltage_v", [0.53])
    with pytest.raises(ModelError, match="beyond the measured range"):
        at_operating_points({"x": [ProfileFaults(profile=KC705)]}, "voltage_v", [0.55, 0.2])
