"""A trainer's budget becomes its steps and the end of its module's schedule, once model and data are known."""

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_metatok.lit.budget import Budget, Cost
from lightning_metatok.lit.data.protocol import Data
from lightning_metatok.model import MetaTransformer

if TYPE_CHECKING:
    from lightning_metatok.lit.module import MetaTokenLM


def follow_budget(
    budget: Budget,
    module: "MetaTokenLM",
    data: Data,
    micro_batches: int,
) -> tuple[int, str]:
    """Let the schedule of `module` end with the budget.

    Args:
        micro_batches: of an optimiser step, on all ranks together.

    Returns:
        the steps to make, and a line that says so.

    Raises:
        UserError: the budget does not pay for a step.
    """
    cost = step_cost(module.model, data, micro_batches)
    steps = budget.steps(cost)
    config = module.optimizer_config = replace(module.optimizer_config, decay_steps=steps)
    module.hparams["optimizer"]["decay_steps"] = steps
    ((name, value),) = budget.given.items()
    about = "about " if data.scores_answers_only else ""  # prompts differ; blocks of text do not
    line = (
        f"budget: {name.replace('flops', 'FLOPs').replace('_', ' ')} {value:g} give {steps:,} steps of {about}"
        f"{cost.source_tokens:,.0f} source tokens and {cost.flops:.4g} FLOPs, in all "
        f"{about}{steps * cost.source_tokens:,.0f} and {steps * cost.flops:.4g}"
    )
    if steps <= config.warmup_steps:
        line += f"; within model.optimizer.warmup_steps={config.warmup_steps}: its learning rate never falls"
    return steps, line


def training_flops(
    model: MetaTransformer,
    *,
    tokens: float,
    source_tokens: float,
    scored: float,
    length: float,
) -> float:
    """Return the FLOPs, forward and backward, of training on prompts of the mean `length`.

    Args:
        model: whose `flops_per_token` counts, with the head at every position.
        tokens: tokens, marks included and filling not. source_tokens: those that are no marks.
        scored: positions that logits are computed at; the head costs nothing elsewhere.
        length: tokens of a prompt, on average.
    """
    each = model.flops_per_token(round(length), 1 - source_tokens / tokens)
    head = 6 * model.config.vocab_size * model.config.d_model
    return each * tokens - head * (tokens - scored)


def step_cost(model: MetaTransformer, data: Data, micro_batches: float) -> Cost:
    """Return what an optimiser step of `micro_batches`, on all ranks together, costs on average.

    Exact for text; for a task, of training prompts of the target, the last phase of a curriculum.
    """
    prompts, source_tokens = data.batch_size * micro_batches, data.mean_length - data.marks_per_prompt
    return Cost(prompts * source_tokens, prompts * flops_per_prompt(model, data))


def flops_per_prompt(model: MetaTransformer, data: Data) -> float:
    """Return what training on a prompt, or on a block of text, costs on average."""
    length, source_tokens = data.mean_length, data.mean_length - data.marks_per_prompt
    scored = data.scored_per_prompt
    return training_flops(model, tokens=length, source_tokens=source_tokens, scored=scored, length=length)
