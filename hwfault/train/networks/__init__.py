"""Networks to train: one table of constructors, quantized or float."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from hwfault.errors import HwfaultError
from hwfault.own_code import call_named
from hwfault.train.networks.digits import DigitsCNN, FixedPointActivation, FixedPointWeight, digits_cnn
from hwfault.train.networks.mobilenet import mobilenet_v1, mobilenet_v1_cifar
from hwfault.train.networks.resnet import CIFAR_DEPTHS, IMAGENET_BLOCKS, resnet_cifar, resnet_imagenet
from hwfault.train.networks.small import cnv, mlp, tiny_cnn
from hwfault.train.randomness import seeded

__all__ = ["NETWORKS", "DigitsCNN", "FixedPointActivation", "FixedPointWeight", "build", "digits_cnn"]

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "digits_cnn": digits_cnn,
    "tiny_cnn": tiny_cnn,
    "mlp": mlp,
    "cnv": cnv,
    **{f"resnet{depth}": partial(resnet_cifar, f"resnet{depth}", depth) for depth in CIFAR_DEPTHS},
    **{f"resnet{depth}": partial(resnet_imagenet, f"resnet{depth}", depth) for depth in IMAGENET_BLOCKS},
    "mobilenet_v1": mobilenet_v1,
    "mobilenet_v1_cifar": mobilenet_v1_cifar,
}
"""Every built-in network, by the name that `build` takes."""


def build(spec: str, *, seed: int = 0, **arguments: Any) -> nn.Module:
    """The network that `spec` names (one of NETWORKS or "module:function"), its initial weights drawn from `seed`.

    Torch's own random state is left as it was. Raises HwfaultError for an unknown name, arguments that the function
    does not take, or a function that does not return a network.
    """
    with seeded(seed):
        network = call_named("network", spec, NETWORKS, arguments)
    if not isinstance(network, nn.Module):
        raise HwfaultError(
            f"network {spec!r}: the function returned {type(network).__name__}, expected torch.nn.Module"
        )
    return network
