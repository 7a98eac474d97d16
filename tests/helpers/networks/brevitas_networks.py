"""Brevitas networks as other people write them: its quantizers, its layers, its examples and its PTQ flows.

`NETWORKS` has a name, a builder and what is known of it for each; a builder returns a network in evaluation mode and a
batch of 8 inputs. Networks are small, so that all of them run in minutes; weights are random, scales have been settled
by one or two batches.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.helpers.networks import flows, layers
from tests.helpers.networks.built import Built
from tests.helpers.networks.quantizers import quantizer_networks


@dataclass(frozen=True)
class Network:
    """A network to be built, and what hwfault is known to refuse of it, with words of the reason."""

    build: Callable[[], Built]
    unstruck: str = ""
    """Words of the reason why some of its quantizers are no sites; empty where all are."""


_OTHERS: dict[str, Callable[[], Built]] = {
    "attention, tokens first": layers.heads_first,
    "attention, batch first, layerwise": layers.batch_first,
    "vision transformer, layerwise": layers.vision_transformer,
    "windows in the batch": layers.windows,
    "frames in the batch": layers.frames,
    "tokens by number": layers.tokens,
    "shared requantizer": layers.shared_quantizer,
    "unrolled layer": layers.unrolled,
    "tied weights": layers.tied,
    "transposed convolutions": layers.transposed,
    "volumes": layers.volumes,
    "truncating pool": layers.truncated,
    "tanh and sigmoid": layers.tanh_and_sigmoid,
    "own inputs and outputs": layers.quantized_outputs,
    "concatenated branches": layers.concatenated,
    "layerwise": flows.layerwise,
    "whole graph": flows.whole_graph,
    "layerwise perceptron": flows.plain_mlp,
    "example TFC": flows.fully_connected,
    "example TFC, binary": flows.binary_fully_connected,
    "example CNV": flows.cnv,
    "example ResNet": flows.resnet18,
    "example MobileNetV1": flows.mobilenet,
    "example ESPCN": flows.super_resolution,
    "example ESPCN, accumulator-aware": flows.accumulator_aware,
}

# Which quantizers are no sites (docs/quantizers.md): truncations keep the integers of another quantizer. All of these
# networks are struck in PyTorch, and all of their graphs replay.
_TRUNCATION = "cuts integers of another one short"
_UNSTRUCK = {
    "truncating pool": _TRUNCATION,
    "example ResNet": _TRUNCATION,
    "example MobileNetV1": _TRUNCATION,
}


def _all() -> dict[str, Network]:
    named = quantizer_networks() | _OTHERS
    return {name: Network(build, _UNSTRUCK.get(name, "")) for name, build in named.items()}


NETWORKS = _all()


def build(name: str) -> Built:
    """The network of a name, from the same seed each time."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Brevitas says of its own networks while they are built
        return NETWORKS[name].build()
