"""What a training run costs on N GPUs: memory, traffic and time, as formulas over stated numbers. Nothing is measured.

P parameters, L blocks, D width, F inner width of the MLP, V vocabulary, N GPUs, b rows of T tokens in a micro-batch of
one GPU, k micro-batches a step, w bytes a weight as it is computed with (2 in bf16), 4 bytes a kept number (float32).

    memory of a GPU   weights 4 P, gradients 4 P, AdamW 8 P, of which ddp keeps all, zero2 1/N of the last two and
                      fsdp2 1/N of everything; and what is whole for a while: w P (ddp, zero2), or the embedding and
                      two blocks in w bytes and one block's gradients in 4 (fsdp2); and activations
    activations       b T (w L (8 D + 2 F + f 6 D) + (w + 8) V): a block keeps the inputs of two norms and of what
                      follows them, q, k, v, the mix of the values, and both sides of the activation; logits are kept in
                      w bytes, in float32 and as a gradient; attention keeps no scores (flash). No recomputation
    traffic of a step ring all-reduce of S bytes: 2 (N - 1) / N S; all-gather or reduce-scatter: (N - 1) / N S
                      ddp: all-reduce 4 P. zero2: reduce-scatter 4 P, all-gather w P.
                      fsdp2, each micro-batch: all-gather w P twice, reduce-scatter 4 P
    time of a step    computing + what of the traffic is not hidden behind it: ddp hides behind the backward half (2 of
                      3 parts) of the last micro-batch, the others behind all of the computing

ZeRO: arXiv 1910.02054. Activations: arXiv 2205.05198. Ring collectives: Patarasu and Yuan, 2009.
"""

from dataclasses import dataclass, replace

MODES = ("ddp", "zero2", "fsdp2")
KEPT = 4
"""Bytes of a weight, a gradient or a moment that is kept: float32."""
COMPUTED = {"32-true": 4, "32": 4, "bf16-mixed": 2, "16-mixed": 2, "auto": 2}
"""Bytes of a weight as it is computed with, by precision; `auto` is bf16 on every GPU that is named here."""
WORTH = 0.5
"""Scaling has stopped where a GPU does less than this share of what it does alone."""


@dataclass(frozen=True)
class Hardware:
    """A GPU in its usual machine, by what its makers state. Bandwidths in bytes/s, one direction, of one GPU (`link`)
    and of a whole machine (`network`)."""

    name: str
    peak_flop_per_s: float
    memory_bytes: float
    link_bytes_per_s: float
    network_bytes_per_s: float
    gpus_per_node: int = 8


HARDWARE = {
    "a100": Hardware("A100 SXM 80 GB, 8 a machine, 8 x 200 Gbit/s", 312e12, 80e9, 300e9, 200e9),
    "h100": Hardware("H100 SXM 80 GB, 8 a machine, 8 x 400 Gbit/s", 989e12, 80e9, 450e9, 400e9),
}
"""Dense bf16 peaks; NVLink 3 and 4."""


@dataclass(frozen=True)
class Workload:
    """What is trained. `rows_per_step` are the global batch; `rows` those of a micro-batch of one GPU at most."""

    parameters: int
    block_parameters: int
    outer_parameters: int
    n_layers: int
    d_model: int
    mlp_dim: int
    vocab_size: int
    meta_share: float
    length: int
    rows: int
    rows_per_step: int
    steps: int
    flops_per_token: float
    compute_bytes: int = 2

    @property
    def tokens_per_step(self) -> int:
        """Of all GPUs."""
        return self.rows_per_step * self.length

    def on(self, gpus: int) -> tuple[int, int]:
        """Rows of a micro-batch, and micro-batches a step, on each of `gpus`, which are not more than the rows."""
        mine = -(-self.rows_per_step // gpus)
        rows = min(self.rows, mine)
        return rows, -(-mine // rows)


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU. `passing`: weights and gradients that are whole for a while."""

    weights: float
    gradients: float
    optimizer: float
    passing: float
    activations: float

    @property
    def total(self) -> float:
        """All of it; the allocator, buffers of the network and CUDA itself come on top."""
        return self.weights + self.gradients + self.optimizer + self.passing + self.activations


@dataclass(frozen=True)
class Assumptions:
    """What is assumed: `mfu`, the share of the peak that one GPU reaches alone; `link_efficiency`, the share of stated
    bandwidths that collectives reach; `latency_s` of one hop of a ring; or `tokens_per_s` of one GPU, measured."""

    mfu: float = 0.4
    link_efficiency: float = 0.7
    latency_s: float = 5e-6
    tokens_per_s: float | None = None


@dataclass(frozen=True)
class Estimate:
    """A step on `gpus` GPUs: seconds of computing, of traffic, and of what of it is not hidden."""

    gpus: int
    rows: int
    micro_batches: int
    memory: Memory
    traffic_bytes: float
    compute_s: float
    traffic_s: float
    exposed_s: float
    tokens_per_s: float
    efficiency: float
    days: float


def memory(work: Workload, mode: str, gpus: int) -> Memory:
    """Bytes on one of `gpus` GPUs; formulas above."""
    rows, _ = work.on(gpus)
    w, kept = work.compute_bytes, KEPT * work.parameters
    shard = {"ddp": (1, 1, 1), "zero2": (1, gpus, gpus), "fsdp2": (gpus, gpus, gpus)}[mode]
    passing = w * work.parameters if w != KEPT else 0
    if mode == "fsdp2":
        passing = w * (work.outer_parameters + 2 * work.block_parameters) + KEPT * work.block_parameters
    block = w * work.n_layers * (8 * work.d_model + 2 * work.mlp_dim + 6 * work.meta_share * work.d_model)
    activations = rows * work.length * (block + (w + 2 * KEPT) * work.vocab_size)
    return Memory(kept / shard[0], kept / shard[1], 2 * kept / shard[2], passing, activations)


def traffic(work: Workload, mode: str, gpus: int) -> tuple[float, int]:
    """Bytes that one GPU sends in a step, and how many collectives it takes part in."""
    _, micro_batches = work.on(gpus)
    part, kept, computed = (gpus - 1) / gpus, KEPT * work.parameters, work.compute_bytes * work.parameters
    pieces = work.n_layers + 1
    if mode == "ddp":
        return 2 * part * kept, 2 * pieces
    if mode == "zero2":
        return part * (kept + computed), 2 * pieces
    return micro_batches * part * (kept + 2 * computed), 3 * pieces * micro_batches


def bandwidth(hardware: Hardware, gpus: int) -> float:
    """Bytes/s of a ring: that of a GPU's link within a machine; of the machine's network, if that is less, beyond."""
    if gpus <= hardware.gpus_per_node:
        return hardware.link_bytes_per_s
    return min(hardware.link_bytes_per_s, hardware.network_bytes_per_s)


def single_gpu_tokens_per_s(work: Workload, hardware: Hardware, given: Assumptions) -> float:
    """Tokens/s of one GPU alone: measured, or from its peak and `mfu`."""
    return given.tokens_per_s or given.mfu * hardware.peak_flop_per_s / work.flops_per_token


def estimate(work: Workload, mode: str, gpus: int, hardware: Hardware, given: Assumptions) -> Estimate:
    """All of it, at the global batch of `work`, however many GPUs share it."""
    rows, micro_batches = work.on(gpus)
    alone = single_gpu_tokens_per_s(work, hardware, given)
    compute_s = rows * micro_batches * work.length / alone
    sent, collectives = traffic(work, mode, gpus)
    traffic_s = sent / (given.link_efficiency * bandwidth(hardware, gpus)) + collectives * (gpus - 1) * given.latency_s
    hidden = compute_s / micro_batches * 2 / 3 if mode == "ddp" else compute_s
    exposed_s = max(0.0, traffic_s - hidden)
    step_s = compute_s + exposed_s
    tokens_per_s = work.tokens_per_step / step_s
    return Estimate(
        gpus,
        rows,
        micro_batches,
        memory(work, mode, gpus),
        sent,
        compute_s,
        traffic_s,
        exposed_s,
        tokens_per_s,
        tokens_per_s / (gpus * alone),
        work.steps * step_s / 86400,
    )


def stops_at(work: Workload, mode: str, hardware: Hardware, given: Assumptions) -> int:
    """The largest power of two of GPUs of which each still does `WORTH` of what it does alone, a row each at least."""
    gpus = 1
    while 2 * gpus <= work.rows_per_step and estimate(work, mode, 2 * gpus, hardware, given).efficiency >= WORTH:
        gpus *= 2
    return gpus


def fitting_rows(work: Workload, mode: str, gpus: int, hardware: Hardware) -> int:
    """Rows of a micro-batch that the memory of a GPU holds; 0 where not even one fits."""
    one = memory(replace(work, rows=1), mode, gpus)
    free = hardware.memory_bytes - (one.total - one.activations)
    return max(0, int(free // one.activations))
