"""`probe`: look inside a trained model. One CSV and one figure a finding in RUN/probe/, and the figures in TensorBoard.

    lightning-metatok probe --ckpt_path runs/base/checkpoints/last.ckpt --config conf/probe/full.yaml
    lightning-metatok probe --ckpt_path CKPT --probes=[patching,cosine] --probe.cosine.layers=[0,3]

The checkpoint's run folder brings the model and the data, as for `test`; what is given here is laid over that.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from lightning_metatok.cli.config_files import values_of
from lightning_metatok.cli.layers import last_value, read_layers
from lightning_metatok.cli.own_config import run_folder_of, with_own_config
from lightning_metatok.cli.training import TrainingCLI
from lightning_metatok.cli.training_parser import quiet, without
from lightning_metatok.console import printer
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.files import write_atomically
from lightning_metatok.lit.checkpoints.contents import weights_of
from lightning_metatok.lit.run.event_file import EventWriter
from lightning_metatok.lit.run.lock import RunLock
from lightning_metatok.lit.run.loggers import image_summary, save_picture
from lightning_metatok.pictures import as_png
from lightning_metatok.probes import PROBES, Finding, Probe, Subject
from lightning_metatok.probes.subject import held_out
from lightning_metatok.registry import has_dot

LARGEST_SEED = 2**32 - 1
"""NumPy's."""


class ProbeCLI(TrainingCLI):
    """Parse, load the checkpoint, ask its probes."""

    adds_options = True

    def __init__(
        self, verb: str, args: list[str], lock: RunLock, *, own_folder: bool = False, foreign: str | None = None
    ) -> None:
        """`own_folder`: findings go to `run_dir`, not to the run that the checkpoint lies in."""
        self.own_folder = own_folder
        self.probes = {**PROBES, **others(args, foreign)}
        super().__init__(verb, args, lock, foreign=foreign)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of the verb beside those of a run."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--probes",
            type=list[str] | None,
            default=None,
            help=f"What to ask, of {', '.join(PROBES)}, or classes by their dotted paths; null: all names that this "
            "checkpoint can answer.",
        )
        parser.add_argument("--examples", type=int, default=512, help="Held-out prompts or blocks that are looked at.")
        parser.add_argument("--probe_seed", type=int, default=0, help="Seed of random choices: nulls, folds, partners.")
        for name, probe in self.probes.items():
            parser.add_class_arguments(probe, f"probe.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and check the options of the verb itself."""
        super().parse_arguments(parser, args)
        if self.config.examples < 1:
            raise UserError(f"--examples={self.config.examples}: expected 1 or more")
        if not 0 <= self.config.probe_seed <= LARGEST_SEED:
            raise UserError(f"--probe_seed={self.config.probe_seed}: expected a seed from 0 to {LARGEST_SEED}")
        for name in self.config.probes or ():
            if key_of(name) not in self.probes:
                raise UserError(f"--probes={name}: expected one of {', '.join(PROBES)}{nearest(name, PROBES)}")

    def run(self) -> None:
        """Ask every probe, writing what it found before the next one is asked."""
        subject = self._subject()
        chosen = self._chosen(subject)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            why = error.strerror
            raise UserError(f"run_dir={self.folder.parent}: cannot make the folder {self.verb} in it: {why}") from error
        step = int(self.checkpoint.get("global_step", 0))
        findings: list[tuple[str, Finding]] = []
        seconds: dict[str, float] = {}
        with progress_bar(len(chosen)) as (progress, next_one):
            subject = replace(subject, progress=progress)
            for name, probe in chosen.items():
                next_one(name)
                start = time.monotonic()
                for finding in probe.run(subject):
                    write_finding(self.folder, finding, step)
                    findings.append((name, finding))
                seconds[name] = round(time.monotonic() - start, 2)
        about = {
            "checkpoint": Path(self.config.ckpt_path).name if self.config.ckpt_path else None,
            "step": step,
            "examples": subject.n_examples,
            "seed": subject.seed,
            "findings": [finding.name for _, finding in findings],
            "seconds": seconds,
        }
        write_atomically(self.folder / "probe.json", json.dumps(about, indent=1) + "\n")
        print_findings(findings, self.folder)

    def _subject(self) -> Subject:
        data, module = self.datamodule, self.model
        module.config.check_writes()
        if self.checkpoint:
            module.model.load_state_dict(weights_of(self.checkpoint))
        module.separate_documents = data.separate_documents
        module.scores_answers_only = getattr(data, "scores_answers_only", False)
        device = self.trainer.strategy.root_device
        module.to(device).eval()
        examples, batches = held_out(data, self.config.examples)
        return Subject(
            module,
            data,
            [batch.to(device) for batch in batches],
            examples,
            device,
            self.config.probe_seed,
            sum(len(batch.tokens_BT) for batch in batches),
            label=self.folder.parent.name,
        )

    def _chosen(self, subject: Subject) -> dict[str, Probe]:
        """The probes to ask, by name; every one is checked before anything is written."""
        subject.config.check_can("probes")
        built = self._get(self.config_init, "probe")
        chosen: dict[str, Probe] = {}
        for name in dict.fromkeys(self.config.probes or PROBES):
            name = key_of(name)
            probe: Probe = built[name]
            if (reason := probe.cannot(subject)) is not None:
                if self.config.probes is not None:
                    raise UserError(f"--probes={name}: {reason}")
                print(f"probe: left out {name}: {reason}")
                continue
            probe.check(subject)
            chosen[name] = probe
        if not chosen:
            raise UserError("--probes: there is nothing to ask this checkpoint; expected one of a recall task")
        return chosen

    def _take_lock(self) -> None:
        """Nobody may train in a run, or probe it, while its folder is read and written to."""
        folder = self._run_folder()
        if folder.is_dir():
            self.lock.take(folder)

    def _run_folder(self) -> Path:
        given = run_folder_of(self.config.ckpt_path)
        return Path(self.config.run_dir) if given is None or self.own_folder else given

    def _folder(self) -> Path:
        return self._run_folder() / self.verb


def key_of(name: str) -> str:
    """Where the options of a probe stand, under `probe`: its name, for a class by its dotted path the name in it."""
    return PROBES.resolve(name).name if has_dot(name) else name


def others(argv: Sequence[str], foreign: str | None) -> dict[str, type[Probe]]:
    """Return the probes that `argv` asks for by dotted paths, by the names in them: they have options, too.

    What the configuration `foreign` alone asks for is not looked at.

    Raises:
        UserError: there is no such class, or it has the name of another probe.
    """
    layers = read_layers(argv if foreign is None else without(argv, foreign), (), skip_unreadable=True)
    asked = last_value(layers, "probes")
    found: dict[str, type[Probe]] = {}
    for name in dict.fromkeys(asked if isinstance(asked, list) else ()):
        if isinstance(name, str) and has_dot(name):
            probe = PROBES.resolve(name)
            key = getattr(probe, "name", None)
            if not isinstance(key, str) or not key.isidentifier():
                raise UserError(f"--probes={name}: its name is {key!r}; expected a word, which its files are called by")
            if PROBES.get(key, found.get(key, probe)) is not probe:
                raise UserError(f"--probes={name}: its name {key!r} is that of another probe")
            found[key] = probe
    return found


def write_finding(folder: Path, finding: Finding, step: int) -> None:
    """Write NAME.csv and NAME.png, each whole or not at all, and show the figure in TensorBoard."""
    write_atomically(folder / f"{finding.name}.csv", finding.table.to_csv(index=False, float_format="%.6g"))
    picture = as_png(finding.figure)
    save_picture(picture, folder / f"{finding.name}.png")
    writer = EventWriter(log_dir=str(folder))
    writer._get_file_writer().add_summary(image_summary(f"probe/{finding.name}", finding.figure, picture), step)
    if finding.says:
        writer.add_text(f"probe/{finding.name}", finding.says, global_step=step)
    writer.close()


def print_findings(findings: Sequence[tuple[str, Finding]], folder: Path) -> None:
    """The closing table."""
    from rich.table import Table

    table = Table("finding", "what it says", title=f"{len(findings)} findings in {folder}", title_justify="left")
    for _, finding in findings:
        table.add_row(finding.name, finding.says or "see the figure")
    printer().print(table)


@contextmanager
def progress_bar(total: int) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """Give (what a probe reports to, what says which probe is next); bars on stderr where that is a terminal."""
    if not sys.stderr.isatty():
        yield (lambda what, done, total: None), (lambda name: None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        outer, inner = bar.add_task("probes", total=total), bar.add_task("", total=None)
        asked = 0

        def next_one(name: str) -> None:
            nonlocal asked
            bar.update(outer, description=f"probe {name}", completed=asked)
            bar.reset(inner, description="", total=None)
            asked += 1

        def show(what: str, done: int, of: int) -> None:
            bar.update(inner, description=what, completed=done, total=of)

        yield show, next_one


def main(verb: str, argv: Sequence[str]) -> int:
    """Probe a checkpoint."""
    argv = list(argv)
    own_folder = bool(values_of(argv, ("--run_dir",)))
    argv, foreign = with_own_config(verb, argv, always=True)
    quiet()
    with RunLock() as lock:
        ProbeCLI(verb, argv, lock, own_folder=own_folder, foreign=foreign).run()
    return 0
