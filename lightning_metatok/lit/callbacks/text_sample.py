"""A sample of text at every validation end, so that one can read what the model has learnt."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.lit.data.protocol import text_of
from lightning_metatok.lit.run.loggers import log_text
from lightning_metatok.lit.sampling import complete
from lightning_metatok.lit.sharded import is_sharded


class TextSample(Callback):
    """Continue `prompt` and show it in TensorBoard's Text tab.

    Args:
        prompt: Text to continue; may contain `<|meta|>`.
        max_new_tokens: Length of the continuation, in tokens.
        temperature: 0 is greedy.
        top_k: Sample among the k likeliest tokens; 0 for all.
        seed: Seed of the sampling; the training RNG is not touched.
    """

    def __init__(
        self,
        prompt: str = "def read(self, path):\n",
        max_new_tokens: int = 96,
        temperature: float = 0.8,
        top_k: int = 50,
        seed: int = 0,
    ) -> None:
        self.prompt = prompt
        self.max_new_tokens = max_new_tokens
        self.temperature = temperature
        self.top_k = top_k
        self.seed = seed

    @torch.no_grad()
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Generate and log; not during the sanity check, nor where a model fills in hidden tokens."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not trainer.is_global_zero and not is_sharded(trainer):  # a model in pieces runs on all ranks or on none
            return
        data = text_of(trainer)
        if data.config.masked:
            return
        was_training = pl_module.training
        pl_module.eval()
        text = complete(
            pl_module.model,  # type: ignore[arg-type]
            data.tokenizer,
            self.prompt,
            rule=data.rule,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_k=self.top_k or None,
            seed=self.seed,
        )
        pl_module.train(was_training)
        log_text(trainer, "sample", f"```\n{text}\n```")
