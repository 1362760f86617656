"""`fit`, `validate`, `test` and `predict`: LightningCLI around MetaTokenLM and its data, text or a recall task.

One parser for all four verbs, so that `${model.d_model}` is the same key in every file and follows what is given on the
command line (jsonargparse's subcommands would put the verb in front of it). Which keys there are depends on the kind of
data: a recall task if `data.task` names one, else text.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_metatok import signals
from lightning_metatok.cli.bounds import check_accelerator, check_bounds
from lightning_metatok.cli.config_files import (
    known_keys,
    value_given,
    values_of,
)
from lightning_metatok.cli.kinds import KINDS
from lightning_metatok.cli.training_parser import CONFIG_OPTIONS, Parser, quiet, read_integers_first, trainer_errors
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.errors import UserError
from lightning_metatok.files import write_atomically
from lightning_metatok.lit import MetaTokenLM, TaskDataModule, Trainer
from lightning_metatok.lit.callbacks import Dashboard, FinalTable, PredictionWriter, RunState, TokenProgress
from lightning_metatok.lit.callbacks.checkpoint import stop, stops_at
from lightning_metatok.lit.checkpoint_contents import TOKENIZER_KEY, check_resumable, check_weights, weights_of
from lightning_metatok.lit.checkpoint_io import forget_after, newest_valid, read_state
from lightning_metatok.lit.loggers import cut_logs, run_loggers
from lightning_metatok.lit.ranks import Meeting, RankLog, rank
from lightning_metatok.lit.resume import check_same_run, flat_config
from lightning_metatok.lit.run_folder import CHECKPOINTS, CONFIG, claim_run_folder
from lightning_metatok.lit.run_lock import RunLock
from lightning_metatok.lit.sharded import NAME as SHARDED
from lightning_metatok.lit.workers import name_dead_worker

DESCRIPTION = "Every option is a key of a YAML file, too: --config FILE, repeated, the last one wins."
RUN_DIR_VARIABLE = "LIGHTNING_METATOK_RUN_DIR"
AUTO = "auto"


class TrainingCLI(LightningCLI):
    """Parse, build the classes, claim the run folder; `run()` then runs the verb."""

    def __init__(
        self, verb: str, args: list[str], lock: RunLock | None = None, rank_log: RankLog | None = None
    ) -> None:
        self.verb, self.lock, self.rank_log = verb, lock or RunLock(), rank_log or RankLog()
        task = value_given("data.task", args, values_of(args, CONFIG_OPTIONS))
        self.kind = KINDS["text" if task is None else "task"]
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
                "parser_mode": "omegaconf+",
                "prog": f"lightning-metatok {verb}",
                "description": DESCRIPTION,
                "allow_abbrev": False,
            },
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=args,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options beside model, data and trainer."""
        parser.add_argument(
            "--run_dir",
            type=str,
            default="runs/run",
            help="Folder of the run; a new run never writes over an old one.",
        )
        parser.add_argument(
            "--ckpt_path",
            type=str | None,
            default=None,
            help="Checkpoint to go on from (fit) or to read (other verbs); auto: the newest valid one of run_dir, "
            "and where there is none, fit starts in run_dir. A fit that goes on in its folder takes away what is "
            "younger than the checkpoint there: later checkpoints and later lines of the logs.",
        )
        parser.add_argument(
            "--allow_changed",
            type=list[str],
            default=[],
            help="Keys that may differ from those of the run that fit goes on with, such as model.optimizer.lr.",
        )
        for key, callback in self.kind.callbacks.items():
            parser.add_lightning_class_args(callback, key)
        read_integers_first(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and check what no class checks before a seed is set or a folder is made."""
        super().parse_arguments(parser, args)
        check_bounds(self.config)

    def instantiate_classes(self) -> None:
        """Build them; where rank 0 cannot, the ranks that wait for it hear why."""
        check_accelerator(str(self.config.trainer.accelerator))
        with self.meeting.tells_errors(), stops_at(lambda: int(self.checkpoint.get("global_step", 0))):
            super().instantiate_classes()

    def before_instantiate_classes(self) -> None:
        """A missing or broken checkpoint is named before anything is built; other ranks hear which it is."""
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
                found = newest_valid(Path(self.config.run_dir) / CHECKPOINTS, _warn)
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
        if isinstance(self.datamodule, TaskDataModule):
            self.datamodule.carried = self.model.tokenizer
        # Mistakes in the data and in what the model can read come to light before a folder is made.
        self.datamodule.setup(self.verb)
        self.model.check_data(self.datamodule)
        self.model.tokenizer = self.datamodule.tokenizer
        self.model.on_load_checkpoint(self.checkpoint)
        if self.checkpoint:
            source = f"--ckpt_path={self.config.ckpt_path}"
            check_weights(self.model.model.state_dict(), weights_of(self.checkpoint), source)
        if self.verb == "fit" and self.checkpoint:
            check_resumable(self.checkpoint, self.model, source)
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
            callbacks += [Dashboard(self._config_text()), RunState(self._flat_config())]
        callbacks += [callback() for callback in self.kind.always.get(self.verb, ())]
        if self.verb == "predict":
            callbacks.append(PredictionWriter(self.folder))
        logger = self._get(self.config_init, "trainer").get("logger")
        if logger in (None, True):
            logger = run_loggers(self.folder) if self.verb != "predict" else False
        given_options = dict(self._get(self.config_init, "trainer"))
        options = {"callbacks": callbacks, "logger": logger, "default_root_dir": str(self.folder)}
        try:
            with trainer_errors(given_options, MisconfigurationException, ValueError, TypeError, ImportError):
                trainer = super().instantiate_trainer(**options, **kwargs)
        except UserError:
            with suppress(OSError):
                self.folder.rmdir()  # it goes only if it is empty, as a new one is
            raise
        # Last, so that it prints what the others found.
        trainer.callbacks.append(FinalTable())  # type: ignore[attr-defined]
        if self.checkpoint:
            trainer.checkpoint_io.at_hand = Path(self.config.ckpt_path), self.checkpoint  # type: ignore[attr-defined]
        return trainer

    def run(self) -> None:
        """Run the verb."""
        if self.verb == "fit" and self.trainer.is_global_zero:
            self.lock.take(self.folder)
            if not (self.folder / CONFIG).exists():
                write_atomically(self.folder / CONFIG, self._config_text())
            self.datamodule.tokenizer.save(self.folder / "tokenizer.json")
            self._go_back()
            print(self._summary())
        step, number = int(self.checkpoint.get("global_step", 0)), signals.received()
        only_ends = step == self.trainer.max_steps and number == signal.SIGUSR1
        if self.verb == "fit" and self.trainer.world_size == 1 and number and not only_ends:
            stop(number, step)  # before a step is made nothing can be lost
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

    def _take_lock(self) -> None:
        """Nobody else may train in the folder that this run goes on in; a new one is taken once it is made."""
        given = None if self.auto else run_folder_of(self.config.ckpt_path)
        folder = Path(self.config.run_dir)
        goes_on = self.auto or (given is not None and given.resolve() == folder.resolve())
        if self.verb == "fit" and goes_on and folder.is_dir() and rank() == 0:
            self.lock.take(folder)

    def _go_back(self) -> None:
        """Where this run goes on in its folder, nothing there is younger than the checkpoint; run by rank 0."""
        goes_on = self.config.ckpt_path is not None and run_folder_of(self.config.ckpt_path) == self.folder
        if goes_on or self.auto:
            forget_after(self.folder / CHECKPOINTS, int(self.checkpoint.get("global_step", 0)))
            if "logs" in self._saved() or not self.checkpoint:
                cut_logs(self.folder, self._saved().get("logs", {}))

    def _saved(self) -> dict[str, Any]:
        """What RunState left in the checkpoint."""
        return dict(self.checkpoint.get("callbacks", {}).get("RunState", {}))

    def _flat_config(self) -> dict[str, Any]:
        return flat_config(self._config_text())

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
            return (run_folder_of(checkpoint) or Path(wanted)) / self.verb
        if os.environ.get(RUN_DIR_VARIABLE):  # a process that rank 0 launched goes where rank 0 went
            return Path(os.environ[RUN_DIR_VARIABLE])
        folder = claim_run_folder(wanted, resume_from=Path(wanted) / CHECKPOINTS if self.auto else checkpoint)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[RUN_DIR_VARIABLE] = str(folder)
        if folder != Path(wanted):
            print(f"{wanted} holds a run already; this one goes to {folder}")
        return folder

    def _config_text(self) -> str:
        return self.parser.dump(self.config, skip_unset=False)


def _warn(message: str) -> None:
    if rank() == 0:  # the processes of other ranks would say it again
        print(f"lightning-metatok: warning: {message}", file=sys.stderr)


def run_folder_of(checkpoint: str | None) -> Path | None:
    """The run folder that a checkpoint lies in: the folder above `checkpoints/` that holds config.yaml."""
    folder = Path(checkpoint).parent.parent if checkpoint and checkpoint != AUTO else None
    return folder if folder is not None and (folder / CONFIG).is_file() else None


def main(verb: str, argv: Sequence[str]) -> int:
    """Run a verb of the Trainer."""
    argv = with_own_config(verb, list(argv))
    quiet()
    if "LOCAL_RANK" not in os.environ:  # not launched by a rank 0: nobody has chosen the folder yet
        os.environ.pop(RUN_DIR_VARIABLE, None)
    with RunLock() as lock, RankLog() as rank_log:
        TrainingCLI(verb, argv, lock, rank_log).run()
    return 0


def with_own_config(verb: str, argv: list[str], *, always: bool = False) -> list[str]:
    """Return `argv` with the configuration of the run folder that its checkpoint lies in, where it names none.

    `always`: also where it names some, which are then laid over it.

    Raises:
        UserError: nothing says what the model is.
    """
    checkpoints, configs = values_of(argv, ("--ckpt_path",)), values_of(argv, CONFIG_OPTIONS)
    if checkpoints and (always or not configs):
        folder = run_folder_of(checkpoints[-1])
        if folder is not None:  # a checkpoint in its run folder brings its own configuration
            return ["--config", str(folder / CONFIG), *argv]
        if not configs and not _describes_itself(argv):
            path = checkpoints[-1]
            why = (
                "expected --config, as no config.yaml stands beside its folder"
                if os.path.isfile(path)
                else "no such file"
            )
            raise UserError(f"--ckpt_path={path}: {why}")
    elif verb != "fit" and not _describes_itself(argv) and not configs:
        raise UserError(f"--ckpt_path: expected a checkpoint to {verb}, as `fit` writes them")
    return argv


def names_of_options(kind: str) -> list[str]:
    """Return the dotted names of all options, for a kind of data in `KINDS`."""

    class Names(TrainingCLI):
        def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
            raise StopIteration(known_keys(parser))

    quiet()
    try:
        Names("fit", ["--data.task=list_recall"] if kind == "task" else [])
    except StopIteration as names:
        return list(names.value)
    raise AssertionError("the parser was not asked")


def _describes_itself(argv: Sequence[str]) -> bool:
    """Whether options say what the model is, or nothing is going to be built."""
    return any(argument.startswith(("--model.", "-h", "--help", "--print_config")) for argument in argv)
