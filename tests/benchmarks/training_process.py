"""One network at one batch size and number of threads: every way to train it, side by side in this process.

`python -m tests.benchmarks.training_process NETWORK BATCH THREADS` prints a line of JSON; training_speed.py starts it.
Forwards are in evaluation mode without gradients, steps are zero_grad, forward, cross entropy and backward in training
mode; batches of 1 take no steps, as batch normalisation has no statistics of one sample. With one thread it is
processor time that is measured, which others on the machine disturb less; with more, which wait for each other, it is
real time.
"""

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

import hwfault as hf
from hwfault.fusion.fused import Fused
from hwfault.torch_ops.extension import extension
from tests.benchmarks.cnv import batch
from tests.benchmarks.network import forward, kept_for_backward, peak, training_step
from tests.benchmarks.peers import draw_densely, draw_sparsely, pick_random_words, struck
from tests.benchmarks.training_networks import NETWORKS, settle

BER = 1e-3
CLEAN, TWIN = "clean Brevitas", "float twin"
FAULTY, FUSED, FUSED_FAULTY = "Brevitas, hf.inject", "fused", "fused, hf.inject"
SPARSE, DENSE, REFERENCE = "sparse draw in torch", "dense draw in torch", "the reference framework's way"
VARIANTS = (CLEAN, FAULTY, FUSED, FUSED_FAULTY, TWIN, SPARSE, DENSE, REFERENCE)
_PEERS = {SPARSE: draw_sparsely, DENSE: draw_densely, REFERENCE: pick_random_words}
SLOW = (DENSE, REFERENCE)
"""They take several times as long as the others, and so part in the first rounds of some processes only."""
_SLOW_ROUNDS, _FEWEST_ROUNDS, _MOST_ROUNDS, _WARM_UP = 3, 9, 301, 3

Runs = Mapping[str, Callable[[], object]]


@contextmanager
def variants(
    network: str, samples: int, names: Collection[str], gathering: bool = False
) -> Iterator[tuple[dict[str, nn.Module], Fused]]:
    """A network once for each variant that is named, with its faults attached; and the fused block of the faulty one.

    `gathering` leaves them in the first steps of a training, else they are past these.
    """
    known = NETWORKS[network]
    x = batch(max(samples, 2))
    models = {key: known.build_twin() if key == TWIN else known.build() for key in names}
    for model in models.values():
        model(x) if gathering else settle(model, x)
    flips = hf.BitFlips(probability=BER)
    with ExitStack() as attached:
        blocks = {key: attached.enter_context(hf.fused(models[key])) for key in (FUSED, FUSED_FAULTY)}
        for key in (FAULTY, FUSED_FAULTY):
            attached.enter_context(hf.inject(models[key], flips, seed=1, example=x))
        for key in _PEERS.keys() & models.keys():
            attached.enter_context(struck(models[key], _PEERS[key], BER))
        yield models, blocks[FUSED_FAULTY]


def times(runs: Runs, seconds: float) -> dict[str, list[float]]:
    """The seconds that each variant takes in each round, for about as long as is given; each round in another order."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in runs}
    for name, run in runs.items():
        for _ in range(1 if name in SLOW else _WARM_UP):
            run()
    gc.freeze()
    rounds, begun = 0, time.perf_counter()
    while rounds < _FEWEST_ROUNDS or (time.perf_counter() - begun < seconds and rounds < _MOST_ROUNDS):
        names = [name for name in runs if name not in SLOW or rounds < _SLOW_ROUNDS]
        first = rounds % len(names)
        gc.collect()
        gc.disable()
        for name in names[first:] + names[:first]:
            start = clock()
            runs[name]()
            found[name].append(clock() - start)
        gc.enable()
        rounds += 1
    gc.unfreeze()
    return found


def summary(found: Mapping[str, list[float]]) -> dict[str, object]:
    """Medians over rounds of the ratio to the clean network in the same round, and its milliseconds.

    `fastest` are the ratios of the shortest times, which tell more than medians where others use the machine, too.
    """
    clean = found[CLEAN]
    pairs = {name: zip(taken, clean, strict=False) for name, taken in found.items()}
    return {
        "ratios": {name: statistics.median(t / c for t, c in rounds) for name, rounds in pairs.items()},
        "fastest": {name: min(taken) / min(clean) for name, taken in found.items()},
        "milliseconds": 1e3 * statistics.median(clean),
        "rounds": len(clean),
    }


def measure(
    network: str, samples: int, seconds: float, names: Collection[str] = VARIANTS, memory: bool = False
) -> dict[str, object]:
    """What is to be known of a network at a batch size."""
    x, target = batch(samples), torch.arange(samples) % 10
    report: dict[str, object] = {}
    with variants(network, samples, names) as (models, block):
        for model in models.values():
            model.eval()
        forwards = {name: lambda model=model: forward(model, x) for name, model in models.items()}
        report["forward"] = summary(times(forwards, seconds / 3))
        report |= {"fused": len(block.fused), "left": block.left}
        if samples == 1:
            return report
        for model in models.values():
            model.train()
        steps = {name: training_step(model, x, target) for name, model in models.items()}
        report["step"] = summary(times(steps, 2 * seconds / 3))
        if memory:
            report["kept"] = {name: kept_for_backward(model, x) for name, model in models.items()}
            report["peak"] = {name: peak(run) for name, run in steps.items()}
    return report


def measure_gathering(network: str, samples: int, seconds: float) -> dict[str, object]:
    """The training step while Brevitas gathers statistics of activations, as in the first 300 of a training."""
    x, target = batch(samples), torch.arange(samples) % 10
    with variants(network, samples, VARIANTS, gathering=True) as (models, block):
        steps = {name: training_step(model, x, target) for name, model in models.items()}
        return {"step": summary(times(steps, seconds)), "fused": len(block.fused), "left": block.left}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("batch", type=int)
    parser.add_argument("threads", type=int)
    parser.add_argument("--seconds", type=float, default=10.0, help="to measure for, once all is warm")
    parser.add_argument("--quick-ways", action="store_true", help="without those that take several times as long")
    parser.add_argument("--memory", action="store_true", help="also what is kept for the backward pass, and peaks")
    parser.add_argument("--gathering", action="store_true", help="the step in the first 300 of a training instead")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_num_interop_threads(1)
    load = [os.getloadavg()[0]]
    if given.gathering:
        report = measure_gathering(given.network, given.batch, given.seconds)
    else:
        names = [name for name in VARIANTS if not (given.quick_ways and name in SLOW)]
        report = measure(given.network, given.batch, given.seconds, names, given.memory)
    load.append(os.getloadavg()[0])
    print(json.dumps(report | {"load": load, "extension": extension() is not None}))


if __name__ == "__main__":
    main()
