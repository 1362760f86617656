"""Draw docs/img/patterns.png: what each pattern lets see, by the patterns themselves.

python -m docs.draw_patterns
"""

from pathlib import Path

import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import (
    Blockwise,
    Causal,
    ChunkMeta,
    ChunkWindow,
    Dilated,
    Gist,
    MetaToMeta,
    Pattern,
    SinksWindow,
    Window,
    WindowMeta,
)
from lightning_metatok.palette import BLUE, ORANGE

PNG = Path(__file__).parent / "img" / "patterns.png"
N, CHUNK = 24, 6
EXTRA_N = (torch.arange(N) % CHUNK) == CHUNK - 1
RUN_N = EXTRA_N | ((torch.arange(N) % CHUNK) == CHUNK - 2)
PREFIX_N = torch.arange(N) < 3
SHOWN: list[tuple[str, Pattern, torch.Tensor]] = [
    ("causal", Causal(), EXTRA_N),
    ("window, w = 5", Window(w=5), EXTRA_N),
    ("window_meta, w = 5", WindowMeta(w=5), EXTRA_N),
    ("window_meta, extra_sees = own", WindowMeta(w=5, extra_sees="own"), EXTRA_N),
    ("chunk_meta", ChunkMeta(), EXTRA_N),
    ("chunk_meta, extra_sees = own", ChunkMeta(extra_sees="own"), EXTRA_N),
    ("chunk_meta, extra_sees = all", ChunkMeta(extra_sees="all"), EXTRA_N),
    ("chunk_window, back = 1", ChunkWindow(back=1), EXTRA_N),
    ("gist, runs of two", Gist(), RUN_N),
    ("sinks_window, n = 3, w = 5", SinksWindow(n=3, w=5), torch.zeros(N, dtype=torch.bool)),
    ("the same behind a prefix of 3", SinksWindow(n=3, w=5), PREFIX_N),
    ("dilated, chunk = 3, layer 0", Dilated(chunk=3), EXTRA_N),
    ("dilated, chunk = 3, layer 1", Dilated(chunk=3).at(1, 3), EXTRA_N),
    ("dilated, chunk = 3, layer 2", Dilated(chunk=3).at(2, 3), EXTRA_N),
    ("blockwise, block = 6", Blockwise(block=6), torch.zeros(N, dtype=torch.bool)),
    ("beside any: meta-attention", Causal() & MetaToMeta(), EXTRA_N),
]
"""A title, a rule, and the extra tokens of the text it is drawn on."""
LEGEND = "    ".join(
    (
        "rows: who looks, the first token on top",
        "columns: at whom",
        "* meta-tokens",
        "blue: at text",
        "orange: at meta-tokens",
    )
)


def main() -> None:
    """Draw."""
    figure = Figure(figsize=(10.4, 11.3), dpi=130, layout="constrained")
    panels = figure.subplots(4, 4)
    for axes, (title, rule, extra_N) in zip(panels.flat, SHOWN, strict=True):
        seen_NN = rule.mask(Facts.of(N, extra_N[None]))[0]
        colour_NN = seen_NN.long() * (1 + (extra_N[None, :]).long())
        axes.pcolormesh(
            colour_NN, cmap=ListedColormap(["#EEEEEE", BLUE, ORANGE]), vmin=0, vmax=2, edgecolors="white", lw=0.6
        )
        for i in extra_N.nonzero().flatten().tolist():
            axes.annotate("*", (-0.6, i + 0.9), fontsize=8, color=ORANGE, ha="center", annotation_clip=False)
        axes.set(title=title, xlim=(0, N), ylim=(N, 0), aspect="equal", xticks=[], yticks=[])
        axes.title.set_fontsize(9)
        axes.spines[:].set_visible(False)
    figure.supxlabel(LEGEND, fontsize=9)
    figure.savefig(PNG)


if __name__ == "__main__":
    main()
