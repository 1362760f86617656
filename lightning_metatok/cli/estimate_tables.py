"""What `estimate` prints of a run: its parts, memory and speed, where scaling stops, and what all that rests on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from lightning_metatok.devices import Device
from lightning_metatok.report import cost_model
from lightning_metatok.report.cost_model import MODES, Job
from lightning_metatok.report.hardware import USABLE, Network


@dataclass(frozen=True)
class Planned:
    """What `fit` would train; `notes`: what is to be said about it."""

    name: str
    job: Job
    parts: dict[str, int]
    meta_share: float
    optimizer: str
    notes: list[str]


def parts_table(run: Planned) -> Table:
    """Parameters by part."""
    job = run.job
    table = Table("part", title=f"{run.name}: {job.n_parameters:,} parameters", title_justify="left")
    for name in ("parameters", "share"):
        table.add_column(name, justify="right")
    for name, count in run.parts.items():
        table.add_row(name, f"{count:,}", f"{count / job.n_parameters:.1%}")
    return table


def work(run: Planned) -> Iterator[str]:
    """What a step and the run are made of."""
    job = run.job
    tokens = job.steps * job.tokens_per_step
    source = tokens * (1 - run.meta_share)
    yield f"a token: {job.flops_per_token / 1e9:.2f} GFLOP in training"
    yield f"a step: {job.global_batch:,} blocks of {job.length:,}, {job.tokens_per_step:,} tokens"
    yield (
        f"the run: {job.steps:,} steps, {tokens / 1e9:.3g} B tokens, of them {source / 1e9:.3g} B source tokens "
        f"({source / job.n_parameters:.3g} a parameter); "
        f"{tokens * job.flops_per_token:.3g} FLOP"
    )


def memory_table(
    job: Job,
    gpus: Sequence[int],
    name: str,
    gpu: Device,
) -> Table:
    """Memory of a GPU, by mode."""
    limit = USABLE * gpu.memory_bytes
    title = f"GB on a GPU; {name} has {gpu.memory_bytes / 1e9:g}, of which {limit / 1e9:.3g} can be used"
    table = Table("sharding", title=title, title_justify="left")
    for column in ("GPUs", "micro-batch", "weights", "gradients", "moments", "working", "activations", "total", "fits"):
        table.add_column(column, justify="right")
    for mode in MODES:
        for n in gpus:
            if (split := job.split(n)) is not None:
                found = cost_model.memory(job, mode, n, split[0])
                numbers = (found.weights, found.gradients, found.moments, found.working, found.activations, found.total)
                shown = [f"{number / 1e9:.1f}" for number in numbers]
                fits = "yes" if found.total <= limit else "no"
                table.add_row(mode, str(n), str(split[0]), *shown, fits, end_section=n == gpus[-1])
    return table


def speed_table(
    job: Job,
    gpus: Sequence[int],
    single: float,
    network: Network,
) -> Table:
    """Speed, time and traffic, by mode."""
    table = Table("sharding", title="speed, time, and what a GPU sends in a step", title_justify="left")
    for column in (
        "GPUs",
        "batch x acc.",
        "tokens/s",
        "efficiency",
        "step s",
        "not hidden s",
        "GB sent",
        "days",
        "GPU days",
    ):
        table.add_column(column, justify="right")
    for mode in MODES:
        for n in gpus:
            found = cost_model.speed(job, mode, n, single, network)
            if found is None:
                table.add_row(mode, str(n), "no share", *["-"] * 7)
                continue
            table.add_row(
                mode,
                str(n),
                f"{found.micro_batch} x {found.accumulate}",
                f"{found.tokens_per_s:,.0f}",
                f"{found.efficiency:.0%}",
                f"{found.compute_s + found.exposed_s:.3g}",
                f"{found.exposed_s:.2g}",
                f"{found.sent_bytes / 1e9:.3g}",
                f"{found.days:.3g}",
                f"{found.gpu_days:.3g}",
            )
        table.add_section()
    table.caption = "batch x acc.: data.batch_size and trainer.accumulate_grad_batches that keep the batch of a step"
    return table


def scaling_ends(job: Job, single: float, network: Network) -> Iterator[str]:
    """Where more GPUs no longer help, a line a mode."""
    yield "Where scaling stops:"
    for mode in MODES:
        last, below = cost_model.last_efficient(job, mode, single, network)
        if below is None:
            yield f"  {mode}: {last} GPUs, one block each: the batch of a step cannot be shared further"
        else:
            yield f"  {mode}: {last} GPUs; on {below}, the next that divide the batch, efficiency is below a half"


def assumptions(
    run: Planned,
    gpu: Device,
    single: float,
    network: Network,
    *,
    measured: bool,
) -> Iterator[str]:
    """What the numbers rest on; `single` tokens/s of one GPU were `measured`, or are assumed."""
    job = run.job
    reached = single * job.flops_per_token / gpu.peak_flop_per_s
    peak = f"{gpu.peak_flop_per_s / 1e12:g} TFLOP/s"
    yield "What this rests on:"
    if not measured:
        yield f"  one GPU: {reached:.0%} of {peak} (dense, 16 bits) is an assumption: {single:,.0f} tokens/s"
    else:
        yield f"  one GPU: {single:,.0f} tokens/s as given, {reached:.0%} of {peak} (dense, 16 bits)"
    yield (
        f"  network: {network.link_bytes_per_s / 1e9:.4g} GB/s a GPU inside a node of {network.gpus_per_node}, "
        f"{network.node_bytes_per_s / 1e9:.4g} GB/s a node outside, {network.latency_s * 1e6:.3g} us a hop; rings; "
        f"{network.hidden:.0%} of the traffic can hide behind computation"
    )
    yield (
        "  FLOPs: matrix products and attention; not embeddings, norms, elementwise work, positions, the optimiser, "
        "validation, checkpoints, waits for data"
    )
    yield (
        f"  memory: {run.optimizer} keeps {job.state_bytes / job.n_parameters:.3g} bytes a parameter; kept for "
        f"backward, by fused attention: {job.activation_bytes / 1e6:.3g} MB a token, under fsdp2 "
        f"{job.narrow_activation_bytes / 1e6:.3g}; {1 - USABLE:.0%} of the GPU is left to CUDA and gaps"
    )
    yield (
        "  sharding: ddp, nothing; zero2, gradients and moments (no strategy of this trainer, for comparison); fsdp2, "
        "weights too; on one GPU there is nothing to shard"
    )
    yield from (f"  {note}" for note in run.notes)
