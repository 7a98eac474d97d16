"""What is accepted beside a pass: rounding, by numbers that are told; faults, sums and nonsense never."""

import numpy as np
import pytest

from hwfault.laws.models import LateBits, MapFaults, ProfileFaults, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.accept import Accept, refusals
from hwfault.proof.check import check
from hwfault.proof.manifest import CLEAN, seed_file
from hwfault.proof.sentences import judgement, sentence
from hwfault.proof.tally import held_words
from hwfault.stream.fault_map import FaultMap, Kind
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.networks import batch, network
from tests.helpers.proof.bundles import SAMPLES, opened, with_tensors, written
from tests.helpers.proof.engines import emulated

OUTPUTS, CODES = Accept(), Accept(codes=True)
SITE = "0.act_quant"
WORDS = SAMPLES * 72


def clean_report(folder, change):
    """The report on the clean run of a bundle whose record was changed."""
    with_tensors(folder, CLEAN, change)
    return check(opened(folder), which="clean")


def output_changed(place, by):
    """Changes one number of the recorded output by a share of the largest."""

    def change(tensors):
        output = tensors["output"]
        output[place] += np.float32(by * np.abs(output).max())

    return change


@pytest.mark.parametrize(("by", "accepted"), [(5e-6, True), (-5e-6, True), (2e-5, False), (1e-3, False)])
def test_outputs_within_the_bound(mine, by, accepted):
    report = clean_report(mine, output_changed((1, 1), by))
    assert (report.verdict, report.runs[0].predictions_differ) == ("outputs differ", 0)
    assert (not refusals(report, OUTPUTS)) == (not refusals(report, CODES)) == accepted
    assert not refusals(report, Accept(outputs=1.01 * abs(by)))
    assert refusals(report, Accept(outputs=0.99 * abs(by)))
    assert refusals(report, Accept(outputs=0))
    told = sentence(report)
    assert (
        f"Every code and prediction is the recorded one: the outputs differ {'' if abs(by) < 1e-5 else 'behind'}"
        in told
    )
    ways = ("floating-point rounding behind the last site", "--arithmetic integer", "--accept outputs")
    assert all((words in told) == (abs(by) < 1e-5) for words in ways)


def test_of_outputs_alone_nothing_is_said_about_codes(whole):
    told = sentence(check(opened(whole), runner=lambda arrays: emulated(arrays, whole) * np.float32(1 + 1e-6)))
    assert "outputs differ" in told
    assert "Every code" not in told


@pytest.mark.parametrize("accept", [OUTPUTS, CODES, Accept(outputs=0.99)])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30])
def test_nonsense_for_outputs(whole, wrong, accept):
    """Predictions are right, so that the outputs alone are judged."""

    def runner(arrays):
        out = emulated(arrays, whole)
        return {"output": np.full_like(out, wrong), "prediction": out.argmax(1)}

    report = check(opened(whole), runner=runner)
    assert all(run.predictions_differ == 0 for run in report.runs)
    assert refusals(report, accept)
    assert "Not accepted: outputs differ by up to" in judgement(report, accept)


def test_one_number_that_is_none(whole):
    def runner(arrays):
        out = emulated(arrays, whole)
        prediction = out.argmax(1)
        out[2, 3] = np.nan
        return {"output": out, "prediction": prediction}

    assert refusals(check(opened(whole), runner=runner), Accept(outputs=0.99, codes=True))


def test_a_recorded_number_that_is_none(mine):
    def change(tensors):
        tensors["output"][2, 3], tensors["output"][4, 0] = np.nan, -np.inf

    with_tensors(mine, CLEAN, change)
    record = opened(mine).tensors(CLEAN)

    def report(place=None, value=0.0):
        out = record["output"] * np.float32(1 + 1e-6)
        if place is not None:
            out[place] = value
        answer = {"output": out, "prediction": record["prediction"]}
        return check(opened(mine), which="clean", runner=lambda _: answer)

    assert (report().verdict, refusals(report(), OUTPUTS)) == ("outputs differ", [])
    for place, value in (((2, 3), 0.0), ((2, 3), np.inf), ((4, 0), np.inf), ((4, 0), np.nan), ((0, 0), np.nan)):
        assert refusals(report(place, value), OUTPUTS)


@pytest.mark.parametrize("accept", [OUTPUTS, CODES])
def test_predictions_are_judged_apart(mine, accept):
    """Outputs that differ by less than the bound, and change the class."""

    def change(tensors):
        tensors["prediction"][4] ^= 1

    report = clean_report(mine, change)
    assert (report.verdict, report.runs[0].outputs_max_difference) == ("outputs differ", 0)
    assert "1 of 6 predictions differ in the clean run" in refusals(report, accept)[0]


def test_each_run_has_a_largest_output_of_its_own(mine):
    """What is small beside the outputs of one run may be large beside those of another."""

    def change(tensors):
        tensors["output"] *= np.float32(1e-3)

    with_tensors(mine, CLEAN, change)
    clean = opened(mine).tensors(CLEAN)

    def runner(arrays):
        off = np.float32(5e-5 * np.abs(clean["output"]).max())
        if "hwfault_seed" in arrays:
            out = emulated(arrays, mine)
            return {"output": out + off, "prediction": out.argmax(1)}
        return {"output": clean["output"] + off, "prediction": clean["prediction"]}

    report = check(opened(mine), runner=runner)
    (reason,) = refusals(report, OUTPUTS)
    assert "in the clean run" in reason


def steps_changed(words, by=1, sample=0):
    """Moves codes of the first site in the record by some grid steps, away from where the word ends."""

    def change(tensors):
        codes = tensors[f"{SITE}#0.codes"]
        for word in words:
            signed = int(codes[sample, word].astype(np.int8))
            codes[sample, word] = (signed + (by if signed < 0 else -by)) & 255

    return change


@pytest.mark.parametrize(
    ("words", "by", "accepted"), [(1, 1, True), (4, 1, True), (5, 1, False), (1, 2, False), (1, 9, False)]
)
def test_codes_one_step_off_at_one_percent_of_the_words(mine, words, by, accepted):
    """Of 432 words four are less than one percent."""
    report = clean_report(mine, steps_changed(range(words), by))
    assert report.verdict == "codes differ"
    assert (not refusals(report, CODES)) == accepted
    assert refusals(report, OUTPUTS)
    assert f"differ by at most {by} grid step{'s' * (by > 1)}, at most at {words / WORDS:.3%} of a site's" in sentence(
        report
    )


@pytest.mark.parametrize(("place", "by", "accepted"), [((2, 0), 0.3, True), ((1, 0), 0.3, False), ((2, 0), 1.5, False)])
def test_outputs_of_samples_whose_codes_are_equal_have_the_bound(mine, place, by, accepted):
    """Codes that differ account for the outputs of their own sample, within reason, and for those of no other."""

    def change(tensors):
        steps_changed([3], sample=2)(tensors)
        output_changed(place, by)(tensors)

    report = clean_report(mine, change)
    assert report.verdict == "codes differ"
    assert (not refusals(report, CODES)) == accepted


def code_moved(tensors, clean, at):
    """Records another code before the faults at one word of a seed's run, counted through all samples."""
    before = tensors.get(f"{SITE}#0.before", clean[f"{SITE}#0.codes"]).copy()
    before.ravel()[at] ^= 1
    tensors[f"{SITE}#0.before"] = before
    struck = tensors[f"{SITE}#0.at"]
    tensors[f"{SITE}#0.after"] = np.where(struck == at, tensors[f"{SITE}#0.after"] ^ 1, tensors[f"{SITE}#0.after"])


@pytest.mark.parametrize("struck", [True, False])
def test_codes_of_struck_words_are_not_accepted(mine, struck):
    clean = opened(mine).tensors(CLEAN)

    def change(tensors):
        at = tensors[f"{SITE}#0.at"]
        code_moved(tensors, clean, at[0] if struck else np.setdiff1d(np.arange(WORDS), at)[0])

    with_tensors(mine, seed_file(1), change)
    report = check(opened(mine), seeds=[1], which="faulty")
    site = report.runs[0].sites[0]
    assert (report.verdict, site.codes_differ, site.struck_differ) == ("codes differ", 1, int(struck))
    assert bool(refusals(report, CODES)) == struck
    if struck:
        assert "faults strike" in refusals(report, CODES)[0]


@pytest.mark.parametrize("struck", [True, False])
def test_a_runner_without_one_fault_or_with_one_code_off(whole, struck):
    clean, faulty = opened(whole).tensors(CLEAN), opened(whole).tensors(seed_file(1))
    codes = faulty.get(f"{SITE}#0.before", clean[f"{SITE}#0.codes"]).copy()
    at = faulty[f"{SITE}#0.at"]
    before = codes.ravel()[at[0]]
    codes.ravel()[at] = faulty[f"{SITE}#0.after"]
    if struck:
        codes.ravel()[at[0]] = before
    else:
        codes.ravel()[np.setdiff1d(np.arange(WORDS), at)[0]] ^= 1
    answer = {SITE: codes, "prediction": faulty["prediction"]}
    report = check(opened(whole), seeds=[1], which="faulty", runner=lambda _: answer)
    assert report.verdict == "codes differ"
    assert bool(refusals(report, CODES)) == struck


def test_words_that_a_fault_map_holds_are_struck_words(tmp_path):
    """Also where they hold already what the cell forces, so that nothing changed."""
    words = 72
    cells = np.arange(0, words * 8, 8 * 3)  # bit 0 of every third word
    path = tmp_path / "m.safetensors"
    FaultMap.from_cells(words, 8, cells // 8, cells % 8, np.full(len(cells), Kind.STUCK_AT_1)).save(path)
    faults = resolve(sites(network("formats"), batch("formats")), [MapFaults(file=str(path), sites=SITE)])
    for held in (True, False):
        folder = written(tmp_path / str(held), faults=faults, seeds=[1])
        clean = opened(folder).tensors(CLEAN)[f"{SITE}#0.codes"]
        odd = clean[0] & 1
        of_map = np.arange(words) % 3 == 0
        word = np.flatnonzero((odd == 1) & (of_map == held))[0]

        moved = clean.copy()
        moved[0, word] ^= 2
        with_tensors(folder, seed_file(1), lambda tensors, moved=moved: tensors.update({f"{SITE}#0.before": moved}))
        report = check(opened(folder), seeds=[1], which="faulty")
        site = report.runs[0].sites[0]
        assert (site.codes_differ, site.struck_differ) == (1, int(held))


def test_every_word_shares_a_protected_memory_with_a_cell_of_its_map():
    parity = Protection(kind="parity", data_bits=16)
    profile = ProfileFaults(
        profile="sram14-ibm-7points", at={"operating_point": 0}, sites={"kind": "weight"}, protection=parity
    )
    faults = resolve(sites(network("digits_cnn"), batch("digits_cnn")), [profile])
    assert any(process.map is not None for entry in faults.sites for process in entry.processes)
    assert all(
        held_words(faults, entry.site.name) is None for entry in faults.sites if entry.processes[0].map is not None
    )


def test_values_that_stand_for_no_code_are_not_accepted(whole):
    clean = opened(whole).tensors(CLEAN)
    values = clean[f"{SITE}#0.codes"].astype(np.int8) * clean[f"{SITE}#0.scale"]
    values[0, 5] += np.float32(0.3) * clean[f"{SITE}#0.scale"].item()
    answer = {SITE: values, "output": clean["output"]}
    report = check(opened(whole), which="clean", runner=lambda _: answer)
    assert report.runs[0].sites[0].codes_differ == 1
    assert refusals(report, CODES) == [f"1 values stand for no code at {SITE} in the clean run"]


ARRAY = {"kind": "weight_stationary", "rows": 4, "columns": 4}
FAULTS = {
    "stuck": StuckElement(element=(1, 1), bit=6, value=1, mapping=ARRAY),
    "late": LateBits(probability=0.05, bits=4),
}
OTHERS = {
    "stuck": StuckElement(element=(2, 1), bit=6, value=1, mapping=ARRAY),
    "late": LateBits(probability=0.05, bits=5),
}
NAME = "features.0.accumulator"


def planned(*faults):
    return resolve(sites(network("digits_cnn"), batch("digits_cnn", SAMPLES, 3)), [*faults])


@pytest.fixture(scope="module", params=FAULTS)
def wrong_sums(request, tmp_path_factory):
    """A bundle whose record of one layer's sums is that of other faults, and how many sums differ."""
    folder = tmp_path_factory.mktemp("sums")
    ours, other = (
        written(folder / str(i), "digits_cnn", faults=planned(fault), seeds=[1])
        for i, fault in enumerate((FAULTS[request.param], OTHERS[request.param]))
    )
    theirs = opened(other).tensors(seed_file(1))
    found = []

    def change(tensors):
        for what in ("before", "at", "after"):
            found.append(not np.array_equal(tensors[f"{NAME}#0.{what}"], theirs[f"{NAME}#0.{what}"]))
            tensors[f"{NAME}#0.{what}"] = theirs[f"{NAME}#0.{what}"]

    with_tensors(ours, seed_file(1), change)
    assert any(found)
    return ours


@pytest.mark.every(2)
@pytest.mark.parametrize("accept", [OUTPUTS, CODES])
def test_other_faults_of_an_array_are_never_accepted(wrong_sums, accept):
    report = check(opened(wrong_sums), seeds=[1], which="faulty")
    assert (report.verdict, report.exit_code) == ("faults differ", 3)
    assert report.first[1].site == NAME
    assert [site.name for site in report.runs[0].sites if site.faults_differ] == [NAME]
    assert "faults differ in the run under seed 1" in refusals(report, accept)[0]


def test_sums_of_a_runner_are_never_accepted(tmp_path):
    """One of them, off by one."""
    folder = written(tmp_path / "b", "digits_cnn", faults=planned(FAULTS["stuck"]), seeds=[1])
    tensors = opened(folder).tensors(seed_file(1))
    codes = tensors[f"{NAME}#0.before"].copy()
    codes.ravel()[tensors[f"{NAME}#0.at"]] = tensors[f"{NAME}#0.after"]
    codes[0, 0] ^= 1
    answer = {NAME: codes, "output": tensors["output"]}
    report = check(opened(folder), seeds=[1], which="faulty", runner=lambda _: answer)
    assert report.runs[0].sites[0].codes_differ == 1
    assert refusals(report, CODES) == [f"sums of integers differ at {NAME} in the run under seed 1"]


def test_sums_of_other_integers_are_no_faults(tmp_path):
    """Where the inputs of a layer were rounded otherwise its sums differ, in those samples."""
    folder = written(tmp_path / "b", "digits_cnn", faults=planned(FAULTS["stuck"]), seeds=[1])
    with_tensors(folder, seed_file(1), lambda tensors: source_moved(tensors, opened(folder)))
    report = check(opened(folder), seeds=[1], which="faulty")
    assert report.verdict == "codes differ"
    found = {site.name: site for site in report.runs[0].sites}
    assert found["input.act_quant"].codes_differ == 1
    assert found[NAME].codes_differ == 1
    assert found[NAME].faults_differ == 0


def source_moved(tensors, bundle):
    """Another code at one word of sample 2 of the inputs, and of one of the sums, as if that had come of it."""
    tensors["input.act_quant#0.before"] = bundle.tensors(CLEAN)["input.act_quant#0.codes"].copy()
    tensors["input.act_quant#0.before"][2, 5] ^= 1
    tensors[f"{NAME}#0.before"][2, 7] ^= 1
