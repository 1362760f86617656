"""A signal between two units of work that are no training steps: batches of a validation, of an ablation, of the study.

What was half done is dropped, and done again by the run that goes on:

    before training       nothing is lost but what was being prepared
    in a validation       a checkpoint of the step before it, marked as owing it (`loops`)
    behind the last step  the checkpoint of the last step is there already; the study asks anew
"""

import signal

from lightning.pytorch import Trainer

from lightning_metatok import signals

LOST_IN_VALIDATION = "the validation there is made anew"


def heed(trainer: Trainer, lost: str, *, together: bool = False) -> None:
    """Stop here if a signal came: to this process if it is alone, else to any rank, where all of them ask `together`.

    SIGUSR1 does not stop a run whose last step is made: it is done, and its job must not come back.

    Raises:
        Asked: a signal came; `lost` says what is done again.
    """
    if trainer.world_size > 1 and not together:
        return
    is_last = trainer.global_step == trainer.max_steps or trainer.should_stop
    number = of_all_ranks(trainer, signals.received())
    if number and not (is_last and number == signal.SIGUSR1):
        raise signals.Asked(number, lost)


def of_all_ranks(trainer: Trainer, number: int) -> int:
    """The signal that any rank got; of several the first of `signals.SIGNALS`."""
    if trainer.world_size == 1:
        return number
    decide = trainer.strategy.reduce_boolean_decision
    if not decide(bool(number), all=False):
        return 0
    return next(one for one in signals.SIGNALS if decide(number == one, all=False))
