"""Two processes that train together, their quantizers as one operator each: the training of Brevitas' own."""

import faulthandler
import json

import pytest
import torch
from torch import multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

import hwfault as hf
from tests.helpers.train import small
from tests.train.test_ranks import train

STEPS = 4
LONGEST = 300
"""Seconds after which ranks that wait for each other say where, and are ended."""
NETWORK = "tests.helpers.train.small:network"


def step_together(rank, folder, way):
    """Trains one of two processes on its half of the data, and leaves its tensors and gradients in the folder."""
    faulthandler.dump_traceback_later(LONGEST, exit=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/{way}", rank=rank, world_size=2)
    data, network = small.data(), small.network(dropout=0.0)
    network(data.train_x)  # Brevitas' scales are made in the first forward
    if way == "wrapped inside":
        block = hf.fused(network)
        parallel = DistributedDataParallel(network)
    else:
        parallel = DistributedDataParallel(network)
        block = hf.fused(parallel) if way == "wrapped before" else None
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(parallel(data.train_x[rank::2]), data.train_y[rank::2]).backward()
        optimizer.step()
    count = 0 if block is None else len(block.fused)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    torch.save({"count": count, "gradients": gradients, "state": network.state_dict()}, f"{folder}/{way} {rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ways = ("Brevitas", "wrapped inside", "wrapped before")
    for way in ways:
        multiprocessing.spawn(step_together, (str(folder), way), nprocs=2)
    return {way: [torch.load(folder / f"{way} {rank}.pt") for rank in range(2)] for way in ways}


# by Lightning two ranks train with fused quantizers in test_ranks.py, too
@pytest.mark.slow
@pytest.mark.parametrize("way", ["wrapped inside", "wrapped before"])
def test_data_parallel(found, way):
    first, second = found[way]
    assert first["count"] == second["count"] == 3
    for name, gradient in first["gradients"].items():
        assert torch.equal(gradient, second["gradients"][name])
        torch.testing.assert_close(gradient, found["Brevitas"][0]["gradients"][name], rtol=1e-4, atol=1e-6)
    assert first["state"].keys() == found["Brevitas"][0]["state"].keys()
    for name, tensor in first["state"].items():
        torch.testing.assert_close(tensor, found["Brevitas"][0]["state"][name], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_ranks_of_lightning(tmp_path):
    runs = {}
    for fused in ("true", "false"):
        done = train(tmp_path / fused, "--devices", "2", "--json", "--set", f"fused={fused}", network=NETWORK)
        assert ("3 of 3 quantizers run as one operator each" in done.stderr) == (fused == "true")
        runs[fused] = json.loads(done.stdout)
    for one, other in zip(runs["true"], runs["false"], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-6)
        assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-6)
