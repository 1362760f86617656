"""Move on to the next phase of a curriculum when held-out prompts of the current one are answered well enough.

    step         s - 1      s         s + 1
    validation         here: accuracy reached
    phase        p          p         p + 1        the batch of step s may be on its way to the GPU already

What was decided is state of the data module, so that it stands in checkpoints: a run that goes on from one, even from
the one of that very validation, sees the same batches.
"""

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.lit.answers.ask import ask
from lightning_metatok.lit.data.protocol import task_of
from lightning_metatok.lit.run.stopping import LOST_IN_VALIDATION, heed


class Curriculum(Callback):
    """At every validation end, measure the current phase; log `curriculum/phase` (from 1) and `curriculum/accuracy`.

    Accuracy is the share of `data.validation_examples` held-out prompts of the phase that are answered exactly. In the
    last phase, which has no end, it is that of the validation.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, decide and log; not during the sanity check, and not where there is one phase only."""
        data = task_of(trainer)
        schedule, step = data.schedule, trainer.global_step
        if trainer.sanity_checking or trainer.state.fn != "fit" or len(schedule.phases) == 1:
            return
        phase = schedule.phase_at(step)
        last = len(schedule.phases) - 1
        if phase == last:
            accuracy = float(trainer.callback_metrics["accuracy/exact/val"])
        else:
            prompts = data.phase_examples(phase)
            answers = ask(trainer, pl_module, prompts, after_batch=lambda n: heed(trainer, LOST_IN_VALIDATION))
            accuracy = float(answers.exact.mean())
        for logger in trainer.loggers:
            logger.log_metrics({"curriculum/phase": phase + 1.0, "curriculum/accuracy": accuracy}, step=step)
        wanted = schedule.phases[phase].accuracy
        if wanted is not None and accuracy >= wanted:
            schedule.begin_next(phase, step + 1)
            if trainer.is_global_zero:
                print(f"curriculum: {accuracy:.2f} reached, phase {phase + 2} of {last + 1} begins at step {step + 1}")
