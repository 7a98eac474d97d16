"""The fault models of the datapath as records."""

import numpy as np
import pytest

from hwfault.errors import ModelError
from hwfault.laws.bypassed import bypass_map
from hwfault.laws.models import AccumulatorFormat, BypassedElements, FaultList, LateBits, StuckElement, load_faults
from hwfault.program.selectors import Select
from hwfault.stream.mapping import FinnMvau, OutputStationary, WeightStationary

ARRAY = {"kind": "weight_stationary", "rows": 16, "columns": 8}
YAML = """
faults:
  - {model: accumulator, width: 16, overflow: saturate, mapping: {kind: finn_mvau, pe: 4, simd: 2}}
  - {model: stuck_element, element: [3, 2], bit: 5, value: 1, mapping: {kind: weight_stationary, rows: 16, columns: 8}}
  - {model: bypassed, elements: [[0, 1], 17], mapping: {kind: weight_stationary, rows: 16, columns: 8}}
  - {model: late_bits, probability: 0.01, bits: 4, sites: "features.*"}
"""


def test_they_are_written_in_yaml(tmp_path):
    path = tmp_path / "faults.yaml"
    path.write_text(YAML)
    array = WeightStationary(rows=16, columns=8)
    assert load_faults(path) == (
        AccumulatorFormat(width=16, overflow="saturate", mapping=FinnMvau(pe=4, simd=2)),
        StuckElement(element=(3, 2), bit=5, value=1, mapping=array),
        BypassedElements(elements=((0, 1), 17), mapping=array),
        LateBits(probability=0.01, bits=4, sites="features.*"),
    )


def test_selectors_choose_among_their_kind():
    assert LateBits(probability=0.1, bits=1, sites="a.*").sites == (Select(name="a.*", kind="accumulator"),)
    assert BypassedElements(mapping=ARRAY, elements=[1], sites="a.*").sites == (Select(name="a.*", kind="weight"),)
    with pytest.raises(ModelError, match="chooses no accumulator sites"):
        AccumulatorFormat(sites={"kind": "weight"})


def test_only_late_bits_have_a_rate():
    assert LateBits(probability=0.1, bits=1).scaled(0.5).probability == 0.05
    stuck = StuckElement(pe=1, bit=5, value=1, mapping=ARRAY)
    assert stuck.scaled(0.5) == stuck


def test_elements_are_numbered_row_by_row():
    assert StuckElement(pe=17, bit=0, value=1, mapping=ARRAY).place == (2, 1)
    assert StuckElement(element=(2, 1), bit=0, value=1, mapping=ARRAY).place == (2, 1)
    assert BypassedElements(mapping=ARRAY, elements=[(2, 1), 17, 3]).numbers == (3, 17)


BAD = [
    (AccumulatorFormat, {"width": 1}, "width"),
    (AccumulatorFormat, {"width": 33}, "width"),
    (AccumulatorFormat, {"overflow": "round"}, "'wrap' or 'saturate'"),
    (AccumulatorFormat, {"arithmetic": "float16"}, "'float32' or 'float64'"),
    (AccumulatorFormat, {"mapping": {"kind": "linear", "row_bits": 8}}, "mapping"),
    (StuckElement, {"bit": 1, "value": 1, "mapping": ARRAY}, "expected either `element`"),
    (StuckElement, {"bit": 1, "value": 1, "mapping": ARRAY, "pe": 1, "element": (0, 1)}, "expected either `element`"),
    (StuckElement, {"bit": 1, "value": 2, "mapping": ARRAY, "pe": 1}, "value"),
    (StuckElement, {"bit": 32, "value": 1, "mapping": ARRAY, "pe": 1}, "bit"),
    (StuckElement, {"bit": 1, "value": 1, "pe": 1}, "mapping"),
    (StuckElement, {"bit": 1, "value": 1, "mapping": ARRAY, "pe": 128}, r"\(16, 0\) is not in the array of 16 x 8"),
    (StuckElement, {"bit": 1, "value": 1, "mapping": ARRAY, "element": (0, 8)}, r"\(0, 8\) is not in the array"),
    (BypassedElements, {"mapping": ARRAY, "elements": []}, "at least one element"),
    (BypassedElements, {"mapping": ARRAY, "elements": [128]}, "is not in the array"),
    (BypassedElements, {"mapping": {**ARRAY, "kind": "output_stationary"}, "elements": [1]}, "hold no weights"),
    (LateBits, {"probability": 2, "bits": 1}, r"expected a number in \[0, 1\]"),
    (LateBits, {"probability": 0.1, "bits": 0}, "bits"),
]


@pytest.mark.parametrize(("model", "fields", "text"), BAD)
def test_what_is_refused(model, fields, text):
    with pytest.raises(ModelError, match=text):
        model(**fields)


def test_an_unknown_key_in_a_list_names_the_nearest():
    with pytest.raises(ModelError, match="did you mean 'overflow'"):
        FaultList.parse({"faults": [{"model": "accumulator", "overflows": "wrap"}]}, "here")


@pytest.mark.parametrize(
    ("mapping", "drops"),
    [
        (FinnMvau(pe=2, simd=3), lambda n, k: n % 2 == 1),
        (WeightStationary(rows=4, columns=3), lambda n, k: (k % 4, n % 3) == (0, 1)),
    ],
)
def test_the_map_of_a_bypassed_element(mapping, drops):
    shape = (6, 3, 2, 2)
    rows = bypass_map(mapping, [1], shape, 5)
    assert rows.word.tolist() == [n * 12 + k for n in range(6) for k in range(12) if drops(n, k)]
    codes = rows.apply(np.full(72, 31, np.uint32))
    assert sorted(set(codes.tolist())) == [0, 31]
    assert (codes == 0).sum() == len(rows)
    assert rows.then(rows).apply(codes).tolist() == codes.tolist()


def test_bypassing_output_stationary_elements_is_no_map():
    with pytest.raises(ModelError, match="output-stationary"):
        BypassedElements(mapping=OutputStationary(rows=2, columns=2), elements=[1])
