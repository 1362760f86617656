"""Draw docs/img/neighbours.png: what each arm of conf/arm lets see, by the pattern that its file names.

python -m docs.draw_neighbours
"""

from pathlib import Path

import torch
import yaml
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lightning_metatok.model import mechanisms
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.palette import BLUE, GREEN, ORANGE

ROOT = Path(__file__).resolve().parents[1]
PNG = ROOT / "docs" / "img" / "neighbours.png"
N, CHUNK = 20, 5
EXTRA_N = (torch.arange(N) % CHUNK) == CHUNK - 1
SMALL = {"w": 5, "back": 1, "n": 2, "block": 5, "chunk": 3}
"""Options that would fill the picture, as small as it is."""
SHOWN = (
    "plain", "pause", "meta", "matched", "own-qkv", "omninet", "location", "location-prompt", "sink", "streaming",
    "sepllm", "window-meta", "anllm", "ssa", "unfold", "ksa", "landmark", "hils", "blockwise", "regular-gpt",
)  # fmt: skip
COLUMNS = 5
LEGEND = (
    "rows look, columns are looked at, * marks (sepllm: separators of the text);\n"
    "blue: text, orange: marks, green: marks by weights of their own, striped: chosen by score"
)
CHOSEN = {"unfold", "landmark", "hils"}
NO_KEYS = {"hils"}
"""Arms whose marks are looked at by nobody."""
LAYER = {"regular-gpt": 1}
"""Which layer is drawn where the first does not show what the others are like."""


def main() -> None:
    """Draw."""
    n_rows = -(-len(SHOWN) // COLUMNS)
    figure = Figure(figsize=(1.9 * COLUMNS, 2.0 * n_rows + 0.2), dpi=130, layout="constrained")
    panels = figure.subplots(n_rows, COLUMNS)
    for axes, name in zip(panels.flat, SHOWN, strict=False):
        draw(axes, name)
    for axes in panels.flat[len(SHOWN) :]:
        axes.set_visible(False)
    figure.supxlabel(LEGEND, fontsize=9)
    figure.savefig(PNG)


def draw(axes, name: str) -> None:
    """One arm."""
    arm = yaml.safe_load((ROOT / "conf" / "arm" / f"{name}.yaml").read_text(encoding="utf-8"))
    model = arm["model"]
    options = {key: SMALL.get(key, value) for key, value in model.get("pattern_options", {}).items()}
    marked = arm["data"].get("meta_fraction", 0) > 0 or "separators" in model
    extra_N = EXTRA_N if marked else torch.zeros(N, dtype=torch.bool)
    facts = Facts.of(N, extra_N[None])
    layer = LAYER.get(name, 0)
    seen_NN = patterns.build(model["pattern"], **options).at(layer, 4).mask(facts)[0]
    colour_NN = seen_NN.long() * (1 + extra_N[None, :].long())
    if name in NO_KEYS:
        colour_NN = colour_NN.masked_fill(extra_N[None, :], 0)
    mechanism = mechanisms.build(model["mechanism"], **model["mechanism_options"])
    own = model["mechanism"] in ("meta", "own_qkv")
    if own:  # a second attention is among marks alone; keys and values of their own are looked at by all
        rows_N = extra_N if model["mechanism"] == "meta" else torch.ones_like(extra_N)
        colour_NN = torch.where((colour_NN > 0) & extra_N[None, :] & rows_N[:, None], 3, colour_NN)
    axes.pcolormesh(
        colour_NN, cmap=ListedColormap(["#EEEEEE", BLUE, ORANGE, GREEN]), vmin=0, vmax=3, edgecolors="white", lw=0.5
    )
    if name in CHOSEN:  # text of earlier chunks, some of it
        earlier_NN = (facts.chunk_BK[0][:, None] > facts.chunk_BK[0][None]) & ~extra_N[None]
        for i, j in earlier_NN.nonzero().tolist():
            line = "white" if seen_NN[i, j] else BLUE
            axes.plot((j + 0.15, j + 0.85), (i + 0.85, i + 0.15), color=line, lw=0.8)
    for i in extra_N.nonzero().flatten().tolist():
        axes.annotate("*", (-0.6, i + 0.9), fontsize=8, color=ORANGE, ha="center", annotation_clip=False)
    note = f", layer {layer}" if layer else "" if mechanism.idle or own else f" + {model['mechanism']}"
    axes.set(title=f"{name}{note if note != f' + {name}' else ''}", xlim=(0, N), ylim=(N, 0), aspect="equal")
    axes.set(xticks=[], yticks=[])
    axes.title.set_fontsize(9)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
