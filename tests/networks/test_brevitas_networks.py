"""Networks as other people write them: what strikes each of their quantizers is what was asked for, and nothing else.

For every network of `brevitas_networks` and every quantizer in it, against integers that are read here anew: the rate
of each bit plane, the range of the words, the grid of the values, the same faults at any batch size, flips of one
plane alone, and the replay of the exported graph. `make test-slow` runs all of them, `make test` those in `QUICK`.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from hwfault import BitFlips, resolve
from hwfault.graph.export.of_network import export
from hwfault.injection.attach import inject
from hwfault.network.sites import sites
from hwfault.program.processes import Site, SiteList
from hwfault.proof.replay import replay
from tests.helpers.networks.brevitas_networks import NETWORKS, build
from tests.helpers.networks.built import BATCH

RATE = 0.02
QUICK = ("attention, tokens first", "shared requantizer")

# few words make a coarse share: enough seeds are run for about this many cells of each site
CELLS = 40_000
MOST_SEEDS = 24


class Seen(NamedTuple):
    """The integers of one site in one forward, int64: before and after its faults, and the values after them."""

    before: Tensor
    after: Tensor
    value: Tensor
    scale: Tensor
    zero_point: Tensor


class Watch:
    """An observer that keeps what it sees of each site."""

    def __init__(self, listed: Sequence[Site]) -> None:
        self._sites = {site.name: site for site in listed}
        self.seen: dict[str, list[Seen]] = {}

    def __call__(
        self,
        name: str,
        before: Tensor,
        after: Tensor,
        scale: Tensor,
        zero_point: Tensor,
        codes_before: Tensor,
        codes_after: Tensor,
    ) -> None:
        site = self._sites[name]
        given = [codes & word_mask(site) for codes in (codes_before, codes_after)]
        read = [codes_of(value, scale, zero_point, site) for value in (before, after)]
        assert torch.equal(given[0], read[0]), f"{name}: the codes before are not those of the values"
        if site.bit_width <= 20:  # a wider code may lie between two values of float32
            assert torch.equal(given[1], read[1]), f"{name}: the codes after are not those of the values"
        self.seen.setdefault(name, []).append(Seen(*given, after.clone(), scale, zero_point))


def word_mask(site: Site) -> int:
    return (1 << site.bit_width) - 1


def codes_of(value: Tensor, scale: Tensor, zero_point: Tensor, site: Site) -> Tensor:
    """Code words by the rule of QONNX's Quant, in float64 where that is exact: rint(v / s + z)."""
    integers = (value.float() / scale.float() + zero_point.float()).round().long()
    if site.signed and site.bit_width == 1:
        return (integers > 0).long()
    return integers & word_mask(site)


def integers_of(codes: Tensor, site: Site) -> Tensor:
    """The integers that code words stand for."""
    if site.signed and site.bit_width == 1:
        return 2 * codes - 1
    negative = (codes >> (site.bit_width - 1)) & int(site.signed)
    return codes - (negative << site.bit_width)


def quantizers_of(listed: SiteList) -> list[Site]:
    return [site for site in listed if site.kind != "accumulator"]


def run(model: nn.Module, x: Tensor, plan: Any, *, seed: int, by_one: bool = False) -> dict[str, list[Seen]]:
    """What an observer sees of a batch, as a whole or in batches of one."""
    watch = Watch([entry.site for entry in plan.sites])
    with torch.no_grad(), inject(model, plan, seed=seed, observe=watch):
        for part in x.split(1) if by_one else [x]:
            model(part)
    return watch.seen


def of_sample(codes: Tensor, site: Site, sample: int) -> Tensor:
    """The words of one sample of a batch: its rows of the site's batch axis."""
    if site.batch is None:
        return codes[sample : sample + 1]
    axis, inner = site.batch.axis, site.batch.inner
    rows = [row for row in range(codes.shape[axis]) if row // inner % BATCH == sample]
    return codes.index_select(axis, torch.tensor(rows))


# what Brevitas says of integers with zero points that a layer adds up: hwfault does not use that zero point
@pytest.mark.every(2)
@pytest.mark.filterwarnings("ignore:Computing zero point of output accumulator not supported yet")
@pytest.mark.parametrize("network", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in NETWORKS])
def test_network(network: str) -> None:
    model, x = build(network)
    listed = sites(model, x)
    chosen = quantizers_of(listed)
    assert chosen, "no quantizer is a site"
    others = {name: why for name, why in listed.obstacles.items() if not name.partition("#")[0].endswith("accumulator")}
    known = {name for name, why in others.items() if NETWORKS[network].unstruck in why}
    assert others.keys() == known, f"quantizers that are no sites: {others}"
    assert bool(known) == bool(NETWORKS[network].unstruck)
    plan = resolve(chosen, [BitFlips(probability=RATE)])
    check_rate_and_range(model, x, plan)
    check_batches(model, x, plan)
    check_single_planes(model, x, chosen)
    check_replay(model, x, plan)


def test_what_is_left_out_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "quantizers.md").read_text()
    rows = [line.split(" | ") for line in page.partition("## In networks")[2].splitlines() if line.startswith("| ")]
    told = {row[0].removeprefix("| ") for row in rows[1:]}
    truncations = {name for name, network in NETWORKS.items() if network.unstruck}
    assert told == truncations
    assert f"{len(NETWORKS)} small networks" in page


def check_rate_and_range(model: nn.Module, x: Tensor, plan: Any) -> None:
    flips: dict[str, Tensor] = {}
    words: dict[str, int] = {}
    fewest = min(site.words * (BATCH if site.batched else 1) for site in (entry.site for entry in plan.sites))
    seeds = min(MOST_SEEDS, math.ceil(CELLS / fewest))
    for seed in range(seeds):
        seen = run(model, x, plan, seed=seed)
        assert set(seen) == set(plan.names)
        for entry in plan.sites:
            site = entry.site
            for run_of_site in seen[site.name]:
                check_grid(run_of_site, site)
            first = seen[site.name][0]  # a parameter that is read again holds the same words
            changed = (first.before ^ first.after).flatten()
            planes = torch.stack([(changed >> plane & 1).sum() for plane in range(site.bit_width)])
            flips[site.name] = flips.get(site.name, 0) + planes
            words[site.name] = words.get(site.name, 0) + changed.numel()
    for entry in plan.sites:
        expected = words[entry.site.name] * RATE
        spread = math.sqrt(expected * (1 - RATE))
        # 5 standard deviations, and one event more where so few are expected that the normal law is too narrow
        off = (flips[entry.site.name] - expected).abs().max().item()
        assert off <= 5 * spread + 1, f"{entry.site.name}: {flips[entry.site.name].tolist()}, expected {expected}"


def check_grid(seen: Seen, site: Site) -> None:
    raw = (seen.value.double() / seen.scale.double() + seen.zero_point.double()).round()
    low, high = (-(1 << site.bit_width - 1), (1 << site.bit_width - 1) - 1) if site.signed else (0, word_mask(site))
    high += int(site.signed and site.bit_width == 1)  # bipolar: -1 and 1
    # a code that float32 cannot hold becomes its neighbour, which may lie one step of float32 beyond the range
    slack = 0 if site.bit_width <= 24 else 1 << site.bit_width - 24
    assert low - slack <= raw.min(), f"{site.name}: {raw.min()} in {site.bit_width} bits"
    assert raw.max() <= high + slack, f"{site.name}: {raw.max()} in {site.bit_width} bits"
    changed = seen.before != seen.after
    integers = integers_of(seen.after, site)
    value = ((integers.float() - seen.zero_point.float()) * seen.scale.float()).expand_as(seen.value)
    assert torch.equal(seen.value[changed], value[changed]), f"{site.name}: a struck value is off the grid"


def check_batches(model: nn.Module, x: Tensor, plan: Any) -> None:
    whole, ones = run(model, x, plan, seed=7), run(model, x, plan, seed=7, by_one=True)
    for entry in plan.sites:
        site, together = entry.site, whole[entry.site.name][0]
        changed = together.before ^ together.after
        if not site.batched:
            assert all(torch.equal(changed, one.before ^ one.after) for one in ones[site.name])
            continue
        parts = [of_sample(changed, site, sample) for sample in range(BATCH)]
        for sample, (part, one) in enumerate(zip(parts, ones[site.name], strict=True)):
            assert torch.equal(part, one.before ^ one.after), f"{site.name}: sample {sample} depends on its batch"
        if parts[0].numel() * site.bit_width >= 256:  # fewer cells may well be struck alike
            struck = {tuple(part.flatten().tolist()) for part in parts}
            assert len(struck) == BATCH, f"{site.name}: two samples have the same faults"


def check_single_planes(model: nn.Module, x: Tensor, chosen: Sequence[Site]) -> None:
    for turn in range(max(site.bit_width for site in chosen)):
        plane = {site.name: turn % site.bit_width for site in chosen}
        faults = [
            BitFlips(probability=[0.3 * (bit == plane[site.name]) for bit in range(site.bit_width)], sites=site.name)
            for site in chosen
        ]
        seen = run(model, x, resolve(chosen, faults), seed=turn)
        for site in chosen:
            changed = torch.cat([(one.before ^ one.after).flatten() for one in seen[site.name]])
            others = changed[(changed != 0) & (changed != 1 << plane[site.name])]
            assert not others.numel(), f"{site.name}: bit {plane[site.name]} was asked for, found {others[:5].tolist()}"
            if changed.numel() >= 64:
                assert changed.any(), f"{site.name}: bit {plane[site.name]} was never struck"


def check_replay(model: nn.Module, x: Tensor, plan: Any) -> None:
    report = replay(model, export(model, x, plan=plan), [x], seeds=[1])
    assert report.samples == BATCH
    assert {site.name for site in report.sites} >= set(plan.names)
    for site in report.sites:
        assert site.faults_differ == 0, f"{site.name}: {site.first}"
        assert site.faults_seen > 0 or site.words < 200 or site.name not in plan.names
