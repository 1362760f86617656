"""What a task needs to be rendered as text: a tokenizer, and a corpus where needles hide in text."""

from lightning_metatok.data import DataConfig, MetaTokenizer, TokenStore, open_corpus, prepare_tokens
from lightning_metatok.data.cache import cache_folder
from lightning_metatok.data.preparation import get_tokenizer, progress_bar, tell
from lightning_metatok.lit.data.saying import say_of_data


def read_text(
    config: DataConfig,
    carried: MetaTokenizer | None,
    *,
    needs_text: bool,
) -> tuple[MetaTokenizer, TokenStore | None]:
    """Return the tokenizer and, where the task needs text, its prepared tokens.

    Args:
        config: the corpus and its tokenizer.
        carried: tokenizer of a checkpoint, which is taken where `config` names none.
        needs_text: whether the task hides something in text.
    """
    known = carried if config.tokenizer is None else None
    if known is not None and not needs_text:
        return known, None
    cache, corpus, store = cache_folder(config.cache_dir), open_corpus(config), None
    with progress_bar() as progress:
        tokenizer = get_tokenizer(config, corpus, cache, progress) if known is None else known
        if needs_text:
            store = prepare_tokens(corpus, tokenizer, cache, progress)
    if store is not None:
        tell(corpus, store, say_of_data)
    return tokenizer, store
