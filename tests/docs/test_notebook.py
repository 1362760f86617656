"""The notebook runs from its first cell to its last, trains, draws and writes."""

import json
from pathlib import Path

import pytest

from docs.notebook import execute


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs
def test_the_first_look_runs(repository: Path) -> None:
    cells = json.loads((repository / "examples" / "first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for cell in code:
        cell.update(outputs=[], execution_count=None)
    execute(cells)
    kinds = [output["output_type"] for cell in code for output in cell["outputs"]]
    assert kinds.count("display_data") == 2
    said = "".join("".join(o["text"]) for cell in code for o in cell["outputs"] if o["output_type"] == "stream")
    first, last = float(said.split()[0]), float(said.split("first, ")[1].split()[0])
    assert last < first - 1, "it learns"
    assert "def read(self" in said
