"""A trainer's budget becomes its steps and the end of its module's schedule, once model and data are known."""

from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_metatok.lit.budget import Budget
from lightning_metatok.lit.callbacks.arm_card import Data, step_cost

if TYPE_CHECKING:
    from lightning_metatok.lit.module import MetaTokenLM


def follow_budget(budget: Budget, module: "MetaTokenLM", data: Data, micro_batches: int) -> tuple[int, str]:
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
