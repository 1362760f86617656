"""Byte-level BPE that owns the ids of `<|meta|>` and `<|endoftext|>`, around Hugging Face `tokenizers`.

Two ways in: `encode` treats its text as plain text, even where it spells `<|meta|>` (a corpus must not be
able to write meta-tokens); `encode_prompt` reads such spellings as the tokens they name.

Every id of a byte-level tokenizer stands for a fixed number of UTF-8 bytes, `bytes_V`, which turns a loss per
token into bits per byte, the figure that can be compared between vocabularies.
Source: Sennrich et al. 2016 (BPE); Radford et al. 2019, section 2.2 (byte level).
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from lightning_metatok.errors import UserError

META = "<|meta|>"
END_OF_TEXT = "<|endoftext|>"
SPECIALS = (END_OF_TEXT, META)
SMALLEST_VOCABULARY = 256 + len(SPECIALS)
PUNCTUATION = tuple(".,;:!?\n")
LARGEST_ID = (1 << 24) - 1
"""Tables have a row for every id up to the largest; the largest vocabularies there are stay below a million."""


class MetaTokenizer:
    """Text to ids and back, with `<|meta|>` (`meta_id`) and `<|endoftext|>` (`eos_id`).

    Args:
        tokenizer: a byte-level tokenizer that has both special tokens.
        source: what error messages call it.

    Raises:
        UserError: a special token is missing, or some token is not made of bytes.
    """

    def __init__(self, tokenizer: Tokenizer, source: str = "tokenizer") -> None:
        known = tokenizer.get_vocab(with_added_tokens=True)
        missing = [special for special in SPECIALS if special not in known]
        if missing:
            raise UserError(
                f"{source}: no {' and no '.join(missing)} in its vocabulary; "
                f"--data.add_special_tokens=true adds what is missing"
            )
        if max(known.values()) > LARGEST_ID:
            token = max(known, key=lambda token: known[token])
            raise UserError(f"{source}: token {token!r} has id {known[token]}; expected ids up to {LARGEST_ID}")
        if len(set(known.values())) < len(known):
            first: dict[int, str] = {}
            token = next(token for token, id in known.items() if first.setdefault(id, token) != token)
            raise UserError(
                f"{source}: tokens {first[known[token]]!r} and {token!r} have the same id {known[token]}; "
                "expected different ids"
            )
        specials = [AddedToken(special, special=True, normalized=False) for special in SPECIALS]
        tokenizer.add_special_tokens(specials)
        tokenizer.encode_special_tokens = True
        self._plain = tokenizer
        self.meta_id: int = known[META]
        self.eos_id: int = known[END_OF_TEXT]
        self.vocab_size: int = max(known.values()) + 1
        alphabet = set(pre_tokenizers.ByteLevel.alphabet())
        for token in tokenizer.get_vocab(with_added_tokens=False):
            if token not in SPECIALS and not alphabet.issuperset(token):
                raise UserError(f"{source}: token {token!r} is not made of bytes; expected a byte-level tokenizer")

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int) -> "MetaTokenizer":
        """Return a BPE of at most `vocab_size` ids, both specials and all 256 bytes included.

        The same documents in the same order give the same tokenizer.

        Raises:
            UserError: `vocab_size` is below 258.
        """
        if vocab_size < SMALLEST_VOCABULARY:
            raise UserError(
                f"data.vocab_size={vocab_size}: expected at least {SMALLEST_VOCABULARY}, "
                f"which is 256 bytes and {len(SPECIALS)} special tokens"
            )
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIALS),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(documents, trainer)
        return cls(tokenizer)

    @classmethod
    def from_words(cls, words: Sequence[str]) -> "MetaTokenizer":
        """Return a tokenizer of one id a word; text is words with blanks between them.

        Ids: <|endoftext|>, <|meta|>, then `words` in order. They are different, of printable ASCII, without blanks.
        """
        vocabulary = {word: id for id, word in enumerate((*SPECIALS, *words))}
        assert len(vocabulary) == len(SPECIALS) + len(words), "words must be different"
        tokenizer = Tokenizer(models.WordLevel(vocabulary))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return cls(tokenizer)

    @classmethod
    def from_file(cls, path: str | Path, add_special_tokens: bool = False) -> "MetaTokenizer":
        """Return the tokenizer of a `tokenizer.json`; with `add_special_tokens`, missing specials get ids.

        Raises:
            UserError: no such file, not a tokenizer, or what the constructor raises.
        """
        if not os.path.isfile(path):
            raise UserError(f"data.tokenizer={str(path)!r}: no such file")
        return cls._checked(lambda: Tokenizer.from_file(str(path)), str(path), add_special_tokens)

    @classmethod
    def from_hub(cls, name: str, add_special_tokens: bool = False) -> "MetaTokenizer":
        """Return the tokenizer of the Hugging Face repository `name`. Raises as `from_file` does."""
        return cls._checked(lambda: Tokenizer.from_pretrained(name), name, add_special_tokens)

    @classmethod
    def from_json(cls, text: str) -> "MetaTokenizer":
        """Return the tokenizer that `to_json` wrote."""
        return cls(Tokenizer.from_str(text))

    @classmethod
    def _checked(cls, load: Callable[[], Tokenizer], source: str, add: bool) -> "MetaTokenizer":
        try:
            tokenizer = load()
        except Exception as error:  # `tokenizers` raises bare Exception for anything wrong
            reason = " ".join(str(error).split())
            raise UserError(f"data.tokenizer={source!r}: cannot be loaded as a tokenizer.json: {reason}") from error
        if add:
            tokenizer.add_special_tokens(list(SPECIALS))
        return cls(tokenizer, f"data.tokenizer={source!r}")

    def to_json(self) -> str:
        """Return the whole tokenizer as the text of a `tokenizer.json`."""
        return str(self._plain.to_str())

    def save(self, path: str | Path) -> None:
        """Write a `tokenizer.json` that any Hugging Face tool reads."""
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Return the ids of `text`, read as plain text: never `meta_id`, never `eos_id`."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `encode` of each text, on all cores."""
        return [encoding.ids for encoding in self._plain.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_prompt(self, text: str) -> list[int]:
        """Return the ids of `text`, in which `<|meta|>` and `<|endoftext|>` name the special tokens."""
        return list(self._parsing.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Iterable[int], skip_meta: bool = True) -> str:
        """Return the text of `ids`; meta-tokens are left out unless `skip_meta` is False."""
        kept = [int(id) for id in ids if not (skip_meta and int(id) == self.meta_id)]
        return str(self._plain.decode(kept, skip_special_tokens=False))

    @functools.cached_property
    def _parsing(self) -> Tokenizer:
        """A second copy, because whether special tokens are parsed is a state of the object."""
        return Tokenizer.from_str(self.to_json())

    @functools.cached_property
    def bytes_V(self) -> Tensor:
        """int64 [V]: how many UTF-8 bytes each id stands for, 0 for special tokens and unused ids.

        Their sum over `encode(text)` is the length of the text in bytes, unless the tokenizer normalises
        text.
        """
        bytes_V = torch.zeros(self.vocab_size, dtype=torch.int64)
        for token, id in self._plain.get_vocab(with_added_tokens=False).items():
            bytes_V[id] = len(token)  # each character of a byte-level token stands for one byte
        for id, added in self._plain.get_added_tokens_decoder().items():
            bytes_V[id] = 0 if added.special else len(added.content.encode())
        return bytes_V

    @functools.cached_property
    def punctuation_ids(self) -> tuple[int, ...]:
        """The ids whose text ends in one of `. , ; : ! ?` or a line break: places for meta-tokens."""
        texts = self._plain.decode_batch([[id] for id in range(self.vocab_size)], skip_special_tokens=True)
        return tuple(id for id, text in enumerate(texts) if text.endswith(PUNCTUATION))

    def fingerprint(self) -> str:
        """32 hex digits that stand for everything the tokenizer does."""
        canonical = json.dumps(json.loads(self.to_json()), sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()
