"""Okabe and Ito's palette: colours that can be told apart with any colour vision, and markers for the rest.

Source: M. Okabe and K. Ito, "Color Universal Design" (2008).
"""

BLUE, SKY, ORANGE, GREY = "#0072B2", "#56B4E9", "#D55E00", "#6E6E6E"
GREEN, PINK, YELLOW = "#009E73", "#CC79A7", "#E69F00"

COLOURS = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, GREY)
MARKERS = "os^DvPX"


def line_style(number: int) -> tuple[str, str]:
    """Colour and marker of the first (0), the second, ... line of a chart; the first 49 all differ."""
    n = len(COLOURS)
    return COLOURS[number % n], MARKERS[(number + number // n) % n]
