"""What a run's arm is and what it costs, in `arm.json`, and what was spent so far beside every value that is logged.

    arm         marks    second attention            costs, compared with meta
    plain       none     none                        fewer parameters, no marks to read
    pause       yes      none                        fewer parameters
    meta        yes      among marks                 -
    matched     yes      causal, over all tokens     the same parameters, more FLOPs

`scored_text` says what the validation loss is measured on, and `trained_text` what is read first: each is a fingerprint
without meta-tokens, so that arms whose numbers may be compared have the same.

Arms are compared at equal SOURCE tokens: marks are a means, not text, and what they cost belongs to the tokens beside
them. Source: arXiv 2509.16278, figure 1, whose baselines lack the controls above.
"""

import json
from dataclasses import asdict, fields
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lightning_metatok.data import Batch
from lightning_metatok.files import write_atomically
from lightning_metatok.lit.callbacks.offers import CardFacts, offered
from lightning_metatok.lit.data.protocol import Data, data_of
from lightning_metatok.lit.micro_steps import micro_step
from lightning_metatok.lit.run.loggers import log_folder
from lightning_metatok.lit.spending import flops_per_prompt, training_flops
from lightning_metatok.model import MetaTransformer, TransformerConfig, mechanisms, recurrences
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.attention.reach import even

ARM = "arm.json"
USUAL_PATTERN = "causal"
FIRST = 64
"""Windows of text, or prompts, that stand for the order of the training text."""


class ArmCard(Callback):
    """Write `arm.json` when a fit starts; log `budget/source_tokens` and `budget/flops`, both over all ranks.

    They are logged every `trainer.log_every_n_steps`, at every validation and at the end, so that a value logged at a
    step, training or validation, has its budget there. FLOPs are those of `training_flops`, curriculum included.
    """

    def __init__(self) -> None:
        self.source_tokens = 0
        self.flops = 0.0
        self._logged = 0

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the card, where there is a run folder."""
        if (folder := log_folder(trainer)) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            card = arm_card(pl_module.model, data_of(trainer))  # type: ignore[arg-type]
            for callback in offered(trainer, CardFacts):
                card |= callback.facts(pl_module.model.config)  # type: ignore[union-attr, arg-type]
            write_atomically(folder / ARM, json.dumps(card, indent=2) + "\n")

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Remember which micro-step this is: the optimiser may have stepped when the batch ends."""
        self._micro_step = micro_step(trainer, batch_idx)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Count, and log when it is time."""
        data = data_of(trainer)
        counts = data.counts(self._micro_step)
        rows = len(batch.tokens_BT) * trainer.world_size
        self.source_tokens += counts.source_tokens
        self.flops += training_flops(
            pl_module.model,  # type: ignore[arg-type]
            tokens=counts.tokens,
            source_tokens=counts.source_tokens,
            scored=counts.scored or counts.tokens,
            length=counts.tokens / rows,
        )
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._log(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what the model that was validated has cost."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._log(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what all of it has cost."""
        self._log(trainer)

    def _log(self, trainer: Trainer) -> None:
        """Log once a step, and not before the first is complete."""
        if trainer.global_step > self._logged:
            self._logged = trainer.global_step
            values = {"budget/source_tokens": float(self.source_tokens), "budget/flops": self.flops}
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)

    def state_dict(self) -> dict[str, float]:
        """Counters go on after a resume."""
        return {"source_tokens": self.source_tokens, "flops": self.flops, "logged": self._logged}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters of the checkpoint."""
        self.source_tokens, self.flops = state_dict["source_tokens"], state_dict["flops"]
        self._logged = state_dict.get("logged", 0)


def arm_card(model: MetaTransformer, data: Data) -> dict[str, Any]:
    """Return the contents of `arm.json`.

    Means are those of the training prompts of the target, the last phase of a curriculum; for text, of its blocks.
    """
    length, marks = data.mean_length, data.marks_per_prompt
    differs = differences(model.config, data.placement if marks else "none")
    flops = flops_per_prompt(model, data)
    return {
        "arm": arm_name(differs, data.usual_placement),
        "differs": differs,
        "data": data.title,
        "seed": data.seed,
        "parameters": model.n_parameters(),
        "flops_per_source_token": flops / (length - marks),
        "flops_per_token": flops / length,
        "meta_share": data.meta_share,
        "marks_per_prompt": marks,
        "mean_length": length,
        "longest": data.block_length,
        "reach": asdict(model.reach(even(data.block_length, data.meta_share))),
        "scored_text": asdict(data.scored_text()),
        "trained_text": {"fingerprint": data.trained_text(FIRST).fingerprint, "windows": FIRST},
    }


OTHERS = {
    "drop_at": "drops",
    "drop_from": "from step",
    "extra_position": "position",
    "denominator": "denominator",
    "gate": "gate",
    "separators": "separators",
}
"""Other axes, where an arm does not stand at the usual point, and how its name says so."""


def differences(config: TransformerConfig, placement: str) -> dict[str, Any]:
    """Return an arm's point on the axes; a mechanism that does nothing, because it has no layers, is none."""
    idle = config.built_mechanism.idle
    usual = {field.name: field.default for field in fields(config)} | {"separators": []}
    others = {key: getattr(config, key) for key in OTHERS if getattr(config, key) != usual[key]}
    name, recurrent = config.recurrence, {}
    if name != usual["recurrence"]:
        recurrent = {"recurrence": {"name": name, **recurrences.AXIS.filled(name, config.recurrence_options)}}
    return {
        "placement": placement,
        "pattern": config.pattern,
        "pattern_options": patterns.AXIS.filled(config.pattern, config.pattern_options),
        "mechanism": "none" if idle else config.mechanism,
        "mechanism_options": {} if idle else mechanisms.AXIS.filled(config.mechanism, config.mechanism_options),
        **others,
        **recurrent,
    }


def arm_name(differs: dict[str, Any], usual: str) -> str:
    """Return a short name: ``meta``, ``meta (every)``, ``meta (shared, layers 1 3)``; arms that differ never share one.

    Args:
        differs: what `differences` returns. usual: the placement that goes without saying.
    """
    marked, mechanism = differs["placement"] != "none", differs["mechanism"]
    without = "pause" if marked else "plain"
    name = without if mechanism == "none" else mechanism
    parts = []
    if differs["placement"] != usual and name != "plain":
        parts.append(differs["placement"] if marked else "no marks")
    parts += mechanisms.build(mechanism, **differs["mechanism_options"]).says()
    if differs["pattern"] != USUAL_PATTERN:
        said = [differs["pattern"], *differs["pattern_options"].values()]
        while said[-1] is None:  # an option that was not given
            said.pop()
        parts.append(" ".join(map(str, said)))
    if "recurrence" in differs:
        parts.append(" ".join(map(str, differs["recurrence"].values())))
    parts += [f"{said} {differs[key]}" for key, said in OTHERS.items() if key in differs]
    return f"{name} ({', '.join(parts)})" if parts else name
