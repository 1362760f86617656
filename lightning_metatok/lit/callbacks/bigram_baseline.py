"""The bar that a language model must clear: a bigram model counted on the same training tokens.

Its validation loss is drawn as a flat line beside the model's, over the same tokens: those that the model is scored on.
"""

import math

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.analysis.bigram import fit_bigram
from lightning_metatok.lit.data.protocol import text_of
from lightning_metatok.lit.run.stopping import heed

LOST = "bigrams are counted anew"


class BigramBaseline(Callback):
    """Count bigrams at the start of a fit; log `loss/bigram` and `bits_per_byte/bigram` at every validation.

    Args:
        enabled: Switch it off for corpora that are too large to count.
        max_tokens: Count at most this many training tokens, from the start; with data.shuffle_buffer those of the
            first buffer, at most.
    """

    def __init__(self, enabled: bool = True, max_tokens: int = 50_000_000) -> None:
        self.enabled = enabled
        self.max_tokens = max_tokens
        self.values: dict[str, float] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count and score; not where tokens are hidden, which are told from both sides."""
        data = text_of(trainer)
        if not self.enabled or not trainer.is_global_zero or data.config.masked:
            return
        tokens = np.asarray(data.training_tokens(self.max_tokens))
        bigram = fit_bigram(tokens, data.tokenizer.vocab_size, lambda: heed(trainer, LOST))
        nll, n_targets, n_bytes = 0.0, 0, 0
        for before, target in data.scored_pairs():
            heed(trainer, LOST)
            nll += float(bigram.nll(before, target).sum())
            n_targets += len(target)
            n_bytes += int(data.tokenizer.bytes_V[target].sum())
        self.values = {"loss/bigram": nll / n_targets, "bits_per_byte/bigram": nll / math.log(2) / n_bytes}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the flat line."""
        if self.values and not trainer.sanity_checking:
            for logger in trainer.loggers:
                logger.log_metrics(self.values, step=trainer.global_step)
