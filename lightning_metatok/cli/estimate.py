"""`estimate`: what a text run costs on 1 to 64 GPUs, before it is started.

    lightning-metatok estimate --config conf/metatok_1b_c4.yaml --device h100 --gpus 8 16 64

A dry run: the model is built without memory, no data are read, nothing is downloaded, nothing is trained. Options of
`fit` (--model.n_layers=24) are taken, too. `report/cost_model.py` has the formulas; what is assumed is printed.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lightning_metatok.cli.estimate_tables import (
    Planned,
    assumptions,
    memory_table,
    parts_table,
    scaling_ends,
    speed_table,
    work,
)
from lightning_metatok.cli.output_file import check_output, writing
from lightning_metatok.console import printer
from lightning_metatok.devices import DEVICES, device
from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.report import cost_model
from lightning_metatok.report.hardware import Network, format_of

GPUS = (1, 2, 4, 8, 16, 32, 64)
MFU = 0.4
"""Share of the peak that a well-fed GPU reaches with models of this size; nothing here was measured on one."""
LINK_SHARE = 0.8
"""Share of a published link that a ring collective reaches."""
NODE_GB_PER_S = 25.0
"""One adapter of 200 Gbit/s a node."""
HIDDEN = 0.8
LATENCY_US = 5.0


def build_parser() -> OptionParser:
    """Options of the verb, those of `fit` left out."""
    parser = OptionParser(prog="lightning-metatok estimate", description=__doc__)
    add = parser.add_argument
    add("--config", "-c", action="append", default=[], metavar="FILE", help="as of `fit`; repeated, the last one wins")
    add("--gpus", type=int, nargs="+", default=list(GPUS), metavar="N", help="numbers of GPUs (1 2 4 ... 64)")
    add("--device", default="a100", help=f"one of {', '.join(DEVICES)} (a100)")
    add("--mfu", type=float, help=f"share of its peak that one GPU reaches: an assumption ({MFU})")
    add("--measured_tokens_per_s", type=float, metavar="N", help="speed of one GPU, instead of peak x MFU")
    add("--global_batch", type=int, metavar="BLOCKS", help="blocks a step over all GPUs, instead of the config's")
    add("--gpus_per_node", type=int, default=8, metavar="N", help="(8)")
    add("--link_gb_per_s", type=float, metavar="GB/S", help=f"of a GPU inside a node ({LINK_SHARE} x its data sheet)")
    add(
        "--network_gb_per_s",
        type=float,
        default=NODE_GB_PER_S,
        metavar="GB/S",
        help=f"of a node, all its adapters together ({NODE_GB_PER_S:g}: one of 200 Gbit/s)",
    )
    add("--latency_us", type=float, default=LATENCY_US, metavar="US", help=f"of one hop of a ring ({LATENCY_US:g})")
    add("--hidden", type=float, default=HIDDEN, help=f"share of traffic that can run beside computation ({HIDDEN})")
    add("--figure", type=Path, metavar="FILE", help="draw tokens/s and efficiency against GPUs, as PNG")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the tables, and draw the figure if one was asked for."""
    arguments, of_fit = parse(argv)
    gpu = device(arguments.device)
    run = read_run([*(f"--config={path}" for path in arguments.config), *of_fit], arguments.global_batch)
    single = arguments.measured_tokens_per_s
    if single is None:
        mfu = MFU if arguments.mfu is None else arguments.mfu
        single = cost_model.single_gpu_tokens_per_s(run.job, gpu.peak_flop_per_s, mfu)
    link = gpu.link_bytes_per_s * LINK_SHARE if arguments.link_gb_per_s is None else arguments.link_gb_per_s * 1e9
    network = Network(
        gpus_per_node=arguments.gpus_per_node,
        link_bytes_per_s=link,
        node_bytes_per_s=arguments.network_gb_per_s * 1e9,
        latency_s=arguments.latency_us / 1e6,
        hidden=arguments.hidden,
    )
    gpus = sorted(set(arguments.gpus))
    console = printer()
    for shown in (
        parts_table(run),
        *work(run),
        memory_table(run.job, gpus, arguments.device, gpu),
        speed_table(run.job, gpus, single, network),
        *scaling_ends(run.job, single, network),
        *assumptions(run, gpu, single, network, measured=arguments.measured_tokens_per_s is not None),
    ):
        console.print(shown, highlight=False, markup=False, soft_wrap=True)
    if arguments.figure is not None:
        from lightning_metatok.report.cost_figure import draw

        with writing("--figure", arguments.figure):
            draw(run.job, single, network, f"{run.name} on {arguments.device}", arguments.figure)
    return 0


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return this verb's options, checked, and those that `fit` has, as they were given.

    Raises:
        UserError: an unknown option, or a value that cannot work.
    """
    parser = build_parser()
    arguments, of_fit = parser.parse_known_args(list(argv))
    own = [option for action in parser._actions for option in action.option_strings]
    for option in (word.partition("=")[0] for word in of_fit if word.startswith("-")):
        if "." not in option and not _is_number(option):  # options of `fit` that matter here lie in a group
            raise UserError(f"unknown option '{option}'{nearest(option, own)}")
    if not arguments.config:
        raise UserError("--config: expected a configuration as `fit` takes it, such as conf/metatok_1b_c4.yaml")
    if arguments.mfu is not None and arguments.measured_tokens_per_s is not None:
        raise UserError("--mfu: no assumption is needed beside --measured_tokens_per_s; expected one of the two")
    positive = "a positive number"
    for name, valid, expected in (
        ("gpus", lambda n: n >= 1, "1 or more"),
        ("mfu", lambda share: 0 < share <= 1, "a share in (0, 1]"),
        ("measured_tokens_per_s", lambda value: 0 < value < math.inf, positive),
        ("global_batch", lambda n: n >= 1, "1 or more blocks"),
        ("gpus_per_node", lambda n: n >= 1, "1 or more"),
        ("link_gb_per_s", lambda value: 0 < value < math.inf, positive),
        ("network_gb_per_s", lambda value: 0 < value < math.inf, positive),
        ("latency_us", lambda value: 0 <= value < math.inf, "0 or more"),
        ("hidden", lambda share: 0 <= share <= 1, "a share from 0 to 1"),
    ):
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not valid(value):
                raise UserError(f"--{name}={value}: expected {expected}")
    check_output("--figure", arguments.figure)
    return arguments, of_fit


def _is_number(word: str) -> bool:
    return word[1:2].isdigit()


def read_run(argv: Sequence[str], global_batch: int | None) -> Planned:
    """Return the run that `fit` with these arguments would start; only its configuration is read.

    Raises:
        UserError: what `fit` would refuse, a recall task, or a run without an end.
    """
    import torch

    from lightning_metatok.cli.kinds import KINDS
    from lightning_metatok.cli.training import TrainingCLI
    from lightning_metatok.cli.training_parser import quiet
    from lightning_metatok.lit import MetaTokenDataModule
    from lightning_metatok.lit.budget import read_budget
    from lightning_metatok.lit.data.fits import check_lengths
    from lightning_metatok.lit.data.objective import check_objective
    from lightning_metatok.lit.optim import OptimizerConfig
    from lightning_metatok.lit.optimizer_state import state_bytes
    from lightning_metatok.lit.spending import step_cost
    from lightning_metatok.model import TransformerConfig
    from lightning_metatok.model.attention.reach import even
    from lightning_metatok.model.build import own

    class Reader(TrainingCLI):
        def before_instantiate_classes(self) -> None:
            """Look for no checkpoint, lock no folder."""

        def instantiate_classes(self) -> None:
            """Build nothing."""

    quiet()
    cli = Reader("fit", list(argv))
    config = cli.config.as_dict()
    if cli.kind is not KINDS["text"]:
        raise UserError(f"data.task={config['data']['task']}: expected a run on text; prompts of a task vary in length")
    trainer, known = config["trainer"], {field.name for field in fields(TransformerConfig)}
    form = format_of(str(trainer["precision"]))
    budget = read_budget(trainer["budget"])
    if trainer["max_steps"] < 1 and not budget.given:
        raise UserError(
            f"trainer.max_steps={trainer['max_steps']}: expected a number of steps: a run without end has no cost"
        )
    data = MetaTokenDataModule(**config["data"])
    with torch.device("meta"):
        model = own(TransformerConfig(**{k: v for k, v in config["model"].items() if k in known}))
    if model.positions.needs_task_ids:
        raise UserError(
            f"model.position={model.config.position!r}: expected another: its ids come from a task, not text"
        )
    check_objective(model.config, data.config)
    check_lengths(model, data)
    notes = []
    if global_batch is None:
        devices, nodes = trainer["devices"], trainer["num_nodes"] or 1
        n = len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 0
        if n == 0:
            notes.append(
                f"trainer.devices={devices} does not say how many blocks make a step: taken as one GPU a node; "
                "--global_batch says it"
            )
        global_batch = data.batch_size * (trainer["accumulate_grad_batches"] or 1) * max(n, 1) * nodes
    if model.positions.transforms_scores:
        notes.append(
            f"model.position={config['model']['position']} transforms attention scores: that work, and the memory for "
            "it, is not counted, and may be a multiple of attention's own"
        )
    notes.append(f"reach: {model.reach(even(data.block_length, data.meta_share))}")
    steps = trainer["max_steps"]
    if budget.given:
        steps = budget.steps(step_cost(model, data, global_batch / data.batch_size))
    optimizer = OptimizerConfig(**config["model"]["optimizer"])
    with torch.device("meta"):
        kept = state_bytes(model.to(getattr(torch, form.dtype)), optimizer)
    if kept is None:
        notes.append(f"model.optimizer.name={optimizer.name} steps on numbers alone: taken to keep what AdamW does")
    job = cost_model.job(
        model,
        form,
        length=data.block_length,
        meta_share=data.meta_share,
        micro_batch=data.batch_size,
        global_batch=global_batch,
        steps=steps,
        state_bytes=kept,
    )
    name = Path(config["run_dir"]).name
    return Planned(name, job, cost_model.parts(model), data.meta_share, optimizer.name, notes)
