"""Fault plans: what sites and faults resolve to, how they print, and which sites they fit."""

import json
import re

import pytest

from hwfault.errors import ModelError, PlanError
from hwfault.laws.models import BitFlips, Clusters, MapFaults, WordFaults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.stream.fault_map import FaultMap
from hwfault.stream.reference import processes
from hwfault.stream.tables import accepts, encode_table, site_number, size_table
from tests.helpers.stream.programs import VECTORS, Bit, Cluster, Mask, Random, program, vector_process

ALL = 1 << 22
ACT = Site(name="features.0.act_quant", kind="activation", bit_width=4, signed=False, layer="QuantReLU")
WEIGHT = Site(
    name="features.0.weight_quant", kind="weight", bit_width=8, signed=True, layer="QuantConv2d", shape=(2, 3)
)
SITES = [ACT, WEIGHT]


def test_which_sites_have_a_batch():
    batched = [Site(name="a", kind=kind, bit_width=1, signed=True).batched for kind in ("activation", "input")]
    whole = [Site(name="a", kind=kind, bit_width=1, signed=True).batched for kind in ("weight", "bias")]
    assert (batched, whole) == ([True, True], [False, False])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"bit_width": 0}, r"bit_width: .*greater than or equal to 1 \(given: 0\)"),
        ({"bit_width": 33}, r"bit_width: .*less than or equal to 32 \(given: 33\)"),
        ({"kind": "output"}, r"kind: .*\(given: 'output'\)"),
        ({"nme": "b"}, "unknown key 'nme': did you mean 'name'"),
    ],
)
def test_wrong_sites(change, text):
    with pytest.raises(ModelError, match=text):
        Site(**{"name": "a", "kind": "bias", "bit_width": 4, "signed": True, **change})


def vector_fault(case):
    """The fault model that a case of vectors.json describes, on its site."""
    if case["kind"] == "bit":
        return BitFlips(sites=case["site"], p01=case["p01"], p10=case["p10"])
    if case["kind"] == "cluster":
        return Clusters(sites=case["site"], probability=case["p"], sizes=case["sizes"], axis=case["axis"])
    return WordFaults(sites=case["site"], probability=case["p"], effect=case.get("mask", "random"))


@pytest.mark.parametrize("index", range(len(VECTORS["cases"])))
def test_plans_make_the_programs_of_the_vectors(index):
    case = VECTORS["cases"][index]
    site = Site(name=case["site"], kind="activation", bit_width=case["bit_width"], signed=False)
    elsewhere = BitFlips(sites="elsewhere", probability=0.5)
    faults = [*[elsewhere] * case["process"], vector_fault(case)]
    plan = resolve([site, site.model_copy(update={"name": "elsewhere"})], faults)
    assert plan.program(case["site"]) == vector_process(index).program()
    assert FaultPlan.from_json(plan.to_json()).program(case["site"]) == vector_process(index).program()


def test_processes_come_in_the_faults_order_with_the_faults_numbers():
    faults = [
        WordFaults(sites="*act*", probability=0.1, effect="msb"),
        Clusters(probability=[0.1] * 8, sizes=[0.5, 0.5], axis="word", sites={"kind": "weight"}),
        BitFlips(p01=0.001, p10=[0.01, 0.0, 0.001, 0.1], sites=ACT.name),
        WordFaults(probability=0.2),
    ]
    plan = resolve(SITES, faults)
    act, weight = ([site_number(site.name, k) for k in range(4)] for site in SITES)
    planes = tuple(accepts(0.001, p10) for p10 in (0.01, 0.0, 0.001, 0.1))
    assert plan.program(ACT.name) == program([Mask(act[0], 0.1, 8), Bit(act[2], planes), Random(act[3], 0.2)])
    clusters = Cluster(weight[1], "word", (ALL // 2,), (0.1,) * 8)
    assert plan.program(WEIGHT.name) == program([clusters, Random(weight[3], 0.2)])
    assert plan.names == (ACT.name, WEIGHT.name)
    assert [kind for kind, _, _ in processes(plan.program(ACT.name))] == [2, 0, 3]


def test_a_site_that_nothing_strikes_is_not_planned():
    plan = resolve(SITES, [BitFlips(sites="*act*", probability=0.1)])
    assert plan.names == (ACT.name,)
    assert resolve(SITES, []).names == resolve([], []).names == ()


def test_several_selectors_strike_a_site_once():
    plan = resolve(SITES, [BitFlips(sites=["*", "*act*", {"kind": "activation"}], probability=0.1)])
    assert [len(entry.processes) for entry in plan.sites] == [1, 1]


def test_equal_tables_are_kept_once():
    plan = resolve(SITES, [BitFlips(probability=0.1), WordFaults(probability=0.1), WordFaults(probability=0)])
    assert plan.tables == (encode_table(0.1), (0,))


def test_every_site_needs_to_be_found():
    for sites, text in [
        ("featres.0.act_quant", "'featres.0.act_quant': did you mean 'features.0.act_quant'"),
        (["*act*", "xyz"], "'xyz': known are: 'features.0.act_quant', 'features.0.weight_quant'"),
        ({"kind": "bias"}, r"'\* kind=bias'"),
        ({"name": "*act*", "layer": "QuantConv*"}, r"'\*act\* layer=QuantConv\*'"),
    ]:
        with pytest.raises(ModelError, match=f"no site matches the selector {text}"):
            resolve(SITES, [BitFlips(probability=0.1), BitFlips(sites=sites, probability=0.1)])
    with pytest.raises(ModelError, match="known are: none"):
        resolve([], [BitFlips(probability=0.1)])


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (WordFaults(probability=0.1, effect=16), "the mask 0x10 does not fit words of 4 bits"),
        (BitFlips(probability=[0.1] * 8), "8 probabilities were given for words of 4 bits"),
        (Clusters(probability=[0.1] * 3), "3 probabilities were given for words of 4 bits"),
        (BitFlips(p01=1.0, p10=0.5), "p01 = 1.0 with p10 = 0.5 cannot be drawn"),
        (BitFlips(p01=0.5, p10=1e-9), "1e-09 beside 0.5 is too small"),
        (BitFlips(probability=1e-14), "1e-14 is too small to be drawn"),
        (WordFaults(probability=1e-14), "1e-14 is too small to be drawn"),
    ],
)
def test_faults_that_do_not_fit_name_fault_and_site(fault, text):
    with pytest.raises(ModelError, match=f"fault 1 at site 'features.0.act_quant': .*{re.escape(text)}"):
        resolve(SITES, [BitFlips(probability=0.1, sites="*weight*"), fault])


def test_numbers_that_collide_are_refused():
    # BLAKE2b-4 of both keys "NAME#0" is 3436501391
    assert site_number("layer43408", 0) == site_number("layer58650", 0)
    sites = [ACT.model_copy(update={"name": name}) for name in ("layer43408", "layer58650")]
    with pytest.raises(PlanError, match="the number 3436501391 of layer58650#0 is not its own alone; rename the site"):
        resolve(sites, [BitFlips(probability=0.1)])
    assert resolve(sites, [BitFlips(sites="layer43408", probability=0.1)]).names == ("layer43408",)


def test_two_sites_of_one_name_are_refused():
    with pytest.raises(PlanError, match=r"'features.0.act_quant' is listed twice"):
        resolve([ACT, WEIGHT, ACT], [BitFlips(probability=0.1)])


def mixed_plan():
    return resolve(
        SITES,
        [
            BitFlips(sites="*act*", p01=[0.1, 0.2, 0.3, 0.0], p10=0.3),
            WordFaults(probability=1e-3, effect="lsb"),
            Clusters(sites={"kind": "weight"}, probability=1e-3, sizes=(0.5, 0.5), axis="word"),
            WordFaults(probability=1.0),
        ],
    )


def test_sites_by_name():
    plan = mixed_plan()
    assert plan.at(WEIGHT.name).site == WEIGHT
    for call in (plan.at, plan.program):
        with pytest.raises(
            PlanError, match=r"the plan has no site 'features.1.act_quant': did you mean 'features.0.act"
        ):
            call("features.1.act_quant")


def test_a_plan_prints_as_a_table():
    plan = mixed_plan()
    lines = str(plan).split("\n")
    assert lines[0] == f"fault plan {plan.digest[:12]}: 2 sites, 4 faults"
    assert lines[1] == (
        "  fault 0: bit_flips: bit errors by bit, lowest first: 0.1 where 0 is stored and 0.3 where 1 is; "
        "0.2 where 0 is stored and 0.3 where 1 is; 0.3; 0 where 0 is stored and 0.3 where 1 is, at 1 site"
    )
    assert lines[2] == "  fault 1: word: words XORed with 0x1 with probability 0.001, at 2 sites"
    assert lines[3].startswith(
        "  fault 2: cluster: clusters of flips along words (sizes 1: 0.5, 2: 0.5) with probability"
    )
    assert lines[5].split() == [
        "features.0.act_quant",
        "activation",
        "4",
        "bit",
        "unsigned",
        "fault",
        "0",
        "(bit),",
        "fault",
        "1",
        "(mask),",
        "fault",
        "3",
        "(random)",
    ]
    assert lines[6].split()[:5] == ["features.0.weight_quant", "weight", "8", "bit", "signed"]
    assert lines[7].split()[:4] == ["expected", "in", "a", "trial:"]
    assert len(lines) == 8
    assert "0 sites, 0 faults" in str(resolve([], []))


def test_a_plan_fits_the_sites_it_was_made_for():
    plan = mixed_plan()
    plan.check_fits(SITES, "the graph")
    plan.check_fits([*SITES, Site(name="more", kind="bias", bit_width=3, signed=True)], "the graph")
    plan.check_fits([s.model_copy(update={"layer": "", "shape": (9,)}) for s in SITES], "the graph")
    plan.check_fits([ACT.model_copy(update={"kind": "input"}), WEIGHT], "the graph")


@pytest.mark.parametrize(
    ("sites", "text"),
    [
        ([ACT], "strikes the site 'features.0.weight_quant', which the graph does not have: did you mean"),
        ([], "strikes the site 'features.0.act_quant', which the graph does not have: known are: none"),
        (
            [ACT.model_copy(update={"bit_width": 5}), WEIGHT],
            r"\(4, False, True\), but the graph has \(5, False, True\)",
        ),
        ([ACT.model_copy(update={"signed": True}), WEIGHT], r"\(4, False, True\), but the graph has \(4, True, True\)"),
        (
            [ACT, WEIGHT.model_copy(update={"kind": "input"})],
            r"\(8, True, False\), but the graph has \(8, True, True\)",
        ),
    ],
)
def test_a_plan_made_for_other_sites(sites, text):
    with pytest.raises(PlanError, match=text):
        mixed_plan().check_fits(sites, "the graph")


READING = [
    ([BitFlips(probability=0.1)], False),
    ([BitFlips(p01=0.1)], True),
    ([BitFlips(p10=0.1)], True),
    ([BitFlips(p01=0.1, p10=0.2)], True),
    ([BitFlips(p01=0.1, p10=0.1)], False),
    ([BitFlips(p01=0.0, p10=0.0)], False),
    ([BitFlips(p01=[0.1, 0, 0, 0.1], p10=[0.1, 0, 0, 0.1])], False),
    ([BitFlips(p01=[0.1, 0, 0, 0.1], p10=[0.1, 0, 0, 0.2])], True),
    ([WordFaults(probability=0.1)], False),
    ([WordFaults(probability=0.1, effect="lsb")], False),
    ([Clusters(probability=0.1)], False),
    ([Clusters(probability=0.1), WordFaults(probability=0.1, effect="full"), BitFlips(probability=0.1)], False),
    ([WordFaults(probability=0.1), BitFlips(probability=0.1)], True),
    ([BitFlips(probability=0.1), WordFaults(probability=0.1)], True),
    ([WordFaults(probability=0.1), WordFaults(probability=0.1)], True),
    ([BitFlips(probability=0.1), BitFlips(p01=0.1)], True),
]


@pytest.mark.parametrize(("faults", "reads"), READING, ids=range(len(READING)))
def test_which_plans_read_the_stored_codes(faults, reads):
    plan = resolve([ACT], faults)
    assert plan.at(ACT.name).reads_stored(plan.tables) is reads


def test_size_tables_are_the_builders():
    plan = resolve([WEIGHT], [Clusters(probability=0.1, sizes=(0.9, 0.05, 0.05))])
    assert plan.sites[0].processes[0].sizes == size_table((0.9, 0.05, 0.05))


def with_twins(fault, processes):
    """A plan's JSON with more processes of one fault at its site."""
    data = json.loads(resolve([WEIGHT], [fault]).to_json())
    data["sites"][0]["processes"] *= processes
    return json.dumps(data)


def test_a_fault_may_have_several_processes_at_a_site_of_which_one_is_drawn(tmp_path):
    FaultMap.from_cells(100, 8, [1], [2], [0]).save(tmp_path / "m")
    permanent = MapFaults(file=str(tmp_path / "m"))
    read = FaultPlan.from_json(with_twins(permanent, 2))
    assert len(read.at(WEIGHT.name).processes) == 2
    for drawn in (BitFlips(probability=0.1), permanent.model_copy(update={"p_active": 0.5})):
        FaultPlan.from_json(with_twins(drawn, 1))
        with pytest.raises(PlanError, match="is not its own alone"):
            FaultPlan.from_json(with_twins(drawn, 2))
