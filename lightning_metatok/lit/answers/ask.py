"""Ask a model: how many tokens of each answer it gets right, on every example alike.

    prompt   L0 a4 a7 L9 M a1 a4 M ? 2 L9    a4        the answer, read while it is scored (teacher forcing)
    argmax                            a4                right

An answer counts as exact when the likeliest token is the right one at each of its places. Then, and only then, greedy
decoding writes exactly this answer: up to its first wrong token both read the same. Tokens after a wrong one are
scored as if that one had been right, so token accuracy is that of teacher forcing, not of decoding. Where a prompt asks
several questions, each is answered after the right answers to those before, and exact means all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from numpy.typing import NDArray

from lightning_metatok.arrays import IntArray
from lightning_metatok.data.examples import ANSWER, Examples


@dataclass(frozen=True)
class Answers:
    """What a model answered, int64 [n] each.

    Attributes:
        n_right: tokens of the answer that are right.
        n_tokens: tokens of the answer.
        wrong: the token that stands in place of the first one that is missed, -1 where none is.
    """

    n_right: IntArray
    n_tokens: IntArray
    wrong: IntArray

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Whether the whole answer is right, [n]."""
        return self.n_right == self.n_tokens

    @property
    def token_accuracy(self) -> float:
        """Share of all answer tokens that are right."""
        return float(self.n_right.sum() / self.n_tokens.sum())


@torch.no_grad()
def ask(
    trainer: Trainer,
    pl_module: LightningModule,
    examples: Examples,
    *,
    drop_positions: str | None = None,
    zero_meta_embedding: bool = False,
    max_tokens: int = 32768,
    after_batch: Callable[[int], None] = lambda prompts: None,
) -> Answers:
    """Return what `pl_module.model` answers to `examples`, in their order.

    With several ranks each asks its share and all get everything, so all must call this.

    Args:
        trainer: its precision and strategy are used.
        pl_module: a module whose `model` is a MetaTransformer; it is left in the mode it was in.
        examples: prompts with at least one answer token each, see `lightning_metatok.tasks`.
        drop_positions, zero_meta_embedding: as in `MetaTransformer.forward`.
        max_tokens: of a batch, filling included; one prompt at least.
        after_batch: called with the number of prompts that this rank has just asked; may raise to end it.

    Raises:
        UserError: the prompts are too long for the model's position table.
    """
    places_A = np.flatnonzero(examples.flags & ANSWER)
    given_A = np.zeros(len(places_A), dtype=np.int64)
    was_training = pl_module.training
    pl_module.eval()
    try:
        # Batches have many shapes, and a compiled model would be compiled anew for each.
        with torch.compiler.set_stance("force_eager"):
            batches = list(_batches(examples.lengths, max_tokens))
            for chosen in batches[trainer.global_rank :: trainer.world_size]:
                places, given = _answered(trainer, pl_module, examples, chosen, drop_positions, zero_meta_embedding)
                given_A[np.searchsorted(places_A, places)] = given
                after_batch(len(chosen))
    finally:
        pl_module.train(was_training)
    return _score(examples, places_A, _sum_over_ranks(trainer, pl_module, given_A))


def _score(examples: Examples, places_A: IntArray, given_A: IntArray) -> Answers:
    """Compare what was given at the answer tokens, which stand at `places_A`, with what stands there."""
    n, row_A = len(examples), examples.rows()[places_A]
    right_A = given_A == examples.tokens[places_A]
    n_tokens = np.bincount(row_A, minlength=n)
    assert n_tokens.all(), "every example has an answer"
    wrong = np.full(n, -1, dtype=np.int64)
    wrong[row_A[~right_A][::-1]] = given_A[~right_A][::-1]  # the first of an example is written last
    return Answers(np.bincount(row_A[right_A], minlength=n), n_tokens, wrong)


def _batches(lengths_n: IntArray, max_tokens: int) -> Iterator[IntArray]:
    """Examples of similar length together, the longest first, so that what needs most memory comes first."""
    order = np.argsort(-lengths_n, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, max_tokens // int(lengths_n[order[start]]))
        yield order[start : start + size]
        start += size


def _answered(
    trainer: Trainer,
    pl_module: LightningModule,
    examples: Examples,
    chosen: IntArray,
    drop_positions: str | None,
    zero_meta_embedding: bool,
) -> tuple[IntArray, IntArray]:
    """Return the places of the answer tokens of the examples `chosen` in `examples.tokens`, and what is given there."""
    on_host = examples.batch(chosen)
    scored_BT = on_host.targets_BT >= 0
    batch = on_host.to(pl_module.device)
    with trainer.precision_plugin.forward_context():
        hidden_BTD = pl_module.model(  # type: ignore[operator]
            batch.tokens_BT,
            batch.meta_mask_BT,
            batch.position_ids_BT,  # no documents: a prompt is one, and what fills it up comes behind it
            drop_positions=drop_positions,
            zero_meta_embedding=zero_meta_embedding,
            return_hidden=True,
        )
        logits_AV = pl_module.model.logits(hidden_BTD[scored_BT.to(pl_module.device)])  # type: ignore
    b, t = np.nonzero(scored_BT.numpy())
    return examples.offsets[chosen[b]] + t + 1, logits_AV.argmax(dim=-1).cpu().numpy()


def _sum_over_ranks(trainer: Trainer, pl_module: LightningModule, given_A: IntArray) -> IntArray:
    """Each rank has written its share and left the rest 0."""
    total = trainer.strategy.reduce(torch.from_numpy(given_A).to(pl_module.device), reduce_op="sum")
    assert isinstance(total, torch.Tensor)
    summed_A: IntArray = total.cpu().numpy()
    return summed_A
