"""Answers that are none: what stands for no code of a word differs, and what was not told is not said to be equal."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hwfault.codes import CodeFormat, decode, integers
from hwfault.errors import HwfaultError
from hwfault.graph.run.session import session
from hwfault.proof import engine
from hwfault.proof.answer import codes_of_integers
from hwfault.proof.check import check
from hwfault.proof.sentences import sentence
from hwfault.proof.sides import stands_for_code, strange_values
from tests.helpers.graph.running import copied
from tests.helpers.proof.bundles import SAMPLES, SEEDS, opened
from tests.helpers.proof.engines import emulated

SITES = ("0.act_quant", "1.weight_quant", "2.act_quant")
"""Signed with 8 bits, signed with 3, unsigned with 2."""


class Recorded:
    """What a bundle's clean run recorded of one site: integers, and values on its grid."""

    def __init__(self, folder, name):
        bundle = opened(folder)
        tensors = bundle.tensors("clean.safetensors")
        self.site = next(entry.site for entry in bundle.manifest.sites if entry.site.name == name)
        self.codes = tensors[f"{name}#0.codes"].astype(np.uint32)
        self.format = CodeFormat(self.site.bit_width, self.site.signed)
        self.scale = tensors[f"{name}#0.scale"]
        self.integers = integers(self.codes, self.format)
        self.values = decode(self.codes, self.scale, 0, self.format)
        self.output = tensors["output"]


def answered(folder, name, values):
    """The clean run of an engine that answers the recorded output, and these values for a site."""
    output = Recorded(folder, name).output
    return check(opened(folder), which="clean", runner=lambda _: {name: values, "output": output})


def zero_at(codes):
    """The first word of the code 0."""
    return np.unravel_index(np.flatnonzero(codes == 0)[0], codes.shape)


WRONG_INTEGERS = {
    "a word more": lambda r: r.codes.astype(np.int64) + (1 << r.site.bit_width),
    "a word less": lambda r: r.integers - (1 << r.site.bit_width),
    "64 bits more": lambda r: r.integers.astype(np.uint64) + np.uint64(1 << 63),
    "256 more in one byte": lambda r: r.integers.astype(np.int64) + 256 * (np.arange(r.codes.shape[1]) == 3),
}


@pytest.mark.parametrize("what", WRONG_INTEGERS)
@pytest.mark.parametrize("name", SITES)
def test_integers_beyond_the_word(whole, name, what):
    recorded = Recorded(whole, name)
    assert answered(whole, name, recorded.integers).verdict == "pass"
    wrong = WRONG_INTEGERS[what](recorded)
    report = answered(whole, name, wrong)
    (site,) = report.runs[0].sites
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    assert site.codes_differ == site.strange == np.count_nonzero(wrong.astype(object) != recorded.integers)
    assert site.first.strange
    assert "which stands for no code" in sentence(report)


def test_signed_integers_and_code_words_in_one_answer():
    fmt = CodeFormat(8, True)
    codes, strange = codes_of_integers(np.array([-1, 127, 200]), fmt)
    assert codes.tolist() == [255, 127, 0]
    assert strange.tolist() == [False, False, True]
    codes, strange = codes_of_integers(np.array([1, 127, 200]), fmt)
    assert codes.tolist() == [1, 127, 200]
    assert not strange.any()


@pytest.mark.parametrize(
    ("given", "expected", "none"),
    [
        ([-1, 1, 1], [0, 1, 1], []),
        ([0, 1, 1], [0, 1, 1], []),
        ([-1, 0, 2], [0, 0, 0], [1, 2]),
        ([0, 1, 2], [0, 1, 0], [2]),
    ],
)
def test_integers_of_one_bit_with_a_sign(given, expected, none):
    codes, strange = codes_of_integers(np.array(given), CodeFormat(1, True))
    assert codes.tolist() == expected
    assert np.flatnonzero(strange).tolist() == none


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64, np.uint64])
def test_every_type_of_integers_is_read(kind):
    codes, strange = codes_of_integers(np.array([0, 1, 1], kind), CodeFormat(4, True))
    assert codes.tolist() == [0, 1, 1]
    assert not strange.any()


WRONG_VALUES = {
    "half a step": lambda r: r.values + np.float32(0.49) * r.scale,
    "a hundredth of a step": lambda r: r.values - np.float32(0.01) * r.scale,
    "a word more": lambda r: r.values + r.scale * (1 << r.site.bit_width),
    "a word less": lambda r: r.values - r.scale * (1 << r.site.bit_width),
    "NaN": lambda r: np.full_like(r.values, np.nan),
    "infinity": lambda r: np.full_like(r.values, np.inf),
    "minus infinity": lambda r: np.full_like(r.values, -np.inf),
    "1e30": lambda r: np.full_like(r.values, 1e30),
    "NaN for zeros": lambda r: np.where(r.codes == 0, np.nan, r.values),
    "infinity for zeros": lambda r: np.where(r.codes == 0, np.inf, r.values),
}
SHAPES = {"0.act_quant": (SAMPLES, 2, 6, 6), "1.weight_quant": (3, 2, 3, 3), "2.act_quant": (SAMPLES, 3, 4, 4)}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("what", WRONG_VALUES)
@pytest.mark.parametrize("name", SITES)
def test_values_off_the_grid(whole, name, what, kind):
    recorded = Recorded(whole, name)
    wrong = WRONG_VALUES[what](recorded).astype(kind)
    report = answered(whole, name, wrong.reshape(SHAPES[name]))
    (site,) = report.runs[0].sites
    assert (report.verdict, report.exit_code) == ("codes differ", 3)
    assert site.codes_differ == site.strange == np.count_nonzero(wrong != recorded.values)
    assert site.strange > 0
    assert site.first.strange
    around = next(codes for codes in site.first.words if codes.word == site.first.word)
    assert (around.found_before, around.found_after) == (None, None)
    assert np.array_equal(around.found_value, site.first.found, equal_nan=True)
    report.model_dump_json()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("name", SITES)
def test_values_on_the_grid_in_any_type(whole, name, kind):
    """Scales that are no powers of two are in `test_values_of_another_order`."""
    recorded = Recorded(whole, name)
    assert answered(whole, name, recorded.values.astype(kind).reshape(SHAPES[name])).verdict == "pass"


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_values_of_another_order(bits):
    """What an engine computes as q * s - z * s, or keeps in a wider type, stands for q all the same."""
    fmt, scale, zero_point = CodeFormat(bits, False), np.float32(0.0371), np.float32(3)
    whole = np.arange(1 << bits, dtype=np.float32)
    for values in ((whole - zero_point) * scale, whole * scale - zero_point * scale):
        assert stands_for_code(values, scale, zero_point, fmt).all()
        assert stands_for_code(values.astype(np.float64), scale, zero_point, fmt).all()
        for part in (0.3, -0.3, 0.01):
            assert not stands_for_code(values + np.float32(part) * scale, scale, zero_point, fmt).any()
    ends = (np.array([-1, 1 << bits], np.float32) - zero_point) * scale
    assert not stands_for_code(ends, scale, zero_point, fmt).any()


def test_words_wider_than_the_type():
    """Of 32 bits float32 does not hold each code, nor the largest: the nearest value stands for it."""
    fmt, scale = CodeFormat(32, True), np.float32(0.013)
    codes = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 123_456_789], np.uint32)
    values = decode(codes, scale, 0, fmt)
    assert stands_for_code(values, scale, np.float32(0), fmt).all()
    assert not stands_for_code(values * np.float32(4), scale, np.float32(0), fmt)[2:4].any()


def test_numbers_that_are_none_are_their_own_kind_only():
    recorded = np.array([np.nan, np.nan, np.inf, np.inf, -np.inf, 1.0, 1.0], np.float32)
    found = np.array([-np.nan, 1.0, np.inf, np.nan, np.inf, np.nan, 2.0], np.float32)
    grid = (np.ones((), np.float32), np.zeros((), np.float32), CodeFormat(4, True))
    assert strange_values(found, recorded, *grid).tolist() == [False, False, False, True, True, True, False]


def test_shapes_that_do_not_fit_the_scales(tmp_path):
    """A transposed answer would be read with the scales of other channels."""
    from tests.helpers.proof.bundles import written

    bundle = opened(written(tmp_path / "b", "per_channel"))
    tensors = bundle.tensors("clean.safetensors")
    values = tensors["1.weight_quant#0.codes"].astype(np.float32).reshape(2, 4, 3, 3)
    with pytest.raises(HwfaultError, match=r"the shape \[2, 4, 3, 3\], but its channels have scales of their own"):
        check(bundle, which="clean", runner=lambda _: {"1.weight_quant": values})


def test_one_weight_alone_is_not_every_output(whole):
    """The verdict says what was compared, and nothing of the rest."""
    recorded = Recorded(whole, "1.weight_quant")
    report = check(opened(whole), which="clean", runner=lambda _: {"1.weight_quant": recorded.integers})
    (run,) = report.runs
    assert (run.sites_recorded, run.outputs, run.outputs_recorded) == (5, 0, SAMPLES * 5)
    assert (run.predictions, run.predictions_recorded) == (0, SAMPLES)
    told = sentence(report)
    assert "1 of 5 sites, 0 of 30 outputs and 0 of 6 predictions were compared; of the rest nothing is known" in told
    assert "every" not in told


def test_a_site_in_some_batches_only(tmp_path):
    from tests.helpers.proof.bundles import written

    folder = written(tmp_path / "b", batch_size=4)
    recorded = Recorded(folder, "0.act_quant")

    def runner(arrays):
        n = len(arrays["input"])
        site = {"0.act_quant": recorded.integers[:4]} if n == 4 else {}
        return {"prediction": recorded.output[:4].argmax(1) if n == 4 else recorded.output[4:].argmax(1), **site}

    told = sentence(check(opened(folder), which="clean", runner=runner))
    assert "0 of 5 sites (and 1 in part), 0 of 30 outputs and 6 of 6 predictions were compared" in told


def test_everything_is_said_of_everything_only(whole):
    assert "every code, output and prediction is the recorded one" in sentence(check(opened(whole)))
    told = sentence(check(opened(whole), runner=lambda arrays: emulated(arrays, whole)))
    assert "0 of 5 sites, 90 of 90 outputs and 18 of 18 predictions were compared; of the rest nothing" in told


def test_predictions_beside_outputs_are_compared(whole):
    """Right outputs do not excuse a wrong class."""

    def runner(arrays):
        return {"output": emulated(arrays, whole), "prediction": np.full(SAMPLES, 9)}

    report = check(opened(whole), runner=runner)
    assert report.verdict == "outputs differ"
    assert all(run.predictions_differ == SAMPLES and run.outputs_differ == 0 for run in report.runs)
    assert report.first[1].kind == "prediction"


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e300])
def test_outputs_that_are_no_numbers(whole, wrong):
    """What is not finite, and float32 has no room for, differs by more than any number."""
    report = check(opened(whole), runner=lambda _: np.full((SAMPLES, 5), wrong))
    assert report.verdict == "outputs differ"
    assert all(run.outputs_differ == run.outputs and run.outputs_max_difference == np.inf for run in report.runs)
    assert '"outputs_max_difference":"inf"' in report.model_dump_json()


def test_recorded_numbers_that_are_none_are_found(mine):
    """A NaN that was recorded is found as NaN of any bits; in its place nothing else is."""
    from tests.helpers.proof.bundles import with_tensors

    def change(tensors):
        tensors["output"][1, 2], tensors["output"][3, 0] = np.nan, np.inf

    with_tensors(mine, "clean.safetensors", change)
    output = Recorded(mine, "0.act_quant").output

    def verdict(place=None, value=0.0):
        out = np.array(output)
        if place is not None:
            out[place] = value
        out[np.isnan(out)] = -np.float32(np.nan)
        answer = {"output": out, "prediction": opened(mine).tensors("clean.safetensors")["prediction"]}
        return check(opened(mine), which="clean", runner=lambda _: answer).verdict

    assert verdict() == "pass"
    for place, value in (((1, 2), np.inf), ((1, 2), 0.0), ((3, 0), np.nan), ((3, 0), -np.inf), ((0, 0), np.nan)):
        assert verdict(place, value) == "outputs differ"


@pytest.mark.parametrize("site", ["0.act_quant", "2.act_quant"])
@pytest.mark.parametrize("faulty", [False, True])
def test_a_graph_whose_values_are_off_the_grid(whole, monkeypatch, site, faulty):
    """onnxruntime with a quantizer that answers a third of a step more: the nearest codes are the right ones."""

    def changed(graph, **options):
        graph = copied(graph)
        node = next(n for n in graph.graph.node if n.op_type == "Quant" and n.metadata_props[0].value == site)
        (tensor,) = node.output
        node.output[0] = "right"
        scale = next(t for t in graph.graph.initializer if t.name == node.input[1])
        third = numpy_helper.to_array(scale) / np.float32(3)
        graph.graph.initializer.append(numpy_helper.from_array(third, "third"))
        at = list(graph.graph.node).index(node)
        graph.graph.node.insert(at + 1, helper.make_node("Add", ["right", "third"], [tensor]))
        return session(graph, **options)

    monkeypatch.setattr(engine, "session", changed)
    report = check(opened(whole), which="faulty" if faulty else "clean", seeds=SEEDS[:1])
    first = next(found for found in report.runs[0].sites if found.name == site)
    assert report.exit_code == 3
    assert first.strange == first.codes_differ == first.words
    assert first.first.strange
