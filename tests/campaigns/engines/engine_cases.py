"""Plans and engines that the tests of engines share."""

from functools import cache

import numpy as np

from hwfault.campaigns.engines.graph_engine import GraphEngine
from hwfault.injection.attach import inject
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.plan.fault_plan import resolve
from tests.helpers.graph.networks import batch, listed, network
from tests.helpers.graph.running import by_pytorch, clean

IMAGES = 7
SEEDS = [3, 2**64 - 1, 0, 11]
NETWORKS = ("digits_cnn", "residual", "twice", "binary", "formats", "per_channel", "biased")
FAULTS = {
    "activations": [
        BitFlips(p01=0.01, p10=0.002, sites={"kind": "activation"}),
        Clusters(probability=0.004, sizes=[0.5, 0.5], axis="word", sites={"kind": "activation"}),
    ],
    "parameters": [BitFlips(probability=0.01, sites={"kind": "weight"})],
    "both": [BitFlips(probability=0.005), WordFaults(probability=0.002)],
}


def images(name):
    return batch(name, IMAGES).numpy()


@cache
def plan(name, what):
    return resolve(listed(name), FAULTS[what])


@cache
def engine(name, batch_size=5):
    return GraphEngine(clean(name), images(name), batch_size=batch_size)


@cache
def expected(name, what):
    """The outputs of each trial in PyTorch, (trials, images, ...)."""
    return by_network(name, plan(name, what), SEEDS)


def by_network(name, given, seeds):
    answers = []
    with inject(network(name), given, seed=0) as injection:
        for seed in seeds:
            injection.seed, injection.first_sample = seed, 0
            answers.append(by_pytorch(network(name), batch(name, IMAGES)))
    return np.stack(answers)
