"""Byte-level tokenizers of a text: merges of the most frequent pair (bpe), or pieces with probabilities (unigram).

The same documents in the same order give the same BPE. A Unigram's pieces have scores that differ by a hundredth from
one training to the next, as the library adds them up in the order of a hash table.
Source: Sennrich et al. 2016 (BPE); Kudo 2018, arXiv 1804.10959 (Unigram).
"""

import json
from collections.abc import Iterable, Sequence
from typing import Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from lightning_metatok.errors import UserError

Model = Literal["bpe", "unigram"]
LONGEST_WORD = 1 << 10
"""Bytes of a run without a place to cut, such as a line of base64, that training reads at once: the time that merges
take is quadratic in it."""


def trained(documents: Iterable[str], vocab_size: int, model: Model, *, specials: Sequence[str]) -> Tokenizer:
    """Return a tokenizer of at most `vocab_size` ids, all 256 bytes and `specials`, which come first, included.

    Raises:
        UserError: `vocab_size` is less than a Unigram of this text can do with.
    """
    tokenizer = Tokenizer(models.BPE() if model == "bpe" else models.Unigram())
    tokenizer.decoder = decoders.ByteLevel()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([byte_level, pre_tokenizers.FixedLength(LONGEST_WORD)])
    trainer = (trainers.BpeTrainer if model == "bpe" else trainers.UnigramTrainer)(
        vocab_size=vocab_size,
        special_tokens=list(specials),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if (least := tokenizer.get_vocab_size()) > vocab_size:
        raise UserError(
            f"data.vocab_size={vocab_size}: expected at least {least}, what data.tokenizer_model={model} needs here"
        )
    tokenizer.pre_tokenizer = byte_level
    if model == "bpe":
        return tokenizer
    content = json.loads(tokenizer.to_str())  # scores of 17 digits are not the same when written and read again
    content["model"]["vocab"] = [[piece, round(score, 6)] for piece, score in content["model"]["vocab"]]
    return Tokenizer.from_str(json.dumps(content))
