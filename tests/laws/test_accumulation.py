"""Datapath faults in plans: widths, arrays, stuck, bypassed and late elements."""

import json

import numpy as np
import pytest

from hwfault.errors import ModelError, PlanError
from hwfault.graph.run.strike import strike_codes
from hwfault.laws.models import AccumulatorFormat, BitFlips, BypassedElements, LateBits, ProfileFaults, StuckElement
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.batch_axes import BatchAxis
from hwfault.program.processes import Site, SiteList
from hwfault.stream.fault_map import ALL_ONES
from hwfault.stream.mapping import FinnMvau, OutputStationary, WeightStationary
from hwfault.stream.tables import encode_table, site_number

ONES = int(ALL_ONES)
ARRAY = WeightStationary(rows=16, columns=16)
UNIT = FinnMvau(pe=4, simd=3)


def accumulator(name="conv", bits=18, weights=(8, 6, 3, 3), shape=(8, 5, 5)):
    given = {"signed": True, "shape": shape, "weights": weights, "worst_case": bits, "source": "act"}
    return Site(name=f"{name}.accumulator", kind="accumulator", bit_width=bits, **given)


def weight(name="conv", bits=4, shape=(8, 6, 3, 3), signed=True):
    return Site(name=f"{name}.weight_quant", kind="weight", bit_width=bits, signed=signed, shape=shape)


SITES = [weight(), weight("head", shape=(10, 200)), accumulator(), accumulator("head", 20, (10, 200), (10,))]


def entry(faults, name="conv.accumulator", **options):
    return resolve(SITES, faults, **options).at(name)


def test_a_format_declares_the_width():
    plan = resolve(SITES, [AccumulatorFormat(width=16, sites="conv.*")])
    assert plan.names == ("conv.accumulator",)
    (found,) = plan.sites
    assert (found.site.bit_width, found.site.worst_case, found.processes) == (16, 18, ())
    assert (found.array.overflow, found.array.step, found.array.order, found.array.events) == ("wrap", 1, (), ())


def test_processes_strike_words_of_the_declared_width():
    faults = [BitFlips(probability=0.01, sites={"kind": "accumulator"}), AccumulatorFormat(width=12)]
    assert len(entry(faults).processes[0].tables) == 12


def test_a_site_alone_is_as_wide_as_its_largest_sum():
    found = entry([BitFlips(probability=0.01, sites={"kind": "accumulator"})])
    assert (found.site.bit_width, found.array) == (18, None)


@pytest.mark.parametrize(
    ("mapping", "step", "pass_steps", "order"),
    [
        (None, 1, 0, ()),
        (UNIT, 3, 0, tuple(c * 9 + k for k in range(9) for c in range(6))),
        (ARRAY, 1, 16, ()),
        (OutputStationary(rows=4, columns=4), 1, 0, ()),
    ],
)
def test_saturation_walks_through_the_array(mapping, step, pass_steps, order):
    array = entry([AccumulatorFormat(width=12, overflow="saturate", mapping=mapping, sites="conv.*")]).array
    assert (array.step, array.pass_steps, array.order) == (step, pass_steps, order)
    assert entry([AccumulatorFormat(width=12, mapping=mapping, sites="conv.*")]).array.order == (), (
        "wrapping needs none"
    )


@pytest.mark.parametrize(
    ("mapping", "place", "event"),
    [
        (UNIT, {"pe": 2}, (4, 2, 1, 0, 1, 0)),
        (UNIT, {"element": (0, 2)}, (4, 2, 1, 0, 1, 0)),
        (ARRAY, {"element": (3, 5)}, (16, 5, 1, 0, 16, 3)),
        (ARRAY, {"pe": 3 * 16 + 5}, (16, 5, 1, 0, 16, 3)),
        (OutputStationary(rows=4, columns=2), {"element": (3, 1)}, (2, 1, 4, 3, 1, 0)),
    ],
)
@pytest.mark.parametrize("value", [0, 1])
def test_a_stuck_element_strikes_its_steps(mapping, place, event, value):
    fault = StuckElement(mapping=mapping, bit=7, value=value, sites="conv.*", **place)
    assert entry([fault]).array.events == ((*event, ONES ^ 128, 128 * value),)


def test_several_stuck_elements_are_one_array():
    faults = [StuckElement(mapping=ARRAY, element=(0, n), bit=1, value=1) for n in range(3)]
    assert len(entry(faults).array.events) == 3
    with pytest.raises(ModelError, match=r"said to run on two arrays.*rows=16.*rows=8"):
        resolve(SITES, [*faults, AccumulatorFormat(mapping=WeightStationary(rows=8, columns=8))])


def test_bypassed_elements_are_maps_of_weights():
    plan = resolve(SITES, [BypassedElements(mapping=ARRAY, elements=[(2, 1), 0])])
    assert plan.names == ("conv.weight_quant", "head.weight_quant")
    (process,) = plan.at("conv.weight_quant").processes
    expected = {n * 54 + k for n in range(8) for k in range(54) if (k % 16, n % 16) in ((2, 1), (0, 0))}
    assert set(process.map.word.tolist()) == expected
    assert set(process.map.and_mask.tolist()) == {ONES ^ 15}
    assert not process.map.xor_mask.any()
    codes = process.map.apply(np.full(432, 15, np.uint32))
    assert (codes == 0).sum() == len(expected)


def test_late_bits_know_what_came_before():
    late = entry([LateBits(probability=0.1, bits=5)]).processes[0]
    assert (late.kind, late.mask, late.elements) == ("late", 0b11111 << 13, (8, 1, 8, 25))
    late = entry([LateBits(probability=0.1, bits=20, mapping=UNIT, sites="head.*")], "head.accumulator").processes[0]
    assert (late.mask, late.elements) == ((1 << 20) - 1, (4, 1, 10, 1))
    rows = OutputStationary(rows=3, columns=2)
    assert entry([LateBits(probability=0.1, bits=1, mapping=rows)]).processes[0].elements == (2, 3, 8, 25)


def test_late_bits_of_an_array_that_holds_a_layer_in_one_tile():
    """Such an array streams positions: the word before (n, m) is (n, m - 1)."""
    for array in (WeightStationary(rows=54, columns=8), WeightStationary(rows=64, columns=32)):
        late = LateBits(probability=1.0, bits=5, mapping=array, sites="conv.*")
        plan = resolve(SITES, [late, AccumulatorFormat(mapping=array, sites="conv.*")])
        codes = np.random.default_rng(1).integers(0, 1 << 18, (1, 200)).astype(np.uint32)
        (step,) = plan.steps("conv.accumulator")
        assert strike_codes(step, codes, 3, np.array([0]), True).tolist() == [
            streamed(codes[0].tolist(), 8, 25, 0b11111 << 13)
        ]


def streamed(codes, channels, positions, mask):
    """What columns of an array hand out that streams positions, if the high bits of each result are late."""
    out = [0] * len(codes)
    for n in range(channels):
        register = 0
        for m in range(positions):
            word = n * positions + m
            out[word] = register & mask | codes[word] & ~mask
            register = codes[word]
    return out


SMALL = WeightStationary(rows=53, columns=8)
NARROW = WeightStationary(rows=54, columns=7)
SEVERAL_PASSES = {
    "fewer rows than products": [LateBits(probability=0.1, bits=5, mapping=SMALL, sites="conv.*")],
    "fewer columns than channels": [LateBits(probability=0.1, bits=5, mapping=NARROW, sites="conv.*")],
    "a linear layer": [LateBits(probability=0.1, bits=5, mapping=ARRAY, sites="head.*")],
    "the array of the accumulators": [AccumulatorFormat(mapping=SMALL), LateBits(probability=0.1, bits=5)],
    "the array of a stuck element": [
        LateBits(probability=0.1, bits=5),
        StuckElement(mapping=NARROW, element=(0, 1), bit=1, value=1),
    ],
    "the array of a device": [
        AccumulatorFormat(width=24),
        ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": 0.1}),
        LateBits(probability=0.1, bits=5),
    ],
}


@pytest.mark.parametrize("case", SEVERAL_PASSES)
def test_late_bits_of_an_array_in_several_passes_are_refused(case):
    with pytest.raises(ModelError, match=r"late bits of '.*accumulator': a weight-stationary array .* several passes"):
        resolve(SITES, SEVERAL_PASSES[case])


def test_late_bits_and_accumulators_on_two_arrays():
    faults = [LateBits(probability=0.1, bits=5, mapping=UNIT), AccumulatorFormat(mapping=FinnMvau(pe=2, simd=3))]
    with pytest.raises(ModelError, match=r"said to run on two arrays, .*pe=2.* and, for its late bits, .*pe=4"):
        resolve([accumulator()], faults)


def of_an_older_version(array, fault, *, walk=None):
    """The JSON of a plan with late bits as version 0.4.0 made it, whatever the array."""
    data = json.loads(resolve([accumulator()], [LateBits(probability=0.1, bits=5)]).to_json())
    data["faults"][0]["mapping"] = fault and json.loads(fault.model_dump_json())
    data["sites"][0]["processes"][0]["elements"] = [array.columns, 1, 8, 25]
    if walk is not None:
        data["sites"][0]["array"] = walk
    return json.dumps(data)


def test_plans_of_an_older_version_with_late_bits_are_refused_where_they_were_wrong():
    stuck = [[7, 1, 1, 0, 54, 0, ONES ^ 2, 2]]
    for array in (SMALL, NARROW, ARRAY):
        with pytest.raises(PlanError, match=r"several passes.*took another word, resolve it again"):
            FaultPlan.from_json(of_an_older_version(array, array))
    for walk in ({"pass_steps": 16}, {"pass_steps": 54, "events": stuck}):
        with pytest.raises(PlanError, match="several passes"):
            FaultPlan.from_json(of_an_older_version(ARRAY, None, walk=walk))
    fits = WeightStationary(rows=54, columns=8)
    assert FaultPlan.from_json(of_an_older_version(fits, fits)).sites[0].processes[0].kind == "late"
    assert FaultPlan.from_json(of_an_older_version(ARRAY, UNIT))


def test_the_program_of_late_bits():
    plan = resolve(SITES, [LateBits(probability=0.25, bits=5, sites="conv.*")])
    table = encode_table(0.25)
    body = (0b11111 << 13, 8, 1, 8, 25, *table)
    assert plan.program("conv.accumulator") == (4, site_number("conv.accumulator", 0), len(body), *body)
    assert plan.steps("conv.accumulator")[0].reads_stored


def test_the_elements_of_a_device_are_drawn_from_a_profile():
    faults = [ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": 0.05}), AccumulatorFormat(width=24)]
    events = entry(faults, device=1).array.events
    assert events == entry(faults, "head.accumulator", device=1).array.events, "one array computes every layer"
    assert 2 < len(events) < 30
    assert events != entry(faults, device=2).array.events
    for columns, column, *rest, steps, step, and_mask, xor_mask in events:
        assert (columns, steps, rest) == (16, 16, [1, 0])
        assert 0 <= column < 16
        assert 0 <= step < 16
        bit = ONES ^ and_mask
        assert bit.bit_count() == 1
        assert bit < 1 << 24
        assert xor_mask in (0, bit)


def test_more_faulty_elements_are_nested():
    few, many = (
        set(
            entry(
                [ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": p}), AccumulatorFormat(width=24)]
            ).array.events
        )
        for p in (0.02, 0.1)
    )
    assert few < many


def test_plans_survive_json():
    faults = [
        AccumulatorFormat(width=20, overflow="saturate", arithmetic="float64", mapping=ARRAY, sites="conv.*"),
        StuckElement(mapping=ARRAY, element=(0, 1), bit=1, value=1, sites="conv.*"),
        LateBits(probability=0.1, bits=3, sites="head.*"),
        BypassedElements(mapping=ARRAY, elements=[5]),
    ]
    plan = resolve(SITES, faults)
    again = FaultPlan.from_json(plan.to_json())
    assert (again, again.digest) == (plan, plan.digest)
    assert "added up on an array" in str(plan)


WIDE = [accumulator("wide", 27)]
REFUSED = {
    "two accumulator formats for the site 'conv.accumulator'": [AccumulatorFormat(), AccumulatorFormat(sites="conv.*")],
    "bit 18 of a processing element is stuck, but the accumulator 'conv.accumulator' has 18 bits": [
        StuckElement(mapping=ARRAY, element=(0, 1), bit=18, value=1)
    ],
    "19 late bits in a word of 18": [LateBits(probability=0.1, bits=19)],
    "the layers have accumulators of 16, 20 bits": [
        AccumulatorFormat(width=16, sites="conv.*"),
        ProfileFaults(profile="stuck-mac-array", at={"pe_fraction": 0.1}),
    ],
    r"simd.* 4 ": [AccumulatorFormat(width=12, overflow="saturate", mapping=FinnMvau(pe=2, simd=4))],
    "float32 is exact to 25 only": [AccumulatorFormat(width=26)],
    "no site matches the selector 'other.* kind=accumulator'": [AccumulatorFormat(sites="other.*")],
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be(text):
    with pytest.raises(ModelError, match=text):
        resolve(SITES, REFUSED[text])


def test_sums_beyond_float32_need_the_other_arithmetic():
    flips = BitFlips(probability=0.1, sites={"kind": "accumulator"})
    with pytest.raises(
        ModelError, match=r"'wide.accumulator' need 27 bits.*arithmetic: float64, sites: wide.accumulator"
    ):
        resolve(WIDE, [flips])
    with pytest.raises(ModelError, match="need 27 bits"):
        resolve(WIDE, [AccumulatorFormat(width=16)])
    assert resolve(WIDE, [flips, AccumulatorFormat(arithmetic="float64")]).sites[0].array.arithmetic == "float64"


def test_weights_without_a_code_for_nothing():
    for site in (weight(signed=False), weight(bits=1)):
        with pytest.raises(ModelError, match=r"'conv.weight_quant' .* no code that drops their products"):
            resolve([site], [BypassedElements(mapping=ARRAY, elements=[5])])


def test_late_bits_need_shapes():
    with pytest.raises(PlanError, match=r"shape of the accumulator 'conv\.accumulator' is not known"):
        resolve([accumulator(shape=None)], [LateBits(probability=0.1, bits=2)])


def test_obstacles_are_told():
    listed = SiteList(SITES, {"up.accumulator": "it is transposed", "other.accumulator": "no grid"})
    with pytest.raises(
        ModelError, match=r"selector 'up.accumulator kind=accumulator': up.accumulator: it is transposed$"
    ):
        resolve(listed, [AccumulatorFormat(sites="up.accumulator")])


def in_positions(weights, axis):
    """An accumulator with its samples along an axis of its sums."""
    return accumulator(weights=weights).model_copy(update={"batch": BatchAxis(axis=axis)})


ELEMENT = StuckElement(mapping=ARRAY, element=(0, 1), bit=3, value=1)
OF_ARRAYS = [
    ELEMENT,
    LateBits(probability=0.1, bits=2),
    LateBits(probability=0.1, bits=2, mapping=OutputStationary(rows=4, columns=4)),
]


@pytest.mark.parametrize("fault", OF_ARRAYS, ids=lambda fault: fault.model)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_samples_among_the_positions_of_a_convolution_have_no_faults_of_arrays(fault, axis):
    """An array walks from one position to the next, and so from one sample into another."""
    with pytest.raises(ModelError, match=r"convolution with samples along axis \d: an array would walk"):
        resolve([in_positions((8, 6, 1, 1), axis)], [fault])


def test_samples_among_tokens_have_them():
    """Each row of a linear layer is a position of its own, in whatever order they come."""
    assert resolve([in_positions((8, 6), 1)], [ELEMENT]).sites[0].array.events


def test_other_faults_strike_samples_among_positions():
    flips = BitFlips(probability=0.1, sites={"kind": "accumulator"})
    assert resolve([in_positions((8, 6, 1, 1), 2)], [flips]).sites[0].processes
