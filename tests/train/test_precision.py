"""Mixed precision in the loop: what trains under faults is the clean values, and beside them those of struck codes."""

import numpy as np
import pytest
import torch

from hwfault.codes import CodeFormat, decode
from hwfault.laws.models import BitFlips, WordFaults
from hwfault.stream.reference import inject_codes
from hwfault.train import TrainConfig, train, trainer
from hwfault.train.driver import FaultDriver
from tests.helpers.injection.oracle import Seen, same_bits
from tests.helpers.train import small
from tests.torch_ops.test_precision import comes_back, within

FAULTS = (BitFlips(p01=0.1, p10=0.05), WordFaults(probability=0.1))
BATCH = 12


@pytest.fixture
def watched(monkeypatch):
    """The calls at all sites and the drivers of a run, which otherwise is as ever."""
    seen, drivers = Seen(), []

    class Watched(FaultDriver):
        def __init__(self, *args, **options):
            super().__init__(*args, observe=seen, **options)
            drivers.append(self)

    monkeypatch.setattr(trainer, "FaultDriver", Watched)
    return seen, drivers


@pytest.mark.every(2)
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("gradient", ["zero", "straight_through"])
def test_words_stay_on_the_grid(watched, bits, gradient):
    seen, drivers = watched
    rest = {"epochs": 2, "batch_size": BATCH, "seed": 5, "gradient": gradient}
    config = TrainConfig(precision="bf16-mixed", faults=FAULTS, **rest)
    network = small.network(bits=bits)
    (*_, last) = train(network, small.data(), config)
    assert np.isfinite(last.loss)
    plan, steps = drivers[-1].plan, {}
    assert torch.bfloat16 in {call.after.dtype for call in seen}
    for call in seen:
        step = steps[call.name] = steps.get(call.name, -1) + 1
        site = plan.at(call.name).site
        fmt = CodeFormat(site.bit_width, site.signed)
        scale, zero_point = (t.float().numpy() for t in (call.scale, call.zero_point))
        codes = within(call.before.float().numpy(), scale, zero_point, fmt)
        expected = struck(plan, call.name, codes, step)
        changed = torch.from_numpy(expected != codes)
        assert same_bits(call.after[~changed], call.before[~changed]), call.name
        exact = torch.from_numpy(decode(expected, scale, zero_point, fmt)).to(call.after.dtype)
        assert torch.equal(call.after[changed], exact[changed]), call.name
        after = within(call.after.float().numpy(), scale, zero_point, fmt)
        assert comes_back(after, expected, fmt, call.after.dtype), call.name
    assert set(steps.values()) == {2 * 48 // BATCH - 1}
    assert steps.keys() == set(plan.names)


def struck(plan, name, codes, step):
    """What the reference makes of a site's codes in a step: samples are counted on from batch to batch."""
    batched = plan.at(name).site.batched
    rows = codes.reshape(len(codes) if batched else 1, -1)
    numbers = range(step * BATCH, step * BATCH + BATCH) if batched else [step]
    draw = {"program": plan.program(name), "seed": 5, "bit_width": plan.at(name).site.bit_width}
    return np.stack([inject_codes(row, sample=n, **draw) for row, n in zip(rows, numbers, strict=True)]).reshape(
        codes.shape
    )
