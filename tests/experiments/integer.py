"""docs/exactness.md: the integers that differ between PyTorch and onnxruntime, in either arithmetic.

Networks of the zoo with random weights and after some training on the digits, faults on all weights and activations.
"""

import csv
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwfault.graph.export.of_network import Arithmetic, export
from hwfault.laws.models import bit_errors
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.proof.replay import replay
from hwfault.train import build
from hwfault.train.data import digits

NETWORKS: dict[str, dict[str, Any]] = {"tiny_cnn": {}, "cnv": {}, "resnet20": {}, "mobilenet_v1_cifar": {"width": 0.25}}
SCALES = {4: "per_channel", 8: "per_tensor"}
SEED = 2**63 + 5


def main(integers: int = 10**8, out: Path | None = None) -> None:
    """Prints the counts of each network and arithmetic, over `integers` in all, and the sums."""
    rows = []
    cases = [(name, bits, trained) for name in NETWORKS for bits in SCALES for trained in (False, True)]
    for name, bits, trained in cases:
        model = network(name, bits, trained)
        for arithmetic in ("float", "integer"):
            counted, differ, logits = differing(model, arithmetic, -(-integers // len(cases)))
            weights = "trained" if trained else "random"
            rows.append([name, bits, SCALES[bits], weights, arithmetic, counted, differ, logits])
            print(*rows[-1], sep=", ", flush=True)
    for arithmetic in ("float", "integer"):
        of_it = [row for row in rows if row[4] == arithmetic]
        print(f"{arithmetic}: {sum(row[6] for row in of_it)} of {sum(row[5] for row in of_it)} integers differ")
    if out is not None:
        with out.open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(
                ["network", "bits", "scaling", "weights", "arithmetic", "integers", "differ", "logits differ"]
            )
            table.writerows(rows)


def images() -> tuple[Tensor, Tensor]:
    """The digits as images (n, 3, 32, 32), and their labels."""
    data = digits().train
    inputs = data.inputs(torch.arange(len(data)))
    return nn.functional.interpolate(inputs, 32, mode="bilinear").expand(-1, 3, -1, -1) * 4 - 2, data.labels


def network(name: str, bits: int, trained: bool, steps: int = 40) -> nn.Module:
    """A network with float scales and statistics, in evaluation mode."""
    model = build(name, seed=1, weight_bits=bits, act_bits=bits, scaling=SCALES[bits], **NETWORKS[name])
    (x, y), order = images(), torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3 if trained else 0.0)
    for step in range(steps if trained else 3):
        chosen = order[step * 16 % 960 :][:16]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[chosen]), y[chosen]).backward()
        optimizer.step()
    return model.eval()


def differing(model: nn.Module, arithmetic: Arithmetic, integers: int) -> tuple[int, int, int]:
    """How many integers of activations were compared, how many differ, and how many logits."""
    x, counted, differ, logits = images()[0].flip(0), 0, 0, 0
    graph = export(model, x[:1], plan=resolve(sites(model), bit_errors(1e-3)), arithmetic=arithmetic)
    computed = {site.name for site in sites(model) if site.batched}  # weights are the same in every batch
    for batch in x.split(32) * 9:
        report = replay(model, graph, [batch], seeds=[SEED])
        assert report.verdict != "faults differ"
        counted += sum(site.words for site in report.sites if site.name in computed)
        differ += sum(site.codes_differ for site in report.sites)
        logits += report.outputs_differ
        if counted >= integers:
            break
    return counted, differ, logits


if __name__ == "__main__":
    main(*(int(float(text)) for text in sys.argv[1:]), out=Path("docs/exactness.csv"))
