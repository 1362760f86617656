"""Hidden tokens: of each block some source tokens are hidden, and a model is scored on what stood there.

    source   a b c d e f g h i j       S = 10
    chosen   . x . . x . . . x .       floor(fraction * S) of them, and one at least, uniformly at random
    read     a # c d q f g h i j       of ten chosen eight are read as <|mask|> (#), one as some token (q), one as it is
    target   . b . . e . . . i .       at the token's own place; -100 elsewhere

Source: Devlin et al. 2019 (BERT), arXiv 1810.04805, section 3.1; other places in each epoch as of Liu et al. 2019
(RoBERTa), arXiv 1907.11692, section 4.1. Tokens are hidden before meta-tokens are put in, so that arms with different
meta-tokens, or none, are scored on the same tokens, and a placement sees no more of the text than the model does. The
end of a document is a token as any other.

Masking is a pure function of (block, seed, index), as injection is: row b depends on `index[b]`, which counts blocks
through all epochs, and on no other row.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_metatok.data.batch import NOT_SCORED
from lightning_metatok.data.counter import random_bits
from lightning_metatok.data.injection import floor_of_fraction
from lightning_metatok.data.tokenizer import MetaTokenizer

MASKING = 0x68696464656E
"""Keeps the places of hidden tokens apart from those of meta-tokens, which draw from the same seed."""
FRACTION = 0.15
"""That of BERT."""
PLACE, FATE, TOKEN = range(3)
"""What a number is drawn for."""


def n_hidden(fraction: float, length: int) -> int:
    """Return how many of `length` source tokens are chosen."""
    return max(1, floor_of_fraction(fraction, length))


@dataclass(frozen=True)
class Masked:
    """Blocks as they are read, and what stood at the chosen places: both int64 [B, S]; -100 at all others."""

    tokens_BS: Tensor
    targets_BS: Tensor

    def targets_beside(self, meta_mask_BT: Tensor) -> Tensor:
        """The targets [B, T] where meta-tokens, which are never chosen, stand between the source tokens."""
        targets_BT = torch.full_like(meta_mask_BT, NOT_SCORED, dtype=torch.int64)
        return targets_BT.masked_scatter(~meta_mask_BT, self.targets_BS)


@dataclass(frozen=True)
class Masking:
    """How tokens of a block are hidden.

    Attributes:
        fraction: of the source tokens, above 0 and below 1 (option `data.mask_fraction`).
        mask_id: id of `<|mask|>`.
        text_ids: int64, ids that stand for text: what a token is replaced by is one of them.
        seed: chooses the stream of random numbers.
    """

    fraction: float
    mask_id: int
    text_ids: NDArray[np.int64]
    seed: int

    @classmethod
    def of(cls, tokenizer: MetaTokenizer, fraction: float, seed: int) -> "Masking":
        """Return how tokens of a text are hidden; the tokenizer has a `<|mask|>`."""
        assert tokenizer.mask_id is not None, "`load_tokenizer` added it"
        return cls(fraction, tokenizer.mask_id, tokenizer.bytes_V.nonzero().flatten().numpy(), seed)

    def apply(self, tokens_BS: Tensor, index_B: NDArray[np.int64]) -> Masked:
        """Return the blocks `tokens_BS` with tokens hidden; `index_B`: global sample indices."""
        source_BS = tokens_BS.numpy()
        length = source_BS.shape[1]

        def drawn(what: int) -> NDArray[np.uint64]:
            return random_bits(self.seed ^ MASKING, what, index_B[:, None], np.arange(length))

        chosen_BM = np.argsort(drawn(PLACE), axis=1, kind="stable")[:, : n_hidden(self.fraction, length)]
        chosen_BS = np.zeros(source_BS.shape, dtype=np.bool_)
        np.put_along_axis(chosen_BS, chosen_BM, True, axis=1)
        fate_BS = drawn(FATE) % 10
        some_BS = self.text_ids[drawn(TOKEN) % len(self.text_ids)]
        read_BS = np.where(fate_BS < 8, self.mask_id, np.where(fate_BS == 8, some_BS, source_BS))
        return Masked(
            torch.from_numpy(np.where(chosen_BS, read_BS, source_BS)),
            torch.from_numpy(np.where(chosen_BS, source_BS, NOT_SCORED)),
        )
