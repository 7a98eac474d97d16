"""Where a line of a page may end within a name."""

import pytest

from hwfault.report.pages import _breakable


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("features.2.weight_quant", ["features.", "2.", "weight_", "quant"]),
        ("curve ber=0.001", ["curve ber=0.001"]),
        ("voltage voltage_v=0.53", ["voltage voltage_", "v=0.53"]),
        ("runs/a.onnx", ["runs/", "a.", "onnx"]),
        ("<b>&amp;", ["&lt;b&gt;&amp;amp;"]),
    ],
)
def test_names_end_behind_their_parts_and_numbers_nowhere(name, parts):
    assert _breakable(name).split("<wbr>") == parts
