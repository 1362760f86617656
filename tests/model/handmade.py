"""Models with weights set by hand, so that the answer of a list recall of one item takes one known path.

    prompt     L0 M a4 M ? L0 1      -> a4
    cache      layer 0: M reads the item       layer 1: the number reads M         the marks HOLD it
    pointer    layer 0: nobody reads anything  layer 1: the number reads the item  the marks hold nothing
    through    layer 0: the number reads the item, layer 1: nobody reads anything  only an early path

The stream has a flag for each kind of token, and for each item a place as it came in (IN), as layer 0 read it (COPY),
and for the head (OUT). A query that should read nothing looks at list names, which say the same of every item.
"""

from typing import Literal

import torch

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.tasks.lexicon import symbol_tokenizer

Kind = Literal["cache", "pointer", "through"]
N_ITEMS, SYMBOLS = 8, (4, 4, 8)
NAME, META, ITEM, NUMBER, SIGN = range(5)
IN, COPY, OUT = 8, 16, 24
D = 32
SHARP = 40.0
"""What a query's score for the keys that it should see has more than others."""


def tokenizer() -> MetaTokenizer:
    """The words of the prompts."""
    return symbol_tokenizer(*SYMBOLS)


def hand_made(kind: Kind, *, mechanism: str = "meta") -> MetaTransformer:
    """The model; its second attentions and MLPs add nothing."""
    words = tokenizer()
    config = TransformerConfig(
        n_layers=2, n_heads=1, d_model=D, vocab_size=words.vocab_size, position="none", tied_head=False,
        mechanism=mechanism,
    )  # fmt: skip
    model = MetaTransformer(config).eval()
    reads = {
        "cache": [(META, ITEM, IN, COPY), (NUMBER, slice(COPY, OUT), COPY, OUT)],
        "pointer": [None, (NUMBER, ITEM, IN, OUT)],
        "through": [(NUMBER, ITEM, IN, OUT), None],
    }[kind]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        for token in range(words.vocab_size):
            word = words.decode([token], skip_meta=False).strip()
            model.embedding.weight[token, flag_of(word)] = 4.0
            if word.startswith("a"):
                model.embedding.weight[token, IN + int(word[1:])] = 4.0
                model.head.weight[token, OUT + int(word[1:])] = 1.0
        for block, read in zip(model.blocks, reads, strict=True):
            qkv, out = block.attention.projections.qkv.weight, block.attention.projections.out.weight
            q, k, v = qkv.split(D)
            q[:, :5] = 0
            k[0, NAME] = 1.0  # whoever has nothing to read looks at names
            q[0, :5] = SHARP
            if read is not None:
                reader, source, place, to = read
                q[1, reader] = 10 * SHARP
                k[1, source] = 1.0
                for item in range(N_ITEMS):
                    v[item, place + item] = 1.0
                    out[to + item, item] = 1.0
    return model


def flag_of(word: str) -> int:
    """The kind of a token."""
    if word == "<|meta|>":
        return META
    if word[0] in "La" and word[1:].isdigit():
        return NAME if word[0] == "L" else ITEM
    return NUMBER if word.isdigit() else SIGN
