"""Tokenizers as other tools write them, and everything a tokenizer.json can say that would change text or ids."""

import json
from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import normalizers as n
from tokenizers import pre_tokenizers as p

from tests.system.helpers import documents

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
SPECIALS = ["<|endoftext|>", "<|meta|>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
SHORT_FORMS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT4 = SHORT_FORMS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTE_LEVEL = p.ByteLevel(add_prefix_space=False, use_regex=False)
Change = Callable[[Tokenizer], object]


def byte_level(alphabet: list[str] = ALPHABET, unknown: str | None = None) -> Tokenizer:
    """A byte-level BPE, as GPT-2's; without `alphabet` it has no id for bytes that its text lacks."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = p.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = [*([unknown] if unknown else []), *SPECIALS]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(documents(3), trainer)
    return tokenizer


def llama() -> Tokenizer:
    """A BPE of pieces with ▁ for a blank, and <0x00> to <0xFF> for what has no piece."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = n.Sequence([n.Prepend("▁"), n.Replace(" ", "▁")])
    specials = ["<unk>", "<s>", "</s>", *SPECIALS]
    trainer = trainers.BpeTrainer(
        vocab_size=600, max_token_length=8, special_tokens=[*specials, *BYTES], show_progress=False
    )
    tokenizer.train_from_iterator(documents(3), trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][: len(specials)]  # bytes are no special tokens
    tokenizer = Tokenizer.from_str(json.dumps(content))
    blanks = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(blanks)
    return tokenizer


def unigram(trainer_options: dict[str, Any], cut: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = cut
    trainer = trainers.UnigramTrainer(
        vocab_size=500, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False, **trainer_options
    )
    tokenizer.train_from_iterator(documents(3), trainer)
    return tokenizer


def fallback(tokenizer: Tokenizer) -> str:
    """A unigram model with pieces for bytes."""
    tokenizer.add_special_tokens(SPECIALS)
    content = json.loads(tokenizer.to_str())
    pieces = [*content["model"]["vocab"], *([piece, -10.0] for piece in (*SPECIALS, *BYTES))]
    content["model"].update(vocab=pieces, byte_fallback=True)
    return json.dumps(content)


def words(model: Any, trainer: Any, cut: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = cut
    tokenizer.train_from_iterator(documents(3), trainer)
    return tokenizer


def put(**settings: Any) -> Change:
    """A change that assigns settings of the tokenizer."""

    def change(tokenizer: Tokenizer) -> None:
        for name, value in settings.items():
            setattr(tokenizer, name, value)

    return change


def cut(part: Any) -> Change:
    """A change that cuts text before it becomes bytes."""
    return put(pre_tokenizer=p.Sequence([part, BYTE_LEVEL]))


def normalize(*parts: Any) -> Change:
    return put(normalizer=parts[0] if len(parts) == 1 else n.Sequence(list(parts)))


def written(tokenizer: Tokenizer, change: Change) -> str:
    """The tokenizer.json with the change."""
    change(tokenizer)
    return str(tokenizer.to_str())


def edited(tokenizer: Tokenizer, part: str, **values: Any) -> str:
    """The tokenizer.json with other values in a part, which the library itself cannot set."""
    content = json.loads(tokenizer.to_str())
    content[part].update(values)
    return json.dumps(content)


def without_token(tokenizer: Tokenizer, token: str) -> str:
    content = json.loads(tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary["zzzz"] = vocabulary.pop(token)
    content["model"]["merges"] = []
    return json.dumps(content)


TEMPLATE = processors.TemplateProcessing(single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)])
SWALLOWING = [AddedToken("bread", lstrip=True, rstrip=True, single_word=True), AddedToken("heron", normalized=True)]
SWITCHED_OFF: dict[str, Change] = {
    "truncation": lambda t: t.enable_truncation(8),
    "truncation-left": lambda t: t.enable_truncation(8, stride=2, direction="left"),
    "padding": lambda t: t.enable_padding(length=64, pad_token="<|endoftext|>"),
    "padding-multiple": lambda t: t.enable_padding(pad_to_multiple_of=8, direction="left"),
    "template": put(post_processor=TEMPLATE),
    "bert-processor": put(post_processor=processors.BertProcessing(("<|endoftext|>", 0), ("<|meta|>", 1))),
    "prefix-blank": put(pre_tokenizer=p.ByteLevel(add_prefix_space=True)),
    "prepend": normalize(n.Prepend("▁▁")),
    "nfc": normalize(n.NFC()),
    "no-decoder": put(decoder=None),
    "wrong-decoder": put(decoder=decoders.WordPiece()),
    "decoder-that-strips": put(decoder=decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 3, 3)])),
    "isolated": cut(p.Punctuation("isolated")),
}
"""What the same ids come from as without it."""
KEPT: dict[str, Callable[[], str]] = {
    "bytes": lambda: byte_level().to_str(),
    "dropout": lambda: edited(byte_level(), "model", dropout=0.5),
    "ignore-merges": lambda: edited(byte_level(), "model", ignore_merges=True),
    "digits": lambda: written(byte_level(), cut(p.Digits(True))),
    "gpt4": lambda: written(byte_level(), cut(p.Split(Regex(GPT4), "removed", invert=True))),
    "llama3": lambda: written(byte_level(), cut(p.Split(Regex(GPT4), "isolated"))),
    "rare-word-removed": lambda: written(byte_level(), cut(p.Split(Regex("zeb[r]a"), "removed"))),
    "byte-normalizer": lambda: written(byte_level(), put(pre_tokenizer=None, normalizer=n.ByteLevel())),
    "swallowing": lambda: written(byte_level(), lambda t: t.add_tokens(SWALLOWING)),
    "added-special": lambda: written(byte_level(), lambda t: t.add_special_tokens(["<pad>", "the"])),
    "specials-that-strip": lambda: written(
        byte_level(),
        lambda t: t.add_special_tokens([AddedToken("<|meta|>", lstrip=True, rstrip=True, special=True)]),
    ),
    "unigram-of-bytes": lambda: written(
        unigram({"initial_alphabet": ALPHABET}, p.ByteLevel(add_prefix_space=False)),
        lambda t: t.add_special_tokens(SPECIALS),
    ),
    "unigram-fallback": lambda: fallback(unigram({}, p.Metaspace())),
    "llama": lambda: llama().to_str(),
    "metaspace": lambda: written(llama(), put(normalizer=None, pre_tokenizer=p.Metaspace(prepend_scheme="first"))),
    "llama-added": lambda: written(llama(), lambda t: t.add_tokens(["grey heron", "é ü"])),
    "llama-dropout": lambda: edited(llama(), "model", dropout=0.9),
    **{name: lambda change=change: written(byte_level(), change) for name, change in SWITCHED_OFF.items()},  # type: ignore[misc]
}
"""Files whose ids keep every text."""

BOMB = [n.Replace(" ", "x" * 1000), *[n.Replace("x", "x" * 1000)] * 4]
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "no-alphabet": (lambda: byte_level([]).to_str(), "text 'River 42 stones, übe' becomes 'iver 42 stones, ber '"),
    "unknown-token": (lambda: byte_level([], "<unk>").to_str(), "of 256 bytes have no id"),
    "one-byte-missing": (lambda: without_token(byte_level(), "q"), "1 of 256 bytes have no id"),
    "one-fallback-missing": (lambda: without_token(llama(), "<0xE6>"), "1 of 256 bytes have no id"),
    "char-level": (
        lambda: written(byte_level(), put(pre_tokenizer=None)),
        "text 'River 42 stones, über 漢字!' becomes 'River42stones,über!'",
    ),
    "byte-level-twice": (lambda: written(byte_level(), cut(BYTE_LEVEL)), "'RiverĠ42Ġstones"),
    "lowercase": (lambda: written(byte_level(), normalize(n.Lowercase())), "'River 42 stones, übe' becomes 'river 42"),
    "strip": (lambda: written(byte_level(), normalize(n.Strip())), "normalizer Strip; expected none"),
    "accents": (lambda: written(byte_level(), normalize(n.NFD(), n.StripAccents())), "normalizer NFD and StripAccents"),
    "nfd": (
        lambda: written(byte_level(), normalize(n.NFD())),
        "becomes '2 stones, u\\u0308ber",
    ),
    "nfkc": (lambda: written(byte_level(), normalize(n.NFKC())), "normalizer NFKC; expected none"),
    "nfkd": (lambda: written(byte_level(), normalize(n.NFKD())), "normalizer NFKD; expected none"),
    "nmt": (lambda: written(byte_level(), normalize(n.Nmt())), "normalizer Nmt; expected none"),
    "bert": (lambda: written(byte_level(), normalize(n.BertNormalizer())), "normalizer BertNormalizer; expected none"),
    "rare-word": (lambda: written(byte_level(), normalize(n.Replace("zebra", "horse"))), "becomes 'a horseb"),
    "rare-pattern": (
        lambda: written(byte_level(), normalize(n.Replace(Regex("zeb[r]a"), ""))),
        "normalizer Replace; expected none",
    ),
    "llama-nfkc": (
        lambda: written(llama(), normalize(n.NFKC(), n.Prepend("▁"), n.Replace(" ", "▁"))),
        "normalizer NFKC; expected none",
    ),
    "llama-spaces": (
        lambda: written(llama(), normalize(n.Replace(Regex(" {2,}"), " "), n.Replace(" ", "▁"))),
        "becomes ' Two blanks, a",
    ),
    "llama-underscore": (
        lambda: written(llama(), put(normalizer=None, pre_tokenizer=p.Metaspace("_"))),
        "pre_tokenizer Metaspace, model BPE",
    ),
    "bomb": (lambda: written(byte_level(), normalize(*BOMB)), "takes too much time or memory"),
    "large-text": (
        lambda: written(byte_level(), normalize(n.Replace(" ", "x" * 1000))),
        "becomes 'Riverxxxx",
    ),
    "backtracking": (lambda: written(byte_level(), cut(p.Split(Regex("(a+)+$"), "isolated"))), "takes too much time"),
    "whitespace": (lambda: written(byte_level(), cut(p.Whitespace())), "becomes 'River42stones,über漢字!'"),
    "whitespace-split": (lambda: written(byte_level(), cut(p.WhitespaceSplit())), "pre_tokenizer WhitespaceSplit"),
    "bert-cutter": (lambda: written(byte_level(), cut(p.BertPreTokenizer())), "pre_tokenizer BertPreTokenizer"),
    "delimiter": (
        lambda: written(byte_level(), cut(p.CharDelimiterSplit("馬"))),
        "text 'a 馬b  馬 馬\\n' becomes",
    ),
    "punctuation": (lambda: written(byte_level(), cut(p.Punctuation("removed"))), "becomes ' 42 stones über"),
    "word-removed": (lambda: written(byte_level(), cut(p.Split("zebra", "removed"))), "text 'a zebrab  zebra"),
    "digits-removed": (lambda: written(byte_level(), cut(p.Split(Regex(r"\d+"), "removed"))), "becomes 'River  stones"),
    "word-suffix": (lambda: edited(byte_level(), "model", end_of_word_suffix="</w>"), "becomes 'Rive 4 stone"),
    "word-prefix": (lambda: edited(byte_level(), "model", continuing_subword_prefix="##"), "cannot be loaded"),
    "unigram": (lambda: unigram({}, p.Metaspace()).to_str(), "no <|endoftext|> and no <|meta|>"),
    "unigram-of-text": (
        lambda: written(unigram({}, p.Metaspace()), lambda t: t.add_special_tokens(SPECIALS)),
        "is not made of bytes",
    ),
    "word-level": (
        lambda: words(
            models.WordLevel(unk_token="<unk>"),
            trainers.WordLevelTrainer(special_tokens=["<unk>", *SPECIALS], show_progress=False),
            p.WhitespaceSplit(),
        ).to_str(),
        "model WordLevel",
    ),
    "word-piece": (
        lambda: words(
            models.WordPiece(unk_token="<unk>"),
            trainers.WordPieceTrainer(special_tokens=["<unk>", *SPECIALS], show_progress=False),
            p.BertPreTokenizer(),
        ).to_str(),
        "model WordPiece",
    ),
}
"""Files that lose or change some text, and what is said of each."""
