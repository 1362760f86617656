"""Distillation: a student that reads text through marks learns from a frozen teacher that reads the text alone.

    student   a b * c d * e       reads all, as its arm says
    teacher   a b c d e           the same text without marks, position ids counted without them
    loss      -log p(next text token) + weight KL(teacher || student), at each target of the text

The teacher is a checkpoint of `fit` with the same token ids, of any shape and arm: usually plain attention over all
text, and the weights that the student starts from (`model.init_from`). It gets no gradient, is in no checkpoint of the
student's, and its FLOPs are not counted. The first phase of KSA (arXiv 2604.24432: weight 5). Not here: freezing all
but the marks' weights, and the squared error of attention outputs, layer by layer.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_metatok.data import Batch, MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.lit.budget import Budget
from lightning_metatok.lit.checkpoints.io import read_state, sha256
from lightning_metatok.lit.checkpoints.load import trained_of
from lightning_metatok.lit.sharded import ShardedStrategy
from lightning_metatok.lit.targets import Rows
from lightning_metatok.model import TransformerConfig, loss
from lightning_metatok.model.extra_position import places_of

KEY = "model.distill_from"
DIGEST = "distilled_from"
"""Where a student's checkpoint says who taught it."""
NO_TEXT = -1
"""The document of what the teacher has behind its text."""


class Teacher:
    """A trained model that does not learn; no module, so that the student's weights are not its."""

    def __init__(self, path: Path, student: TransformerConfig, *, weight: float) -> None:
        """Read it.

        Raises:
            UserError: there is no such checkpoint, it has other token ids than the student, or position ids of a task.
        """
        if not weight > 0:
            raise UserError(f"model.distill_weight={weight:g}: expected more than 0")
        self.path, self.weight = path, weight
        self.model, self.tokenizer, _ = trained_of(read_state(path, key=KEY), path, key=KEY)
        self.model.config.check_causal(f"{KEY}={path}: ")
        self.model.requires_grad_(False)
        self.sha256 = sha256(path)
        n_ids = self.model.config.vocab_size
        if n_ids != student.vocab_size:
            raise UserError(f"{KEY}={path}: it has {n_ids} token ids, expected model.vocab_size={student.vocab_size}")
        if self.model.positions.needs_task_ids:
            raise UserError(f"{KEY}={path}: expected a teacher that counts its positions, it has those of a task")

    def check(self, tokenizer: MetaTokenizer) -> None:
        """Raise `UserError` unless the data's ids mean to it what they mean to the student."""
        if tokenizer.fingerprint() != self.tokenizer.fingerprint():
            raise UserError(
                f"{KEY}={self.path}: its tokenizer is not that of the data; expected data.tokenizer=<its run "
                "folder>/tokenizer.json"
            )

    def join(self, trainer: Trainer) -> None:
        """Go to the student's device; raise `UserError` where a trainer counts FLOPs, or takes models to pieces."""
        flops = getattr(trainer, "budget", Budget()).flops
        if flops is not None:
            raise UserError(
                f"trainer.budget.flops={flops:g}: a teacher's are not counted; with {KEY} expected "
                "trainer.budget.source_tokens or trainer.max_steps"
            )
        if isinstance(trainer.strategy, ShardedStrategy):
            raise UserError(f"trainer.strategy=fsdp2: with {KEY} expected auto or ddp")
        self.model.to(trainer.strategy.root_device)

    def check_same(self, digest: object) -> None:
        """Raise `UserError` where a run that goes on was taught by another file; `digest`: what it saved of it."""
        if digest not in (None, self.sha256):
            raise UserError(f"{KEY}={self.path}: expected the file that this run began with, this is another")

    def divergence(self, batch: Batch, rows: Rows, head_VD: Tensor, *, separate_documents: bool) -> Tensor:
        """Return the sum over the scored rows of KL(teacher || student), in nats.

        Args:
            rows: the student's, of this batch. head_VD: the weight of its head. separate_documents: as for `Rows.of`.
        """
        with torch.no_grad():
            theirs_KE = self._hidden(batch, rows, separate_documents)
        at_once = loss.rows_at_once(len(head_VD), head_VD.device)
        pairs = zip(rows.hidden_KD.split(at_once), theirs_KE.split(at_once), strict=True)
        parts = [
            checkpoint(kl, h_kD, head_VD, t_kE, self.model.head_weight, use_reentrant=False, preserve_rng_state=False)
            for h_kD, t_kE in pairs
        ]
        return torch.stack(parts).sum() if parts else rows.hidden_KD.sum() * 0

    def _hidden(self, batch: Batch, rows: Rows, separate_documents: bool) -> Tensor:
        """Its hidden states at the text before each target; marks stand behind all text, where no text sees them."""
        marks_BT = batch.meta_mask_BT
        order_BT = marks_BT.int().argsort(dim=1, stable=True)
        filling_BT = marks_BT.gather(1, order_BT)
        document_BT = batch.document_ids_BT if separate_documents else None
        ids_BT = places_of("next", batch.position_ids_BT, marks_BT, document_BT).gather(1, order_BT)
        if document_BT is not None:
            document_BT = document_BT.gather(1, order_BT).masked_fill(filling_BT, NO_TEXT)
        ids_BT = ids_BT.masked_fill(filling_BT, 0)
        tokens_BT = batch.tokens_BT.gather(1, order_BT)
        hidden_BTE = self.model(tokens_BT, None, ids_BT, document_BT, return_hidden=True)
        first_B1 = torch.arange(len(marks_BT), device=marks_BT.device).unsqueeze(1) * marks_BT.shape[1]
        row_BT = first_B1 + ((~marks_BT).cumsum(dim=1) - 1).clamp(min=0)
        return hidden_BTE.flatten(0, 1).index_select(0, row_BT.flatten().index_select(0, rows.at_K))


def kl(hidden_KD: Tensor, head_VD: Tensor, theirs_KE: Tensor, their_head_VE: Tensor) -> Tensor:
    """Return the sum of KL(theirs || ours) over K rows, in float32 or better."""
    ours_KV, theirs_KV = F.linear(hidden_KD, head_VD), F.linear(theirs_KE, their_head_VE)
    exact = torch.promote_types(ours_KV.dtype, torch.float32)
    log_p_KV, log_q_KV = (x.log_softmax(dim=1, dtype=exact) for x in (theirs_KV, ours_KV))
    return F.kl_div(log_q_KV, log_p_KV, reduction="sum", log_target=True)
