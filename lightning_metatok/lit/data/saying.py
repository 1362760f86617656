"""What people should know about their data, said once."""

import sys

from lightning.pytorch.utilities import rank_zero_only

from lightning_metatok.data import MetaTokenizer, TokenStore

MASKED = (
    "data.objective=masked: hidden tokens are told from both sides, so there are no bits per byte, no bigram model to "
    "beat and no sample of text"
)
NO_TEST = "warning: there is no text to test on (data.test_fraction, data.test_corpus): it is validated on"


@rank_zero_only
def say_of_data(line: str) -> None:
    """Print what people should know about their data, once: warnings to stderr."""
    warning = line.startswith("warning: ")
    print(f"lightning-metatok: {line}" if warning else line, file=sys.stderr if warning else sys.stdout)


def text_in_a_line(name: str, tokenizer: MetaTokenizer, store: TokenStore, *, streamed: bool) -> str:
    """Return what a text holds; `streamed`: the text to train on is no part of `store`."""
    added = f" ({' and '.join(tokenizer.added)} added)" if tokenizer.added else ""
    counts = {split: store.n_tokens(split) for split in store.splits}
    shares = [f"{n:,} {split} ({n / sum(counts.values()):.1%})" for split, n in counts.items()]
    read = ", trained on as it is read" if streamed else ""
    return f"{name}, {', '.join(shares)} tokens, {tokenizer.vocab_size:,} ids{added}{read}"
