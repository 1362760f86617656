"""Two models with weights set by hand: in one marks carry the answer, in its twin they only point to where it stands.

    prompt    M k v M  M k v M  M k v M  ? k M      -> v, the value that stood behind this key

    carry     self-attention sees 3 tokens, so that only meta-attention reaches back. Layer 0: the closing mark reads
              key and value in self-attention; the question's mark finds the closing mark with its key in meta-attention
              and takes the value. All within layer 0: what a mark holds never enters a layer. Layer 1 does nothing.
    point     self-attention sees everything, meta-attention adds nothing. Layer 0: keys and values read where the mark
              before them stands. Layer 1: a value reads the key with the same mark, the question's mark its own key.
              Layer 2: the question's mark reads the value with its key. Without marks no value finds its key; what
              marks hold never matters.

The stream has a flag for each kind of token and a room for each thing that is handed on. Who has nothing to read looks
at something that says nothing. All weights have noise on them, by `seed`: truth does not hang on exact zeros.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.attention.layers import Attention
from lightning_metatok.tasks.lexicon import symbol_tokenizer

Truth = Literal["carry", "point"]
SYMBOLS = (8, 8, 8)
"""Numbers (the values), names and items (the keys)."""
N_VALUES, N_KEYS, N_PLACES = 8, 16, 16
KEY, VALUE, META, SIGN = range(4)
SHARP, NOISE = 40.0, 0.005
Term = tuple[Tensor, Tensor]

SIZES: dict[Truth, dict[str, Any]] = {
    "carry": {
        "n_layers": 2, "n_heads": 2, "d_model": 64, "position": "none", "pattern": "window",
        "pattern_options": {"w": 3},
    },
    "point": {"n_layers": 3, "n_heads": 2, "d_model": 128, "position": "learned"},
}  # fmt: skip
ROOMS = {"key": N_KEYS, "value": N_VALUES, "out": N_VALUES, "read_key": N_KEYS, "read_value": N_VALUES}
ROOMS_TO_POINT = {"place": N_PLACES, "mark": N_PLACES, "asked": N_KEYS}


def config_of(truth: Truth) -> dict[str, Any]:
    """What the model is made of."""
    vocab_size = symbol_tokenizer(*SYMBOLS).vocab_size
    return {**SIZES[truth], "vocab_size": vocab_size, "max_positions": N_PLACES, "tied_head": False}


@torch.no_grad()
def known_truth(truth: Truth, seed: int) -> MetaTransformer:
    """The model."""
    model = MetaTransformer(TransformerConfig(**config_of(truth))).eval()
    hand = _Hand(model, ROOMS if truth == "carry" else {**ROOMS, **ROOMS_TO_POINT})
    hand.embed()
    one, two = (block for block in model.blocks[:2])
    flag, same, back = hand.flag, hand.same, hand.back
    if truth == "carry":
        hand.attend(one.attention, 0, [flag(META, KEY)], ("key", "read_key"))
        hand.attend(one.attention, 1, [flag(META, VALUE)], ("value", "read_value"))
        # The question's mark holds the same key, but no value.
        has_value = flag(META, hand.rooms["read_value"], 1.0)
        hand.attend(one.meta_attention, 0, [same("read_key", "read_key", 2.0), has_value], ("read_value", "out"))
    else:
        model.positions.table.weight.zero_()
        model.positions.table.weight[:, hand.rooms["place"]] = 4 * torch.eye(N_PLACES)
        # The nearest mark; where there is none, the nearest value, which is not the same for a key and its value.
        seen = [flag(reader, kind, score) for reader in (KEY, VALUE) for kind, score in ((META, 8.0), (VALUE, 4.0))]
        hand.attend(one.attention, 0, [*seen, back([0, 3, 2, 1])], ("place", "mark"))
        own = [flag(VALUE, KEY, 2.0), flag(VALUE, VALUE, 1.0), same("mark", "mark", 2.0)]
        hand.attend(two.attention, 0, own, ("key", "read_key"))
        hand.attend(two.attention, 1, [flag(META, KEY, 4.0), back([0, 1])], ("key", "asked"))
        asked = [flag(META, VALUE, 2.0), flag(META, META, 3.0), same("asked", "read_key", 2.0)]
        hand.attend(model.blocks[2].attention, 0, asked, ("value", "out"))
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter += NOISE * torch.randn(parameter.shape, generator=generator)
    return model


class _Hand:
    """Sets weights, all zero before."""

    def __init__(self, model: MetaTransformer, rooms: dict[str, int]) -> None:
        self.model, self.D, self.rooms = model, model.config.d_model, {}
        first = SIGN + 1
        for name, size in rooms.items():
            self.rooms[name] = slice(first, first + size)
            first += size
        assert first <= self.D
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)

    def embed(self) -> None:
        words = symbol_tokenizer(*SYMBOLS)
        weight, out = self.model.embedding.weight, self.rooms["out"].start
        for token in range(words.vocab_size):
            word = words.decode([token], skip_meta=False).strip()
            kind, number = META if word == "<|meta|>" else SIGN, 0
            if word.isdigit():
                kind, number = VALUE, int(word)
                weight[token, self.rooms["value"].start + number] = 4.0
                self.model.head.weight[token, out + number] = 8.0
            elif word[0] in "La" and word[1:].isdigit():
                kind, number = KEY, int(word[1:]) + (SYMBOLS[1] if word[0] == "a" else 0)
                weight[token, self.rooms["key"].start + number] = 4.0
            weight[token, kind] = 4.0

    def attend(self, attention: Attention, head: int, terms: list[Term], moves: tuple[str, str]) -> None:
        """A head whose scores are the sum of `terms`, and which takes what is in one room to another."""
        weights, H = attention.weights, self.D // self.model.config.n_heads
        q, k, v = (part[head * H : (head + 1) * H] for part in weights.qkv.weight.split(self.D))
        rows = torch.cat([q_nD for q_nD, _ in terms]), torch.cat([k_nD for _, k_nD in terms])
        assert len(rows[0]) <= H
        q[: len(rows[0])], k[: len(rows[1])] = SHARP * rows[0], rows[1]
        source, target = (self.rooms[name] for name in moves)
        n = source.stop - source.start
        v[torch.arange(n), torch.arange(source.start, source.stop)] = 1.0
        weights.out.weight[torch.arange(target.start, target.stop), head * H + torch.arange(n)] = 1.0

    def flag(self, reader: int, source: int | slice, score: float = 1.0) -> Term:
        """Tokens of one kind look at those of another, or at those with something in a room."""
        q_1D, k_1D = torch.zeros(1, self.D), torch.zeros(1, self.D)
        q_1D[0, reader], k_1D[0, source] = score, 1.0
        return q_1D, k_1D

    def same(self, mine: str, theirs: str, score: float) -> Term:
        """Tokens look at those that have the same in another room."""
        q_nD, k_nD = self._rows(mine), self._rows(theirs)
        return score * q_nD, k_nD

    def back(self, scores: list[float]) -> Term:
        """Tokens look at the one so many places before them."""
        k_nD, q_nD = self._rows("place"), torch.zeros(N_PLACES, self.D)
        for distance, score in enumerate(scores):
            for place in range(N_PLACES - distance):
                q_nD[place, self.rooms["place"].start + place + distance] = score
        return q_nD, k_nD

    def _rows(self, room: str) -> Tensor:
        at = self.rooms[room]
        rows = torch.zeros(at.stop - at.start, self.D)
        rows[torch.arange(at.stop - at.start), torch.arange(at.start, at.stop)] = 1.0
        return rows
