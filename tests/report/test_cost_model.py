"""The cost model against numbers worked out by hand, against counted tensors, and at its ends."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.devices import device
from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.report import cost_model
from lightning_metatok.report.cost_model import MODES, Job, Memory, Traffic
from lightning_metatok.report.hardware import MIXED, TRUE, Network, format_of

JOB = Job(
    n_parameters=1000,
    block_parameters=100,
    outside_parameters=200,
    n_blocks=8,
    flops_per_token=6000.0,
    activation_bytes=50.0,
    narrow_activation_bytes=40.0,
    state_bytes=8000.0,
    form=MIXED,
    length=16,
    micro_batch=4,
    global_batch=32,
    steps=864,
)
"""A step is 32 x 16 = 512 tokens."""
NETWORK = Network(gpus_per_node=2, link_bytes_per_s=1000.0, node_bytes_per_s=100.0, latency_s=0.0, hidden=0.0)


def test_memory_by_hand() -> None:
    kept = 4 * 16 * 50.0  # micro-batch x length x bytes
    assert cost_model.memory(JOB, "ddp", 4, 4) == Memory(6000, 4000, 8000, 4000, kept)
    # 200 outside of blocks and two blocks of 100 lie there whole.
    assert cost_model.memory(JOB, "zero2", 4, 4) == Memory(6000, 1000, 2000, 4 * 400, kept)
    assert cost_model.memory(JOB, "fsdp2", 4, 4) == Memory(1000, 1000, 2000, 6 * 400, 4 * 16 * 40.0)
    assert cost_model.memory(JOB, "fsdp2", 4, 2).total == 1000 + 1000 + 2000 + 2400 + 2 * 16 * 40.0
    assert cost_model.memory(replace(JOB, form=TRUE, state_bytes=4000.0), "ddp", 4, 4) == Memory(
        2000, 2000, 4000, 2000, kept
    )


@pytest.mark.parametrize("mode", MODES)
def test_alone_there_is_nothing_to_shard_and_nothing_to_send(mode: str) -> None:
    assert cost_model.memory(JOB, mode, 1, 4) == Memory(6000, 4000, 8000, 0, 4 * 16 * 50.0)
    assert cost_model.traffic(JOB, mode, 1, 8) == Traffic(0, 0)
    found = cost_model.speed(JOB, mode, 1, 64.0, NETWORK)
    assert found is not None
    assert (found.tokens_per_s, found.efficiency, found.exposed_s) == (64.0, 1.0, 0.0)
    assert found.days == 864 * (512 / 64) / 86400


def test_traffic_by_hand() -> None:
    # 4 GPUs: each sends three quarters. 4,000 bytes of gradients are one bucket: 3 hops there, 3 back.
    assert cost_model.traffic(JOB, "ddp", 4, 2) == Traffic(2 * 0.75 * 4000, 6)
    # Two micro-batches: gradients twice, weights once, for 8 blocks and the rest.
    assert cost_model.traffic(JOB, "zero2", 4, 2) == Traffic(0.75 * (2 * 4000 + 4000), 3 * 9 * 3)
    # Two micro-batches: bf16 weights twice each, gradients once each.
    assert cost_model.traffic(JOB, "fsdp2", 4, 2) == Traffic(2 * 0.75 * (2 * 2000 + 4000), 2 * 3 * 9 * 3)
    large = replace(JOB, n_parameters=10**9)
    assert cost_model.traffic(large, "ddp", 2, 1).hops == 2 * 153  # 4e9 bytes in buckets of 25 MiB


def test_a_step_by_hand() -> None:
    # 4 GPUs in two nodes, 16 tokens/s each: 512 tokens take 8 s; 6,000 bytes at 100 bytes/s take 60 s.
    found = cost_model.speed(JOB, "ddp", 4, 16.0, NETWORK)
    assert found is not None
    assert (found.micro_batch, found.accumulate) == (4, 2)
    assert (found.compute_s, found.traffic_s, found.exposed_s) == (8.0, 60.0, 60.0)
    assert found.tokens_per_s == 512 / 68
    assert found.efficiency == 8 / 68
    assert found.gpu_days == pytest.approx(4 * 864 * 68 / 86400)
    # In one node the link is ten times as fast: 2 x 1/2 x 4,000 bytes in 4 s.
    inside = cost_model.speed(JOB, "ddp", 2, 16.0, NETWORK)
    assert inside is not None
    assert inside.traffic_s == 4.0


def test_traffic_hides_behind_what_it_can_run_beside_and_no_more() -> None:
    half, most = replace(NETWORK, hidden=0.5), replace(NETWORK, hidden=1.0)

    def exposed(mode: str, network: Network, single: float) -> float:
        found = cost_model.speed(JOB, mode, 4, single, network)
        assert found is not None
        return found.exposed_s

    # Slow GPUs: 128 s of computation. The backward pass of the last of two micro-batches is 128 / 2 x 2/3 = 42.7 s.
    assert exposed("ddp", half, 1.0) == 30.0
    assert exposed("ddp", most, 1.0) == pytest.approx(60 - 128 / 3)
    assert exposed("fsdp2", most, 1.0) == 0.0
    # Fast GPUs: 1 s of computation hides 1 s of the 120 s at most.
    assert exposed("fsdp2", most, 128.0) == 119.0


def test_latency_counts_every_hop() -> None:
    found = cost_model.speed(JOB, "fsdp2", 4, 16.0, replace(NETWORK, latency_s=0.5))
    assert found is not None
    assert found.traffic_s == 120.0 + 2 * 3 * 9 * 3 * 0.5


def test_the_batch_of_a_step_is_shared_evenly_or_not_at_all() -> None:
    assert JOB.split(2) == (4, 4)
    assert JOB.split(16) == (2, 1)
    assert JOB.split(32) == (1, 1)
    assert JOB.split(3) is None
    assert JOB.split(64) is None
    assert replace(JOB, global_batch=36).split(4) == (3, 3)  # 9 blocks each: not 4 at a time
    assert cost_model.speed(JOB, "ddp", 3, 16.0, NETWORK) is None


def test_scaling_stops_where_efficiency_falls_below_a_half_or_the_batch_ends() -> None:
    free = replace(NETWORK, link_bytes_per_s=1e12, node_bytes_per_s=1e12)
    assert cost_model.last_efficient(JOB, "fsdp2", 16.0, free) == (32, None)
    # ddp on 2 GPUs: 16 s and 4 s. On 4: 8 s and 60 s.
    assert cost_model.last_efficient(JOB, "ddp", 16.0, NETWORK) == (2, 4)
    assert cost_model.last_efficient(JOB, "ddp", 64.0, replace(NETWORK, link_bytes_per_s=500.0)) == (1, 2)


def test_speed_of_one_gpu_is_its_share_of_the_peak() -> None:
    assert cost_model.single_gpu_tokens_per_s(JOB, 6e6, 0.25) == 250.0


def model(**changes: object) -> MetaTransformer:
    """A small model with meta-attention."""
    sizes = {"n_layers": 2, "n_heads": 4, "d_model": 64, "vocab_size": 512, "max_positions": 128}
    return MetaTransformer(TransformerConfig(**{**sizes, **changes}))  # type: ignore[arg-type]


def test_parts_are_all_of_the_model() -> None:
    whole = model(position="learned", tied_head=False, bias=True, mechanism_options={"layers": [1]})
    found = cost_model.parts(whole)
    assert sum(found.values()) == whole.n_parameters()
    assert found["embedding"] == found["head"] == 512 * 64
    assert found["positions"] == 128 * 64
    assert found["self-attention"] == 2 * found["meta-attention"] == 2 * 4 * (64**2 + 64)
    assert found["MLP"] == 2 * (8 * 64**2 + 5 * 64)
    assert found["norms"] == (2 + 3 + 1) * 2 * 64
    assert "head" not in cost_model.parts(model())


def bytes_kept(transformer: MetaTransformer, meta_every: int) -> int:
    """Bytes that autograd keeps for backward in a bf16 forward pass over 2 x 128 tokens, weights left out."""
    owned = {p.untyped_storage().data_ptr() for p in transformer.parameters()}
    kept: dict[int, torch.Tensor] = {}  # the tensors too: a storage that is freed could come again

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage().data_ptr() not in owned:
            kept[x.untyped_storage().data_ptr()] = x
        return x

    tokens = torch.arange(256).view(2, 128)
    meta = (tokens % meta_every == 0) if meta_every else torch.zeros_like(tokens, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        logits = transformer(tokens, meta)
        F.cross_entropy(logits.flatten(0, 1).float(), tokens.flatten())
    return sum(x.untyped_storage().nbytes() for x in kept.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "rotary"},
        {"position": "learned"},
        {"position": "learned", "d_ff": 96},
        {"position": "rotary", "activation": "relu"},
        {"position": "rotary", "mechanism": "matched"},
        {"position": "rotary", "mechanism": "none"},
        {"position": "rotary", "norm": "post"},
    ],
    ids=str,
)
def test_activations_are_those_that_autograd_keeps(changes: dict[str, object]) -> None:
    """One block more keeps what the formula says, and up to 6 % besides: statistics, and padding of meta rows."""
    small, large = model(**changes), model(**changes, n_layers=3)
    copies = sum(2 * p.numel() for p in large.blocks[0].parameters() if p.dim() == 2)  # bf16, of the weights
    measured = (bytes_kept(large, 8) - bytes_kept(small, 8) - copies) / 256
    rotates = changes["position"] == "rotary"
    with_meta, plain = cost_model.activation_bytes(large.config, MIXED, meta_share=1 / 8, rotates=rotates)
    expected = with_meta if large.config.mechanism != "none" else plain
    assert expected <= measured <= 1.06 * expected


def test_a_job_is_the_sum_of_its_layers() -> None:
    with torch.device("meta"):
        some = model(mechanism_options={"layers": [1]}, position="learned")
    found = cost_model.job(some, MIXED, length=128, meta_share=0.125, micro_batch=2, global_batch=8, steps=5)
    d, v = 64, 512
    attention, mlp, head = 14 * d, 6 * d + 4 * 4 * d, 12 * v + 6 * d
    assert found.activation_bytes == 2 * (attention + mlp) + attention / 8 + head
    narrow_attention, narrow_mlp, narrow_head = 12 * d, 4 * d + 4 * 4 * d, 12 * v + 4 * d
    narrow = 2 * (narrow_attention + narrow_mlp) + narrow_attention / 8 + narrow_head
    assert found.narrow_activation_bytes == narrow
    assert found.flops_per_token == some.flops_per_token(128, 0.125)
    assert found.block_parameters == 16 * d**2 + 3 * d  # of the one with meta-attention
    assert found.outside_parameters == (v + 128) * d + d
    assert found.tokens_per_step == 8 * 128
    assert found.state_bytes == 8 * found.n_parameters, "of AdamW, unless another is given"


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(UserError, match=r"--device=h10: expected one of a10, .*did you mean 'h100'\?"):
        device("h10")
    assert device("H100").memory_bytes == 80e9
    with pytest.raises(UserError, match=r"trainer\.precision=32-true: expected one of auto, bf16-mixed"):
        format_of("32-true")
