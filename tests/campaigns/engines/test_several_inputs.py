"""Trials of a graph of several inputs, in every engine of onnxruntime, against each sample run alone."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from torch import nn

from hwfault.campaigns.engines.engine import Trial
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.campaigns.engines.onnxruntime_engine import OnnxruntimeEngine
from hwfault.campaigns.engines.sparse_flips import make_sparse
from hwfault.campaigns.exactness import why_not_exact
from hwfault.errors import HwfaultError
from hwfault.graph.edit.insert import insert_faults
from hwfault.graph.export.of_network import export
from hwfault.graph.run.session import run, session
from hwfault.laws.models import BitFlips
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph import several
from tests.helpers.graph.networks import WEIGHTS, signed
from tests.helpers.graph.ops import assert_same
from tests.helpers.graph.several import EMBEDDED, arrays

SPARSE = "its input is int64, and single flips are carried from floating-point inputs"
LAYER = {"bias": False, **WEIGHTS}
N, SEEDS = 7, (3, 2**63 + 2)


def plan(*names):
    chosen = [entry.site for entry in several.plan().sites if not names or entry.site.name in names]
    return resolve(chosen, [BitFlips(probability=0.04)])


def alone(found, seed):
    """The outputs of each sample by itself."""
    made = session(insert_faults(several.graph(), found))
    rows = [{name: values[i : i + 1] for name, values in arrays(N).items()} for i in range(N)]
    return np.concatenate([run(made, row, seed=seed, first_sample=i)[0] for i, row in enumerate(rows)])


@pytest.mark.slow
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("names", [("each.act_quant",), (EMBEDDED,), ("total.act_quant",), ()])
def test_outputs_are_those_of_each_sample_alone(names, exact):
    """From the struck site on (`exact`) the mask and the steps are still read behind it."""
    found = plan(*names)
    engine = OnnxruntimeEngine(several.graph(), arrays(N), 3, exact=exact)
    for seed, ran in zip(SEEDS, engine.run([Trial(found, seed) for seed in SEEDS]), strict=True):
        assert_same(ran.outputs, alone(found, seed))
        assert not np.array_equal(ran.outputs, engine.golden())
    some = np.array([5, 1])
    (ran,) = engine.run([Trial(found, SEEDS[0])], some)
    assert_same(ran.outputs, alone(found, SEEDS[0])[some])


def test_inputs_that_are_not_all_there():
    with pytest.raises(HwfaultError, match="given were"):
        GraphEngine(several.graph(), {name: values for name, values in arrays(N).items() if name != "mask"})
    with pytest.raises(HwfaultError, match="given 0 images"):
        GraphEngine(several.graph(), {name: values[:0] for name, values in arrays(N).items()})


@pytest.mark.slow
def test_what_picks_from_a_table_is_exact():
    torch.manual_seed(0)
    words = nn.Sequential(qnn.QuantEmbedding(9, 4, **WEIGHTS), signed(5), nn.Flatten(), qnn.QuantLinear(12, 3, **LAYER))
    assert why_not_exact(export(words.eval(), torch.tensor([[0, 8, 3]]))) is None
    assert make_sparse(words, np.zeros((1, 3), np.int64), np.zeros((1, 3))) == (None, SPARSE)
