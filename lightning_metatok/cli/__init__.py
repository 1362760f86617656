"""The only door: `lightning-metatok VERB ...`.

This file stays light: `--help` must answer at once, so a verb's module (and torch behind it) is imported only when the
verb is called. A user's mistake ends in one line on stderr and exit code 2.
"""

import io
import os
import sys
from collections.abc import Sequence

from lightning_metatok import __version__, runtime, signals
from lightning_metatok.cli.endings import BROKEN_PIPE, end_quietly, ending, give_up, say, silence
from lightning_metatok.cli.short_help import long_help, short_help
from lightning_metatok.errors import UserError, nearest

# verb -> (module with `main(verb, argv) -> exit code`, what it does)
VERBS = {
    "init": ("lightning_metatok.cli.init", "conf/ and sweeps/ as files of your own: [FOLDER]"),
    "prepare": ("lightning_metatok.cli.prepare", "text to tokens ahead, on all cores: --config conf/base.yaml"),
    "fit": ("lightning_metatok.cli.training", "train a model: --config conf/base.yaml"),
    "validate": ("lightning_metatok.cli.training", "validation loss of a checkpoint: --ckpt_path CKPT"),
    "test": (
        "lightning_metatok.cli.training",
        "loss and position ablation of a checkpoint: --ckpt_path CKPT",
    ),
    "predict": ("lightning_metatok.cli.training", "write the loss of every source token: --ckpt_path CKPT"),
    "generate": ("lightning_metatok.cli.generate", "continue a prompt: --ckpt_path CKPT --prompt TEXT"),
    "probe": ("lightning_metatok.cli.probe", "look inside a model: --ckpt_path CKPT [--config conf/probe/full.yaml]"),
    "export": (
        "lightning_metatok.cli.export",
        "write a checkpoint for Hugging Face transformers: --ckpt_path CKPT --to DIR",
    ),
    "import": (
        "lightning_metatok.cli.import_",
        "start from a model of Hugging Face: --from MODEL --to DIR [--mechanism meta]",
    ),
    "evaluate": (
        "lightning_metatok.cli.evaluate",
        "tasks of lm-evaluation-harness, or long documents: --ckpt_path CKPT --tasks NAME,NAME | --text FILE",
    ),
    "compare": ("lightning_metatok.cli.compare", "arms side by side, at equal budgets: RUN [RUN ...]"),
    "show": ("lightning_metatok.cli.show", "what a configuration comes to, and which file says so: --config FILE"),
    "ls": ("lightning_metatok.cli.ls", "the runs under a folder: arm, seed, step, loss, age: [FOLDER]"),
    "diff": ("lightning_metatok.cli.diff", "what two runs differ in, keys and metrics: RUN RUN"),
    "sweep": ("lightning_metatok.cli.sweep", "many runs from one file: plan | run | status | cancel | retry | collect"),
    "report": ("lightning_metatok.cli.report", "which arm wins, at which length, how sure, as a page: SWEEP.yaml"),
    "dashboard": ("lightning_metatok.cli.dashboard", "the same in TensorBoard, arms overlaid: SWEEP.yaml"),
    "replay": ("lightning_metatok.cli.replay", "make a step again whose loss or gradient was not finite: RUN"),
    "completion": ("lightning_metatok.cli.completion", "a script that completes options in your shell: bash | zsh"),
    "doctor": (
        "lightning_metatok.doctor",
        "what this machine can do: versions, GPU, attention backends, SLURM",
    ),
    "estimate": (
        "lightning_metatok.cli.estimate",
        "what a text run costs on 1 to 64 GPUs: --config FILE --device a100",
    ),
}


def usage() -> str:
    """The text of `lightning-metatok --help`."""
    verbs = "\n".join(f"  {verb:<11} {text}" for verb, (_, text) in VERBS.items())
    return (
        "usage: lightning-metatok VERB [options]\n\n"
        "Language models with learned meta-tokens: train, ablate, generate.\n\n"
        f"verbs:\n{verbs}\n\n"
        "options:\n"
        "  --help     this text; `lightning-metatok VERB --help` lists the options of a verb\n"
        "  --version  print the version\n\n"
        "Every key of a YAML file can be given on the command line; --config can be repeated (the last one wins):\n"
        "  lightning-metatok fit --config conf/base.yaml --config conf/arm/plain.yaml --trainer.max_steps=200"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code.

    0 done, 2 a user's mistake or what the machine refuses, 3 a loss or gradient that is not finite, 4 a data worker
    died, 128 + n ended by signal n.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    write_any_text()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # here, where a reader that has gone can still be said in one line
        return code
    except BaseException as error:
        try:
            return _end(error)
        except MemoryError:  # not even one for the line: the interpreter's end would print many
            give_up()


def _end(error: BaseException) -> int:
    """Say in one line how it ended, and return the exit code; raise `error` again where it is a bug."""
    end = ending(error)
    if end is None:
        raise
    if end.code == BROKEN_PIPE:
        silence(sys.stdout.fileno())
    say(end.line)
    end_quietly()
    return end.code


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = arguments
    check_text(arguments)
    if verb not in VERBS:
        raise UserError(f"{verb}: no such verb{nearest(verb, VERBS)} (one of {', '.join(VERBS)})")
    if (text := short_help(verb, rest)) is not None:
        print(text)
        return 0
    rest = long_help(verb, rest)
    runtime.prepare()  # before torch is imported
    module, _ = VERBS[verb]
    # A fit takes its checkpoint before it obeys a signal, also one that comes while torch is loaded.
    with signals.only_set_a_flag() if verb == "fit" else signals.end_at_once():
        return int(runtime.load(module).main(verb, rest) or 0)


def check_text(arguments: Sequence[str]) -> None:
    """Raise `UserError` for an argument whose bytes are no text: it could not stand in a file of the run."""
    for argument in arguments:
        if not argument.isprintable() and any("\ud800" <= character <= "\udfff" for character in argument):
            key, given, value = argument.partition("=")
            named = f"{key}={value!r}" if given and key.isprintable() else repr(argument)
            raise UserError(f"{named}: expected text in UTF-8")


def write_any_text() -> None:
    """Let characters that the terminal's encoding lacks (LANG=C) be written as escapes instead of ending the run.

    What was closed (`>&-`) goes nowhere: else the first file that is opened would take its place, and its text.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
