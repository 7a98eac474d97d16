"""The ranges of the numbers that name a draw, and the public `hits`."""

import numpy as np
import pytest

from hwfault.errors import HwfaultError, PlanError
from hwfault.stream import hits
from hwfault.stream.check import check_draw, check_seed, signed64, words_sharing

DRAW = {"seed": 1, "site": 2, "words": 3, "plane": 0}


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_seeds(seed):
    assert check_seed(seed) == seed


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, "1", None, True])
def test_no_seeds(seed):
    with pytest.raises(HwfaultError, match=rf"the seed is {seed!r}, expected an integer from 0 to 2\^64 - 1"):
        check_seed(seed)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_signed_seeds_keep_their_bits(seed):
    assert signed64(seed) == int(np.uint64(seed).astype(np.int64))


@pytest.mark.parametrize(
    "change", [{}, {"site": 2**32 - 1}, {"words": 0}, {"words": 2**36}, {"plane": 31}, {"plane": 63}]
)
def test_draws(change):
    check_draw(**{**DRAW, **change})


@pytest.mark.parametrize(
    ("shape", "given", "batch", "words"),
    [
        ((4, 3, 5), (), 4, 1),
        ((4, 3, 5), (1, 3, 1), 4, 5),
        ((4, 3, 5), (3, 1), 4, 5),
        ((4, 3, 5), (5,), 4, 1),
        ((4, 3, 5), (4, 1, 1), 1, 15),  # a parameter: its first axis counts outputs
        ((4,), (4,), 1, 1),
    ],
)
def test_words_that_share_a_scale(shape, given, batch, words):
    assert words_sharing(shape, given, batch, "scale") == words


@pytest.mark.parametrize(
    ("shape", "given"), [((4, 3), (4, 1)), ((4,), (4,)), ((4, 3), (4, 3)), ((4, 3), (2,)), ((4,), (1, 4))]
)
def test_scales_that_words_cannot_share(shape, given):
    """One for each sample is none of a channel: samples are numbered on, and words from each sample's first."""
    with pytest.raises(PlanError, match="expected one for the tensor or one for each channel"):
        words_sharing(shape, given, 4, "scale")


WRONG = [
    ({"seed": 2**64}, "the seed is 18446744073709551616"),
    ({"site": -1}, r"the site number is -1, expected 0 to 2\^32 - 1"),
    ({"site": 2**32}, "the site number is 4294967296"),
    ({"words": -1}, r"words is -1, expected 0 to 2\^36"),
    ({"words": 2**36 + 1}, "words is 68719476737"),
    ({"plane": -1}, "plane is -1, expected a bit from 0 to 31, or 63 for words"),
    ({"plane": 32}, "plane is 32"),
    ({"plane": 62}, "plane is 62"),
    ({"plane": 64}, "plane is 64"),
]


@pytest.mark.parametrize(("change", "text"), WRONG)
def test_no_draws(change, text):
    with pytest.raises(HwfaultError, match=text):
        check_draw(**{**DRAW, **change})


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize(("change", "text"), [*WRONG, ({"probability": 1.5}, r"expected a number in \[0, 1\]")])
def test_hits_checks_its_arguments(engine, change, text):
    with pytest.raises(HwfaultError, match=text):
        hits(**{**DRAW, "sample": 0, "probability": 0.5, **change}, engine=engine)


def test_hits_of_an_engine_that_is_none():
    with pytest.raises(HwfaultError, match="'nativ'"):
        hits(**DRAW, sample=0, probability=0.5, engine="nativ")
