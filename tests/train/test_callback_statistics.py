"""What the callback counts while a Trainer fits: flips of codes, also of words that their values do not hold."""

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFloat, Int32Bias
from torch import nn

from hwfault.injection.statistics import Statistics
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.reference import inject_codes
from hwfault.train.callback import FaultInjection
from tests.helpers.train.lit import Holding, loader, trainer

BIAS, WORDS, STEPS = "2.bias_quant", 300, 4
FLIPS = [BitFlips(probability=0.02, sites=BIAS)]
pytestmark = [  # Lightning's advice about loaders of data that is in memory, and fits without validation
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:You defined a .validation_step. but have no .val_dataloader"),
]


class Wide(Holding):
    """One whose bias has words of 32 bits, of which a float32 holds the 24 highest."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(72, WORDS, bias=True, bias_quant=Int32Bias),
        )

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def flips():
    """Flips of each plane of the bias that a callback counts in one fit."""
    callback = FaultInjection(FLIPS, seed=7, statistics=True)
    trainer(callback).fit(Wide(), loader(4 * STEPS, 4))
    assert isinstance(callback.statistics, Statistics)
    (record,) = (entry for entry in callback.statistics.read() if entry.site == BIAS)
    assert record.words == STEPS * WORDS
    return list(record.flips)


def test_flips_of_wide_words_are_those_that_were_drawn(monkeypatch):
    """In training, where each step has its number, and every plane counts: float values would tell others."""
    counted = flips()
    zeros, drawn = np.zeros(WORDS, np.uint32), np.zeros(32, int)
    program = resolve(sites(Wide().network), FLIPS).program(BIAS)
    for step in range(STEPS):
        struck = inject_codes(zeros, program=program, seed=7, sample=step, bit_width=32)
        drawn += [int((struck >> bit & 1).sum()) for bit in range(32)]
    assert counted == drawn.tolist()
    assert min(drawn) > 0

    def values_alone(self, name, before, after, scale, zero_point):
        self.statistics(name, before, after, scale, zero_point)

    monkeypatch.setattr(FaultInjection, "_observe", values_alone)
    assert flips() != counted
