"""Plans of a part of the faults: factors on their probabilities, and selectors by index."""

import pytest

from hwfault.errors import ModelError
from hwfault.laws.models import (
    AccumulatorFormat,
    BitFlips,
    BypassedElements,
    Clusters,
    LateBits,
    MapFaults,
    ProfileFaults,
    StuckElement,
    WordFaults,
)
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.program.selectors import Select, chosen
from hwfault.stream.fault_map import FaultMap

ARRAY = {"kind": "weight_stationary", "rows": 4, "columns": 4}


def site(name, kind, layer="QuantConv2d", **more):
    own = {"bit_width": 4, "signed": True, "shape": (4, 4)}
    return Site(name=name, kind=kind, layer=layer, **own | more)


SITES = [
    site("a.act", "activation", "QuantIdentity"),
    site("b.weight", "weight"),
    site("b.act", "activation", "QuantReLU"),
    site("c.weight", "weight", "QuantLinear"),
    site("c.act", "activation", "QuantReLU"),
    site("b.accumulator", "accumulator", bit_width=12, worst_case=12, weights=(4, 4)),
]
NAMES = [s.name for s in SITES[:-1]]
FAULTS = [
    BitFlips(probability=0.1, sites="*act"),
    WordFaults(probability=0.2, sites={"kind": "weight"}),
    Clusters(probability=0.01, sites="c.*"),
]


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ({"index": 0}, ["a.act"]),
        ({"index": -1}, ["c.act"]),
        ({"index": 4}, ["c.act"]),
        ({"index": -5}, ["a.act"]),
        ({"kind": "activation", "index": [0, -1]}, ["a.act", "c.act"]),
        ({"kind": "activation", "index": [-1, 2, 1]}, ["b.act", "c.act"]),
        ({"kind": "weight", "index": 1}, ["c.weight"]),
        ({"layer": "QuantReLU", "index": 1}, ["c.act"]),
        ({"name": "b.*", "index": 1}, ["b.act"]),
        ([{"kind": "weight", "index": 0}, {"kind": "activation", "index": 0}], ["a.act", "b.weight"]),
        ({"kind": "accumulator", "index": 0}, ["b.accumulator"]),
    ],
)
def test_selectors_by_index(selector, names):
    plan = resolve(SITES, [BitFlips(probability=0.1, sites=selector)])
    assert plan.names == tuple(names)


def test_selectors_by_index_select_for_every_model(tmp_path):
    weights = {"kind": "weight", "index": 1}
    FaultMap.from_cells(16, 4, [3], [1], [0]).save(tmp_path / "m.safetensors")
    for fault, names in [
        (MapFaults(file=str(tmp_path / "m.safetensors"), sites=weights), ("c.weight",)),
        (BypassedElements(mapping=ARRAY, elements=[1], sites=weights), ("c.weight",)),
        (LateBits(probability=0.1, bits=2, sites={"kind": "accumulator", "index": -1}), ("b.accumulator",)),
        (AccumulatorFormat(width=8, sites={"kind": "accumulator", "index": 0}), ("b.accumulator",)),
        (StuckElement(pe=1, bit=5, value=1, mapping=ARRAY, sites={"index": 0}), ("b.accumulator",)),
    ]:
        assert resolve(SITES, [fault]).names == names


@pytest.mark.parametrize("index", [3, -4, [0, 3], [-1, -4]])
def test_an_index_out_of_range(index):
    words = r"'\* kind=activation index=.*' wants number (3|-4) of 3 sites that match, expected an index from 0 to 2"
    with pytest.raises(ModelError, match=words):
        resolve(SITES, [BitFlips(probability=0.1, sites={"kind": "activation", "index": index})])


def test_an_index_among_no_sites():
    with pytest.raises(ModelError, match="no site matches the selector 'x index=0'"):
        resolve(SITES, [BitFlips(probability=0.1, sites={"name": "x", "index": 0})])


@pytest.mark.parametrize("index", ["0", 1.0, True, [], [1.5]])
def test_indices_that_are_none(index):
    with pytest.raises(ModelError, match="index"):
        Select(index=index)


def test_chosen_sites_keep_their_order_and_come_once():
    picked = chosen(SITES, [Select(index=-1), Select(index=(1, 0)), Select(name="a.*")])
    assert [s.name for s in picked] == ["a.act", "b.weight", "c.act"]


@pytest.mark.parametrize("factors", [None, (1, 1, 1), (1.0, 1.0, 1.0)])
def test_factors_of_1_change_nothing(factors):
    plan = resolve(SITES, FAULTS, factors=factors)
    assert plan == resolve(SITES, FAULTS)
    assert plan.factors is None
    assert plan.digest == resolve(SITES, FAULTS).digest


def test_factors_scale_the_probabilities():
    plan = resolve(SITES, FAULTS, factors=(0.5, 0.25, 1))
    scaled = resolve(SITES, [FAULTS[0].scaled(0.5), FAULTS[1].scaled(0.25), FAULTS[2]])
    assert (plan.sites, plan.tables) == (scaled.sites, scaled.tables)
    assert (plan.faults, plan.factors) == (tuple(FAULTS), (0.5, 0.25, 1.0))


def test_faults_at_0_are_left_out_and_the_others_keep_their_numbers():
    plan, whole = resolve(SITES, FAULTS, factors=(0, 1, 1)), resolve(SITES, FAULTS)
    assert plan.names == ("b.weight", "c.weight", "c.act")
    assert plan.program("b.weight") == whole.program("b.weight")
    assert plan.program("c.weight") == whole.program("c.weight")
    assert {p.fault for entry in plan.sites for p in entry.processes} == {1, 2}
    assert resolve(SITES, FAULTS, factors=(0, 0, 0)).names == ()


def test_left_out_faults_must_fit_as_well():
    with pytest.raises(ModelError, match="no site matches the selector 'x'"):
        resolve(SITES, [BitFlips(probability=0.1, sites="x")], factors=[0])


def test_faults_without_a_probability_are_on_or_off():
    faults = [AccumulatorFormat(width=8), LateBits(probability=0.1, bits=2)]
    assert resolve(SITES, faults, factors=(1, 0.5)).at("b.accumulator").site.bit_width == 8
    off = resolve(SITES, faults, factors=(0, 1)).at("b.accumulator")
    assert (off.site.bit_width, off.array) == (12, None)
    with pytest.raises(ModelError, match=r"the factor 0\.5 on fault 0, a 'accumulator' without a probability"):
        resolve(SITES, faults, factors=(0.5, 1))


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ((1,), "1 factors for 3 faults"),
        ((1, 1, 1.1), "the factor of fault 2 is 1.1"),
        ((-0.5, 1, 1), "the factor of fault 0 is -0.5"),
        ((1, float("nan"), 1), "the factor of fault 1 is nan"),
    ],
)
def test_factors_that_are_none(factors, words):
    with pytest.raises(ModelError, match=words):
        resolve(SITES, FAULTS, factors=factors)


def test_factors_are_written_and_read():
    plan = resolve(SITES, FAULTS, factors=(0.5, 0, 1))
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert "factors" not in resolve(SITES, FAULTS).to_json()
    text = str(plan)
    assert "0.5 times its probability" in text
    assert "0 times its probability" in text
    assert "times" not in str(resolve(SITES, FAULTS))
    with pytest.raises(ModelError, match="2 factors for 3 faults"):
        FaultPlan(faults=tuple(FAULTS), factors=(1.0, 0.5), sites=(), tables=())


@pytest.mark.parametrize(
    ("profile", "at"), [("uniform-flips", {"ber": 0.1}), ("sram14-ibm-7points", {"operating_point": 6})]
)
def test_profiles_scale_by_their_share(profile, at):
    fault = ProfileFaults(profile=profile, at=at, sites={"kind": "weight"})
    half, same = resolve(SITES, [fault], factors=[0.5]), resolve(SITES, [fault.scaled(0.5)])
    whole = resolve(SITES, [fault])
    assert (half.sites, half.tables) == (same.sites, same.tables)
    assert (half.sites, half.tables) != (whole.sites, whole.tables)


@pytest.mark.parametrize(("p_active", "factor", "threshold"), [(1.0, 0.5, 1 << 31), (0.5, 0.5, 1 << 30)])
def test_maps_scale_by_how_often_their_cells_show(tmp_path, p_active, factor, threshold):
    FaultMap.from_cells(16, 4, [3], [1], [0]).save(tmp_path / "m.safetensors")
    fault = MapFaults(file=str(tmp_path / "m.safetensors"), sites="b.weight", p_active=p_active)
    (process,) = resolve(SITES, [fault], factors=[factor]).at("b.weight").processes
    assert process.threshold == threshold
    assert len(process.map) == 1


def test_sites_that_nothing_can_strike_are_idle():
    faults = [BitFlips(probability=0, sites="*.act"), WordFaults(probability=0.1, sites="b.act")]
    plan = resolve(SITES, faults)
    assert [name for name in plan.names if plan.idle(name)] == ["a.act", "c.act"]


def test_maps_without_faults_are_idle(tmp_path):
    for words, p_active, idle in [([3], 1.0, False), ([3], 0.0, True), ([], 1.0, True)]:
        FaultMap.from_cells(16, 4, words, words, [0] * len(words)).save(tmp_path / "m.safetensors")
        for protection in (None, {"kind": "parity", "data_bits": 4}):
            own = {"file": str(tmp_path / "m.safetensors"), "sites": "b.weight", "protection": protection}
            assert resolve(SITES, [MapFaults(p_active=p_active, **own)]).idle("b.weight") == idle
