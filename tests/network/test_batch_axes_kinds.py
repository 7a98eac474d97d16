"""Maps, protected memories and faulty elements where samples do not lie along axis 0, against the rule in NumPy."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn

from hwfault.codes import CodeFormat
from hwfault.errors import PlanError
from hwfault.graph.run.strike import strike_values
from hwfault.injection.attach import inject
from hwfault.laws.models import MapFaults, ProfileFaults, StuckElement
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.program.batch_axes import BatchAxis, arrange, restore
from hwfault.program.selectors import Select
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.mapping import WeightStationary
from hwfault.stream.protection_scheme import Protection
from tests.helpers.injection.oracle import Seen, same_bits
from tests.helpers.network.moving import FLIPS, UNSAID, Does, trained

SRAM = {"profile": "sram14-ibm-7points", "at": {"operating_point": 0}, "share": 1.0}
HERE = [Select(name="b.act_quant")]
MOVED = {  # what is done to (B, 4, 600), and where the samples lie behind it
    "last": (lambda q, x: q(x).permute(1, 2, 0), BatchAxis(axis=2)),
    "frames": (lambda q, x: q(x).flatten(0, 1), BatchAxis(inner=4, rows=4)),
    "T x B": (lambda q, x: q(x).transpose(0, 1).flatten(0, 1), BatchAxis(inner=1, rows=4)),
    "axis 1 with rows": (
        lambda q, x: q(x).transpose(0, 1).reshape(4, 2 * len(x), 300),
        BatchAxis(axis=1, inner=2, rows=2),
    ),
}


def mapped(folder, words):
    """A map of some of the words, one cell each of some kind."""
    word = np.flatnonzero(np.random.default_rng(0).random(words) < 0.3)
    path = folder / "map.safetensors"
    FaultMap.from_cells(words, 4, word, word % 4, [int(w) % 3 for w in word]).save(path)
    return str(path)


def faults_of(kind, folder, words):
    if kind == "map":
        return [MapFaults(file=mapped(folder, words), sites=HERE)]
    if kind == "intermittent":
        return [MapFaults(file=mapped(folder, words), sites=HERE, p_active=0.5, refresh="inference")]
    protection = Protection(kind="parity" if kind == "parity" else "secded", data_bits=16)
    return [ProfileFaults(**SRAM, sites=HERE, protection=protection)]


@pytest.mark.every(2)
@pytest.mark.parametrize("kind", ["map", "intermittent", "parity", "secded"])
@pytest.mark.parametrize("name", MOVED)
def test_a_site_is_arranged_struck_and_restored(name, kind, tmp_path):
    function, batch = MOVED[name]
    model = trained(Does(function), torch.randn(16, 4, 600))
    x, seen = torch.randn(5, 4, 600), Seen()
    listed = sites(model, x)
    site = next(site for site in listed if site.name == "b.act_quant")
    assert site.batch == batch
    plan = resolve(listed, faults_of(kind, tmp_path, site.words))
    with torch.no_grad(), inject(model, plan, seed=2, observe=seen) as injection:
        injection.first_sample = 7
        model(x)
    (call,) = seen
    (step,) = plan.steps(site.name)
    before = call.before.numpy()
    numbers = {"seed": 2, "samples": np.arange(7, 12), "batched": True}
    grid = (call.scale.item(), call.zero_point.item(), CodeFormat(4, True))
    expected = restore(strike_values(step, arrange(before, batch), *grid, **numbers), before.shape, batch)
    assert same_bits(call.after, torch.from_numpy(expected))
    assert (call.after != call.before).any()
    # struck as it lies, other words would be, but where the rows of a sample lie together in front
    plain = strike_values(step, before.reshape(5, -1), *grid, **numbers).reshape(before.shape)
    assert np.array_equal(plain, expected) == (name == "frames")


def test_faulty_elements_reach_the_sums_of_a_sample_wherever_it_lies():
    """Tokens in front of samples: the same sums as of samples in front, element by element of the array."""
    torch.manual_seed(0)
    layer = qnn.QuantLinear(6, 5, bias=False, weight_bit_width=4)

    def network(swapped):
        model = Does(lambda q, x: layer(q(x).transpose(0, 1) if swapped else q(x)))
        model.layer = layer
        return model

    x, first = torch.randn(3, 4, 6), trained(network(True), torch.randn(16, 4, 6))
    plain = network(False)
    plain.load_state_dict(first.state_dict())
    plain.eval()
    mapping, found = WeightStationary(rows=4, columns=2), []
    for model in (first, plain):
        faults = [StuckElement(mapping=mapping, element=(1, 1), bit=5, value=1)]
        listed, seen = sites(model, x), Seen()
        with torch.no_grad(), inject(model, resolve(listed, faults), seed=1, observe=seen):
            changed = model(x)
        assert not torch.equal(changed, model(x))
        (site,) = [site for site in listed if site.kind == "accumulator"]
        found.append((site, seen.of(site.name)[0]))
    (moved, mine), (_, theirs) = found
    assert moved.batch == BatchAxis(axis=1)
    assert same_bits(mine.after.transpose(0, 1).contiguous(), theirs.after)


def test_forwards_of_one_sample_do_not_end_the_watch():
    """One sample lies along axis 0 wherever it is put."""
    model, x = trained(Does(UNSAID["sorted"]), torch.randn(16, 4, 4, 4)), torch.randn(4, 4, 4, 4)
    with inject(model, FLIPS, seed=1):
        model(x[:1])
        model(x[:1])
        with pytest.raises(PlanError, match=r"'b.act_quant'.*give an example"):
            model(x)
