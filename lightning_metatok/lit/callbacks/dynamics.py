"""What attention and meta-tokens do while a model learns: a few numbers a layer at every validation, as curves.

    dynamics/entropy/layer_0         of self-attention's rows, in nats: how spread out it looks
    dynamics/on_first/layer_0        part of a row that goes to the first token: a sink where it is large
    dynamics/on_meta/layer_0         part that goes to meta-tokens, of rows behind the first of them
    dynamics/boost_of_meta/layer_0   score of meta-tokens above that of the text in sight, in nats
    dynamics/rank_of_meta/layer_0    effective rank of their states behind the layer: in how many directions they differ
    dynamics/loss, loss_without_meta loss of the text read, as it is and without its meta-tokens

All of the same few rows of the validation data. Arms overlay in TensorBoard, where a run is a colour.
"""

from collections.abc import Iterator

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_metatok.analysis import dynamics
from lightning_metatok.data import Batch, next_token_targets, remove_meta
from lightning_metatok.errors import UserError
from lightning_metatok.lit.callbacks.offers import Layout, chart
from lightning_metatok.model.branch import SELF_ATTENTION
from lightning_metatok.model.recording import recorded

PER_LAYER = {
    "entropy": "entropy of self-attention, nats",
    "on_first": "attention on the first token",
    "on_meta": "attention on meta-tokens",
    "boost_of_meta": "score of meta-tokens above text, nats",
    "rank_of_meta": "effective rank of the states of meta-tokens",
}


class Dynamics(Callback):
    """Follow attention and the states of meta-tokens through training.

    Args:
        enabled: Switch it on; it reads a few rows once more at each validation, scores written out.
        rows: Rows of the validation data that are read, the same each time.
    """

    def __init__(self, enabled: bool = False, rows: int = 16) -> None:
        if rows < 1:
            raise UserError(f"dynamics.rows={rows}: expected 1 or more")
        self.enabled, self.rows = enabled, rows
        self._batch: Batch | None = None
        self._layers = 0

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read and log; not during the sanity check."""
        if not self.enabled or trainer.sanity_checking or not trainer.is_global_zero:
            return
        if self._batch is None:
            first = next(iter(trainer.datamodule.val_dataloader()))  # type: ignore[attr-defined]
            self._batch = Batch(**{name: tensor[: self.rows] for name, tensor in vars(first).items()})
        values = dict(self.measure(trainer, pl_module, self._batch.to(pl_module.device)))
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)

    def charts(self) -> Layout:
        """All layers of a figure in one chart."""
        if not self._layers:
            return {}
        layers = range(self._layers)
        return {
            "dynamics": {
                title: chart(f"dynamics/{name}/layer_{layer}" for layer in layers) for name, title in PER_LAYER.items()
            }
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Know how many layers there are. Raises UserError for a model that cannot be recorded."""
        if self.enabled:
            pl_module.config.check_can("probes")  # type: ignore[union-attr,operator]
        self._layers = pl_module.config.n_layers if self.enabled else 0  # type: ignore[union-attr,assignment]

    @torch.no_grad()
    def measure(self, trainer: Trainer, pl_module: LightningModule, batch: Batch) -> Iterator[tuple[str, float]]:
        """Yield what is logged of a batch."""
        was_training = pl_module.training
        pl_module.eval()
        with trainer.precision_plugin.forward_context():
            with recorded(pl_module.model) as recording:  # type: ignore[arg-type]
                nll_BT = pl_module.nll(batch)  # type: ignore[operator]
            bare = without_meta(batch)
            bare_nll_BT = None if bare is None else pl_module.nll(bare)  # type: ignore[operator]
        pl_module.train(was_training)
        extra_BT, real_BT = batch.meta_mask_BT, batch.document_ids_BT >= 0
        first_BT = torch.zeros_like(extra_BT)
        first_BT[:, 0] = True
        behind_BT = real_BT & (extra_BT.cumsum(dim=1) > 0)
        for i, layer in enumerate(recording.layers):
            seen = layer[SELF_ATTENTION.name]
            assert seen.scores_BNTT is not None, "attention was asked for"
            probs_BNTT = seen.probs_BNTT.float()
            found: dict[str, Tensor] = {
                "entropy": dynamics.mean_entropy(probs_BNTT, real_BT),
                "on_first": dynamics.mass_on(probs_BNTT, first_BT, real_BT & ~first_BT),
            }
            if bool(behind_BT.any()):
                found["on_meta"] = dynamics.mass_on(probs_BNTT, extra_BT, behind_BT)
                found["boost_of_meta"] = dynamics.logit_boost(seen.scores_BNTT.float(), extra_BT, behind_BT)
                found["rank_of_meta"] = dynamics.effective_rank(layer.after_BTD[extra_BT].float())
            for name, value in found.items():
                yield f"dynamics/{name}/layer_{i}", float(value)
        yield "dynamics/loss", float(nll_BT.sum() / (batch.targets_BT >= 0).sum())
        if bare is not None and bare_nll_BT is not None:
            yield "dynamics/loss_without_meta", float(bare_nll_BT.sum() / (bare.targets_BT >= 0).sum())


def without_meta(batch: Batch) -> Batch | None:
    """The same text without its meta-tokens; None for prompts and packed documents, and where there are none."""
    counts_B = batch.meta_mask_BT.sum(dim=1)
    if not bool(counts_B.any()) or bool((counts_B != counts_B[0]).any()) or bool(batch.document_ids_BT.any()):
        return None
    if bool(((batch.targets_BT >= 0).sum(dim=1) != (~batch.meta_mask_BT).sum(dim=1) - 1).any()):
        return None  # answers alone are scored
    tokens_BS = remove_meta(batch.tokens_BT, batch.meta_mask_BT)
    none_BS = torch.zeros_like(tokens_BS, dtype=torch.bool)
    places_BS = torch.arange(tokens_BS.shape[1], device=tokens_BS.device).expand_as(tokens_BS)
    documents_BS = torch.zeros_like(tokens_BS)
    return Batch(tokens_BS, next_token_targets(tokens_BS, none_BS), none_BS, documents_BS, places_BS)
