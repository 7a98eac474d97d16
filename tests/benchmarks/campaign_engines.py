"""Trials of a campaign: the engine in onnxruntime against PyTorch, and replay of a suffix against whole trials.

Ratios of CPU time on one thread, all of one run; outputs are compared bit for bit, and what differs is counted.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn
from torch.nn import functional

from hwfault.campaigns.campaign import Campaign
from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.campaigns.engines.suffix import SuffixEngine
from hwfault.campaigns.points import Point, only_site
from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.torch_ops.extension import without_extension
from hwfault.train import networks
from hwfault.train.data import load
from hwfault.train.data.split import MemorySplit
from tests.benchmarks.side_by_side import machine

_RATES = (1e-3, 1e-4)
_TRIALS = 6
_ROUNDS = 5


class Case(NamedTuple):
    """A network, its images, and how many rows onnxruntime takes at once."""

    name: str
    model: nn.Module
    split: MemorySplit
    batch_size: int
    every: int
    """Of its sites every so manieth is replayed."""


def main() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    for make in (digits, cnv, resnet20):
        compare(make())
    torch.set_num_threads(before)


def digits() -> Case:
    data = load("digits")
    model = networks.build("digits_cnn", seed=0)
    _train(model, data.train.inputs(torch.arange(len(data.train))), data.train.labels, epochs=3)
    test = data.test
    return Case("digits", model.eval(), _stored(test.inputs(torch.arange(len(test))), test.labels), 128, 1)


def cnv() -> Case:
    return _on_large_digits("cnv", every=1)


def resnet20() -> Case:
    return _on_large_digits("resnet20", every=3)


def _on_large_digits(name: str, every: int, images: int = 32) -> Case:
    """A network for images of 32 x 32 after a few steps of training, which give its quantizers their scales."""
    data = load("digits")
    model = networks.build(name, seed=0, scale="power_of_two")
    _train(model, _enlarged(data.train.inputs(torch.arange(320))), data.train.labels[:320], epochs=2)
    x = _enlarged(data.test.inputs(torch.arange(images)))
    return Case(name, model.eval(), _stored(x, data.test.labels[:images]), 32, every)


def _enlarged(x: Tensor) -> Tensor:
    return functional.interpolate(x.repeat(1, 3, 1, 1), size=32, mode="bilinear", align_corners=False)


def _stored(x: Tensor, labels: Tensor) -> MemorySplit:
    return MemorySplit(x, labels)


def _train(model: nn.Module, x: Tensor, labels: Tensor, epochs: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for index in torch.randperm(len(x), generator=order).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[index]), labels[index]).backward()
            optimizer.step()


def compare(case: Case) -> None:
    """Prints a network's ratios."""
    x = case.split.stored
    graph = export(case.model, x[:1])
    engine = GraphEngine(graph, x.numpy(), batch_size=case.batch_size)
    print(f"{case.name}, {len(x)} images, batches of {case.batch_size} rows; {machine()}")
    for kind in ("activation", "weight"):
        plan = resolve(sites(case.model, x[:1]), [BitFlips(probability=_RATES[0], sites={"kind": kind})])
        _against_pytorch(case, engine, plan, kind)
    suffix = SuffixEngine(engine)
    for rate in _RATES:
        for kind in ("activation", "weight"):
            plan = resolve(sites(case.model, x[:1]), [BitFlips(probability=rate, sites={"kind": kind})])
            _replay(case, engine, suffix, plan, f"{kind}s, BER {rate:g}")
    print(f"    golden tensors held: at most {suffix.most_bytes / 2**20:.1f} MiB")
    _count_differing(graph, x, engine, plan)


def _against_pytorch(case: Case, engine: GraphEngine, plan: FaultPlan, kind: str) -> None:
    """Trials of a plan that strikes all sites of a kind, by PyTorch as 0.4.0 ran it and as today, and by the engine."""
    campaign = Campaign(case.model, case.split)
    point = Point.of(plan)
    ways: dict[str, Callable[[range], object]] = {
        "0.4.0": lambda seeds: _as_0_4_0(case, plan, seeds),
        "today": lambda seeds: campaign.run(point, seeds),
        "engine": lambda seeds: engine.outputs(plan, seeds),
    }
    for run in ways.values():
        run(range(1))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(_ROUNDS):  # in turn
        seeds = range(1 + i * _TRIALS, 1 + (i + 1) * _TRIALS)
        for name, run in ways.items():
            times[name].append(_seconds(lambda run=run, seeds=seeds: run(seeds)))
    ratios = {name: _median_of_ratios(times[name], times["engine"]) for name in ("0.4.0", "today")}
    print(
        f"    {kind}s, onnxruntime: {ratios['0.4.0']:.1f}x the trials/s of PyTorch as 0.4.0 ran it (to reach: 2.5x), "
        f"{ratios['today']:.1f}x those of PyTorch today; {_unlike_pytorch(case, engine, plan)}"
    )


def _as_0_4_0(case: Case, plan: FaultPlan, seeds: range) -> None:
    """Trials with Brevitas' own quantizers and hooks in Python, of which the count of right answers is kept."""
    x, labels = case.split.stored, case.split.labels
    with torch.no_grad(), without_extension(), inject(case.model, plan, seed=0) as injection:
        for seed in seeds:
            injection.seed = seed
            injection.first_sample = 0
            int((case.model(x).argmax(1) == labels).sum())


def _median_of_ratios(times: list[float], others: list[float]) -> float:
    return statistics.median(time / other for time, other in zip(times, others, strict=True))


def _unlike_pytorch(case: Case, engine: GraphEngine, plan: FaultPlan) -> str:
    """How many rows of outputs have other bits in PyTorch."""
    seeds = [5, 6]
    got = engine.outputs(plan, seeds)
    expected = []
    with torch.no_grad(), inject(case.model, plan, seed=0) as injection:
        for seed in seeds:
            injection.seed, injection.first_sample = seed, 0
            expected.append(case.model(case.split.stored).numpy())
    return f"{_rows_unlike(got, np.stack(expected))} of {got.shape[0] * got.shape[1]} rows differ"


def _replay(case: Case, engine: GraphEngine, suffix: SuffixEngine, plan: FaultPlan, title: str) -> None:
    """Trials that strike one site alone, as a whole and from there on."""
    whole, rest, differing = [], [], 0
    for site in plan.names[:: case.every]:
        alone = only_site(plan, site)
        engine.outputs(alone, [0])  # sessions are made once for all trials
        suffix.outputs(alone, range(4))
        whole.append(_seconds(lambda alone=alone: engine.outputs(alone, range(10, 10 + _TRIALS))))
        rest.append(_seconds(lambda alone=alone: suffix.outputs(alone, range(10, 10 + _TRIALS))))
        seeds = range(10, 12)
        differing += _rows_unlike(engine.outputs(alone, seeds), suffix.outputs(alone, seeds))
    ratios = [w / r for w, r in zip(whole, rest, strict=True)]
    print(
        f"    suffix, one site of {title}: {sum(whole) / sum(rest):.2f}x of all sites together, "
        f"mean of {len(ratios)} sites {statistics.mean(ratios):.1f}x (to reach: 2x), "
        f"median {statistics.median(ratios):.1f}x; "
        f"{differing} rows differ"
    )


def _count_differing(graph: ModelProto, x: Tensor, engine: GraphEngine, plan: FaultPlan) -> None:
    """Rows of outputs that differ in batches of another size, or on other threads."""
    seeds = [1, 2, 3]
    expected = engine.outputs(plan, seeds)
    counts = []
    for batch_size, threads in ((1, 1), (7, 1), (64, 2)):
        other = GraphEngine(graph, x.numpy(), batch_size=batch_size, threads=threads)
        counts.append(_rows_unlike(other.outputs(plan, seeds), expected))
    print(f"    rows that differ in batches of 1, 7 and 64 (on 2 threads): {counts} of {3 * len(x)}")


def _rows_unlike(got: np.ndarray, expected: np.ndarray) -> int:
    return int((got.view(np.int32) != expected.view(np.int32)).any(axis=-1).sum())


def _seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="fast_hadamard_transform package not found")
    main()
