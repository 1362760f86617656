"""Figures as PNG files."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave


def as_png(figure: Figure) -> bytes:
    """Draw a figure, once, and return its PNG file; `savefig` draws it twice where it has a layout."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    with io.BytesIO() as file:
        imsave(file, canvas.buffer_rgba(), format="png", dpi=figure.dpi)
        return file.getvalue()
