"""The colours of pages: text on all that lies behind it, and a scale that every eye can order (WCAG 2.2, AA)."""

import re
from itertools import pairwise

import pytest

from hwfault.report import colours
from hwfault.report.pages import TEMPLATES, render

TEXT, GRAPHIC = 4.5, 3.0
# Machado, Oliveira and Fernandes (2009), severity 1.0, linear RGB
SEEN_BY = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def linear(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(parts):
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(linear(one)), luminance(linear(other))))
    return (high + 0.05) / (low + 0.05)


def test_the_formula():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01), "the example of WCAG's own tools"


@pytest.mark.parametrize("behind", ["PAPER", "GOOD", "BAD", "QUIET", "HERE"])
def test_text_is_read(behind):
    for text in (colours.INK, colours.DARK_GREY):
        assert contrast(text, getattr(colours, behind)) >= TEXT
    assert contrast(colours.BLUE, colours.PAPER) >= TEXT, "links"


@pytest.mark.parametrize("place", range(len(colours.SCALE)))
def test_numbers_in_a_heat_map_are_read(place):
    behind, text = colours.SCALE[place]
    assert contrast(behind, text) >= TEXT


@pytest.mark.parametrize("name", ["BLUE", "VERMILION", "LINE"])
def test_marks_stand_out(name):
    assert contrast(getattr(colours, name), colours.PAPER) >= GRAPHIC


@pytest.mark.parametrize("sight", SEEN_BY)
def test_the_scale_gets_darker_for_every_eye(sight):
    seen = []
    for colour, _ in colours.SCALE:
        parts = linear(colour)
        seen.append(luminance([sum(a * b for a, b in zip(line, parts, strict=True)) for line in SEEN_BY[sight]]))
    assert seen == sorted(seen, reverse=True)
    steps = [(one + 0.05) / (two + 0.05) for one, two in pairwise(seen)]
    assert min(steps) > 1.25


def test_no_template_has_colours_of_its_own():
    for path in TEMPLATES.iterdir():
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\.)", re.sub(r'href="#\w+"', "", path.read_text())), path


def test_the_style_sheet_is_made_of_them():
    sheet = render("style.css")
    known = {value for value in vars(colours).values() if isinstance(value, str)}
    known |= {one for pair in colours.SCALE for one in pair}
    assert set(re.findall(r"#[0-9a-f]{6}", sheet)) <= known
