"""Networks on a CUDA device, under faults against the same without: eager, in CUDA graphs, compiled; and their memory.

Forwards are in evaluation mode without gradients, steps are forward and backward in training mode. Beside them the
usual way, a random mask over each tensor of activations (see peers.py), which leaves the weights alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from brevitas import nn as qnn
from torch import Tensor, nn

from hwfault.injection.attach import Injection, inject
from hwfault.laws.models import BitFlips
from tests.benchmarks.cnv import batch as images
from tests.benchmarks.cnv import cnv
from tests.benchmarks.device_time import measured, ratios
from tests.benchmarks.gpu import Report
from tests.benchmarks.network import kept_for_backward, resnet20
from tests.benchmarks.peers import pick_random_words, struck

_BER, _BITS = 1e-3, 4
CLEAN, FAULTY, MASKS = "clean", f"BER {_BER:g}, all activations and weights", "random masks, all activations"
_EAGER, _ONE_GRAPH = 1.03, 1.02
"""The most that a faulty run may take of a clean one's time."""

Runs = dict[str, Callable[[], object]]


def capturable_resnet20() -> nn.Module:
    """ResNet-20 with a classifier without bias.

    Given a QuantTensor, Brevitas' linear layer asks the host whether its zero point is 0, which no CUDA graph can.
    """
    model = resnet20()
    for module in model.modules():
        if isinstance(module, qnn.QuantLinear):
            model.fc = qnn.QuantLinear(module.in_features, module.out_features, bias=False, weight_bit_width=_BITS)
    model.pool.quantizer.return_quant_tensor = False
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {"CNV": cnv, "ResNet-20": capturable_resnet20}


class Models:
    """A network clean, under faults and under masks, ready to run on a batch."""

    def __init__(self, name: str, n: int, device: str) -> None:
        self.x, self.target = images(n).to(device), torch.arange(n, device=device) % 10
        self._built = {key: NETWORKS[name]().to(device) for key in (CLEAN, FAULTY, MASKS)}
        for model in self._built.values():
            model(self.x)  # Brevitas' scales are made in the first forward

    @contextmanager
    def attached(self) -> Iterator[tuple[dict[str, nn.Module], Injection]]:
        faults, masked = [BitFlips(probability=_BER)], self._built[MASKS]
        masks = struck(masked, pick_random_words, _BER, kinds=("input", "activation"))
        with inject(self._built[FAULTY], faults, seed=1) as injection, masks:
            yield self._built, injection

    def forwards(self, models: dict[str, Callable[[Tensor], Tensor]]) -> Runs:
        """Each network's forward; of modules in evaluation mode."""
        for model in self._built.values():
            model.eval()
        return {key: lambda model=model: forward(model, self.x) for key, model in models.items()}

    def steps(self, models: dict[str, Callable[[Tensor], Tensor]]) -> Runs:
        """Each network's training step."""
        for model in self._built.values():
            model.train()
        return {
            key: lambda key=key, model=model: step(model, self._built[key], self.x, self.target)
            for key, model in models.items()
        }


@torch.no_grad()
def forward(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return model(x)


def step(run: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor, target: Tensor) -> None:
    model.zero_grad()
    nn.functional.cross_entropy(run(x), target).backward()


def network(report: Report, name: str, n: int, rounds: int, device: str = "cuda") -> None:
    """Ratios of a network's times and differences of its memory, eager and in CUDA graphs."""
    models = Models(name, n, device)
    report.line(f"{name}, batch {tuple(models.x.shape)}, {_BITS} bits (medians of {rounds} ratios)")
    with models.attached() as (built, injection):
        show(report, "forward, eager", models.forwards(built), rounds, _EAGER)
        show(report, "training step, eager", models.steps(built), rounds, _EAGER)
        kept = {key: kept_for_backward(model, models.x) for key, model in built.items()}
        show_bytes(report, "kept for the backward pass", kept)
        if device == "cuda":
            show_bytes(report, "peak of a step", {key: peak(run) for key, run in models.steps(built).items()})
            graphs(report, models, injection, rounds)


def graphs(report: Report, models: Models, injection: Injection, rounds: int) -> None:
    """The same in CUDA graphs; a replayed forward must give the bits of an eager one and go on counting."""
    two = {key: model for key, model in models._built.items() if key != MASKS}
    eager = models.forwards(two)[FAULTY]
    captured = {key: Captured(run) for key, run in models.forwards(two).items()}
    injection.first_sample = 0
    expected = [eager().clone() for _ in range(2)]
    injection.first_sample = 0
    for i, out in enumerate(expected):
        captured[FAULTY]()
        if not torch.equal(captured[FAULTY].out, out):
            report.differs(f"replay {i} of a forward in a CUDA graph from the eager one")
    if injection.first_sample != 2 * len(models.x):
        report.differs(f"two replays count to sample {injection.first_sample}, expected {2 * len(models.x)}")
    show(report, "forward, CUDA graph", captured, rounds, _ONE_GRAPH)
    show(
        report,
        "training step, CUDA graph",
        {k: Captured(run) for k, run in models.steps(two).items()},
        rounds,
        _ONE_GRAPH,
    )


class Captured:
    """A run as a CUDA graph; `out` is what it returned, written anew by each call."""

    def __init__(self, run: Callable[[], Tensor | None]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # kernels are compiled and memory is taken before the capture
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.out = run()

    def __call__(self) -> None:
        self._graph.replay()


def compiled(report: Report, name: str, n: int, rounds: int, device: str = "cuda", backend: str = "inductor") -> None:
    """Ratios of a network's times under torch.compile."""
    models = Models(name, n, device)
    with models.attached() as (built, _):
        for title, runs_of in (("forward", models.forwards), ("training step", models.steps)):
            torch._dynamo.reset()
            runs = runs_of({key: torch.compile(built[key], backend=backend) for key in (CLEAN, FAULTY)})
            show(report, f"{name}, {title}, compiled", runs, rounds, _ONE_GRAPH)


def show(report: Report, title: str, runs: Runs, rounds: int, target: float) -> None:
    times = measured(runs, rounds)
    report.line(f"{title}: clean {sorted(times[CLEAN])[rounds // 2]:.2f} ms")
    for name, ratio in ratios(times).items():
        if name != CLEAN:
            reach = f"   (to reach: {target:.2f}x)" if name == FAULTY else ""
            report.line(f"    {name:<44} {ratio:6.3f}x{reach}")


def show_bytes(report: Report, title: str, found: dict[str, int]) -> None:
    report.line(f"{title}: clean {found[CLEAN]:,} bytes")
    for name, n in found.items():
        if name != CLEAN:
            report.line(f"    {name:<44} {n - found[CLEAN]:+,} bytes")


def peak(run: Callable[[], object]) -> int:
    """The most bytes of tensors on the device at once, beyond those before the run."""
    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
