"""What the figures of all probes have in common."""

import textwrap

from matplotlib.figure import Figure

LETTERS_PER_INCH = 14
"""Of a title, at its size."""


def put_title(figure: Figure, title: str, note: str = "") -> None:
    """Head a figure with its finding, in as many lines as its width needs, and a smaller line on how to read it."""
    lines = textwrap.fill(title, int(figure.get_figwidth() * LETTERS_PER_INCH))
    figure.suptitle(f"{lines}\n{note}" if note else lines, fontsize=9)
