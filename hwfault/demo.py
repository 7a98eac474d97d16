"""The whole loop on scikit-learn's digits: train clean and under faults, measure both, export, replay."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hwfault.campaigns.evaluate import sweep
from hwfault.campaigns.picture import draw_accuracy
from hwfault.campaigns.tables import write_results
from hwfault.campaigns.trials import Trials
from hwfault.errors import FileError
from hwfault.files import output_folder, write_atomically
from hwfault.graph.export.of_network import export
from hwfault.laws.models import bit_errors
from hwfault.locks import locked_folder
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.proof.report import ReplayReport
from hwfault.records import Record
from hwfault.train import TrainConfig, build, checkpoint, train
from hwfault.train.data import Dataset, digits
from hwfault.train.folder import LAST
from hwfault.train.schedule import Schedule, ScheduledFault

BER = 0.03
RATES = (0.0, 0.001, 0.003, 0.01, 0.03, 0.05)
SEEDS = tuple(range(1000, 1030))
REPLAY_SEEDS = SEEDS[:5]
RAMP = Schedule(ramp="linear", ramp_epochs=13)
CLEAN, FAULTY = "trained clean", f"trained at BER {BER:g}"

Begin = Callable[[str, int], Callable[[], object]]
"""`begin(what, how many steps)` announces work and answers with the function to call after each step."""


class Demo(Record):
    """What the demo found: accuracy under faults of both networks, and the replay of the fault-trained one."""

    accuracy: dict[str, tuple[Trials, ...]]
    replay: ReplayReport


def run(out: Path | str, begin: Begin) -> Demo:
    """Runs the demo and leaves in `out` the checkpoint, its configuration, plan, both graphs, results and picture.

    Raises FileError, before anything is computed, if `out` cannot be written, is being written by another process, or
    holds a run of `hwfault train`, whose checkpoint the demo's would replace.
    """
    folder = output_folder(out)
    if (folder / LAST).exists():
        raise FileError(f"{folder}: holds a training run ({LAST}); choose another folder with --out")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so small a network is done sooner by one thread, also on a busy machine
    try:
        with locked_folder(folder):
            return _run(folder, begin)
    finally:
        torch.set_num_threads(threads)


def _run(folder: Path, begin: Begin) -> Demo:
    data = digits()
    config = TrainConfig(faults=tuple(ScheduledFault(fault=fault, schedule=RAMP) for fault in bit_errors(BER)))
    networks = {
        CLEAN: _trained(data, TrainConfig(), f"training: {CLEAN}", begin),
        FAULTY: _trained(data, config, f"training: {FAULTY}", begin),
    }
    network = networks[FAULTY]
    checkpoint.save(folder / "checkpoint.safetensors", network, config)
    config.save(folder / "config.json")
    accuracy = _measure(networks, data, folder, begin)
    return Demo(accuracy=accuracy, replay=_replayed(network, data, folder, begin))


def _trained(data: Dataset, config: TrainConfig, what: str, begin: Begin) -> nn.Module:
    advance = begin(what, config.epochs)
    network = build(config.network, seed=config.seed)
    train(network, data, config, progress=lambda _epoch: advance())
    return network


def _measure(
    networks: dict[str, nn.Module], data: Dataset, folder: Path, begin: Begin
) -> dict[str, tuple[Trials, ...]]:
    advance = begin(f"measuring under {len(SEEDS)} fault seeds", len(networks) * len(RATES))
    accuracy = {
        name: sweep(network, data.test_x, data.test_y, RATES, seeds=SEEDS, progress=lambda _trials: advance())
        for name, network in networks.items()
    }
    write_results(folder / "results.csv", accuracy)
    draw_accuracy(folder / "accuracy.png", accuracy, title="Digits, 4 bit weights and activations, bit errors on both")
    return accuracy


def _replayed(network: nn.Module, data: Dataset, folder: Path, begin: Begin) -> ReplayReport:
    batches = torch.split(data.test_x, 128)
    advance = begin("exporting and replaying in onnxruntime", len(batches))
    plan = resolve(sites(network, data.test_x[:1]), bit_errors(BER))
    plan.save(folder / "plan.json")
    graphs = {"model.qonnx.onnx": None, "model.faulted.onnx": plan}
    for name, faults in graphs.items():
        write_atomically(folder / name, export(network, data.test_x[:1], plan=faults).SerializeToString())
    faulted = folder / "model.faulted.onnx"
    report = replay(network, faulted, batches, seeds=REPLAY_SEEDS, progress=lambda _done, _total: advance())
    report.save(folder / "replay.json")
    return report
