"""What the decoders of protected memories did, counted over forwards, against a decoder in plain Python."""

import torch

from hwfault.injection.attach import inject
from hwfault.injection.site_statistics import ProtectionCounts
from hwfault.laws.models import ProfileFaults
from hwfault.network.sites import sites
from hwfault.plan.fault_plan import resolve
from hwfault.stream.protection_scheme import Protection
from tests.helpers.graph.networks import batch, network
from tests.helpers.injection.oracle import Seen, decoded

P = 0.02
FLIPS = ProfileFaults(
    profile="uniform-flips", at={"ber": P}, sites="*", protection=Protection(kind="secded", data_bits=16)
)


def test_forwards_add_up_until_the_counts_are_reset():
    model, x, seen = network("mlp"), batch("mlp", 6), Seen()
    plan = resolve(sites(model, x), [FLIPS])
    batches = torch.split(x, [3, 2, 1])
    first = [0, 3, 5]
    with torch.no_grad(), inject(model, plan, seed=4, observe=seen) as injection:
        found = []
        for part in batches[:2]:
            model(part)
            found.append(injection.protection_counts())
        injection.reset_protection_counts()
        assert set(injection.protection_counts().values()) == {ProtectionCounts(0, 0, 0)}
        model(batches[2])
        found.append(injection.protection_counts())
    for name in plan.names:
        calls = zip(seen.of(name), batches, first, strict=True)
        each = [decoded(plan, call, 4, range(at, at + len(part)), P) for call, part, at in calls]
        both = tuple(sum(pair) for pair in zip(*each[:2], strict=True))
        assert [counts[name] for counts in found] == [each[0], both, each[2]]
        assert sum(each[0]), "something was decoded at every site"
