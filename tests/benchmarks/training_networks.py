"""The networks of the training benchmark, each with its float twin; all take images (n, 3, 32, 32) of 10 classes."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from hwfault.train import networks
from tests.benchmarks.cnv import cnv
from tests.benchmarks.float_twin import float_twin
from tests.benchmarks.hooks import VisionTransformer
from tests.benchmarks.untouched import OddResNet, ThreeBitMLP

_BITS = 4


class Network(NamedTuple):
    """How a network and its float twin are made, and whether something here was tuned on it."""

    build: Callable[[], nn.Module]
    build_twin: Callable[[], nn.Module]
    tuned: bool = True


def _of_the_zoo(name: str) -> Network:
    def build(quantized: bool) -> nn.Module:
        return networks.build(name, weight_bits=_BITS, act_bits=_BITS, quantized=quantized)

    return Network(lambda: build(True), lambda: build(False))


def _of_layers(build: Callable[[], nn.Module], tuned: bool = True) -> Network:
    return Network(build, lambda: float_twin(build()), tuned)


NETWORKS = {
    "ResNet-20": _of_the_zoo("resnet20"),
    "CNV": _of_layers(cnv),
    "MobileNetV1": _of_the_zoo("mobilenet_v1_cifar"),
    "small ViT": _of_layers(VisionTransformer),
    "odd ResNet-18": _of_layers(OddResNet, tuned=False),
    "3 bit MLP": _of_layers(ThreeBitMLP, tuned=False),
}


def settle(model: nn.Module, x: Tensor) -> nn.Module:
    """The network as it is after the first steps of a training, in which Brevitas gathers statistics of activations.

    There are 300 such steps by default, after which their mean is a parameter; here one is enough.
    """
    for module in model.modules():
        if hasattr(module, "collect_stats_steps"):
            module.collect_stats_steps = 1
    model.train()
    for _ in range(3):
        model(x)
    return model
