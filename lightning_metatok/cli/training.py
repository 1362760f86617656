"""`fit`, `validate`, `test` and `predict`: LightningCLI around MetaTokenLM and its data, text or a recall task.

One parser for all four verbs, so that `${model.d_model}` is the same key in every file and follows what is given on the
command line (jsonargparse's subcommands would put the verb in front of it). Which keys there are depends on the kind of
data: a recall task if `data.task` names one, else text.
"""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_metatok import signals
from lightning_metatok.cli.base import with_base
from lightning_metatok.cli.bounds import check_bounds, check_machine
from lightning_metatok.cli.interpolations import Records
from lightning_metatok.cli.kinds import KINDS, check_names
from lightning_metatok.cli.memory import check_memory
from lightning_metatok.cli.options import Options
from lightning_metatok.cli.own_config import AUTO, going_on, names_a_task, run_folder_of, with_own_config
from lightning_metatok.cli.run_options import DESCRIPTION
from lightning_metatok.cli.seeds import seed_data, seed_weights
from lightning_metatok.cli.training_parser import (
    MODE,
    Parser,
    class_errors,
    quiet,
    trainer_errors,
)
from lightning_metatok.cli.vocabulary import with_vocabulary
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.lit import MetaTokenLM, TaskDataModule, Trainer
from lightning_metatok.lit.budget import read_budget
from lightning_metatok.lit.callbacks import (
    Dashboard,
    FinalTable,
    PredictionWriter,
    RunState,
    TokenProgress,
)
from lightning_metatok.lit.callbacks.checkpoint import stop, stops_at
from lightning_metatok.lit.checkpoints import CHECKPOINTS
from lightning_metatok.lit.checkpoints.contents import (
    TOKENIZER_KEY,
    check_resumable,
    check_weights,
    read_otherwise,
    weights_of,
)
from lightning_metatok.lit.checkpoints.going_on import go_back, newest_to_go_on_from
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.lit.checkpoints.resume import check_same_run, flat_config, ranks
from lightning_metatok.lit.data.workers import name_dead_worker
from lightning_metatok.lit.loops import stand_at
from lightning_metatok.lit.run.folder import Claim, check_places, claim_run_folder, write_config
from lightning_metatok.lit.run.launch import check_launch
from lightning_metatok.lit.run.lock import RunLock
from lightning_metatok.lit.run.loggers import run_loggers
from lightning_metatok.lit.run.ranks import Meeting, RankLog, end_together, rank, warn
from lightning_metatok.lit.sharded import NAME as SHARDED
from lightning_metatok.lit.spending import follow_budget

RUN_DIR_VARIABLE = "LIGHTNING_METATOK_RUN_DIR"


class TrainingCLI(Options):
    """Parse, build the classes, claim the run folder; `run()` then runs the verb."""

    def __init__(
        self,
        verb: str,
        args: list[str],
        lock: RunLock | None = None,
        rank_log: RankLog | None = None,
        foreign: str | None = None,
        claim: Claim | None = None,
    ) -> None:
        """`foreign`: a configuration in `args` that comes with a checkpoint, and may import nothing of its own."""
        self.verb, self.claim = verb, claim or Claim()
        self.lock, self.rank_log = lock or RunLock(), rank_log or RankLog()
        self.argv, self.foreign = list(args), foreign
        self.dropped: list[str] = []
        self.kind = KINDS["task" if names_a_task(args) else "text"]
        super().__init__(
            MetaTokenLM,
            self.kind.data,
            save_config_callback=None,
            trainer_class=Trainer,
            # An endless stream has no epochs to count; run() says in one line what a model summary would.
            trainer_defaults={"max_steps": 1000, "val_check_interval": 100, "enable_model_summary": False},
            seed_everything_default=1337,
            parser_class=Parser,
            parser_kwargs={
                "parser_mode": MODE,
                "prog": f"lightning-metatok {verb}",
                "description": DESCRIPTION,
                "allow_abbrev": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            run=False,
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and check what no class checks before a seed is set or a folder is made."""
        super().parse_arguments(parser, args)
        self.records = Records(self.parser)
        check_bounds(self.config)
        seed_data(self.config, self.kind.seed)
        check_names(self.config)
        for line in self.dropped:
            warn(line)

    def instantiate_classes(self) -> None:
        """Build them; where rank 0 cannot, the ranks that wait for it hear why."""
        check_machine(self.config)
        check_memory(self.config.as_dict(), trains=self.verb == "fit")
        seed_weights(self.config)
        with (
            self.meeting.tells_errors(),
            class_errors(),
            stops_at(lambda: int(self.checkpoint.get("global_step", 0))),
        ):
            super().instantiate_classes()

    def before_instantiate_classes(self) -> None:
        """A missing or broken checkpoint is named before anything is built; other ranks hear which it is."""
        trainer = self.config.trainer
        check_launch(trainer.devices, trainer.num_nodes, str(trainer.accelerator))
        self.checkpoint: dict[str, Any] = {}
        self.auto = self.config.ckpt_path == AUTO
        self.meeting = Meeting(self.config.run_dir)
        self.heard = self.meeting.hear()
        if self.heard is not None:
            self.config.ckpt_path = self.heard["ckpt_path"]
            self._read_checkpoint()
            return
        with self.meeting.tells_errors():
            self._take_lock()  # before its newest checkpoint is looked for
            if self.auto:
                found = newest_to_go_on_from(Path(self.config.run_dir), warn)
                self.config.ckpt_path = None if found is None else str(found)
            if self.config.ckpt_path is None and self.verb != "fit" and self.config.model.init_from is None:
                raise UserError(f"--ckpt_path: expected a checkpoint to {self.verb}, as `fit` writes them")
            self._read_checkpoint()

    def _read_checkpoint(self) -> None:
        if self.config.ckpt_path is not None:
            in_pieces = self.config.trainer.strategy == SHARDED
            self.checkpoint = read_state(
                Path(self.config.ckpt_path), key="--ckpt_path", assemble=not in_pieces, verify=rank() == 0
            )
            if "hyper_parameters" not in self.checkpoint:
                raise UserError(f"--ckpt_path={self.config.ckpt_path}: expected a checkpoint as `fit` writes them")

    def instantiate_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """Prepare the data, claim the run folder, and build the trainer with this project's callbacks and loggers."""
        self.model.tokenizer = self._carried_tokenizer()
        self.model.dropout_from = self.config.seed.dropout
        if isinstance(self.datamodule, TaskDataModule):
            self.datamodule.carried = self.model.tokenizer
        else:
            self.datamodule.shown = self._kept()["data"]["corpus"]
        # Mistakes in the data and in what the model can read come to light before a folder is made.
        self.datamodule.setup(self.verb)
        self.model.check_data(self.datamodule)
        self.model.tokenizer = self.datamodule.tokenizer
        self._follow_budget()
        self.model.on_load_checkpoint(self.checkpoint)
        if self.checkpoint:
            source = f"--ckpt_path={self.config.ckpt_path}"
            check_weights(self.model.model.state_dict(), weights_of(self.checkpoint), source)
            if rank() == 0:
                print(*(f"{line}\n" for line in read_otherwise(self.checkpoint, self.model.config)), sep="", end="")
        if self.verb == "fit" and self.checkpoint:
            check_resumable(self.checkpoint, self.model, source, self.model.optimizer_config.name)
        if self.verb == "fit" and self.checkpoint:
            trainer = self._get(self.config_init, "trainer")
            check_same_run(self._saved(), self._flat_config(), trainer, self.config.allow_changed)
        self.folder = self._folder()
        self.meeting.tell(folder=str(self.folder), ckpt_path=self.config.ckpt_path)
        self.rank_log.open(self.folder)
        self.config_init.checkpoint.dirpath = str(self.folder / CHECKPOINTS)
        self.parser.callback_keys = list(self.kind.verbs[self.verb])
        # Lightning adds the callbacks that have options of their own; these have none, or depend on the folder.
        given = self._get(self.config_init, "trainer").get("callbacks") or []
        callbacks: list[Callback] = [*(given if isinstance(given, list) else [given]), TokenProgress(), self.meeting]
        if self.verb == "fit":
            self.run_state = RunState(self._flat_config())
            callbacks += [Dashboard(self._config_text(), self._kept()), self.run_state]
        callbacks += [callback() for callback in self.kind.always.get(self.verb, ())]
        if self.verb == "predict":
            callbacks.append(PredictionWriter(self.folder))
        given_options = dict(self._get(self.config_init, "trainer"))
        options = {"callbacks": callbacks, "default_root_dir": str(self.folder)}
        options["logger"] = run_loggers(self.folder, given_options.get("logger"), logs=self.verb != "predict")
        with trainer_errors(given_options, MisconfigurationException, ValueError, TypeError, ImportError):
            trainer = super().instantiate_trainer(**options, **kwargs)
        self.claim.steps = lambda: trainer.global_step
        # Last, so that it prints what the others found.
        trainer.callbacks.append(FinalTable())  # type: ignore[attr-defined]
        if self.checkpoint:
            trainer.checkpoint_io.at_hand = Path(self.config.ckpt_path), self.checkpoint  # type: ignore[attr-defined]
        return trainer

    def run(self) -> None:
        """Run the verb; where a signal ends it, say how it goes on."""
        try:
            self._run()
        except signals.Stopped as stopped:
            stopped.command = going_on(self.verb, self.argv, self.folder)
            raise

    def _run(self) -> None:
        if self.verb == "fit" and self.trainer.is_global_zero:
            self.lock.take(self.folder)
            write_config(self.folder, self._config_text(), int(self.checkpoint.get("global_step", 0)))
            write_atomically(self.folder / "tokenizer.json", self.datamodule.tokenizer.to_json())
            self._go_back()
            print(self._summary())
        step, number = int(self.checkpoint.get("global_step", 0)), signals.received()
        only_ends = step == self.trainer.max_steps and number == signal.SIGUSR1
        if self.verb == "fit" and self.trainer.world_size == 1 and number and not only_ends:
            stop(number, step)  # before a step is made nothing can be lost
        if self.verb != "fit":
            stand_at(self.trainer, step)
        # FinalTable prints what Lightning would, in this project's units.
        quiet_options = {
            "predict": {"return_predictions": False},
            "validate": {"verbose": False},
            "test": {"verbose": False},
        }
        options = quiet_options.get(self.verb, {})
        given_options = dict(self._get(self.config_init, "trainer"))
        kinds = MisconfigurationException, ImportError
        with trainer_errors(given_options, *kinds), name_dead_worker(), stops_at(lambda: self.trainer.global_step):
            getattr(self.trainer, self.verb)(
                self.model, datamodule=self.datamodule, ckpt_path=self.config.ckpt_path, weights_only=True, **options
            )
        end_together()

    def _take_lock(self) -> None:
        """Nobody else may train in the folder that this run goes on in; a new one is taken once it is made."""
        given = None if self.auto else run_folder_of(self.config.ckpt_path)
        folder = Path(self.config.run_dir)
        if folder.is_dir():
            check_places(folder)
        goes_on = self.auto or (given is not None and given.resolve() == folder.resolve())
        if self.verb == "fit" and goes_on and folder.is_dir() and rank() == 0:
            self.lock.take(folder)

    def _follow_budget(self) -> None:
        """Write down the steps that the budget gives: `fit` sets them, once it knows its ranks for sure."""
        options = dict(self._get(self.config_init, "trainer"))
        budget, n_ranks = read_budget(options.get("budget")), ranks(options)
        if self.verb != "fit" or not budget.given or n_ranks is None:
            return
        steps, _ = follow_budget(budget, self.model, self.datamodule, options["accumulate_grad_batches"] * n_ranks)
        for config in (self.config, self.config_init):
            self._get(config, "trainer")["max_steps"] = steps
        self.config.model.optimizer.decay_steps = steps

    def _go_back(self) -> None:
        """Where this run goes on in its folder, nothing there is younger than the checkpoint; run by rank 0."""
        goes_on = self.config.ckpt_path is not None and run_folder_of(self.config.ckpt_path) == self.folder
        if goes_on or self.auto:
            step = int(self.checkpoint.get("global_step", 0))
            self.run_state.lost = go_back(self.folder, step, self._saved(), warn)

    def _saved(self) -> dict[str, Any]:
        """What RunState left in the checkpoint."""
        return dict(self.checkpoint.get("callbacks", {}).get("RunState", {}))

    def _flat_config(self) -> dict[str, Any]:
        return flat_config(self._kept())

    def _summary(self) -> str:
        model, data = self.model.model, self.datamodule
        flops = model.flops_per_token(round(data.mean_length), data.meta_share)
        return (
            f"model: {model.n_parameters():,} parameters, {flops / 1e6:.1f} MFLOP a token in training; "
            f"data: {data.summary()}"
        )

    def _carried_tokenizer(self) -> MetaTokenizer | None:
        """The tokenizer of the checkpoint that weights come from."""
        if TOKENIZER_KEY in self.checkpoint:
            return MetaTokenizer.from_json(self.checkpoint[TOKENIZER_KEY])
        carried: MetaTokenizer | None = self.model.tokenizer
        return carried

    def _folder(self) -> Path:
        wanted, checkpoint = self.config.run_dir, self.config.ckpt_path
        if self.heard is not None:
            return Path(self.heard["folder"])
        if self.verb != "fit":
            folder = (run_folder_of(checkpoint) or Path(wanted)) / self.verb
            check_places(folder)
            self.claim.watch(folder)
            return folder
        if os.environ.get(RUN_DIR_VARIABLE):  # a process that rank 0 launched goes where rank 0 went
            return Path(os.environ[RUN_DIR_VARIABLE])
        self.claim.watch(Path(wanted))
        folder = claim_run_folder(wanted, resume_from=Path(wanted) / CHECKPOINTS if self.auto else checkpoint)
        self.claim.take(folder)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[RUN_DIR_VARIABLE] = str(folder)
        if folder != Path(wanted):
            print(f"{wanted} holds a run already; this one goes to {folder}")
        return folder

    def _config_text(self) -> str:
        return self.records.text(self.config, str(self.folder))

    def _kept(self) -> dict[str, Any]:
        return self.records.values(self.config)


def main(verb: str, argv: Sequence[str]) -> int:
    """Run a verb of the Trainer."""
    argv, foreign = with_own_config(verb, list(argv))
    argv = with_vocabulary(verb, with_base(verb, argv))
    quiet()
    if "LOCAL_RANK" not in os.environ:  # not launched by a rank 0: nobody has chosen the folder yet
        os.environ.pop(RUN_DIR_VARIABLE, None)
    with RunLock() as lock, RankLog() as rank_log, Claim(lock.holds) as claim:
        TrainingCLI(verb, argv, lock, rank_log, foreign, claim).run()
    return 0
