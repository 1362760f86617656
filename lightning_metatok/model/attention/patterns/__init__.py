"""WHAT may be seen: one rule a file, one interface for all (`base.Pattern`), composed with `&` and `|`.

`PATTERNS` is what `model.pattern` offers: rules that a model can have for all its tokens; with one that is not causal
it fills in hidden tokens and predicts no next one (`TransformerConfig.check_causal`), or writes behind prompts alone.
The others are what such rules are made of. Documents are nobody's option: where they are given, `SameDocument` holds
beside the pattern.
"""

from lightning_metatok.model.attention.patterns.base import Pattern
from lightning_metatok.model.attention.patterns.bidirectional import Bidirectional
from lightning_metatok.model.attention.patterns.blockwise import Blockwise
from lightning_metatok.model.attention.patterns.causal import Causal
from lightning_metatok.model.attention.patterns.chunk_meta import ChunkMeta
from lightning_metatok.model.attention.patterns.chunk_window import ChunkWindow
from lightning_metatok.model.attention.patterns.compose import And, ByRow, Or
from lightning_metatok.model.attention.patterns.dilated import Dilated
from lightning_metatok.model.attention.patterns.extra import Extra, MetaToMeta
from lightning_metatok.model.attention.patterns.gist import Gist
from lightning_metatok.model.attention.patterns.prefix_lm import PrefixLM, Prompt
from lightning_metatok.model.attention.patterns.same_document import SameDocument
from lightning_metatok.model.attention.patterns.sinks import Sinks
from lightning_metatok.model.attention.patterns.sinks_window import SinksWindow
from lightning_metatok.model.attention.patterns.sinks_window_meta import SinksWindowMeta
from lightning_metatok.model.attention.patterns.window import Window
from lightning_metatok.model.attention.patterns.window_meta import WindowMeta
from lightning_metatok.model.axis import Axis

PATTERNS: dict[str, type[Pattern]] = {
    "causal": Causal,
    "window": Window,
    "window_meta": WindowMeta,
    "chunk_meta": ChunkMeta,
    "chunk_window": ChunkWindow,
    "gist": Gist,
    "sinks_window": SinksWindow,
    "sinks_window_meta": SinksWindowMeta,
    "dilated": Dilated,
    "blockwise": Blockwise,
    "bidirectional": Bidirectional,
    "prefix_lm": PrefixLM,
}
AXIS = Axis("pattern", Pattern, PATTERNS)
build = AXIS.build


__all__ = [
    "AXIS",
    "PATTERNS",
    "And",
    "Bidirectional",
    "Blockwise",
    "ByRow",
    "Causal",
    "ChunkMeta",
    "ChunkWindow",
    "Dilated",
    "Extra",
    "Gist",
    "MetaToMeta",
    "Or",
    "Pattern",
    "PrefixLM",
    "Prompt",
    "SameDocument",
    "Sinks",
    "SinksWindow",
    "SinksWindowMeta",
    "Window",
    "WindowMeta",
    "build",
]
