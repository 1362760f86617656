"""Run a notebook's cells in order, and keep what they print and draw in it: what GitHub and the site show.

    python -m docs.notebook examples/first_look.ipynb

Cells are plain Python. What a cell leaves open as figures of pyplot becomes its pictures.
"""

import base64
import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

Cell = dict[str, Any]


def execute(cells: list[Cell]) -> None:
    """Run code cells in one namespace, and put their outputs into them."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), start=1):
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), namespace)
        outputs: list[Any] = []
        if said.getvalue():
            outputs.append(
                {"output_type": "stream", "name": "stdout", "text": said.getvalue().splitlines(keepends=True)}
            )
        for figure in map(plt.figure, plt.get_fignums()):
            png = io.BytesIO()
            figure.savefig(png, format="png", dpi=80, metadata={"Software": None})
            data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": ["<Figure>"]}
            outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
        plt.close("all")
        cell.update(outputs=outputs, execution_count=number)


def main(path: Path) -> None:
    """Run it and write it anew."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    execute(notebook["cells"])
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
