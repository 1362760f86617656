"""`--help` of the verbs around the trainer, at once: the parser of `fit`, which they share, takes seconds to build.

`--help all` is that parser's help, with every option.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

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
OF_FIT: Mapping[str, str] = {
    "--config conf/base.yaml": "a file of options; repeated, the last one wins",
    "--run_dir runs/mine": "where checkpoints, metrics and figures go",
    "--ckpt_path auto": "go on from the newest valid checkpoint of run_dir, or from the one named",
    "--seed_everything 1337": "of weights, text order and dropout; --seed.weights and so on set one alone",
    "--data.corpus my_text.jsonl": "a file, a folder, a list of these, a data set of the hub, or python-stdlib",
    "--data.text_field text": "field that holds the text of a document",
    "--data.tokenizer gpt2": "a name on the hub or a tokenizer.json; unset: data.vocab_size ids are trained",
    "--data.block_size 256": "source tokens in a block",
    "--data.batch_size 16": "blocks in a micro-batch on one device",
    "--data.meta_fraction 0.1": "meta-tokens in a block, as a share of it",
    "--data.meta_placement random": "where they go: random, periodic, punctuation, fixed",
    "--data.task list_recall": "train a recall task instead of text",
    "--model.n_layers 4": "blocks; --model.n_heads and --model.d_model beside it",
    "--model.position rotary": "positional encoding",
    "--model.pattern causal": "what a token may see",
    "--model.mechanism meta": "what meta-tokens do: none, meta, matched, landmark",
    "--model.init_from CKPT": "start from these weights, with a new optimiser",
    "--model.optimizer.lr 4e-3": "highest learning rate; beside it warmup_steps, decay_steps, weight_decay, name",
    "--trainer.max_steps 300": "optimiser steps; --trainer.budget.flops counts otherwise",
    "--trainer.val_check_interval 60": "steps between two validations",
    "--trainer.accumulate_grad_batches 4": "micro-batches in a step",
    "--trainer.devices 2": "GPUs, or processes on CPUs; --trainer.strategy ddp or fsdp2",
    "--trainer.precision auto": "bf16-mixed where the hardware has it, else 32-true",
    "--print_config": "the configuration that these options make, as YAML",
}
"""With the value that an example has."""
VERBS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "fit": ("Train a model.", OF_FIT),
    "validate": ("Validation loss of a checkpoint.", OPTIONS),
    "test": ("Loss and position ablation of a checkpoint.", OPTIONS),
    "predict": ("Write the loss of every source token.", OPTIONS),
    "probe": ("Look inside a model: a CSV and a figure a finding.", {**OPTIONS, **OF_PROBE}),
}
"""Verb -> what it does, and the options that it is most often given."""
ALL, ALL_AS_ONE_WORD = "--help all", "--help_all"
FIRST = {"fit": "[--config FILE ...]"}


def short_help(verb: str, argv: Sequence[str]) -> str | None:
    """Return the text for `verb`, None where it has no short help or none was asked for."""
    if verb not in VERBS or not {"-h", "--help"} & {*argv} or asks_for_all(argv):
        return None
    does, options = VERBS[verb]
    listed = {**options, ALL: "every option" if verb == "fit" else "every option; those of `fit` are options here, too"}
    width = max(map(len, listed)) + 2
    lines = [f"  {option:<{width}}{what}" for option, what in listed.items()]
    usage = f"usage: lightning-metatok {verb} {FIRST.get(verb, '--ckpt_path CKPT')} [options]"
    return f"{usage}\n\n{does}\n\noptions:\n" + "\n".join(lines)


def long_help(verb: str, argv: Sequence[str]) -> list[str]:
    """Return `argv` as the parser takes it, which calls its own help --help."""
    return ["--help"] if verb in VERBS and asks_for_all(argv) else list(argv)


def asks_for_all(argv: Sequence[str]) -> bool:
    """Whether every option is asked for."""
    return ALL_AS_ONE_WORD in argv or any(first in ("-h", "--help") and then == "all" for first, then in pairwise(argv))
