"""Checking bundles: what passes, and where a graph or record that was changed first differs."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwfault.arithmetic.integer_arithmetic import integer_arithmetic
from hwfault.errors import FileError, GraphError, HwfaultError, PlanError
from hwfault.injection.attach import inject
from hwfault.laws.models import AccumulatorFormat, BitFlips, LateBits, MapFaults, ProfileFaults, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.plan.listing import faults_at
from hwfault.proof.check import check
from hwfault.proof.manifest import CLEAN, CLEAN_GRAPH, FAULTED_GRAPH, INPUTS, seed_file
from hwfault.proof.replay import replay
from hwfault.proof.sentences import sentence
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.networks import ALL, batch, network, plan
from tests.helpers.graph.running import by_pytorch, clean, copied, faulted, tidied
from tests.helpers.proof.bundles import SAMPLES, SEEDS, opened, rewritten, with_tensors, written


@pytest.mark.every(9)
@pytest.mark.parametrize("name", ALL)
def test_every_network_passes_and_counts_what_a_replay_counts(tmp_path, name):
    report = check(opened(written(tmp_path / "b", name)))
    assert (report.verdict, report.exit_code, report.first) == ("pass", 0, None)
    assert [run.seed for run in report.runs] == [None, *SEEDS]
    beside = replay(network(name), faulted(name), [batch(name, SAMPLES, 3)], seeds=SEEDS)
    for site in beside.sites:
        found = [s for run in report.runs[1:] for s in run.sites if s.name == site.name]
        assert sum(s.words for s in found) == site.words
        assert sum(s.faults_seen for s in found) == sum(s.faults_expected for s in found) == site.faults_seen
        assert sum(sum(s.faults_at) for s in found) == site.faults_seen
    assert "pass" in sentence(report)


@pytest.mark.every(7)
@pytest.mark.parametrize("name", ALL)
def test_bundles_in_integer_arithmetic(tmp_path, name):
    bundle = opened(written(tmp_path / "b", name, arithmetic="integer"))
    report = check(bundle)
    assert (report.verdict, report.exit_code, report.first) == ("pass", 0, None)
    with integer_arithmetic(network(name)):
        assert np.array_equal(bundle.tensors(CLEAN)["output"], by_pytorch(network(name), batch(name, SAMPLES, 3)))


def test_accumulators_in_integer_arithmetic(tmp_path):
    """Sums in float64, and in float32."""
    flips = BitFlips(probability=0.01, sites={"kind": "accumulator"})
    for own in ([AccumulatorFormat(width=20, arithmetic="float64")], []):
        faults = resolve(sites(network("digits_cnn"), batch("digits_cnn")), [*own, BitFlips(probability=0.01), flips])
        bundle = opened(written(tmp_path / str(len(own)), "digits_cnn", faults=faults, arithmetic="integer"))
        report = check(bundle)
        assert report.verdict == "pass"
        found = {site.name: site.faults_seen for site in report.runs[1].sites if site.name.endswith("accumulator")}
        assert len(found) == 4
        assert sum(found.values()) > 0


def test_the_record_is_what_pytorch_computes(whole):
    bundle = opened(whole)
    model, x = network("formats"), batch("formats", SAMPLES, 3)
    clean = bundle.tensors(CLEAN)
    assert np.array_equal(clean["output"], by_pytorch(model, x))
    assert np.array_equal(clean["prediction"], by_pytorch(model, x).argmax(1))
    for seed in SEEDS:
        with inject(model, plan("formats"), seed=seed):
            assert np.array_equal(bundle.tensors(seed_file(seed))["output"], by_pytorch(model, x))
    assert np.array_equal(bundle.tensors(INPUTS)["input"], x.numpy())


def test_accuracy_is_told_where_labels_are_known(whole):
    clean = check(opened(whole), which="clean").runs[0]
    right = (by_pytorch(network("formats"), batch("formats", SAMPLES, 3)).argmax(1) == np.arange(SAMPLES) % 5).sum()
    assert clean.correct_recorded == clean.correct_found == right


HARDWARE = {
    "memory": [ProfileFaults(profile="sram14-ibm-7points", at={"operating_point": 0})],
    "parity": [
        ProfileFaults(
            profile="sram14-ibm-7points",
            at={"operating_point": 0},
            sites={"kind": "weight"},
            protection=Protection(kind="parity", data_bits=16),
        )
    ],
    "sums": [AccumulatorFormat(width=14, overflow="saturate"), LateBits(probability=0.01, bits=4)],
    "elements": [
        StuckElement(element=(1, 1), bit=3, value=1, mapping={"kind": "weight_stationary", "rows": 4, "columns": 4})
    ],
}


@pytest.mark.every(7)
@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("kind", HARDWARE)
def test_hardware_passes(tmp_path, kind, batch_size):
    model, x = network("digits_cnn"), batch("digits_cnn", SAMPLES, 3)
    faults = resolve(sites(model, x), HARDWARE[kind])
    report = check(opened(written(tmp_path / "b", "digits_cnn", faults=faults, batch_size=batch_size)))
    assert report.verdict == "pass"
    assert sum(site.faults_seen for run in report.runs[1:] for site in run.sites) > 0


@pytest.mark.every(2)
@pytest.mark.parametrize("refresh", ["batch", "inference", "power_cycle"])
def test_cells_that_come_and_go_with_the_batch(tmp_path, refresh):
    """The record has a row of a parameter for each batch; the list of faults names those of the right batch."""
    rng = np.random.default_rng(0)
    cells = np.sort(rng.choice(120_000, 12_000, replace=False))
    path = tmp_path / "m.safetensors"
    FaultMap.from_cells(30_000, 4, cells // 4, cells % 4, np.full(len(cells), Kind.FLIP)).save(path)
    model, x = network("digits_cnn"), batch("digits_cnn", SAMPLES, 3)
    faults = resolve(sites(model, x), [MapFaults(file=str(path), p_active=0.5, refresh=refresh)])
    folder = written(tmp_path / "b", "digits_cnn", faults=faults, batch_size=4)
    assert check(opened(folder)).verdict == "pass"
    name = "features.2.weight_quant"
    words = faults.at(name).site.words
    struck = opened(folder).tensors(seed_file(1))[f"{name}#0.at"]
    batches = [set(struck[struck < words].tolist()), set((struck[struck >= words] - words).tolist())]
    assert (batches[0] != batches[1]) == (refresh != "power_cycle")

    def change(tensors):
        """The first word that the second batch struck is recorded as if it had not been."""
        at = tensors[f"{name}#0.at"]
        keep = np.arange(len(at)) != np.flatnonzero(at >= words)[0]
        for what in ("at", "after"):
            tensors[f"{name}#0.{what}"] = tensors[f"{name}#0.{what}"][keep]

    with_tensors(folder, seed_file(1), change)
    _, first = check(opened(folder)).first
    assert (first.kind, first.site, first.word) == ("faults", name, min(batches[1]))
    assert {fault.word for fault in first.faults} == {codes.word for codes in first.words} & batches[1]


def test_a_bundle_of_single_sites(tmp_path):
    """Quantizers that the plan leaves alone are compared too, in the faulty runs as well."""
    faults = resolve(sites(network("formats")), [BitFlips(probability=0.1, sites="2.act_quant")])
    report = check(opened(written(tmp_path / "b", faults=faults)))
    assert report.verdict == "pass"
    names = [[site.name for site in run.sites] for run in report.runs]
    assert names[0] == names[1] == ["0.act_quant", "1.weight_quant", "2.act_quant", "4.weight_quant", "5.act_quant"]
    assert [site.faults_seen > 0 for site in report.runs[1].sites] == [False, False, True, False, False]


def test_seeds_and_runs_can_be_chosen(whole):
    assert [run.seed for run in check(opened(whole), seeds=[SEEDS[1]]).runs] == [None, SEEDS[1]]
    assert [run.seed for run in check(opened(whole), which="faulty").runs] == list(SEEDS)
    with pytest.raises(HwfaultError, match="nothing was recorded under seed 7; recorded are"):
        check(opened(whole), seeds=[7])


def test_a_transformed_graph_in_place_of_the_bundles(whole):
    """What qonnx's cleanup leaves of a faulted graph is still that of the record; a changed one is not."""
    report = check(opened(whole), graph=tidied(faulted("formats"), None))
    assert (report.verdict, [run.seed for run in report.runs]) == ("pass", list(SEEDS))
    graph = copied(clean("formats"))
    assert [run.seed for run in check(opened(whole), graph=graph).runs] == [None]
    first = next(node for node in graph.graph.node if node.op_type == "Quant")
    first.attribute.add().CopyFrom(onnx.helper.make_attribute("rounding_mode", "CEIL"))
    del first.attribute[[a.name for a in first.attribute].index("rounding_mode")]
    report = check(opened(whole), graph=graph)
    assert (report.verdict, report.first[1].site) == ("codes differ", "0.act_quant")


def changed_weight(folder, graph, site, code):
    """Moves one weight of a graph by a step of its scale: the site's word 3."""
    model = onnx.load(folder / graph)
    node = next(n for n in model.graph.node if n.op_type == "Quant" and n.metadata_props[0].value == site)
    made = {out: n for n in model.graph.node for out in n.output}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    holder = tensors[node.input[0]] if node.input[0] in tensors else made[node.input[0]].attribute[0].t
    values = numpy_helper.to_array(holder).copy()
    values.flat[3] = code
    holder.CopyFrom(numpy_helper.from_array(values, holder.name))
    rewritten(folder, graph, model.SerializeToString())


def test_a_graph_with_another_weight_differs_there_first(mine):
    changed_weight(mine, CLEAN_GRAPH, "1.weight_quant", 100.0)
    report = check(opened(mine))
    run, first = report.first
    assert (report.verdict, report.exit_code, run.seed) == ("codes differ", 3, None)
    assert (first.kind, first.site, first.word, first.sample) == ("codes", "1.weight_quant", 3, 0)
    assert first.recorded != first.found == 3, "the largest of three bits"
    assert [codes.word for codes in first.words] == list(range(8))
    assert run.sites[0].codes_differ == 0
    assert run.sites[1].codes_differ == sum(run.sites[1].differ_at) == 1
    assert all(other.first is None for other in report.runs[1:])
    assert "First difference, in the clean run: the site 1.weight_quant (2 of 5), sample 0, word 3" in sentence(report)


def test_the_first_of_two_differences_is_told_with_its_sample(tmp_path):
    """In batches of two: samples 3 and 5 lie in the second and the third."""
    folder = written(tmp_path / "b", batch_size=2)

    def change(tensors):
        codes = tensors["2.act_quant#0.codes"]
        for sample, word in ((3, 7), (5, 1)):
            codes[sample, word] ^= 1

    with_tensors(folder, CLEAN, change)
    run, first = check(opened(folder), which="clean").first
    assert (first.site, first.sample, first.word) == ("2.act_quant", 3, 7)
    assert int(first.recorded) == int(first.found) ^ 1
    found = {site.name: site.codes_differ for site in run.sites}
    assert found == {**dict.fromkeys(found, 0), "2.act_quant": 2}


def test_a_record_of_other_faults_differs_as_faults(mine):
    """One struck word of the record loses its fault: the graph then has one too many."""
    struck = {}

    def change(tensors):
        at, after = (tensors[f"0.act_quant#0.{what}"] for what in ("at", "after"))
        struck["at"] = int(at[5])
        tensors["0.act_quant#0.at"], tensors["0.act_quant#0.after"] = np.delete(at, 5), np.delete(after, 5)

    with_tensors(mine, seed_file(SEEDS[0]), change)
    report = check(opened(mine))
    run, first = report.first
    sample, word = divmod(struck["at"], 72)
    assert (report.verdict, run.seed) == ("faults differ", SEEDS[0])
    assert (first.kind, first.site, first.sample, first.word) == ("faults", "0.act_quant", sample, word)
    near = set(range(word - 4, word + 5))
    drawn = faults_at(plan("formats"), "0.act_quant", seed=SEEDS[0], sample=sample, words=72)
    assert list(first.faults) == [fault for fault in drawn if fault.word in near]
    assert any(fault.word == word for fault in first.faults)
    (here,) = [codes for codes in first.words if codes.word == word]
    assert here.recorded_after == here.recorded_before == here.found_before != here.found_after


def test_another_output_is_found(mine):
    def change(tensors):
        tensors["output"][2, 1] = 77
        tensors["prediction"][2] = 1

    with_tensors(mine, CLEAN, change)
    report = check(opened(mine), which="clean")
    run, first = report.first
    assert report.verdict == "outputs differ"
    assert (first.kind, first.sample, first.word, first.recorded) == ("output", 2, 1, 77)
    assert run.outputs_differ == 1


def test_graphs_of_other_networks_are_refused(mine, tmp_path):
    other = written(tmp_path / "other", "digits_cnn")
    rewritten(mine, CLEAN_GRAPH, (other / CLEAN_GRAPH).read_bytes())
    with pytest.raises(PlanError, match="of which there is no record"):
        check(opened(mine))
    rewritten(mine, CLEAN_GRAPH, b"\x08\x01nothing")
    with pytest.raises(GraphError, match=r"mine: clean.onnx: not an ONNX file"):
        check(opened(mine))


def test_a_faulted_graph_with_another_plan_is_refused(mine, tmp_path):
    flips = resolve(sites(network("formats")), [BitFlips(probability=0.1)])
    other = written(tmp_path / "other", faults=flips)
    rewritten(mine, FAULTED_GRAPH, (other / FAULTED_GRAPH).read_bytes())
    with pytest.raises(PlanError, match=r"carries another plan than plan\.json"):
        check(opened(mine))
    rewritten(mine, "plan.json", (other / "plan.json").read_bytes())
    with pytest.raises(FileError, match="is not the plan that the manifest names"):
        check(opened(mine))


def test_a_graph_with_another_scale_is_refused(mine):
    def change(tensors):
        tensors["2.act_quant#0.scale"] *= 2

    with_tensors(mine, CLEAN, change)
    with pytest.raises(PlanError, match=r"another scale or zero point at the site '2\.act_quant'"):
        check(opened(mine), which="faulty")


def _drop(name):
    return lambda tensors: tensors.pop(name)


def _set(name, make):
    return lambda tensors: tensors.update({name: make(tensors[name])})


WRONG = {
    "no output": (CLEAN, _drop("output"), "holds no tensor 'output'"),
    "no faults": (seed_file(1), _drop("2.act_quant#0.at"), "holds no tensor"),
    "no codes": (CLEAN, _drop("1.weight_quant#0.codes"), "holds no tensor"),
    "text for codes": (CLEAN, _set("1.weight_quant#0.codes", lambda t: t.astype(np.float32)), "expected another type"),
    "too wide": (CLEAN, _set("1.weight_quant#0.codes", lambda t: t + 200), "holds no codes of 3 bits"),
    "a bit too many": (CLEAN, _set("1.weight_quant#0.codes", lambda t: t | 8), "holds no codes of 3 bits"),
    "a struck bit too many": (seed_file(1), _set("1.weight_quant#0.after", lambda t: t | 8), "no codes of 3 bits"),
    "one axis": (CLEAN, _set("1.weight_quant#0.codes", lambda t: t.ravel()), "holds no codes of 3 bits"),
    "fewer rows": (CLEAN, _set("0.act_quant#0.codes", lambda t: t[:2]), "has 2 rows, expected 6"),
    "fewer words": (CLEAN, _set("0.act_quant#0.codes", lambda t: t[:, :9]), "but 9 words of 6 samples were recorded"),
    "scale of nan": (CLEAN, _set("0.act_quant#0.scale", lambda t: np.full_like(t, np.nan)), "are not finite"),
    "scale of many": (CLEAN, _set("0.act_quant#0.scale", lambda t: np.ones((5, 1), t.dtype)), "do not fit its codes"),
    "fewer outputs": (CLEAN, _set("output", lambda t: t[:2]), "expected 6 samples"),
    "fewer inputs": (INPUTS, _set("input", lambda t: t[:2]), "expected 6 samples of float32"),
    "wide inputs": (INPUTS, _set("input", lambda t: t.astype(np.float64)), "expected 6 samples of float32"),
    "other inputs": (INPUTS, _set("input", lambda t: t[:, :1]), "cannot run the graph"),
    "faults outside": (seed_file(1), _set("0.act_quant#0.at", lambda t: t + 10**6), "are not at words of the site"),
    "faults unpaired": (seed_file(1), _set("0.act_quant#0.after", lambda t: t[:3]), "are not at words of the site"),
}


@pytest.mark.parametrize("what", WRONG)
def test_records_that_are_not_whole(mine, what):
    name, change, words = WRONG[what]
    with_tensors(mine, name, change)
    with pytest.raises(HwfaultError, match=words):
        check(opened(mine))


def test_a_network_with_one_number_a_sample(tmp_path):
    from torch import nn

    from hwfault.proof.record import write_bundle

    class First(nn.Module):
        """The first number of a network's output."""

        def __init__(self):
            super().__init__()
            self.inner = network("biased")

        def forward(self, x):
            out = self.inner(x)
            return getattr(out, "value", out)[:, 0]

    model, x = First().eval(), batch("biased", 3)
    plan_ = resolve(sites(model), [BitFlips(probability=0.05)])
    write_bundle(tmp_path / "b", model, x, plan=plan_, seeds=[1])
    tensors = opened(tmp_path / "b").tensors(CLEAN)
    assert tensors["output"].shape == (3,)
    assert np.array_equal(tensors["prediction"], tensors["output"])
    report = check(opened(tmp_path / "b"))
    assert (report.verdict, report.runs[0].predictions, report.runs[0].correct_found) == ("pass", 3, None)


def test_a_clean_bundle(tmp_path):
    from hwfault.proof.record import write_bundle

    write_bundle(tmp_path / "b", network("formats"), batch("formats", 3))
    report = check(opened(tmp_path / "b"))
    assert (report.verdict, report.plan_sha256, len(report.runs)) == ("pass", None, 1)
    with pytest.raises(HwfaultError, match="holds no faulty run"):
        check(opened(tmp_path / "b"), which="faulty")


@pytest.mark.parametrize(
    ("n", "faults", "seeds"), [(3, True, []), (3, False, [1]), (0, True, [1])], ids=["no seeds", "no plan", "empty"]
)
def test_what_cannot_be_recorded(tmp_path, n, faults, seeds):
    from hwfault.proof.record import write_bundle

    own = plan("formats") if faults else None
    x = batch("formats", 3)[:n]
    with pytest.raises(HwfaultError, match="expected samples, and seeds exactly where there is a plan"):
        write_bundle(tmp_path / "b", network("formats"), x, plan=own, seeds=seeds)
    assert not list(tmp_path.iterdir())
