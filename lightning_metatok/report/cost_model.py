"""What a text run costs on n GPUs, before it is started: memory, speed, traffic, time. Pure functions; nothing runs.

    compute_s = tokens a step / (n x tokens/s of one GPU)        tokens/s of one GPU = peak x MFU / FLOPs a token
    traffic_s = bytes sent by a GPU / bandwidth + hops x latency          ring collectives
    step_s    = compute_s + traffic_s - min(hidden x traffic_s, window)   efficiency = compute_s / step_s

The global batch stays as it is, so that n GPUs make the same run, n times as fast at best: a GPU has 1/n of the work
of a step, but as many bytes to send.

Bytes a parameter under bf16-mixed: weight 4, its bf16 copy 2, gradient 4, and what the optimiser keeps, here AdamW's
two moments, 8. P parameters, n GPUs:

    mode    weights     gradients   moments  sent a step by a GPU, x (n - 1) / n     source
    ddp     (4 + 2) P   2 x 4 P     8 P      2 x 4 P                                 Li et al. 2020, arXiv 2006.15704
    zero2   (4 + 2) P   4 P / n     8 P / n  a x 4 P + 4 P                           ZeRO, arXiv 1910.02054
    fsdp2   4 P / n     4 P / n     8 P / n  a x (2 x 2 P + 4 P)                     FSDP, arXiv 2304.11277

`a` micro-batches make a step. ddp keeps its gradients a second time, in the buckets that it sends, and sends them after
the last micro-batch alone. zero2 sends the gradients of every micro-batch to their owners and the new weights once.
fsdp2 gathers bf16 weights before forward and before backward; two blocks and what is outside of blocks lie there whole.
It computes in bf16 throughout, the residual stream too, which autocast leaves in float32.
"""

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, cast

from lightning_metatok.report.hardware import Format, Network

if TYPE_CHECKING:  # torch stands behind it, and `estimate --help` need not wait
    from lightning_metatok.model import MetaTransformer, TransformerConfig
    from lightning_metatok.model.block import Block

MODES = ("ddp", "zero2", "fsdp2")
"""Nothing sharded, gradients and moments sharded, everything sharded."""

BUCKET_BYTES = 25 * 2**20
"""What DDP sends at a time: PyTorch's default."""
HALF = 0.5
"""Efficiency below which scaling has stopped."""


BETWEEN = {"between": "between blocks"}
"""What a mechanism has between blocks: name of its weights -> part."""


def parts(model: "MetaTransformer") -> dict[str, int]:
    """Parameters by what they are for, in the order in which a token meets them; parts without any are left out."""
    # The longest list first: it has all branches in order where others have some.
    lists = sorted((cast("Block", block).branches for block in model.blocks), key=len, reverse=True)
    inner = {branch.module: branch.label for branches in lists for branch in branches}
    found = dict.fromkeys(("embedding", "positions", *inner.values(), *BETWEEN.values(), "norms", "head"), 0)
    kinds = {"embedding": "embedding", "positions": "positions", "head": "head", **BETWEEN}
    for name, parameter in model.named_parameters():
        first, *rest = name.split(".")
        # blocks.<number>.<part>...; what is neither of these is a norm
        found[inner.get(rest[1], "norms") if first == "blocks" else kinds.get(first, "norms")] += parameter.numel()
    return {name: count for name, count in found.items() if count}


def activation_bytes(
    config: "TransformerConfig",
    form: Format,
    *,
    meta_share: float,
    rotates: bool,
) -> tuple[float, float]:
    """Return what forward keeps for backward, in bytes a token: of one block with the mechanism, and of one without.

        attention  (stream + 5 work) D, and 3 work D with rotation   input, normed, q k v, output; turned q k, output
        MLP        (stream + work) D + 2 work F                      input, normed, before and after GELU; 4 with swiglu
        dropout    1 byte a masked element, where there is dropout

    Attention scores are not kept: fused kernels make them again. They lay their output out as turned queries lie, so
    that it is copied once more. Statistics of norms and softmax are left out.
    """
    attention = (form.stream + (8 if rotates else 5) * form.work) * config.d_model
    inner = {"relu": 1, "swiglu": 4}.get(config.activation, 2)  # of ReLU the output says enough
    mlp = (form.stream + form.work) * config.d_model + inner * form.work * config.mlp_dim
    mask = config.d_model if config.dropout else 0
    plain = attention + mlp + 2 * mask
    return plain + config.built_mechanism.share(meta_share) * (attention + mask), plain


def head_bytes(config: "TransformerConfig", form: Format) -> float:
    """Return the bytes a token at the loss: three float32 rows of V, at the start of backward, and the last norm's."""
    return 3 * 4.0 * config.vocab_size + (form.stream + form.work) * config.d_model


@dataclass(frozen=True)
class Job:
    """What is to be computed, whatever computes it.

    Attributes:
        n_parameters: P. block_parameters: of the largest block. outside_parameters: of the embedding, the positions,
            the last norm and the head. n_blocks: blocks with weights of their own.
        flops_per_token: forward and backward. activation_bytes: kept a token under autocast, all layers and the head.
        narrow_activation_bytes: the same with a residual stream of 16 bits, as fsdp2 has it.
        state_bytes: what the optimiser keeps beside the weights.
        length: tokens of a block of text, meta-tokens included. micro_batch: most blocks that a GPU takes at a time.
        global_batch: blocks a step, over all GPUs. steps: optimiser steps.
    """

    n_parameters: int
    block_parameters: int
    outside_parameters: int
    n_blocks: int
    flops_per_token: float
    activation_bytes: float
    narrow_activation_bytes: float
    state_bytes: float
    form: Format
    length: int
    micro_batch: int
    global_batch: int
    steps: int

    @property
    def tokens_per_step(self) -> int:
        """Tokens of a step over all GPUs, meta-tokens included."""
        return self.global_batch * self.length

    def split(self, n: int) -> tuple[int, int] | None:
        """Blocks of a micro-batch, and micro-batches of a step on each of n GPUs; None where n does not divide it."""
        each, rest = divmod(self.global_batch, n)
        if rest or not each:
            return None
        micro = max(size for size in range(1, min(each, self.micro_batch) + 1) if each % size == 0)
        return micro, each // micro


def job(
    model: "MetaTransformer",
    form: Format,
    *,
    length: int,
    meta_share: float,
    micro_batch: int,
    global_batch: int,
    steps: int,
    state_bytes: float | None = None,
) -> Job:
    """Describe the training of `model`, which may lie on the meta device; arguments as in `Job`.

    `state_bytes`: None for that of AdamW.
    """
    config = model.config
    sizes = [sum(parameter.numel() for parameter in block.parameters()) for block in model.blocks]

    def kept(form: Format) -> float:
        with_meta, plain = activation_bytes(config, form, meta_share=meta_share, rotates=model.positions.rotates)
        layers = (with_meta if config.added(layer) else plain for layer in range(config.n_layers))
        return model.rows_per_token(length) * sum(layers) + head_bytes(config, form)

    return Job(
        n_parameters=model.n_parameters(),
        block_parameters=max(sizes),
        outside_parameters=model.n_parameters() - sum(sizes),
        n_blocks=len(sizes),
        flops_per_token=model.flops_per_token(length, meta_share),
        activation_bytes=kept(form),
        narrow_activation_bytes=kept(replace(form, stream=form.work)),
        state_bytes=form.moments * model.n_parameters() if state_bytes is None else state_bytes,
        form=form,
        length=length,
        micro_batch=micro_batch,
        global_batch=global_batch,
        steps=steps,
    )


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the peak of a step. `working`: what is whole for a moment in a sharded mode, and buckets."""

    weights: float
    gradients: float
    moments: float
    working: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.moments + self.working + self.activations


def memory(
    job: Job,
    mode: str,
    n: int,
    micro_batch: int,
) -> Memory:
    """Return the memory of each of n GPUs that take `micro_batch` blocks at a time."""
    form, P = job.form, job.n_parameters
    activations = micro_batch * job.length * job.activation_bytes
    if mode == "ddp" or n == 1:  # alone there is nobody to share with
        buckets = form.gradient * P if n > 1 else 0
        return Memory((form.weight + form.copy) * P, form.gradient * P, job.state_bytes, buckets, activations)
    whole = job.outside_parameters + 2 * job.block_parameters  # one at work, one on its way
    if mode == "zero2":
        working = form.gradient * whole
        return Memory((form.weight + form.copy) * P, form.gradient * P / n, job.state_bytes / n, working, activations)
    assert mode == "fsdp2", mode
    working = (form.gathered + form.gradient) * whole
    activations = micro_batch * job.length * job.narrow_activation_bytes
    return Memory(form.weight * P / n, form.gradient * P / n, job.state_bytes / n, working, activations)


@dataclass(frozen=True)
class Traffic:
    """What one GPU sends in a step: bytes, and hops that wait for each other."""

    sent_bytes: float
    hops: int


def traffic(
    job: Job,
    mode: str,
    n: int,
    accumulate: int,
) -> Traffic:
    """Return the traffic of ring collectives among n GPUs in a step of `accumulate` micro-batches.

    All-gather and reduce-scatter of S bytes send (n - 1) / n S in n - 1 hops; an all-reduce is one after the other.
    """
    form, P, share = job.form, job.n_parameters, (n - 1) / n  # alone: 0 bytes, 0 hops
    units = job.n_blocks + 1  # what is outside of blocks is one
    if mode == "ddp":
        buckets = ceil(form.gradient * P / BUCKET_BYTES)
        return Traffic(2 * share * form.gradient * P, 2 * (n - 1) * buckets)
    if mode == "zero2":
        sent = share * P * (accumulate * form.gradient + form.weight)
        return Traffic(sent, (accumulate + 1) * units * (n - 1))
    assert mode == "fsdp2", mode
    sent = accumulate * share * P * (2 * form.gathered + form.gradient)
    return Traffic(sent, 3 * accumulate * units * (n - 1))


@dataclass(frozen=True)
class Speed:
    """A step on n GPUs, and the run of such steps.

    Attributes:
        compute_s: computation of a step. traffic_s: its traffic, if nothing else ran. exposed_s: what it adds.
    """

    gpus: int
    micro_batch: int
    accumulate: int
    sent_bytes: float
    compute_s: float
    traffic_s: float
    exposed_s: float
    tokens_per_s: float
    efficiency: float
    days: float

    @property
    def gpu_days(self) -> float:
        """Days times GPUs."""
        return self.days * self.gpus


def single_gpu_tokens_per_s(job: Job, peak_flop_per_s: float, mfu: float) -> float:
    """Tokens/s of one GPU that reaches the share `mfu` of its peak."""
    return peak_flop_per_s * mfu / job.flops_per_token


def speed(
    job: Job,
    mode: str,
    n: int,
    single: float,
    network: Network,
) -> Speed | None:
    """Return how fast n GPUs are, each computing `single` tokens/s; None where the global batch does not divide.

    The traffic that is hidden fits beside what it can run beside: the backward pass (two thirds) of the last
    micro-batch under ddp, all computation otherwise.
    """
    if (split := job.split(n)) is None:
        return None
    micro, accumulate = split
    compute = job.tokens_per_step / (n * single)
    moved = traffic(job, mode, n, accumulate)
    traffic_s = moved.sent_bytes / network.bandwidth(n) + moved.hops * network.latency_s
    window = compute * 2 / 3 / accumulate if mode == "ddp" else compute
    exposed = traffic_s - min(network.hidden * traffic_s, window)
    step = compute + exposed
    return Speed(
        gpus=n,
        micro_batch=micro,
        accumulate=accumulate,
        sent_bytes=moved.sent_bytes,
        compute_s=compute,
        traffic_s=traffic_s,
        exposed_s=exposed,
        tokens_per_s=job.tokens_per_step / step,
        efficiency=compute / step,
        days=job.steps * step / 86400,
    )


def last_efficient(
    job: Job,
    mode: str,
    single: float,
    network: Network,
) -> tuple[int, int | None]:
    """Return where scaling stops: the most GPUs up to which efficiency is at least a half, and the next that divide.

    Asked of every number of GPUs that divides the global batch. The second is None where the batch ends first: then
    each GPU has one block a step.
    """
    last = 1
    for n in (n for n in range(1, job.global_batch + 1) if job.global_batch % n == 0):
        found = speed(job, mode, n, single, network)
        assert found is not None
        if found.efficiency < HALF:
            return last, n
        last = n
    return last, None
