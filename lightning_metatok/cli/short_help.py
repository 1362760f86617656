"""`--help` of the verbs that read a checkpoint, at once: the parser of `fit`, which they share, takes seconds to build.

`--help_all` is that parser's help, with every option.
"""

from collections.abc import Mapping, Sequence

OPTIONS: Mapping[str, str] = {
    "--ckpt_path CKPT": "checkpoint that `fit` wrote; auto: the newest valid one of --run_dir",
    "--config FILE": "laid over the configuration of the checkpoint's run; repeated, the last one wins",
    "--run_dir FOLDER": "folder of the run, where the checkpoint does not lie in one",
}
OF_PROBE: Mapping[str, str] = {
    "--probes=[NAME,...]": "what to ask; all that this checkpoint can answer",
    "--examples N": "held-out prompts or blocks that are looked at",
    "--probe_seed N": "seed of random choices",
    "--probe.NAME.OPTION": "of one probe",
}
VERBS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "validate": ("Validation loss of a checkpoint.", OPTIONS),
    "test": ("Loss and position ablation of a checkpoint.", OPTIONS),
    "predict": ("Write the loss of every source token.", OPTIONS),
    "probe": ("Look inside a model: a CSV and a figure a finding.", {**OPTIONS, **OF_PROBE}),
}
"""Verb -> what it does, and the options that it is most often given."""
ALL = "--help_all"


def short_help(verb: str, argv: Sequence[str]) -> str | None:
    """Return the text for `verb`, None where it has no short help or none was asked for."""
    if verb not in VERBS or not {"-h", "--help"} & {*argv}:
        return None
    does, options = VERBS[verb]
    listed = {**options, ALL: "every option; those of `fit` are options here, too"}
    width = max(map(len, listed)) + 2
    lines = [f"  {option:<{width}}{what}" for option, what in listed.items()]
    return f"usage: lightning-metatok {verb} --ckpt_path CKPT [options]\n\n{does}\n\noptions:\n" + "\n".join(lines)


def long_help(verb: str, argv: Sequence[str]) -> list[str]:
    """Return `argv` as the parser takes it, which calls its own help --help."""
    return ["--help" if verb in VERBS and argument == ALL else argument for argument in argv]
