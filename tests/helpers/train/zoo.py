"""The zoo in small: what every entry takes, in sizes that a test can afford."""

import torch

from hwfault.train import build

IMAGENET = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v1")
SMALL = {"mlp": {"size": 8}, "mobilenet_v1": {"width": 0.25}, "mobilenet_v1_cifar": {"width": 0.25}}
SHAPES = {"mlp": (1, 8, 8)} | dict.fromkeys(IMAGENET, (3, 64, 64))
QUICK = ("tiny_cnn", "mlp", "cnv", "resnet20", "resnet18", "resnet50", "mobilenet_v1", "mobilenet_v1_cifar")
"""One of each family at least."""


def batch(name, n=2, seed=0):
    """Inputs of a network, normally distributed."""
    shape = (n, *SHAPES.get(name, (3, 32, 32)))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fresh(name, **options):
    """A network with initial weights, in training mode."""
    return build(name, seed=1, **SMALL.get(name, {}), **options)


def lived_in(name, **options):
    """A network in evaluation mode whose normalisations have statistics and weights as after some training."""
    network, random = fresh(name, **options), torch.Generator().manual_seed(2)
    for layer in network.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            with torch.no_grad():
                layer.weight.uniform_(0.5, 1.5, generator=random)
                layer.bias.uniform_(-0.5, 0.5, generator=random)
    with torch.no_grad():
        for seed in (3, 4):
            network(batch(name, 4, seed))
    return network.eval()
