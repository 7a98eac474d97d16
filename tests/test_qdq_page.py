"""The counts of docs/qdq.md, on a small graph."""

from pathlib import Path

import pytest
from onnx.reference import ReferenceEvaluator

from hwfault.laws.models import BitFlips
from tests.experiments import qdq
from tests.helpers.graph.qdq import inputs, quantized

PAGE = Path(__file__).parents[1] / "docs" / "qdq.md"


def test_no_fault_moves_in_what_onnxruntime_makes_of_a_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(qdq, "BER", 0.02)
    graph = quantized("QDQ")
    found = qdq.compare(graph, inputs(), tmp_path, "all but biases", [{"kind": "weight"}, {"kind": "activation"}])
    assert found.flips > 1000
    assert found.moved == 0
    assert found.sites == 9
    assert found.outputs.total == len(qdq.COMPARED) * ReferenceEvaluator(graph).run(None, {"x": inputs()})[0].size
    assert found.outputs.differing == 0  # all scales are powers of two


@pytest.mark.slow
def test_flips_that_differ_are_counted(tmp_path, monkeypatch):
    """The graph beside it has faults at another rate."""
    rates = iter([0.02, 0.01])
    monkeypatch.setattr(qdq, "optimize", lambda graph, folder: at(next(rates)))
    monkeypatch.setattr(qdq, "BER", next(rates))
    found = qdq.compare(quantized("QDQ"), inputs(), tmp_path, "weights", {"kind": "weight"})
    assert 0 < found.moved < found.flips


def at(rate):
    graph = quantized("QDQ")
    plan = qdq.resolve(qdq.sites(graph), [BitFlips(probability=rate, sites={"kind": "weight"})])
    return qdq.insert_faults(graph, plan)


def test_the_page_tells_of_none():
    table = PAGE.read_text(encoding="utf-8").partition("before and after")[2]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| all")]
    assert len(rows) == 2
    assert {row[4] for row in rows} == {"0"}
