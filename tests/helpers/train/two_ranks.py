"""Trains on two ranks and writes down what each saw; run by torchrun, which sets the ranks."""

import sys
import warnings
from pathlib import Path

import torch

from hwfault.laws.models import WordFaults
from hwfault.train.callback import FaultInjection
from tests.helpers.train import lit


def main(kind, out):
    warnings.simplefilter("ignore")
    fault = WordFaults(probability=0.2, effect="msb")
    faults = FaultInjection([fault], seed=7)
    watch, module = lit.Watch(faults), getattr(lit, kind)()
    trainer = lit.trainer(faults, watch, epochs=2, strategy="ddp", devices=2, num_sanity_val_steps=1)
    trainer.fit(module, lit.loader(16, 4), lit.loader(10, 4, seed=1))
    trainer.validate(module, lit.loader(10, 4, seed=1))
    calls = {phase: [vars(call) for call in seen] for phase, seen in watch.calls.items()}
    saved = {
        "calls": calls,
        "steps": faults.state_dict(),
        "weights": module.state_dict(),
        "removed": faults.driver is None,
    }
    torch.save(saved, Path(out) / f"{trainer.global_rank}.pt")
    (Path(out) / "plan.json").write_text(watch.plan.to_json())


if __name__ == "__main__":
    main(*sys.argv[1:])
