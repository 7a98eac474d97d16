"""Words that become one code, and word faults that are permanent: known answers, every engine, the listing.

`python -m tests.laws.test_word` writes the known answers, from the oracle's plain integers.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from hwfault.campaigns.points import only_bit
from hwfault.errors import HwfaultError, ModelError, PlanError
from hwfault.laws.models import FaultList, WordFaults
from hwfault.laws.word import Code
from hwfault.plan.agreement import disagreements
from hwfault.plan.expected import expected_faults
from hwfault.plan.fault_plan import FaultPlan, resolve
from hwfault.program.processes import Site
from hwfault.stream import native
from hwfault.stream.fault_map import Kind
from hwfault.stream.tables import ALWAYS, encode_table, site_number
from tests.helpers.stream import oracle
from tests.helpers.stream.cases import Draw
from tests.helpers.stream.engines import ENGINES, by_reference, many_by_onnxruntime
from tests.helpers.stream.programs import Bit, Mask, Random, program
from tests.helpers.stream.triton_here import OLDEST
from tests.plan.test_listed_is_struck import check_run, known_sites
from tests.slowly import thinned

pytestmark = pytest.mark.filterwarnings("ignore:Positional args are being deprecated:FutureWarning")
ANSWERS = Path(__file__).parents[1] / "stream" / "word_codes.json"
SITE = Site(name="w", kind="weight", bit_width=4, signed=True, shape=(3000,))
DRAWN = [
    # bits, probability, code
    (8, 0.3, 5),
    (8, 0.7, 0),
    (4, 0.05, 3),
    (4, 1.0, 15),
    (1, 0.1, 1),
    (32, 0.01, 2**32 - 1),
    (32, 0.1, 0),
    (17, 0.01, 9),
]


def set_to(code, h, site):
    """The process by which words become a code, on the wire."""
    body = (2**33 + code, *encode_table(h))
    return (2, site, len(body), *body)


def answers():
    """Cases of codes, a process and the words that it changes, from the specification's text alone."""
    rng = np.random.default_rng(14)
    for i, (bits, h, code) in enumerate(DRAWN):
        draw = {"seed": int(rng.integers(2**63)), "site": int(rng.integers(2**32)), "sample": int(rng.integers(2**32))}
        stored = rng.integers(0, 2**bits, (40, 1100, 2100)[i % 3]).tolist()
        hit = {word for word, _ in oracle.hits((draw["seed"], draw["site"], draw["sample"]), len(stored), 63, h)}
        changed = sorted(word for word in hit if stored[word] != code)
        yield {"bit_width": bits, "h": h, "code": code, **draw, "codes": stored, "changed": changed}


def known():
    return json.loads(ANSWERS.read_text())["cases"] if ANSWERS.exists() else []


def test_the_known_answers_are_those_of_the_text():
    assert known() == list(answers())
    assert all(case["changed"] for case in known())


def by_triton(*draw):
    pytest.importorskip("triton", minversion=OLDEST, reason="the CUDA kernels are written in Triton")
    from hwfault.stream.cuda import launch
    from tests.helpers.stream import triton_calls

    # the interpreter's time goes by the number of steps: a block's words are taken at once
    with triton_calls.fast_or(), pytest.MonkeyPatch.context() as patch:
        if triton_calls.INTERPRETED:
            patch.setitem(launch.STRIKE, "WIDE", 1024)
        return triton_calls.by_triton(*draw)


@pytest.mark.parametrize("case", known(), ids=lambda case: f"{case['bit_width']} bits, h={case['h']}")
@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
def test_known_answers(engine, case):
    check_known(engine, case)


# the interpreter takes its time for many hits
@pytest.mark.parametrize("case", thinned(sorted(known(), key=lambda case: len(case["changed"])), 3))
def test_known_answers_of_triton(case):
    check_known(by_triton, case)


def check_known(engine, case):
    codes = np.array(case["codes"], np.uint32)
    expected = codes.copy()
    expected[case["changed"]] = case["code"]
    faults = set_to(case["code"], case["h"], case["site"])
    np.testing.assert_array_equal(engine(codes, faults, case["seed"], case["sample"], case["bit_width"]), expected)


def random_draws(seed, count):
    """Codes and programs in which words are set among other faults."""
    draw = Draw(seed)
    for _ in range(count):
        bits, words = draw.bit_width(), draw.integer(1, 1500)
        ours = set_to(draw.integer(0, 2**bits - 1), draw.one_of((1e-3, 0.01, 0.2, 1.0)), draw.site())
        before, behind = (program(draw.processes(bits, words)) for _ in range(2))
        yield draw.codes(bits, words), (*before, *ours, *behind), draw.seed(), draw.sample() % 2**32, bits


def test_engines_agree_on_random_cases():
    draws = list(random_draws(3, 120))
    expected = [by_reference(*draw) for draw in draws]
    by_native = [ENGINES["native"](*draw) for draw in draws]
    for should, *found in zip(expected, by_native, many_by_onnxruntime(draws), strict=True):
        for codes in found:
            np.testing.assert_array_equal(codes, should)


@pytest.mark.every(4)
@pytest.mark.parametrize("others", [[], [Mask(5, 0.01, 3), Random(6, 0.005)], [Bit(7, ((0.01, 2**21, 2**22),) * 3)]])
@pytest.mark.parametrize(("h", "code"), [(0.003, 0), (0.003, 5), (0.4, 7)])
def test_triton_equals_the_reference(h, code, others):
    codes = Draw(8).codes(3, 1100 if h < 0.1 else 500)
    draw = (codes, (*program(others), *set_to(code, h, 9), *program(others)), 2**63 + 1, 12, 3)
    np.testing.assert_array_equal(by_triton(*draw), by_reference(*draw))


@pytest.mark.parametrize("mask", [0, -1, 16, 2**33 - 1, 2**33 + 16, 2**34])
def test_masks_that_are_none_are_refused(mask):
    with pytest.raises(HwfaultError, match=f"has a mask = {mask}, expected"):
        native.check_program([2, 1, 2, mask, 0], 4)


# the law


EFFECTS = {"zero": 0, "code": 3}


def fault(effect, probability=0.2, **more):
    given = {"model": "word", "probability": probability, "effect": effect if effect == "zero" else {"code": 3}}
    return FaultList.parse({"faults": [given | more]}, "the test").faults[0]


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_process_sets_the_code(effect):
    plan = resolve([SITE], [fault(effect)])
    (process,) = plan.at("w").processes
    assert (process.kind, process.mask, process.code) == ("mask", None, EFFECTS[effect])
    assert plan.program("w") == set_to(EFFECTS[effect], 0.2, site_number("w", 0))
    assert FaultPlan.from_json(plan.to_json()) == plan
    assert f"words set to {EFFECTS[effect]:#x} with probability 0.2" in str(plan)
    assert plan.at("w").reads_stored(plan.tables)
    low, high = expected_faults(plan).once
    assert (low, round(high)) == (0, 600)
    with pytest.raises(PlanError, match="strikes several bits at once"):
        only_bit(plan, 0)


def test_a_code_that_does_not_fit_names_the_site():
    with pytest.raises(
        ModelError, match="fault 0 at site 'w': the code 0x10 does not fit words of 4 bits, expected 0 to"
    ):
        resolve([SITE], [WordFaults(probability=0.1, effect=Code(code=16))])
    for code in (-1, 2**32, 1.5, True):
        with pytest.raises(ModelError, match="code"):
            WordFaults(probability=0.1, effect={"code": code})


@pytest.mark.parametrize("other", ['"code":16', '"code":0,"mask":3', '"code":-1', '"mask":0'])
def test_plans_with_other_codes_are_refused(other):
    text = resolve([SITE], [fault("zero")]).to_json().replace('"code":0', other)
    with pytest.raises(PlanError, match=r"expected one of them|code: Input should be|does not fit 4 bits"):
        FaultPlan.from_json(text)


@pytest.mark.parametrize("persistence", [None, "permanent"])
@pytest.mark.parametrize("effect", EFFECTS)
def test_what_is_listed_strikes_a_network(effect, persistence):
    """In PyTorch, against the listing, with the codes and without, at every kind of site."""
    sites = known_sites("biased")
    plan = resolve(sites, [fault(effect, persistence=persistence)], device=3)
    assert {site.kind for site in sites if site.kind != "accumulator"} == {e.site.kind for e in plan.sites}
    assert check_run(plan, [2, 1]) > 0


@pytest.mark.parametrize("persistence", [None, "permanent"])
def test_a_graph_has_the_faults_of_the_network(persistence):
    from hwfault.graph.export.of_network import export
    from hwfault.proof.replay import replay
    from tests.helpers.injection.networks import batch, build

    model, x = build("biased").eval(), batch()[:3]
    plan = resolve(known_sites("biased"), [fault("code", persistence=persistence)], device=3)
    report = replay(model, export(model, x, plan=plan), [x], seeds=[5, 6])
    assert report.verdict in ("pass", "outputs differ"), "of which the last is rounding behind the last site"


# permanent


def cells_of(plan):
    (process,) = plan.at("w").processes
    assert (process.kind, process.threshold) == ("map", ALWAYS)
    return process.map


@pytest.mark.parametrize(
    ("effect", "bit_kinds"),
    [
        ("zero", {0: Kind.STUCK_AT_0, 1: Kind.STUCK_AT_0, 2: Kind.STUCK_AT_0, 3: Kind.STUCK_AT_0}),
        ({"code": 3}, {0: Kind.STUCK_AT_1, 1: Kind.STUCK_AT_1, 2: Kind.STUCK_AT_0, 3: Kind.STUCK_AT_0}),
        ("msb", {3: Kind.FLIP}),
        (6, {1: Kind.FLIP, 2: Kind.FLIP}),
    ],
)
def test_permanent_words_are_the_hits_of_the_specimen(effect, bit_kinds):
    given = WordFaults(probability=0.1, effect=effect, persistence="permanent")
    plan = resolve([SITE], [given], device=7)
    hit = {word for word, _ in oracle.hits((7, site_number("w", 0), 0), 3000, 63, 0.1)}
    word, bit, kind = cells_of(plan).cells()
    found = set(zip(word.tolist(), bit.tolist(), kind.tolist(), strict=True))
    assert found == {(w, b, k) for w in hit for b, k in bit_kinds.items()}
    assert plan.device == 7
    assert list(disagreements(FaultPlan.from_json(plan.to_json()))) == []
    assert resolve([SITE], [given], device=8).digest != plan.digest


def test_a_higher_rate_only_adds_words():
    rates = [WordFaults(probability=1.0, effect="zero", persistence="permanent").scaled(p) for p in (0.01, 0.1, 0.5, 1)]
    words = [set(cells_of(resolve([SITE], [one])).word.tolist()) for one in rates]
    assert words[0] < words[1] < words[2] < words[3] == set(range(3000))


def test_what_permanent_words_need():
    with pytest.raises(ModelError, match="a word that is always replaced by another code holds one"):
        WordFaults(probability=0.1, persistence="permanent")
    with pytest.raises(PlanError, match="the shape of the site 'w' is not known"):
        resolve([SITE.model_copy(update={"shape": None})], [fault("zero", persistence="permanent")])
    nothing = resolve([SITE], [fault("zero", probability=0, persistence="permanent")], device=7)
    assert (nothing.device, nothing.idle("w")) == (None, True)


def test_plans_of_transient_words_say_nothing_of_persistence():
    assert "persistence" not in resolve([SITE], [WordFaults(probability=0.1)]).to_json()


if __name__ == "__main__":
    about = "Known answers of words that become one code (docs/fault-stream.md, section 5)."
    told = {"spec": "fault-stream v1.1", "about": about, "cases": list(answers())}
    ANSWERS.write_text(json.dumps(told) + "\n")
