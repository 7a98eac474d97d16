"""The colours of pages and pictures: those of Okabe and Ito, which all eyes tell apart, and greys."""

BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
SERIES = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
"""In the order in which curves and bars take them."""
DARK_GREY, LIGHT_GREY = "#555555", "#e3e6ea"
INK, PAPER = "#1b1b1b", "#ffffff"
RULE, LINE = "#dddddd", "#8a8f94"
"""Between rows, and round what can be reached by keyboard or is no cell of a heat map."""
GOOD, BAD, QUIET, HERE = "#eef7f2", "#fdf1ea", "#f4f5f7", "#fbdcc7"
"""Behind text: what passed, what did not, what is set apart, and the row that is meant."""
SCALE = (("#e8f1fa", INK), ("#b3d3ec", INK), ("#6aaed9", INK), ("#1f6fae", PAPER), ("#08306b", PAPER))
"""Of a heat map, from little to much, with the colour of the text on each: one hue that only gets darker."""
