"""Fault plans as JSON: they come back whole, and whatever is no plan is told so."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import FileError, PlanError
from hwfault.laws.models import BitFlips, Clusters, WordFaults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.program.selectors import Select
from hwfault.stream.reference import processes
from tests.plan.test_fault_plan import ALL, SITES, mixed_plan


def test_the_digest_is_of_the_json():
    plan = mixed_plan()
    assert plan.digest == sha256(plan.to_json().encode()).hexdigest()
    assert mixed_plan().digest == plan.digest
    assert resolve(SITES, [BitFlips(probability=0.1)]).digest != resolve(SITES, [BitFlips(probability=0.2)]).digest


GOLDEN = """{
"format": "hwfault-plan/1",
"faults": [
{"sites":[{"name":"*"}],"model":"word","probability":1.0,"effect":"lsb"},
{"sites":[{"name":"*","kind":"weight"}],"model":"bit_flips","probability":1e-09}
],
"sites": [
{"site":{"name":"features.0.weight_quant","kind":"weight","bit_width":1,"signed":true,"layer":"","shape":[2,3]},\
"processes":[{"fault":0,"site_number":2637167205,"kind":"mask","tables":[0],"accept01":[],"accept10":[],"sizes":[],\
"mask":1},{"fault":1,"site_number":2363051402,"kind":"bit","tables":[1],"accept01":[4194304],"accept10":[4194304],\
"sizes":[]}]}
],
"tables": [
[-1],
[1,4294962897]
]
}
"""


def test_the_json_to_the_letter():
    # graphs carry this text and its hash: a change needs another number in "format"
    site = Site(name="features.0.weight_quant", kind="weight", bit_width=1, signed=True, shape=(2, 3))
    faults = [WordFaults(probability=1.0, effect="lsb"), BitFlips(probability=1e-9, sites={"kind": "weight"})]
    assert resolve([site], faults).to_json() == GOLDEN


def test_the_json_says_its_format():
    data = json.loads(mixed_plan().to_json())
    assert list(data) == ["format", "faults", "sites", "tables"]
    assert data["format"] == "hwfault-plan/1"
    assert all(isinstance(x, int) for table in data["tables"] for x in table)


RATE = st.sampled_from((0.0, 1e-9, 1e-3, 0.02, 0.5, 1.0))
SELECT = st.one_of(
    st.just(()),
    st.just("*"),
    st.builds(Select, kind=st.sampled_from(("activation", "weight", None)), layer=st.just("Q*")),
)
SIZES = st.sampled_from(((1.0,), (0.5, 0.5), (0.9, 0.05, 0.05)))
FAULT = st.one_of(
    st.builds(BitFlips, probability=RATE),
    st.builds(BitFlips, p01=st.one_of(st.none(), st.just(0.1)), p10=st.sampled_from((0.0, 0.25, 0.1))),
    st.builds(WordFaults, probability=RATE, effect=st.sampled_from(("random", "lsb", "msb", "full", 1))),
    st.builds(Clusters, probability=RATE, sizes=SIZES, axis=st.sampled_from(("bit", "word"))),
)
SITE = st.builds(
    Site,
    name=st.text(min_size=1, max_size=8),
    kind=st.sampled_from(("activation", "input", "weight", "bias")),
    bit_width=st.integers(1, 32),
    signed=st.booleans(),
    layer=st.sampled_from(("", "QuantReLU")),
    shape=st.one_of(st.none(), st.just(()), st.just((3, 4))),
)


@given(st.lists(SITE, min_size=1, max_size=4, unique_by=lambda site: site.name), st.lists(FAULT, max_size=4))
def test_plans_survive_json(sites, faults):
    plan = resolve(sites, faults)
    text = plan.to_json()
    for again in (FaultPlan.from_json(text), FaultPlan.from_json(text.encode())):
        assert again == plan
        assert again.to_json() == text
        assert again.digest == plan.digest
        assert [again.program(name) for name in again.names] == [plan.program(name) for name in plan.names]
    for site in sites if faults else []:
        kinds = [kind for kind, _, _ in processes(plan.program(site.name))]
        assert len(kinds) == len(faults), "a program holds every process, whole"


def test_plans_survive_files(tmp_path):
    plan = mixed_plan()
    plan.save(tmp_path / "plan.json")
    assert FaultPlan.load(tmp_path / "plan.json") == FaultPlan.load(str(tmp_path / "plan.json")) == plan
    assert (tmp_path / "plan.json").read_text() == plan.to_json()


def test_plans_that_cannot_be_saved(tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        mixed_plan().save(tmp_path / "no" / "plan.json")


def test_files_that_cannot_be_loaded(tmp_path):
    with pytest.raises(
        FileError, match=r"no.json: cannot be read \(No such file or directory\); expected a fault plan"
    ):
        FaultPlan.load(tmp_path / "no.json")
    with pytest.raises(FileError, match=r"cannot be read \(Is a directory\)"):
        FaultPlan.load(tmp_path)
    with open(tmp_path / "huge.json", "wb") as huge:
        huge.truncate((1 << 28) + 1)
    with pytest.raises(FileError, match=r"huge.json: 268435457 bytes, expected a fault plan of at most 268435456"):
        FaultPlan.load(tmp_path / "huge.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(PlanError, match=r"other.json: .*not a fault plan"):
        FaultPlan.load(tmp_path / "other.json")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '"plan"',
        "{}",
        b"\xff",
        b"\x80\x02}q\x00.",
        "[" * 100_000,
        "9" * 10_000,
        '{"a": NaN}',
    ],
    ids=range(12),
)
def test_what_is_no_plan(text):
    with pytest.raises(PlanError, match=r"^the plan: not a fault plan: "):
        FaultPlan.from_json(text)


def test_truncated_plans():
    text = mixed_plan().to_json()
    for length in range(0, len(text) - 2, 97):
        with pytest.raises(PlanError, match="not a fault plan"):
            FaultPlan.from_json(text[:length])


def edited(path, value):
    """The JSON of mixed_plan with one place changed, or dropped where `value` is None."""
    data = json.loads(mixed_plan().to_json())
    *way, last = path
    place = data
    for step in way:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return json.dumps(data)


ACT_BIT, ACT_MASK = ("sites", 0, "processes", 0), ("sites", 0, "processes", 1)
WEIGHT_CLUSTER, WEIGHT_RANDOM = ("sites", 1, "processes", 1), ("sites", 1, "processes", 2)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("format",), "hwfault-plan/2", "'hwfault-plan/1'"),
        (("fromat",), "x", "unknown key 'fromat': did you mean 'format'"),
        (("faults",), None, "faults: Field required"),
        (("tables",), [[0]], r"names table \d+ of 1 "),
        (("tables",), json.loads(mixed_plan().to_json())["tables"][:-1], "names table 2 of 2 "),
        (("tables", 0), [], "a count table says"),
        (("tables", 0), [2, 5], r"says \(2,\) before 1 thresholds, expected their number"),
        (("tables", 0), [-1, 5], "before 1 thresholds"),
        (("tables", 0), [-2], "before 0 thresholds"),
        (("tables", 0), [2, 6, 5], r"must ascend within 0 to 2\^32"),
        (("tables", 0), [1, 2**32 + 1], "must ascend within"),
        (("tables", 0), [1, -1], "must ascend within"),
        (("tables", 0), [1, 0.5], "integer"),
        ((*ACT_BIT, "tables"), [0, 0, 0], "a bit process on 4 bits needs 4 tables and 4 accepts each way"),
        ((*ACT_BIT, "tables"), [0, 0, 0, 99], "names table 99 of"),
        ((*ACT_BIT, "tables"), [0, 0, 0, -1], "names table -1 of"),
        ((*ACT_BIT, "accept01"), [0, 0, 0], "4 accepts each way"),
        ((*ACT_BIT, "accept01"), None, "4 accepts each way"),
        ((*ACT_BIT, "accept10"), [0, 0, 0, ALL + 1], "accept10.*less than or equal to 4194304"),
        ((*ACT_BIT, "accept10"), [0, 0, 0, -1], "accept10.*greater than or equal to 0"),
        ((*ACT_BIT, "sizes"), [5], "sizes"),
        ((*ACT_BIT, "axis"), "bit", "lacks its axis or mask, or has one too many"),
        ((*ACT_BIT, "kind"), "bits", "kind"),
        ((*ACT_BIT, "site_number"), 7, "the number 7 of features.0.act_quant#0 is not its own"),
        ((*ACT_BIT, "site_number"), 2**32, "site_number.*less than 4294967296"),
        ((*ACT_BIT, "fault"), -1, "fault.*greater than or equal to 0"),
        ((*ACT_BIT, "fault"), 1, "not its own alone"),
        ((*ACT_MASK, "mask"), None, "a mask process lacks its axis or mask"),
        ((*ACT_MASK, "mask"), 16, "mask 0x10 does not fit 4 bits"),
        ((*ACT_MASK, "mask"), 0, "mask 0x0 does not fit 4 bits"),
        ((*ACT_MASK, "tables"), [1, 1], "a mask process on 4 bits needs 1 tables"),
        ((*WEIGHT_CLUSTER, "axis"), None, "a cluster process lacks its axis"),
        ((*WEIGHT_CLUSTER, "axis"), "row", "axis"),
        ((*WEIGHT_CLUSTER, "sizes"), [9, 8], "thresholds do not ascend"),
        ((*WEIGHT_CLUSTER, "sizes"), [ALL + 1], "sizes.*less than or equal to 4194304"),
        ((*WEIGHT_CLUSTER, "tables"), [1] * 7, "a cluster process on 8 bits needs 8 tables"),
        ((*WEIGHT_RANDOM, "mask"), 1, "has one too many"),
        ((*WEIGHT_RANDOM, "accept01"), [1], "0 accepts each way"),
        (("sites", 0, "site", "bit_width"), 5, "on 5 bits needs 5 tables"),
        (("sites", 0, "site", "bit_width"), 40, "bit_width"),
        (("sites", 0, "site", "name"), "other", "is not its own alone"),
        (("sites", 1), json.loads(mixed_plan().to_json())["sites"][0], "is listed twice"),
        (("faults", 0, "model"), "x", "faults.0"),
        (("faults", 0, "p10"), 7, r"faults.0.*is 7.0, expected a number in \[0, 1\]"),
    ],
    ids=lambda x: None if isinstance(x, str) else ".".join(map(str, x)) if isinstance(x, tuple) else "",
)
def test_plans_that_contradict_themselves(path, value, text):
    with pytest.raises(PlanError, match=f"(?s)not a fault plan: .*{text}"):
        FaultPlan.from_json(edited(path, value))


def test_the_same_process_twice_is_refused():
    data = json.loads(mixed_plan().to_json())
    data["sites"][0]["processes"].append(data["sites"][0]["processes"][0])  # the faults would undo themselves
    with pytest.raises(PlanError, match="not a fault plan"):
        FaultPlan.from_json(json.dumps(data))


def test_errors_name_the_plan_once():
    with pytest.raises(PlanError) as caught:
        FaultPlan.from_json("[]", "here.json")
    assert str(caught.value).count("here.json") == 1
