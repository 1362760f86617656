"""Extra tokens in text that is being written, by the rule that put them into the text of training.

    prompt      a b c x d e          in the prompt by `InjectionRule.in_prompt`
    written     f x g h i x          after each source token the placement says whether one comes next

Which come depends on the rule, the seed, the index and the text, not on when it was asked: a text that is written in
two goes has its extra tokens at the same places.
"""

from collections.abc import Collection

from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.injection import InjectionRule
from lightning_metatok.data.placement import Written

WHILE_WRITING = 0x3A7C
"""Apart from the random numbers that place them in a prompt."""


class WhileWriting:
    """Says after each token how many extra ones come next."""

    def __init__(
        self,
        rule: InjectionRule,
        n_source: int,
        n_extra: int,
        *,
        seed: int,
        index: int = 0,
        after_ids: Collection[int] = (),
    ) -> None:
        """Begin behind a prompt.

        Args:
            rule: of the training text. n_source, n_extra: tokens of the prompt.
            seed, index: choose the random numbers. after_ids: ids of punctuation.
        """
        self.rule, self.n_source, self.n_extra = rule, n_source, n_extra
        self._seed, self._index = seed ^ WHILE_WRITING, index
        self._after_ids = frozenset(map(int, after_ids))

    def take(self, id: int) -> int:
        """Take up the next source token; return how many extra tokens stand behind it."""
        self.n_source += 1
        draw = float(random_bits(self._seed, self._index, self.n_source)[0] >> 11) / 2**53
        text = Written(self.n_source, self.n_extra, id, self.rule.fraction, draw, self._after_ids)
        come = int(self.rule.where.comes_next(text))
        self.n_extra += come
        return come
