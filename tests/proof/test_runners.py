"""Hardware in the loop: a function in onnxruntime's place, and what an engine may tell of its sites."""

from functools import partial

import numpy as np
import pytest

from hwfault.codes import CodeFormat, integers
from hwfault.errors import HwfaultError, PlanError
from hwfault.laws.models import AccumulatorFormat, BitFlips, MapFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof import runners
from hwfault.proof.check import check
from hwfault.proof.sentences import sentence
from hwfault.stream.fault_map import FaultMap, Kind
from tests.helpers.graph.networks import batch, network
from tests.helpers.proof import engines
from tests.helpers.proof.bundles import SAMPLES, SEEDS, opened, written

ENGINES = "tests.helpers.proof.engines"


def test_a_right_engine_passes_clean_and_faulty(whole):
    seen = []

    def runner(arrays):
        seen.append({name: (values.dtype, values.shape) for name, values in arrays.items()})
        return engines.emulated(arrays, whole)

    report = check(opened(whole), runner=runner, engine="board 7")
    assert (report.verdict, report.engine) == ("pass", "board 7")
    assert [run.seed for run in report.runs] == [None, *SEEDS]
    numbers = {"hwfault_seed": (np.int64, ()), "hwfault_first_sample": (np.int64, ())}
    assert seen[0] == {"input": (np.float32, (SAMPLES, 2, 6, 6))}
    assert seen[1] == seen[2] == {**seen[0], **numbers}


def test_where_an_engine_first_differs(whole):
    def runner(arrays):
        out = engines.emulated(arrays, whole)
        if "hwfault_seed" in arrays:
            out[4, 3] += 1
        return {"output": out}

    report = check(opened(whole), runner=runner)
    run, first = report.first
    assert (report.verdict, report.exit_code, run.seed) == ("outputs differ", 3, SEEDS[0])
    assert (first.kind, first.sample, first.word, first.found) == ("output", 4, 3, first.recorded + 1)
    assert run.outputs_max_difference == 1
    assert "the output of sample 4, number 3: recorded" in sentence(report)


@pytest.mark.every(2)
@pytest.mark.parametrize("what", ["output", "prediction"])
def test_a_difference_behind_the_first_batch_has_the_samples_own_number(tmp_path, what):
    bundle = written(tmp_path / "b", batch_size=2)

    def runner(arrays):
        out = engines.emulated(arrays, bundle)
        if arrays.get("hwfault_first_sample") == 4:
            out[1, 3] += 1000
        return {what: out if what == "output" else out.argmax(1)}

    _, first = check(opened(bundle), runner=runner).first
    assert (first.kind, first.sample) == (what, 5)


def test_an_engine_that_only_classifies(whole):
    """An accelerator that gives nothing but classes; minus zero and zero are the same number to one with scores."""
    right = check(opened(whole), runner=lambda arrays: engines.emulated(arrays, whole).argmax(1))
    assert right.verdict == "pass"
    assert all(run.outputs == 0 and run.predictions == SAMPLES for run in right.runs)
    wrong = check(opened(whole), runner=lambda arrays: {"prediction": np.full(SAMPLES, 9)})
    assert wrong.first[1].kind == "prediction"
    assert wrong.runs[0].predictions_differ == SAMPLES
    assert wrong.runs[0].correct_found == 0
    zeros = check(opened(whole), runner=lambda arrays: engines.emulated(arrays, whole) + np.float32(0))
    assert zeros.verdict == "pass"


def recorded_sites(bundle, seed, form):
    """What an engine that tells of its sites would answer: integers, codes as stored, or values."""
    file = bundle.tensors("clean.safetensors" if seed is None else f"seed-{seed}.safetensors")
    clean = bundle.tensors("clean.safetensors")
    site = next(entry.site for entry in bundle.manifest.sites if entry.site.name == "2.act_quant")
    codes = file.get("2.act_quant#0.before", clean["2.act_quant#0.codes"]).astype(np.uint32)
    if seed is not None:
        codes.ravel()[file["2.act_quant#0.at"]] = file["2.act_quant#0.after"]
    whole = integers(codes, CodeFormat(site.bit_width, site.signed)).reshape(SAMPLES, 3, 4, 4)
    return {
        "integers": whole.astype(np.int16),
        "codes": codes.reshape(whole.shape).astype(np.uint8),
        "values": (whole * clean["2.act_quant#0.scale"]).astype(np.float32),
    }[form]


@pytest.mark.parametrize("form", ["integers", "codes", "values"])
def test_an_engine_that_tells_of_its_sites(whole, form):
    """Reference points inside the network: the first that differs is named, with the faults drawn around it."""
    bundle = opened(whole)
    seeds = {seed - 2**64 if seed >> 63 else seed: seed for seed in SEEDS}

    def runner(arrays, wrong):
        seed = seeds[int(arrays["hwfault_seed"])] if "hwfault_seed" in arrays else None
        site = recorded_sites(bundle, seed, form)
        if wrong and seed is not None:
            site[3, 2, 1, 0] = site[3, 2, 1, 0] + 1 if site[3, 2, 1, 0] == 0 else 0
        return {"2.act_quant": site, "output": engines.emulated(arrays, whole)}

    right = check(bundle, runner=partial(runner, wrong=False))
    assert right.verdict == "pass"
    assert [site.name for site in right.runs[1].sites] == ["2.act_quant"]
    assert right.runs[1].sites[0].faults_expected == right.runs[1].sites[0].faults_seen > 0
    report = check(bundle, runner=partial(runner, wrong=True))
    run, first = report.first
    assert (report.verdict, run.seed) == ("codes differ", SEEDS[0])
    assert (first.kind, first.site, first.sample, first.word) == ("site", "2.act_quant", 3, 2 * 16 + 4)
    assert all(codes.found_before is None for codes in first.words)
    assert "2.act_quant (1 of 1), sample 3, word 36: code after the faults recorded" in sentence(report)


def test_an_engine_tells_of_a_parameter_in_each_batch(tmp_path):
    """Cells that come and go with the batch: a memory holds other codes in the second one."""
    cells = np.arange(0, 20_000, 3)
    path = tmp_path / "m.safetensors"
    FaultMap.from_cells(5_000, 4, cells // 4, cells % 4, np.full(len(cells), Kind.FLIP)).save(path)
    model, x = network("formats"), batch("formats", SAMPLES, 3)
    name = "1.weight_quant"
    faults = resolve(sites(model, x), [MapFaults(file=str(path), p_active=0.5, refresh="batch", sites=name)])
    folder = written(tmp_path / "b", faults=faults, seeds=[1], batch_size=4)
    bundle = opened(folder)
    file, codes = bundle.tensors("seed-1.safetensors"), bundle.tensors("clean.safetensors")[f"{name}#0.codes"]
    rows = np.repeat(codes, 2, axis=0)
    rows.ravel()[file[f"{name}#0.at"]] = file[f"{name}#0.after"]
    assert (rows[0] != rows[1]).any()

    def runner(arrays, wrong=None):
        number = int(arrays["hwfault_first_sample"]) // 4
        answer = rows[number].copy()
        if number == 1 and wrong is not None:
            answer[wrong] ^= 1
        return {"output": engines.emulated(arrays, folder), name: answer}

    right = check(bundle, which="faulty", runner=runner)
    assert right.verdict == "pass"
    report = check(bundle, which="faulty", runner=partial(runner, wrong=5))
    assert (report.verdict, report.runs[0].sites[0].codes_differ) == ("codes differ", 1)
    assert (report.first[1].site, report.first[1].word, report.first[1].found) == (name, 5, rows[1, 5] ^ 1)


def test_an_engine_whose_sums_have_more_bits_than_a_float32(tmp_path):
    """One in the lowest of 32 bits, of words in which faults have set high ones."""
    model, x = network("digits_cnn"), batch("digits_cnn", SAMPLES, 3)
    wide = AccumulatorFormat(width=32, arithmetic="float64")
    flips = BitFlips(probability=0.05, sites={"kind": "accumulator"})
    faults = resolve(sites(model, x), [wide, flips])
    folder = written(tmp_path / "b", "digits_cnn", faults=faults, seeds=[1], arithmetic="integer")
    bundle = opened(folder)
    name = bundle.manifest.sites[-1].site.name
    file = bundle.tensors("seed-1.safetensors")
    codes = file[f"{name}#0.before"].astype(np.uint32)
    codes.ravel()[file[f"{name}#0.at"]] = file[f"{name}#0.after"]
    whole = integers(codes, CodeFormat(32, True)).astype(np.int64)
    sample, word = np.argwhere((abs(whole) > 1 << 26) & (whole % 2 == 0))[0]

    def runner(arrays, more):
        answer = whole.copy()
        answer[sample, word] += more
        return {"output": engines.emulated(arrays, folder), name: answer}

    assert check(bundle, which="faulty", runner=partial(runner, more=0)).verdict == "pass"
    report = check(bundle, which="faulty", runner=partial(runner, more=1))
    assert (report.verdict, report.runs[0].sites[0].codes_differ) == ("codes differ", 1)
    assert (report.first[1].sample, report.first[1].word) == (sample, word)


def test_sites_in_other_shapes(tmp_path):
    """Integers in any shape that has the words in order; values where one scale is for all, or in the graph's shape."""
    bundle = opened(written(tmp_path / "b", "per_channel"))
    clean = bundle.tensors("clean.safetensors")
    site = next(entry.site for entry in bundle.manifest.sites if entry.site.name == "1.weight_quant")
    whole = integers(clean["1.weight_quant#0.codes"], CodeFormat(site.bit_width, site.signed))

    def verdict(values):
        answer = {"1.weight_quant": values, "output": clean["output"]}
        return check(bundle, which="clean", runner=lambda arrays: answer).verdict

    scale = clean["1.weight_quant#0.scale"]
    assert scale.size == 4
    assert verdict(whole.ravel()) == verdict(whole.reshape(4, 2, 3, 3)) == "pass"
    assert verdict((whole.reshape(4, 2, 3, 3) * scale).astype(np.float32)) == "pass"
    with pytest.raises(HwfaultError, match="its channels have scales of their own"):
        verdict(whole.astype(np.float32))
    with pytest.raises(HwfaultError, match="expected 72 values: 72 words of 1 samples"):
        verdict(whole[:, :9])


WRONG = {
    "raises": "raised NoBoard: it is on fire .*engines.py, line",
    "wrong_shape": r"the output has the shape \[7, 5\], recorded was \[6, 5\]",
    "words": "answered 'output' with <U3, expected numbers",
    "nothing": "answered nothing, expected outputs",
    "unknown": "answered with 'ouput', expected 'output', 'prediction' or sites",
}


@pytest.mark.parametrize("name", WRONG)
def test_functions_that_answer_wrongly(whole, name):
    with pytest.raises((HwfaultError, PlanError), match=WRONG[name]):
        check(opened(whole), runner=runners.by_function(f"{ENGINES}:{name}", 60))


def test_a_function_that_hangs(whole):
    with pytest.raises(HwfaultError, match=r"did not answer within 0\.2 s; give it more time with --runner-timeout"):
        check(opened(whole), runner=runners.by_function(f"{ENGINES}:hangs", 0.2))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("tests.bundle.nowhere:run", "cannot be imported"),
        (f"{ENGINES}:run", "has no function 'run'"),
        (f"{ENGINES}:NOT_A_FUNCTION", "has no function"),
        ("run", "expected module:function"),
    ],
)
def test_functions_that_are_not_there(spec, words):
    with pytest.raises(HwfaultError, match=words):
        runners.by_function(spec, 1)
