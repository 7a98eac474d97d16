"""Accuracy under faults: one trial for each fault seed, the mean and its 95 % interval."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from hwfault.errors import HwfaultError
from hwfault.files import write_atomically
from hwfault.inject import Injection, ProtectionCounts, inject, sites
from hwfault.inject.mode import evaluation
from hwfault.plan import FaultPlan, resolve
from hwfault.plan.hardware import depends_on_device
from hwfault.plan.processes import AnyProcess, ProtectedProcess
from hwfault.profiles.models import FaultModel, bit_errors
from hwfault.profiles.records import Record


class Trials(Record):
    """How many of `samples` were classified correctly in each trial, one trial a fault seed; `ber` where one is set."""

    seeds: tuple[int, ...]
    correct: tuple[int, ...]
    samples: int
    ber: float | None = None
    protection: tuple[ProtectionCounts, ...] = ()
    """What the decoders of protected memories did in each trial, at all sites; () where nothing is protected."""
    due: tuple[bool, ...] = ()
    """Whether each trial counts as DUE: a word was detected where the protection says so."""

    @property
    def accuracies(self) -> tuple[float, ...]:
        return tuple(correct / self.samples for correct in self.correct)

    @property
    def mean(self) -> float:
        return sum(self.correct) / (self.samples * len(self.correct))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean over fault seeds (Student's t), cut to [0, 1]; one trial tells nothing."""
        n, mean = len(self.correct), self.mean
        if n == 1:
            return 0.0, 1.0
        variance = sum((a - mean) ** 2 for a in self.accuracies) / (n - 1)
        half = _t_quantile(n - 1) * math.sqrt(variance / n)
        return max(0.0, mean - half), min(1.0, mean + half)

    def summary(self) -> dict[str, float | None]:
        """The numbers people want, as one line of a table: rate, trials, samples, mean accuracy, its interval."""
        low, high = self.interval
        counts = {"ber": self.ber, "trials": len(self.seeds), "samples": self.samples}
        names = ProtectionCounts._fields if self.protection else ()
        read: dict[str, float | None] = {k: sum(getattr(c, k) for c in self.protection) for k in names}
        due = {"due": sum(self.due)} if self.due else {}
        return counts | {"accuracy": self.mean, "low": low, "high": high} | read | due


def evaluate(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    plan: FaultPlan | Sequence[FaultModel],
    *,
    seeds: Iterable[int],
    device: int | None = None,
    batch_size: int = 512,
) -> Trials:
    """Classifies all of `inputs` (n, ...) once for each seed, under the plan's faults.

    Where the faults given belong to a device, it is `device`, or with None another one for each seed: its number.

    Sample i of the stream is inputs[i], whatever the batch size. The model runs in evaluation mode and is left as it
    was. Raises HwfaultError if there is no seed or no sample, PlanError for a plan that does not fit the model.
    """
    seeds = tuple(seeds)
    if not seeds or len(inputs) == 0 or len(inputs) != len(labels) or batch_size < 1:
        raise HwfaultError(
            f"given {len(seeds)} seeds, {len(inputs)} inputs, {len(labels)} labels, batches of {batch_size}; "
            "expected at least one of each and a label for each input"
        )
    with evaluation(model), torch.no_grad():
        plan_of = _plans(model, inputs[:1], plan, device)
        with inject(model, plan_of(seeds[0]), seed=seeds[0]) as injection:
            trials = [_trial(model, injection, inputs, labels, seed, batch_size, plan_of) for seed in seeds]
    correct, counts, due = zip(*trials, strict=True)
    read = {} if None in counts else {"protection": counts, "due": due}
    return Trials(seeds=seeds, correct=correct, samples=len(inputs), **read)


def sweep(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    rates: Iterable[float],
    *,
    seeds: Iterable[int],
    faults_at: Callable[[float], Sequence[FaultModel]] = bit_errors,
    batch_size: int = 512,
    progress: Callable[[Trials], object] | None = None,
) -> tuple[Trials, ...]:
    """Trials at each rate, with the same seeds, so that a higher rate only adds faults to a lower one's.

    `faults_at` gives the faults at a rate: symmetric bit errors at every site unless said otherwise. `progress` is
    called after each rate.
    """
    seeds, points = tuple(seeds), []
    for rate in rates:
        trials = evaluate(model, inputs, labels, faults_at(rate), seeds=seeds, batch_size=batch_size)
        points.append(trials.model_copy(update={"ber": rate}))
        if progress is not None:
            progress(points[-1])
    return tuple(points)


def write_results(path: Path | str, results: Mapping[str, Iterable[Trials]]) -> None:
    """Writes a CSV file with a line (`Trials.summary`) for each network and rate, atomically; raises FileError."""
    rows = [{"network": name} | trials.summary() for name, points in results.items() for trials in points]
    text = io.StringIO()
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["network"]
    table = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def _plans(
    model: nn.Module, example: Tensor, plan: FaultPlan | Sequence[FaultModel], device: int | None
) -> Callable[[int], FaultPlan]:
    """Seed -> plan: one for all, unless each seed names a device."""
    if isinstance(plan, FaultPlan):
        return lambda _seed: plan
    on = next((p.device for p in model.parameters()), example.device)
    found = sites(model, example.to(on)) if plan else []
    if device is None and depends_on_device(plan):
        return lambda seed: resolve(found, plan, device=seed)
    resolved = resolve(found, plan, device=device or 0)
    return lambda _seed: resolved


def _trial(
    model: nn.Module,
    injection: Injection,
    inputs: Tensor,
    labels: Tensor,
    seed: int,
    batch_size: int,
    plan_of: Callable[[int], FaultPlan],
) -> tuple[int, ProtectionCounts | None, bool]:
    """How many were classified correctly, what protected memories did if there are any, and whether it is a DUE."""
    if (plan := plan_of(seed)) is not injection.plan:
        injection.plan = plan
    injection.seed, injection.first_sample = seed, 0
    device = next((p.device for p in model.parameters()), inputs.device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    for start in range(0, len(inputs), batch_size):
        x, y = (t[start : start + batch_size].to(device) for t in (inputs, labels))
        logits = getattr(out := model(x), "value", out)  # a QuantTensor's values
        correct += (logits.argmax(1) == y).sum()
    return int(correct), *_decoded(injection)


def _decoded(injection: Injection) -> tuple[ProtectionCounts | None, bool]:
    found = injection.protection_counts()
    injection.reset_protection_counts()
    if not found:
        return None, False
    due = [name for name in found if any(_counts_as_due(p) for p in injection.plan.at(name).processes)]
    total = ProtectionCounts(*map(sum, zip(*found.values(), strict=True)))
    return total, any(found[name].detected for name in due)


def _counts_as_due(process: AnyProcess) -> bool:
    return isinstance(process, ProtectedProcess) and process.protection.on_detected == "due"


def _t_quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))
