"""`estimate`: what a configuration costs on N GPUs, before anything is bought. Nothing is built, read or trained."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_metatok.errors import OptionParser, UserError, nearest
from lightning_metatok.report import cost_model
from lightning_metatok.report.cost_model import COMPUTED, HARDWARE, MODES, Assumptions, Hardware, Workload

TABLE_WIDTH = 165
PARTS = ("embedding", "positions", "meta_attention", "attention", "mlp", "head", "norm")
"""What a weight belongs to: the first that its name holds."""


def build_parser() -> OptionParser:
    """Options beside those of `fit`."""
    parser = OptionParser(
        prog="lightning-metatok estimate",
        description=f"{__doc__}\nEvery option of `fit` can be given, too.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    given = Assumptions()
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 16, 32, 64], help="numbers of GPUs")
    parser.add_argument("--hardware", default="a100", help=f"one of {', '.join(HARDWARE)} (a100)")
    parser.add_argument("--mfu", type=float, default=given.mfu, help="share of its peak that one GPU reaches (0.4)")
    parser.add_argument("--measured_tokens_per_s", type=float, help="of one GPU: takes the place of --mfu")
    parser.add_argument("--peak_tflop_per_s", type=float, help="of a GPU, instead of the hardware's")
    parser.add_argument("--memory_gb", type=float, help="of a GPU, in 10^9 bytes, instead of the hardware's")
    parser.add_argument("--link_gb_per_s", type=float, help="between GPUs of a machine, instead of the hardware's")
    parser.add_argument("--network_gb_per_s", type=float, help="of a machine, instead of the hardware's")
    parser.add_argument(
        "--link_efficiency", type=float, default=given.link_efficiency, help="share of these that is reached (0.7)"
    )
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print parameters, memory, speed and time."""
    arguments, rest = build_parser().parse_known_args(list(argv))
    hardware, given = _hardware(arguments), _assumptions(arguments)
    if not rest:
        raise UserError("--config: expected a configuration, such as conf/metatok_1b_c4.yaml")
    from lightning_metatok.cli.training import parsed

    config = parsed(rest)
    work, parts = workload(config)
    wrong = [n for n in arguments.gpus if not 1 <= n <= work.rows_per_step]
    if wrong:
        raise UserError(f"--gpus={wrong[0]}: expected 1 to {work.rows_per_step}, the rows of a step")
    console = Console(highlight=False)
    console.width = max(console.width, TABLE_WIDTH)
    show(console, work, parts, sorted(set(arguments.gpus)), hardware, given)
    return 0


def workload(config: Any) -> tuple[Workload, Counter[str]]:
    """What a whole configuration of `fit` trains, and the parameters of each part; no weight gets memory.

    Raises:
        UserError: a recall task, whose lengths are not known before it is drawn, or a mistake in the model.
    """
    import torch

    from lightning_metatok.lit import MetaTokenDataModule
    from lightning_metatok.model import MetaTransformer, TransformerConfig

    if config.get("data.task") is not None:
        raise UserError("data.task: expected text: the lengths of a task are not known before it is drawn")
    names = {field.name for field in fields(TransformerConfig)}
    chosen = config.model.as_dict()
    shape = TransformerConfig(**{key: value for key, value in chosen.items() if key in names})
    data = MetaTokenDataModule(**config.data.as_dict())
    with torch.device("meta"):
        model = MetaTransformer(shape)
    parts: Counter[str] = Counter()
    for name, weight in model.named_parameters():
        parts[next(part for part in (*PARTS, name) if part in name)] += weight.numel()
    blocks = sum(weight.numel() for weight in model.blocks.parameters())
    trainer = config.trainer
    ranks = _count(trainer.devices) * int(trainer.num_nodes)
    precision = str(trainer.precision)
    if precision not in COMPUTED:
        raise UserError(f"trainer.precision={precision!r}: expected one of {', '.join(COMPUTED)} for an estimate")
    return Workload(
        parameters=model.n_parameters(),
        block_parameters=blocks // shape.n_blocks,
        outer_parameters=model.n_parameters() - blocks,
        n_layers=shape.n_layers,
        d_model=shape.d_model,
        mlp_dim=shape.mlp_dim,
        vocab_size=shape.vocab_size,
        meta_share=data.meta_share if shape.meta_attention else 0.0,
        length=data.block_length,
        rows=data.batch_size,
        rows_per_step=data.batch_size * int(trainer.accumulate_grad_batches) * ranks,
        steps=int(trainer.max_steps),
        flops_per_token=model.flops_per_token(data.block_length, data.meta_share),
        compute_bytes=COMPUTED[precision],
    ), parts


def show(
    console: Console, work: Workload, parts: Counter[str], gpus: list[int], hardware: Hardware, given: Assumptions
) -> None:
    """Print it."""
    shares = ", ".join(f"{part} {n / 1e6:,.1f} M" for part, n in parts.most_common())
    alone = cost_model.single_gpu_tokens_per_s(work, hardware, given)
    source = "measured, as given" if given.tokens_per_s else f"not measured: {given.mfu:.0%} of its peak assumed"
    console.print(
        f"parameters: {work.parameters:,} ({shares})\n"
        f"a step: {work.rows_per_step:,} rows of {work.length:,} tokens, {work.tokens_per_step:,} tokens; "
        f"{work.steps:,} steps, {work.steps * work.tokens_per_step / 1e9:,.1f} G tokens\n"
        f"computing: {work.flops_per_token / 1e9:.2f} GFLOP a token in training (without positions, norms, look-ups)\n"
        f"hardware: {hardware.name}; {hardware.peak_flop_per_s / 1e12:,.0f} TFLOP/s, "
        f"{hardware.link_bytes_per_s / 1e9:,.0f} GB/s between GPUs, {hardware.network_bytes_per_s / 1e9:,.0f} GB/s "
        f"between machines, of which {given.link_efficiency:.0%} are assumed\n"
        f"one GPU alone: {alone:,.0f} tokens/s ({source})",
        soft_wrap=True,
    )
    for mode in MODES:
        table = Table(title=_TITLES[mode], title_justify="left")
        for name in _COLUMNS:
            table.add_column(name, justify="right")
        for n in gpus:
            one = cost_model.estimate(work, mode, n, hardware, given)
            most = cost_model.fitting_rows(work, mode, n, hardware)
            kept = one.memory
            table.add_row(
                str(n),
                f"{one.rows} x {one.micro_batches}",
                *(f"{b / 1e9:.1f}" for b in (kept.weights, kept.gradients, kept.optimizer)),
                *(f"{b / 1e9:.1f}" for b in (kept.passing, kept.activations, kept.total)),
                str(most) if most else "none",
                f"{one.traffic_bytes / 1e9:.1f}",
                f"{one.tokens_per_s:,.0f}",
                f"{one.efficiency:.0%}",
                f"{one.days:,.1f}",
            )
        console.print(table)
        last = cost_model.stops_at(work, mode, hardware, given)
        end = "a row for each" if 2 * last > work.rows_per_step else f"below {cost_model.WORTH:.0%} beyond"
        console.print(f"scales to {last} GPUs at this batch ({end})")


_COLUMNS = (
    *("GPUs", "rows", "weights GB", "gradients GB", "AdamW GB", "passing GB", "activations GB", "total GB"),
    *("rows that fit", "sent GB/step", "tokens/s", "efficiency", "days"),
)
_TITLES = {
    "ddp": "ddp: everything on every GPU",
    "zero2": "zero2: gradients and optimiser in pieces (for comparison: no strategy here does this)",
    "fsdp2": "fsdp2: everything in pieces (ZeRO-3)",
}


def _count(devices: Any) -> int:
    """GPUs of a machine that a configuration names; `auto` is one."""
    return len(devices) if isinstance(devices, list) else int(devices) if str(devices).isdigit() else 1


def _hardware(arguments: argparse.Namespace) -> Hardware:
    if arguments.hardware not in HARDWARE:
        known = f"one of {', '.join(HARDWARE)}{nearest(arguments.hardware, HARDWARE)}"
        raise UserError(f"--hardware={arguments.hardware}: expected {known}")
    for name in ("peak_tflop_per_s", "memory_gb", "link_gb_per_s", "network_gb_per_s", "measured_tokens_per_s"):
        value = getattr(arguments, name)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name}={value}: expected a positive number")
    own = {
        "peak_flop_per_s": (arguments.peak_tflop_per_s, 1e12),
        "memory_bytes": (arguments.memory_gb, 1e9),
        "link_bytes_per_s": (arguments.link_gb_per_s, 1e9),
        "network_bytes_per_s": (arguments.network_gb_per_s, 1e9),
    }
    given: dict[str, Any] = {key: value * unit for key, (value, unit) in own.items() if value is not None}
    return replace(HARDWARE[arguments.hardware], **given)


def _assumptions(arguments: argparse.Namespace) -> Assumptions:
    for name in ("mfu", "link_efficiency"):
        if not 0 < getattr(arguments, name) <= 1:
            raise UserError(f"--{name}={getattr(arguments, name)}: expected a share above 0, up to 1")
    return Assumptions(arguments.mfu, arguments.link_efficiency, tokens_per_s=arguments.measured_tokens_per_s)
