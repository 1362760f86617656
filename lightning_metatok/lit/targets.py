"""What a batch is scored on: hidden states at the scored positions alone, and the losses there.

    batch -> hidden_BTD -> hidden_KD, the K scored rows -> model.loss -> sum, nll_K
                                                                      -> nll_BT, 0 where nothing is scored

Unscored positions never reach the head: those in front of meta-tokens in text, all but the answers of a prompt. Nor are
the logits of the others ever there as a whole (`model.loss`).
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from lightning_metatok.data import Batch
from lightning_metatok.model import MetaTransformer, loss
from lightning_metatok.model.attention.meta import BlockLengths, where


@dataclass(frozen=True)
class Rows:
    """The scored rows of a batch."""

    targets_BT: Tensor
    at_K: Tensor
    """Their flat indices into B * T."""

    hidden_KD: Tensor
    targets_K: Tensor
    id_nll: Tensor | None
    """The mean loss of their position ids, where the positions predict them."""

    id_right_K: Tensor | None
    """Whether the likeliest of these ids is the right one."""

    @classmethod
    def of(
        cls, model: MetaTransformer, batch: Batch, *, separate_documents: bool, drop_positions: str | None = None
    ) -> "Rows":
        """Let the model read a batch.

        Args:
            separate_documents: whether the documents of a sample do not see each other. drop_positions: as the model
                takes it.
        """
        targets, counts = batch.targets_BT.flatten(), batch.on_host
        # Before the model runs: asking a GPU how many there are waits for all that it was told before.
        at_K = where(targets >= 0, None if counts is None else counts.n_scored)
        lengths = None
        if counts is not None:
            lengths = BlockLengths(counts.extra_of_documents if separate_documents else counts.extra_of_rows)
        position_ids_BT = model.positions.moved(batch.position_ids_BT)
        hidden_BTD = model(
            batch.tokens_BT,
            batch.meta_mask_BT,
            position_ids_BT,
            batch.document_ids_BT if separate_documents else None,  # None: one document, the fast mask
            drop_positions=drop_positions,
            extra_lengths=lengths,
            return_hidden=True,
        )
        hidden_KD = hidden_BTD.flatten(0, 1).index_select(0, at_K)
        id_nll = id_right_K = None
        if model.positions.predicts_ids:
            id_logits_KP = model.positions.id_logits(hidden_KD)
            next_ids_K = position_ids_BT.flatten()[at_K + 1]
            id_nll = F.cross_entropy(id_logits_KP.float(), next_ids_K)
            id_right_K = id_logits_KP.argmax(dim=1) == next_ids_K
        return cls(batch.targets_BT, at_K, hidden_KD, targets.index_select(0, at_K), id_nll, id_right_K)

    def __len__(self) -> int:
        """K."""
        return self.at_K.numel()

    def laid_out(self, values_K: Tensor) -> Tensor:
        """One value a scored position as [B, T], with zeros between them."""
        flat = values_K.new_zeros(self.targets_BT.numel()).index_put((self.at_K,), values_K)
        return flat.view_as(self.targets_BT)

    def right_K(self, likeliest_K: Tensor) -> Tensor:
        """Whether the likeliest token is the right one, and its position id, where the model predicts these, too.

        Generation feeds the predicted ids back: an answer is right when these are.
        """
        right_K = likeliest_K == self.targets_K
        return right_K if self.id_right_K is None else right_K & self.id_right_K


def summed(model: MetaTransformer, rows: Rows, *, likeliest: bool = False) -> loss.Loss:
    """`model.loss.summed` of these rows; fused on a GPU, where the model is compiled, too."""
    fused = rows.hidden_KD.is_cuda and model._compiled_call_impl is not None
    return loss.summed(rows.hidden_KD, model.head_weight, rows.targets_K, likeliest=likeliest, fused=fused)


def each(model: MetaTransformer, rows: Rows) -> Tensor:
    """`model.loss.each` of these rows."""
    return loss.each(rows.hidden_KD, model.head_weight, rows.targets_K)
