"""The sparse engine beside Brevitas: `python -m tests.benchmarks.census [digits] [cnv] [resnet20]`.

CPU seconds of a census, runs (a flip in an image) a second, and how many flips it does in the time of one forward of
Brevitas on the same images. Of the large networks, trained for two epochs on the digits drawn larger, some flips of
each layer are run, and their time is extrapolated to all.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hwfault.campaigns.sparse import SparseEngine, all_flips, census
from hwfault.campaigns.sparse.flips import Flips
from hwfault.train import TrainConfig, build, train
from hwfault.train.data import digits

IMAGES = 16
SOME = 1024
_LAST = {"cnv": ("features.17", "classifier.0", "classifier.3", "classifier.6"), "resnet20": ()}
"""Layers of which all flips are run."""


def main(names: Sequence[str] = ("digits",)) -> None:
    torch.set_num_threads(1)
    for name in names:
        of_digits() if name == "digits" else of_large(name)


def of_digits() -> None:
    """Every flip of the demo's network by all test images."""
    data, config = digits(), TrainConfig()
    network = build(config.network, seed=config.seed)
    train(network, data, config)
    forward = forward_seconds(network.eval(), data.test_x)
    begin = time.process_time()
    found = census(network, data.test_x)
    seconds = time.process_time() - begin
    print(f"digits: {len(found.flips)} flips x {found.images} images in {seconds:.1f} s of CPU (to reach: 60)")
    print(f"    {told(seconds, len(found.flips), found.images, forward)}, rate {found.rate:.3e}")
    for node, share in zip(found.nodes, found.died.sum(0) / found.runs, strict=True):
        print(f"    {share:7.2%} of the runs are golden again behind {node}")


def of_large(name: str) -> None:
    """Some flips of each layer, and all of those that are small enough."""
    network, images = trained(name)
    forward = forward_seconds(network, images)
    engine = SparseEngine(network, images, memory=1 << 30)
    print(f"{name}: {len(images)} images, Brevitas' forward {forward:.3f} s of CPU")
    total, flips_of_all = 0.0, 0
    for site in engine.description.sites:
        flips = all_flips(engine.description, [site])
        chosen = flips if site.removesuffix(".weight_quant") in _LAST[name] else some(flips)
        begin = time.process_time()
        changed = sum(int(np.unpackbits(piece.top1).sum()) for piece in engine.pieces(chosen))
        seconds = time.process_time() - begin
        rate = changed / (len(chosen) * len(images))
        print(f"    {site:<36} {told(seconds, len(chosen), len(images), forward)}, rate {rate:.2e}")
        total += seconds / len(chosen) * len(flips)
        flips_of_all += len(flips)
    print(
        f"    all {flips_of_all} flips: {total:.0f} s, {forward * flips_of_all / total:.0f}x Brevitas' forward a flip"
    )


def some(flips: Flips) -> Flips:
    """A random choice of words, with all of their bits."""
    bits = int(flips.bit.max()) + 1
    words = np.random.default_rng(0).choice(len(flips) // bits, min(SOME // bits, len(flips) // bits), replace=False)
    return flips[(np.sort(words)[:, None] * bits + np.arange(bits)).reshape(-1)]


def told(seconds: float, flips: int, images: int, forward: float) -> str:
    runs = flips * images
    ratio = forward * flips / seconds
    return (
        f"{flips:8} flips, {1e6 * seconds / flips:9.1f} us each, {runs / seconds:11,.0f} runs/s, {ratio:8.0f}x Brevitas"
    )


def forward_seconds(network: nn.Module, images: Tensor) -> float:
    """The median CPU time of a forward of Brevitas."""
    times = []
    with torch.no_grad():
        for _ in range(5):
            begin = time.process_time()
            network(images)
            times.append(time.process_time() - begin)
    return float(np.median(times))


def trained(name: str) -> tuple[nn.Module, Tensor]:
    """A large network after two epochs on the digits, and test images."""
    data = digits()
    network = build(name, seed=0)
    x, y = enlarged(data.train_x), data.train_y
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    network.train()
    for _ in range(2):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            optimizer.zero_grad()
            functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
    return network.eval(), enlarged(data.test_x[:IMAGES])


def enlarged(images: Tensor) -> Tensor:
    """Grey images of 8 x 8 as three equal channels of 32 x 32."""
    return functional.interpolate(images.repeat(1, 3, 1, 1), size=32, mode="bilinear", align_corners=False)


if __name__ == "__main__":
    main(sys.argv[1:] or ("digits",))
