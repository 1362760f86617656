"""Whether a model can read what its data give, asked before anything is written."""

from typing import cast

from lightning_metatok.errors import UserError
from lightning_metatok.lit.data.objective import check_objective
from lightning_metatok.lit.data.protocol import Data, TaskData
from lightning_metatok.model import MetaTransformer
from lightning_metatok.tasks.marks import answers_before_marks

SAMPLE = 128
"""Prompts of each phase that are looked at."""


def check_fits(model: MetaTransformer, data: Data) -> None:
    """Refuse data that the model cannot read.

    Raises:
        UserError: more token ids than `model.vocab_size`, blocks longer than the table of positions, documents that
            cannot be kept apart, rows that are no whole segments or do not go on, ids of 0, 1, 2, ... where these must
            come from a task, or an objective or an answer that the pattern gives away.
    """
    config, n_ids = model.config, data.tokenizer.vocab_size
    check_objective(config, data.config, answers_only=data.scores_answers_only)
    if config.built_pattern.prompts:
        for task in cast(TaskData, data).tasks:
            if answers_before_marks(task.examples(SAMPLE, data.seed)).any():
                raise UserError(
                    f"data.task={task.name}: an answer stands before the first meta-token of its prompt, and "
                    f"model.pattern={config.pattern!r} sees all before that; expected a causal pattern"
                )
    if n_ids > config.vocab_size:
        raise UserError(f"model.vocab_size={config.vocab_size}: expected at least {n_ids}, the ids of the tokenizer")
    if model.positions.needs_task_ids and not data.coupled:
        raise UserError(
            f"model.position={config.position!r}: expected data.task with data.task_options.coupled=true, "
            "because its position ids come from a task"
        )
    check_lengths(model, data)


def check_lengths(model: MetaTransformer, data: Data) -> None:
    """The part of it that needs no tokenizer: documents that are kept apart, the longest row, and whole segments."""
    config, limit = model.config, model.positions.max_positions
    if data.separate_documents:
        config.check_can("documents")
    if limit is not None and data.n_positions > limit:
        raise UserError(data.too_long(limit))
    config.built_recurrence.check_rows(
        data.block_length, even=data.mean_length == data.block_length, contiguous=data.contiguous
    )
