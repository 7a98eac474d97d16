"""LightningModules of a user's own, around small Brevitas networks, and what their sites see."""

import torch
from brevitas import nn as qnn
from lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from hwfault.injection.observer import Watcher
from tests.helpers.injection.networks import batch, build
from tests.helpers.injection.oracle import Seen

FIRST, LAST = "0.act_quant", "5.weight_quant"


class Holding(LightningModule):
    """A LightningModule with the network as a child."""

    def __init__(self, draws=1, seed=0):
        super().__init__()
        self.network = build("cnn", seed).train()
        self.draws = draws

    def forward(self, x):
        return self.network(x)

    def training_step(self, pair, _index):
        x, y = pair
        return sum(functional.cross_entropy(self(x), y) for _ in range(self.draws)) / self.draws

    def validation_step(self, pair, _index, dataloader_idx=0):
        return self(pair[0]).sum()

    test_step = validation_step

    def predict_step(self, pair, _index):
        return self(pair[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


class Being(Holding):
    """A LightningModule that is the network itself: several children hold its quantizers."""

    def __init__(self, draws=1, seed=0):
        super().__init__(draws, seed)
        first, *rest = self.network.children()
        del self.network
        self.first, self.rest = first, nn.Sequential(*rest)

    def forward(self, x):
        return getattr(out := self.rest(self.first(x)), "value", out)


class Settled(Holding):
    """One whose scales are parameters already, so that its state_dict says all about it.

    (As long as Brevitas collects statistics it leaves their buffers out.)
    """

    def __init__(self, seed=0):
        super().__init__()
        settled = {"collect_stats_steps": 1}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = nn.Sequential(
                qnn.QuantIdentity(bit_width=6, **settled),
                qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=4),
                nn.BatchNorm2d(4),
                qnn.QuantReLU(bit_width=4, **settled),
                nn.Flatten(),
                qnn.QuantLinear(64, 5, bias=False, weight_bit_width=4),
            )
        for i in range(3):
            self.network(batch(seed=i))


class Float(Holding):
    """One without any quantizer."""

    def __init__(self):
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(72, 5))


class Two(Holding):
    """One with two networks."""

    def __init__(self):
        super().__init__()
        self.other = nn.Sequential(nn.Flatten(), qnn.QuantLinear(72, 5, bias=False, weight_bit_width=4))

    def forward(self, x):
        return self.network(x) + self.other(x)


NAMES = {  # where the same sites are in both
    Holding: {"act": "0.act_quant", "weight": "5.weight_quant"},
    Being: {"act": "first.act_quant", "weight": "rest.4.weight_quant"},
}


def loader(count=16, size=4, seed=0, **options):
    """Samples in the order of the data set."""
    return DataLoader(TensorDataset(batch(count, seed=seed), torch.arange(count) % 5), size, **options)


class Resumable:
    """Batches in their order that go on in the middle of an epoch."""

    def __init__(self, count=16, size=4):
        self.batches, self.position = list(loader(count, size)), 0

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        self.position %= len(self.batches)  # Lightning takes no more batches than there are
        while self.position < len(self.batches):
            self.position += 1
            yield self.batches[self.position - 1]

    def state_dict(self):
        return {"position": self.position % len(self.batches)}

    def load_state_dict(self, state):
        self.position = state["position"]


class Watch(Callback):
    """Notes what the sites of a FaultInjection see in each phase; comes after it among the callbacks."""

    def __init__(self, faults):
        self.faults, self.calls, self.plan, self.kept = faults, {}, None, []

    def _begin(self, phase):
        self.seen = self.calls.setdefault(phase, Seen())
        self.plan = self.faults.driver.plan
        for injection in self.faults.driver.injections:
            injection._watcher = Watcher(self.seen)

    def on_train_batch_start(self, trainer, *_):
        self._begin("train")

    def on_validation_batch_start(self, trainer, *_):
        self._begin("sanity" if trainer.sanity_checking else "validation")

    def on_test_batch_start(self, *_):
        self._begin("test")

    def on_predict_batch_start(self, *_):
        self._begin("predict")


def trainer(*callbacks, epochs=1, **options):
    """A silent Trainer on the CPU."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    own = {"accelerator": "cpu", "devices": 1, "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return Trainer(callbacks=list(callbacks), max_epochs=epochs, **own | quiet | options)
