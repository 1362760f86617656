"""Text to batches: documents -> token ids -> packed blocks -> blocks with meta-tokens -> `Batch`.

Read in this order: `corpora`, `tokenizer`, `pieces`, `tokenising`, `writing`, `blocks`, `injection` and `placement`,
`batch`, `stream`, `scored`; `preparation` ties those up to `blocks` together, `cache` keeps what they make. Text that
is tokenised while it trains: `marks`, `windows`, `streamed`, and `streaming`, which ties them up. Nothing here knows
Lightning.
"""

from lightning_metatok.data.batch import NOT_SCORED, Batch, next_token_targets
from lightning_metatok.data.blocks import PackedBlocks, TokenStore
from lightning_metatok.data.corpora import Corpus, CorpusConfig, open_corpus
from lightning_metatok.data.injection import Injected, InjectionRule, inject, remove_meta
from lightning_metatok.data.masking import Masking
from lightning_metatok.data.preparation import DataConfig, prepare
from lightning_metatok.data.stream import BatchBuilder, ContiguousBatches, StepDataset, StepSampler
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.data.writing import prepare_tokens

__all__ = [
    "NOT_SCORED",
    "Batch",
    "BatchBuilder",
    "ContiguousBatches",
    "Corpus",
    "CorpusConfig",
    "DataConfig",
    "Injected",
    "InjectionRule",
    "Masking",
    "MetaTokenizer",
    "PackedBlocks",
    "StepDataset",
    "StepSampler",
    "TokenStore",
    "inject",
    "next_token_targets",
    "open_corpus",
    "prepare",
    "prepare_tokens",
    "remove_meta",
]
