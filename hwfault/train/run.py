"""A training run in a folder: what a killed run had reported is there, and it can be resumed from there."""

import copy
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hwfault.errors import FileError, HwfaultError
from hwfault.files import output_folder, write_atomically
from hwfault.locks import locked_folder
from hwfault.network.sites import sites
from hwfault.own_code import is_code
from hwfault.records import read_yaml
from hwfault.train import checkpoint
from hwfault.train.config import TrainConfig, changes, merge_settings
from hwfault.train.data import Data, load
from hwfault.train.environment import note_start
from hwfault.train.float_weights import load_float
from hwfault.train.folder import BEST, CHECKPOINT, CONFIG, ENVIRONMENT, HISTORY, LAST
from hwfault.train.history import Epoch, table
from hwfault.train.kept_sites import keep_sites, key_of
from hwfault.train.longer import check_lengthened, lengthened, only_longer
from hwfault.train.loop import with_validation
from hwfault.train.networks import build
from hwfault.train.placement import device_type, world
from hwfault.train.randomness import seeded
from hwfault.train.telling import rank

_SPECS = ("network", "data", "augment", "transform")

Begin = Callable[[str, int], Callable[[], object]]


def train_into(out: Path | str, config: TrainConfig, begin: Begin, *, resume: bool = False) -> tuple[Epoch, ...]:
    """Trains what the configuration says; checkpoint, history and state are written after each epoch, each atomically.

    `begin(what, steps)` announces the work and answers with the function to call after each step. With `resume` the
    run in the folder goes on where its state was last written, to the weights that it would have had uninterrupted.
    Raises what loading the data, building the network and training raise, and FileError if the folder cannot be
    written, holds another run, or none to resume, and where another process writes there.
    """
    folder = output_folder(out)
    with locked_folder(folder) if rank() == 0 else nullcontext():  # other ranks are of the same run
        return _train_into(folder, config, begin, resume)


def _train_into(folder: Path, config: TrainConfig, begin: Begin, resume: bool) -> tuple[Epoch, ...]:
    from hwfault.train.trainer import Run, Watch  # Lightning takes seconds to import

    saved = _to_resume(folder, config) if resume else None
    if not resume:
        _refuse_a_run(folder)
    kind = device_type(config)
    ranks = world(config, torch.device(kind))
    if saved is not None and saved["hwfault"]["world"] != ranks:
        raise HwfaultError(f"{folder}: the run had {saved['hwfault']['world']} ranks, now {ranks}; resume with as many")
    network, data = _prepared(config, kind, begun=saved is not None)
    first = rank() == 0
    done = 0 if saved is None else len(saved["hwfault"]["history"])
    advance = begin(f"training {config.network}", _batches(config, data, ranks, done)) if first else lambda: None

    def start() -> None:
        if first:
            _begin(folder, config, saved)

    with seeded(config.seed, network):
        run = Run(network, data, config, folder=folder, watch=Watch(start=start, batch=advance))
        run.fit(saved)
    if first:
        _keep_sites(folder, data)
    return tuple(run.history)


def _prepared(config: TrainConfig, kind: str, *, begun: bool) -> tuple[nn.Module, Data]:
    """The network on its device, with its first weights unless it has `begun`, and the data with what validates."""
    data = load_data(config)
    network = build(config.network, seed=config.seed, **config.network_args)
    if config.initial is not None and not begun:
        begin_with(network, config.initial)
    check_runs(network, data)
    network.to(kind)
    return network, with_validation(data, config)


def check_training(config: TrainConfig) -> str:
    """What a run of the configuration would train, in a sentence: all of it is built and checked, and nothing trained.

    Raises what `train_into` raises before its first step, but for what concerns its folder.
    """
    from hwfault.train.trainer import Run, Watch

    kind = device_type(config)
    network, data = _prepared(config, kind, begun=False)
    with seeded(config.seed, network):
        Run(network, data, config, watch=Watch()).check()
    held_out = "" if data.validation is None else f", {len(data.validation):,} for validation"
    parameters = sum(parameter.numel() for parameter in network.parameters())
    batches = _batches(config, data, world(config, torch.device(kind)), 0)
    return (
        f"{config.network} with {parameters:,} parameters, {len(data.train):,} samples for training{held_out}: "
        f"{config.total_epochs} epochs, {batches:,} batches on the {kind}"
    )


def _keep_sites(folder: Path, data: Data) -> None:
    """Leaves the sites of a trained run in its folder: those of the network as whoever loads the checkpoint has it."""
    key = key_of(folder)
    if key is None:
        return
    network, _ = checkpoint.load(folder / CHECKPOINT)
    try:
        found = sites(network, data.example)
    except Exception:  # the run is whole without them, and whoever asks for its sites is told
        return
    keep_sites(folder, key, found)


def begin_with(network: nn.Module, path: str) -> None:
    """Puts the tensors of a float twin's checkpoint, or of one of this very network, into it; raises FileError."""
    if checkpoint.holds_quantized(path):
        checkpoint.restore(path, network)
    else:
        load_float(network, path)


def load_data(config: TrainConfig) -> Data:
    """The data that the configuration names, before anything is kept from it for validation."""
    return load(
        config.data,
        folder=config.data_folder,
        size=config.image_size,
        normalise=config.normalise,
        transform=config.transform,
    )


def resumed_config(out: Path | str, given: Mapping[str, Any]) -> TrainConfig:
    """The configuration of the run in a folder, with what the user gave in its place.

    Raises FileError if there is no run, or if it names code (module:function) that the user did not name as well: code
    that a file names is not run.
    """
    path = Path(out) / CONFIG
    stored = _stored(Path(out))
    for key in _SPECS:
        spec = getattr(stored, key)
        if spec is not None and is_code(spec) and key not in given:
            raise FileError(
                f"{path}: names the {key} {spec!r}; code that a file names is not run, so name it yourself "
                f"(--{key} {spec}) if you trust it"
            )
    return merge_settings(read_yaml(path), dict(given), str(path))


def check_runs(network: nn.Module, data: Data) -> None:
    """Raises FileError unless the network takes the data's inputs; the network itself is left as it is."""
    try:
        with torch.no_grad():
            copy.deepcopy(network).eval()(data.example)
    except Exception as error:
        shape = tuple(data.example.shape[1:])
        raise FileError(f"the network does not run on the data's inputs of shape {shape}: {error}") from error


def _stored(folder: Path) -> TrainConfig:
    if not (folder / CONFIG).exists():
        raise FileError(f"{folder}: holds no run to resume (no {CONFIG}); leave out --resume to start one")
    return TrainConfig.load(folder / CONFIG)


def _refuse_a_run(folder: Path) -> None:
    for name in (LAST, CHECKPOINT):
        if (folder / name).exists():
            raise FileError(
                f"{folder}: holds a run already ({name}); go on with --resume, or choose another folder with --out"
            )


def _to_resume(folder: Path, config: TrainConfig) -> dict[str, Any] | None:
    """The state that the folder's run goes on from, None at its very beginning."""
    from hwfault.train.ckpt import read

    stored = _stored(folder)
    if only_longer(stored, config):
        check_lengthened(folder, config)
    elif changed := changes(stored, config):
        lines = "".join(f"\n  {line}" for line in changed)
        raise FileError(
            f"{folder}: the run was started with another configuration, expected the same to resume it; changed:{lines}"
        )
    if not (folder / LAST).exists():
        return None
    saved = lengthened(folder, read(folder / LAST), config)
    if saved["hwfault"]["done"] and saved["hwfault"]["phase"] == len(config.parts):
        epochs = len(saved["hwfault"]["history"])
        raise FileError(f"{folder}: the run is finished, after {epochs} epochs; there is nothing to resume")
    return saved


def _begin(folder: Path, config: TrainConfig, saved: dict[str, Any] | None) -> None:
    """Writes what is known before the first step, and takes away what a killed run had half written."""
    for name in (CONFIG, ENVIRONMENT, HISTORY, CHECKPOINT, BEST, "epoch-*.safetensors", LAST):
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)
    if saved is None:
        (folder / ENVIRONMENT).unlink(missing_ok=True)
        config.save(folder / CONFIG)
    else:
        config.save(folder / CONFIG)  # which may have more epochs than the run began with
        history = [Epoch(**epoch) for epoch in saved["hwfault"]["history"]]
        write_atomically(folder / HISTORY, table(history).encode())
    note_start(folder / ENVIRONMENT)


def _batches(config: TrainConfig, data: Data, ranks: int, done: int) -> int:
    """How many batches a rank has in the epochs that are not done."""
    samples, left = -(-len(data.train) // ranks), 0
    for part in config.parts:
        left += max(0, part.epochs - done) * -(-samples // part.batch_size)
        done = max(0, done - part.epochs)
    return left
