"""The colours of pages and pictures: those of Okabe and Ito, which all eyes tell apart, and greys."""

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""In the order in which curves and bars take them."""
DARK_GREY, LIGHT_GREY = "#555555", "#e3e6ea"
