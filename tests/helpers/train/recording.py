"""A network that notes what it is given, and the weights it uses, in a file of each rank's."""

import json
import os
import signal
from pathlib import Path

from brevitas import nn as qnn
from torch import nn

NOTES = "HWFAULT_TEST_NOTES"


class Noted(qnn.QuantLinear):
    """Notes inputs and quantized (perhaps faulty) weights of each forward."""

    def forward(self, x):
        weight = self.quant_weight().value
        note = {
            "training": self.training,
            "x": x.detach().flatten(1).sum(1).tolist(),
            "weight": weight.detach().flatten().tolist(),
        }
        with (Path(os.environ[NOTES]) / os.environ.get("LOCAL_RANK", "0")).open("a") as file:
            file.write(json.dumps(note) + "\n")
        return super().forward(x)


def network():
    first = Noted(4, 8, bias=True, weight_bit_width=4)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.Dropout(0.1), nn.Linear(8, 3))


def mortal():
    """The same network, which kills its process at the eighth forward in training, once."""
    whole, count = network(), 0

    def die(module, _inputs):
        nonlocal count
        count += module.training
        marker = Path(os.environ[NOTES]).parent / f"died-{os.environ.get('LOCAL_RANK', '0')}"
        if count == 8 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    whole.register_forward_pre_hook(die)
    return whole


def notes(folder):
    """The notes of each rank."""
    return [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(Path(folder).iterdir())]
