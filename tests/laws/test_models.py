"""Fault models and selectors: what they accept, what they become, and what each wrong one is told."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwfault.errors import ModelError
from hwfault.laws.models import BitFlips, Clusters, WordFaults, bit_errors
from hwfault.laws.on_sites import per_bit
from hwfault.program.selectors import Select

P = st.floats(0, 1)


@dataclass(frozen=True)
class Place:
    name: str = "features.0.act_quant"
    kind: str = "activation"
    layer: str = "QuantReLU"


@pytest.mark.parametrize(
    "select",
    [
        {},
        {"name": "features.*"},
        {"name": "*act_quant"},
        {"name": "features.?.act_quant"},
        {"name": "features.[01].*"},
        {"kind": "activation"},
        {"layer": "Quant*"},
        {"name": "features.0.act_quant", "kind": "activation", "layer": "QuantReLU"},
    ],
)
def test_selectors_that_match(select):
    assert Select(**select).matches(Place())


@pytest.mark.parametrize(
    "select",
    [
        {"name": "features"},
        {"name": "Features.*"},
        {"name": ""},
        {"kind": "weight"},
        {"layer": "quant*"},
        {"layer": "Relu"},
        {"name": "features.*", "kind": "input"},
        {"kind": "activation", "layer": "QuantConv2d"},
    ],
)
def test_selectors_that_do_not_match(select):
    assert not Select(**select).matches(Place())


def test_selectors_know_small_and_capital_letters():
    place = Place(name="Conv1", layer="quantReLU")
    assert Select(name="Conv*", layer="quant*").matches(place)
    assert not Select(name="conv*").matches(place)
    assert not Select(layer="Quant*").matches(place)


def test_selectors_print_what_they_say():
    assert str(Select()) == "*"
    assert str(Select(name="a*", kind="weight", layer="Quant*")) == "a* kind=weight layer=Quant*"


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ("a*", (Select(name="a*"),)),
        (["a", "b"], (Select(name="a"), Select(name="b"))),
        ({"kind": "weight"}, (Select(kind="weight"),)),
        (Select(layer="L"), (Select(layer="L"),)),
        (("a", {"name": "b", "kind": "bias"}, Select()), (Select(name="a"), Select(name="b", kind="bias"), Select())),
    ],
)
@pytest.mark.parametrize("model", [BitFlips, WordFaults, Clusters])
def test_ways_to_give_sites(model, sites, expected):
    assert model(sites=sites, probability=0.1).sites == expected
    assert model(probability=0.1).sites == (Select(),)


@pytest.mark.parametrize("p", [0, 0.0, 1, 1.0, 1e-9, 0.5])
def test_probabilities(p):
    for model in (BitFlips, WordFaults, Clusters):
        assert model(probability=p).probability == p
    assert BitFlips(p01=p).p01 == BitFlips(p10=p).p10 == p


@pytest.mark.parametrize("model", [BitFlips, WordFaults, Clusters])
def test_numpys_numbers_are_probabilities(model):
    for p in (*np.linspace(0, 1, 3), np.float32(0.5), np.int64(1)):
        given = model(probability=p)
        assert given == model(probability=float(p))
        assert given.model_dump_json() == model(probability=float(p)).model_dump_json()
    assert BitFlips(p01=list(np.linspace(0, 1, 3))).p01 == (0.0, 0.5, 1.0)


@pytest.mark.parametrize("p", [-0.1, 1.5, 3, float("nan"), float("inf"), -float("inf")])
def test_no_probabilities(p):
    wrong = [lambda model=model: model(probability=p) for model in (BitFlips, WordFaults, Clusters)]
    wrong += [lambda: BitFlips(p01=p), lambda: BitFlips(p10=p)]
    wrong += [lambda: BitFlips(probability=[0.1, p]), lambda: Clusters(probability=(p, 0.1))]
    for make in wrong:
        with pytest.raises(
            ModelError, match=r"(probability|p01|p10): .* expected a number in \[0, 1\] \(a rate of 3 %"
        ):
            make()


@pytest.mark.parametrize("p", ["3%", "often", None, [], {}, True])
@pytest.mark.parametrize("model", [BitFlips, WordFaults, Clusters])
def test_what_is_no_number_at_all(model, p):
    with pytest.raises(ModelError):
        per_bit(model(probability=p).probability, 4)


@pytest.mark.parametrize("given", [{"p01": []}, {"p10": ()}, {"p01": [], "p10": 0.5}])
def test_an_empty_list_is_not_a_silent_zero(given):
    with pytest.raises(ModelError):
        BitFlips(**given).directions(4)


def test_one_probability_counts_for_both_directions():
    assert BitFlips(probability=0.1).directions(3) == [(0.1, 0.1)] * 3
    assert BitFlips(probability=[0.1, 0.2]).directions(2) == [(0.1, 0.1), (0.2, 0.2)]


def test_a_direction_left_out_is_zero():
    assert BitFlips(p01=0.1).directions(2) == [(0.1, 0.0)] * 2
    assert BitFlips(p10=0.1).directions(2) == [(0.0, 0.1)] * 2
    assert BitFlips(p01=[0.1, 0.2], p10=0.3).directions(2) == [(0.1, 0.3), (0.2, 0.3)]


@pytest.mark.parametrize("given", [{}, {"probability": 0.1, "p01": 0.1}, {"probability": 0.1, "p10": 0.0}])
def test_there_is_one_way_to_say_it(given):
    with pytest.raises(ModelError, match="BitFlips: expected either `probability`, or `p01` and `p10`"):
        BitFlips(**given)


@pytest.mark.parametrize("bits", [1, 3, 5])
def test_one_probability_for_each_bit(bits):
    four = (0.1, 0.2, 0.3, 0.4)
    assert per_bit(four, 4) == four
    assert per_bit(0.5, bits) == (0.5,) * bits
    text = f"4 probabilities were given for words of {bits} bits, expected one for each bit"
    for model in (BitFlips(probability=four), BitFlips(p01=four), BitFlips(p10=four, p01=0.1)):
        with pytest.raises(ModelError, match=text):
            model.directions(bits)


@pytest.mark.parametrize(
    ("effect", "bits", "mask"),
    [
        ("random", 8, None),
        ("lsb", 8, 1),
        ("msb", 8, 128),
        ("full", 8, 255),
        ("lsb", 1, 1),
        ("msb", 1, 1),
        ("full", 32, 2**32 - 1),
        ("msb", 32, 2**31),
        (0b101, 3, 5),
        (7, 3, 7),
        (2**32 - 1, 32, 2**32 - 1),
    ],
)
def test_masks_of_word_faults(effect, bits, mask):
    assert WordFaults(probability=0.1, effect=effect).mask(bits) == mask


@pytest.mark.parametrize(("effect", "bits"), [(0, 4), (-1, 4), (16, 4), (2, 1), (2**32, 32)])
def test_masks_wider_than_the_word(effect, bits):
    with pytest.raises(ModelError, match=f"does not fit words of {bits} bits, expected 1 to {2**bits - 1:#x}"):
        WordFaults(probability=0.1, effect=effect).mask(bits)


@pytest.mark.parametrize("effect", ["flip", "LSB", True, 1.5, "3", None])
def test_effects_that_do_not_exist(effect):
    with pytest.raises(ModelError, match=r"'random', 'lsb', 'msb' or 'full' \(given: " + repr(effect)):
        WordFaults(probability=0.1, effect=effect)


def test_clusters():
    model = Clusters(probability=[0.1, 0.2], sizes=[0.5, 0.25, 0.25], axis="word")
    assert (model.probability, model.sizes, model.axis) == ((0.1, 0.2), (0.5, 0.25, 0.25), "word")
    assert (Clusters(probability=0.1).sizes, Clusters(probability=0.1).axis) == ((1.0,), "bit")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"sizes": [0.5, 0.4]}, r"sizes: .*\[0.5, 0.4\], expected a list that sums to 1"),
        ({"sizes": []}, r"sizes: .*expected a list that sums to 1"),
        ({"sizes": [1.5, -0.5]}, "sizes: the probability of cluster size 1 is 1.5"),
        ({"sizes": 1.0}, "sizes: .*valid tuple"),
        ({"axis": "row"}, r"axis: .*'bit' or 'word' \(given: 'row'\)"),
    ],
)
def test_wrong_clusters(given, text):
    with pytest.raises(ModelError, match=text):
        Clusters(probability=0.1, **given)


@pytest.mark.parametrize(
    ("sites", "text"),
    [
        ([], "sites: an empty list selects no site; leave `sites` out to select all"),
        ((), "an empty list selects no site"),
        ({"nme": "x"}, "unknown key 'nme': did you mean 'name'"),
        ({"kind": "weigth"}, r"kind: .*'activation', 'input', 'weight', 'bias' or 'accumulator' \(given: 'weigth'\)"),
        (["a", 3], r"sites.1: .*\(given: 3\)"),
        (None, "sites.0: "),
    ],
)
@pytest.mark.parametrize("model", [BitFlips, WordFaults, Clusters])
def test_wrong_sites(model, sites, text):
    with pytest.raises(ModelError, match=text):
        model(sites=sites, probability=0.1)


@pytest.mark.parametrize("model", [BitFlips, WordFaults, Clusters])
def test_unknown_keys_name_the_nearest_known_one(model):
    with pytest.raises(ModelError, match=f"{model.__name__}: unknown key 'probabilty': did you mean 'probability'"):
        model(probabilty=0.1)


def test_models_are_frozen_values():
    model = BitFlips(probability=0.1)
    assert model == BitFlips(probability=0.1) != BitFlips(probability=0.2)
    with pytest.raises(ValueError, match="frozen"):
        model.probability = 0.2


@given(P, P, P)
def test_scaling_multiplies_every_rate(p01, p10, factor):
    flips = BitFlips(p01=p01, p10=[p10, p01], sites="a").scaled(factor)
    assert flips == BitFlips(p01=p01 * factor, p10=[p10 * factor, p01 * factor], sites="a")
    assert BitFlips(probability=p01).scaled(factor) == BitFlips(probability=p01 * factor)
    assert WordFaults(probability=p01, effect="msb").scaled(factor) == WordFaults(
        probability=p01 * factor, effect="msb"
    )
    clusters = Clusters(probability=p01, sizes=(0.5, 0.5), axis="word").scaled(factor)
    assert clusters == Clusters(probability=p01 * factor, sizes=(0.5, 0.5), axis="word")


def test_scaling_leaves_a_missing_direction_missing():
    assert BitFlips(p01=0.5).scaled(0.5).p10 is None


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_factors_outside_their_range(factor):
    with pytest.raises(ModelError, match=rf"^the factor is {factor!r}, expected a number in \[0, 1\]"):
        BitFlips(probability=0.1).scaled(factor)


def test_bit_errors():
    assert bit_errors(0.03) == (BitFlips(probability=0.03),)
    assert bit_errors(0.03, sites=["a", "b"]) == (BitFlips(sites=["a", "b"], probability=0.03),)
