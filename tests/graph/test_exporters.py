"""Graphs of exporters that hwfault does not control: for each, what runs without faults, what is struck, and how often.

The set is `tests.helpers.graph.exporters.table`; `python -m tests.experiments.exporters` writes docs/exporters.md.
"""

import pytest

from tests.helpers.graph.exporters import examined
from tests.helpers.graph.exporters.table import CASES
from tests.helpers.graph.exporters.transformations import TRANSFORMATIONS
from tests.slowly import slow

QUICK = {
    "Brevitas, QONNX, TorchScript: ordinary",
    "onnxruntime.quantization, static, QDQ, int8: chain",
    "as QKeras' converter: dense of doubles",
}
TRANSFORMED = "onnxruntime.quantization, static, QDQ, int8: chain"
NAMES = [name if name in QUICK else slow(name) for name in CASES]
per_graph = pytest.mark.parametrize("name", NAMES)


def test_there_are_forty():
    assert len(CASES) >= 40
    assert len(TRANSFORMATIONS) >= 10


@per_graph
def test_a_session_without_faults_computes_what_the_graph_says(name):
    """To the bit without onnxruntime's fusions, but for what one rounding of a sum explains."""
    found = examined.agreement(name)
    assert found.unexplained == []
    if CASES[name].exact:
        assert found.rounded == 0


@per_graph
def test_sites_are_all_that_an_own_count_finds(name):
    found = examined.completeness(name)
    assert found.struck == found.counted
    assert found.obstacles == found.expected_obstacles


@per_graph
def test_bits_flip_as_often_as_asked(name):
    for site, measured in examined.rates(name).items():
        assert abs(measured.errors) <= 3, (site, measured)


@per_graph
def test_a_batch_of_8_is_8_batches_of_1(name):
    found = examined.batches(name)
    assert found.moved == 0
    assert found.flips > 0
    if not CASES[name].batch_scales:
        assert found.unexplained == 0
    if CASES[name].exact:
        assert found.differing == 0


@per_graph
def test_stripping_gives_the_same_bytes(name):
    assert examined.stripped(name)


@pytest.mark.parametrize("transformation", TRANSFORMATIONS)
@pytest.mark.parametrize("name", [name if name == TRANSFORMED else slow(name) for name in CASES])
def test_a_transformation_keeps_the_faults_or_is_told(name, transformation):
    found = examined.transformed(name, transformation)
    assert found.outcome in ("kept", "nothing to do", "refused", "not possible"), found


@pytest.mark.slow
def test_most_transformations_keep_the_faults_of_most_graphs():
    """On 35 of 40 by each of 10 transformations, of which 8 would do."""
    kept = {}
    for transformation in TRANSFORMATIONS:
        outcomes = [examined.transformed(name, transformation).outcome for name in CASES]
        kept[transformation] = sum(outcome in ("kept", "nothing to do") for outcome in outcomes)
    enough = [transformation for transformation, count in kept.items() if count >= 35 / 40 * len(CASES)]
    assert len(enough) >= 10, kept
