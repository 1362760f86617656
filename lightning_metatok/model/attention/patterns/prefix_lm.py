"""A prompt that is read in both directions, and what is written behind it token by token: a prefix language model.

An encoder and a decoder that share their weights, in one text: UniLM (Dong et al. 2019, arXiv 1905.03197) and T5
(Raffel et al. 2020, arXiv 1910.10683, section 3.2.1).
"""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from lightning_metatok.model.attention.facts import Facts, Tokens
from lightning_metatok.model.attention.patterns.base import Pattern


class PrefixLM(Pattern):
    """All keys of the prompt, which the first extra token closes, and behind it keys up to the query's own place.

    That token is the first behind it: it sees the prompt, and no token of the prompt sees it. The first of a document
    closes it and not the last: what is written later never makes a prompt of what was written before. A document
    without an extra token has no prompt, and all of it is causal.

      a a * a a *
    a # # . . . .
    a # # . . . .
    * # # # . . .
    a # # # # . .
    a # # # # # .
    * # # # # # #
    """

    prompts = True
    cannot: ClassVar[Mapping[str, str]] = {"probes": "they count on rows that see nothing behind them"}

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return (k.place <= q.place) | (q.prompt & k.prompt)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        before_BK = facts.place_BK <= facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        return before_BK | (facts.prompt_BK & facts.prompt_BK[:, rows].any(dim=1, keepdim=True))


class Prompt(Pattern):
    """For tokens behind the prompt, as `PrefixLM` has it, all of its keys; nothing for its own.

      a a * a a *
    a . . . . . .
    a . . . . . .
    * # # . . . .
    a # # . . . .
    a # # . . . .
    * # # . . . .
    """

    causal = True

    def allowed(self, q: Tokens, k: Tokens) -> Tensor:
        return q.behind & ~k.behind & (k.place <= q.place)

    def needed(self, facts: Facts, rows: slice) -> Tensor:
        before_BK = facts.place_BK <= facts.place_BK[:, rows].amax(dim=1, keepdim=True)
        return before_BK & ~facts.behind_BK & facts.behind_BK[:, rows].any(dim=1, keepdim=True)
