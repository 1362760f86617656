"""Keys: many different things of one or two words, for tasks that look things up.

    words   symbols                              text
    1       a4 or L9          512 of them        plum            800
    2       L9 a4          65,536                Tools 2 saw   5,120

Two words are a list's name and one of its items.
"""

from dataclasses import dataclass

import numpy as np

from lightning_metatok.arrays import IntArray
from lightning_metatok.tasks.draws import Draws
from lightning_metatok.tasks.lexicon import ABSENT, Lexicon
from lightning_metatok.tasks.task import Task


@dataclass(frozen=True)
class Keys:
    """All keys of `n_words` words, 1 or 2."""

    lexicon: Lexicon
    n_words: int

    @property
    def single(self) -> IntArray:
        """The keys of one word, [keys]."""
        lexicon = self.lexicon
        symbols = lexicon.rendering == "symbols"
        return np.concatenate([lexicon.names, lexicon.everything]) if symbols else lexicon.everything

    def __len__(self) -> int:
        return len(self.single) if self.n_words == 1 else self.lexicon.items.size

    def draw(self, draws: Draws, purpose: str, count_n: IntArray) -> IntArray:
        """Return the numbers of `count_n` different keys in random order, [n, largest count]; what follows is random.

        All keys, in a circle, are cut into as many parts as keys are wanted, and one is drawn out of each: that takes
        no random order of 65,536 keys. A random turn of the circle makes keys of small and of large parts as likely.
        """
        most = int(count_n.max())
        assert most <= len(self), f"{most} of {len(self)} keys"
        part_nN = draws.shuffle(f"{purpose}: parts", np.arange(most) < count_n[:, None])
        part_nN = np.minimum(part_nN, count_n[:, None] - 1)
        first_nN, end_nN = (part * len(self) // count_n[:, None] for part in (part_nN, part_nN + 1))
        turn_n = draws.integers(f"{purpose}: turn", 0, len(self) - 1)
        return (draws.integers(purpose, first_nN, end_nN - 1, most) + turn_n[:, None]) % len(self)

    def words(self, keys: IntArray) -> IntArray:
        """Return the words of `keys`, [..., 2] for [...]; the first one is ABSENT where a key has only one."""
        if self.n_words == 1:
            return np.stack([np.full_like(keys, ABSENT), self.single[keys]], axis=-1)
        names, items = np.divmod(keys, self.lexicon.items.shape[1])
        return np.stack([self.lexicon.names[names], self.lexicon.items[names, items]], axis=-1)

    def check_reach(self, task: Task, option: str) -> None:
        """Refuse one word in `option` where even the largest prompts stay in the lower half of the bin to be filled."""
        if task.size is None and task.limits is not None and self.n_words == 1:
            (slope, start), (low, high) = task.tokens_by_size, task.limits
            reach = start + slope * task.largest_size
            task.expect(
                reach > (low + high) / 2,
                option,
                f"2 to fill prompts of {low + 1} to {high} tokens: {len(self)} different ones give {reach:.0f}",
            )
