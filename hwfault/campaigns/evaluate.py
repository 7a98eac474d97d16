"""Accuracy under faults: one trial for each fault seed, the mean, and what is known of it over other seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from hwfault.campaigns.campaign import Campaign, Kept
from hwfault.campaigns.points import Point
from hwfault.campaigns.trials import Trials
from hwfault.errors import HwfaultError, expect_kind
from hwfault.laws.models import FaultModel, bit_errors
from hwfault.locks import locked_file
from hwfault.plan.given import GivenPlan, read_plan
from hwfault.train.data import MemorySplit, Split

_STORE = ".sqlite"


def evaluate(
    model: nn.Module,
    inputs: Tensor | Split,
    labels: Tensor | None = None,
    plan: GivenPlan = (),
    *,
    seeds: Iterable[int],
    device: int | None = None,
    batch_size: int = 512,
    indices: Sequence[int] | Tensor | None = None,
    statistics: bool = False,
) -> Trials:
    """Classifies all of `inputs` (n, ...), or the split of a data set, once for each seed, under the plan's faults.

    Where the faults given belong to a device, it is `device`, or with None another one for each seed: its number.
    `indices` name those samples to take, in any order. With `statistics` what the faults did at each site is kept.

    Sample i of the stream is inputs[i], whatever the batch size and order. The model runs in evaluation mode and is
    left as it was. Raises HwfaultError if there is no seed or no sample, PlanError for a plan that does not fit.
    """
    expect_kind(seeds, Iterable, "seeds", "fault seeds, a trial each: range(20)")
    seeds = tuple(seeds)
    samples = _samples(inputs, labels, len(seeds), batch_size)
    rest = {"indices": indices, "device": device, "batch_size": batch_size, "statistics": statistics}
    return Campaign(model, samples, **rest).run(Point.of(read_plan(plan)), seeds)  # type: ignore[arg-type]


def campaign(
    model: nn.Module,
    inputs: Tensor | Split,
    labels: Tensor | None = None,
    faults: Mapping[str, GivenPlan] | None = None,
    *,
    seeds: Iterable[int],
    device: int | None = None,
    batch_size: int = 512,
    indices: Sequence[int] | Tensor | None = None,
    statistics: bool = False,
    store: Path | str | None = None,
) -> dict[str, Trials]:
    """`evaluate` under several faults by name, with the same seeds, on the same samples.

    Finished trials are kept in `store`, a file named *.sqlite (another ending gives way to that one): the same call
    goes on where it was stopped, and more seeds and faults add trials. A file of lines that 0.4.0 kept in `store` is
    read, some of its trials are run again, and all are taken over; it is never written. Raises HwfaultError without
    faults, FileError for a file that holds the trials of another question, and else what `evaluate` raises.
    """
    expected = "a mapping from names to faults or plans: {'ber 1e-3': BitFlips(probability=1e-3)}"
    expect_kind(faults, Mapping, "faults", expected)
    if not faults:
        raise HwfaultError(f"given no faults, expected {expected}")
    expect_kind(seeds, Iterable, "seeds", "fault seeds, a trial each: range(20)")
    seeds = tuple(seeds)
    samples = _samples(inputs, labels, len(seeds), batch_size)
    rest = {"indices": indices, "device": device, "batch_size": batch_size, "statistics": statistics}
    many = Campaign(model, samples, **rest)  # type: ignore[arg-type]
    points = {name: Point.of(read_plan(given), labels={"faults": name}) for name, given in faults.items()}
    if store is None:
        found = many.measure([*points.values()], seeds)
    else:
        kept = Kept(Path(store).with_suffix(_STORE), Path(store) if Path(store).suffix != _STORE else None)
        with locked_file(kept.store):
            found = many.measure([*points.values()], seeds, kept=kept)
    return dict(zip(points, found, strict=True))


def sweep(
    model: nn.Module,
    inputs: Tensor | Split,
    labels: Tensor | None,
    rates: Iterable[float],
    *,
    seeds: Iterable[int],
    faults_at: Callable[[float], Sequence[FaultModel]] = bit_errors,
    batch_size: int = 512,
    progress: Callable[[Trials], object] | None = None,
) -> tuple[Trials, ...]:
    """Trials at each rate, with the same seeds, so that a higher rate only adds hits to a lower one's.

    `faults_at` gives the faults at a rate: symmetric bit errors at every site unless said otherwise. Of these a higher
    rate only adds faults to each site's stored codes; see docs/fault-stream.md, "Nesting", for others. `progress` is
    called after each rate.
    """
    seeds = tuple(seeds)
    points: list[Trials] = []
    campaign = Campaign(model, _samples(inputs, labels, len(seeds), batch_size), batch_size=batch_size)
    for rate in rates:
        points.append(campaign.run(Point.of(faults_at(rate), ber=rate), seeds))
        if progress is not None:
            progress(points[-1])
    return tuple(points)


def _samples(inputs: Tensor | Split, labels: Tensor | None, seeds: int, batch_size: int) -> Split:
    """The samples; raises HwfaultError where there is nothing to do, or what is given is no tensor."""
    expected = "a tensor (n, ...), or the split of a data set (hwfault.train.data)"
    expect_kind(inputs, (Tensor, Split), "the inputs", expected)
    if labels is not None or isinstance(inputs, Tensor):
        expect_kind(labels, Tensor, "the labels", "an int64 tensor (n,), one label for each input")
    given = inputs.labels if labels is None and not isinstance(inputs, Tensor) else labels
    count = 0 if given is None else len(given)
    if not seeds or len(inputs) == 0 or len(inputs) != count or batch_size < 1:
        raise HwfaultError(
            f"given {seeds} seeds, {len(inputs)} inputs, {count} labels, batches of {batch_size}; "
            "expected at least one of each and a label for each input"
        )
    if isinstance(inputs, Tensor):
        assert given is not None
        return MemorySplit(inputs, given)
    return inputs
