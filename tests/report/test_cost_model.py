"""The cost model against numbers worked out by hand."""

from dataclasses import replace

import pytest

from lightning_metatok.report.cost_model import (
    Assumptions,
    Hardware,
    Workload,
    bandwidth,
    estimate,
    fitting_rows,
    memory,
    stops_at,
    traffic,
)

MACHINE = Hardware("toy", peak_flop_per_s=1e12, memory_bytes=20e9, link_bytes_per_s=100e9, network_bytes_per_s=10e9)
WORK = Workload(
    parameters=1_000_000_000,
    block_parameters=90_000_000,
    outer_parameters=100_000_000,
    n_layers=10,
    d_model=1000,
    mlp_dim=4000,
    vocab_size=50_000,
    meta_share=0.1,
    length=1000,
    rows=2,
    rows_per_step=64,
    steps=86_400,
    flops_per_token=1e9,
)
GIVEN = Assumptions(mfu=0.5, link_efficiency=1.0, latency_s=0.0)
ACTIVATIONS = 2 * 1000 * (2 * 10 * (8 * 1000 + 2 * 4000 + 600) + 10 * 50_000)
"""Bytes: 2,000 tokens of 332,000 in ten blocks and 500,000 around the logits: 1.664 GB."""


def test_memory_by_hand() -> None:
    assert pytest.approx(1.664e9) == ACTIVATIONS
    ddp, zero2, fsdp2 = (memory(WORK, mode, 8) for mode in ("ddp", "zero2", "fsdp2"))
    assert (ddp.weights, ddp.gradients, ddp.optimizer, ddp.passing) == (4e9, 4e9, 8e9, 2e9)
    assert (zero2.weights, zero2.gradients, zero2.optimizer, zero2.passing) == (4e9, 0.5e9, 1e9, 2e9)
    assert (fsdp2.weights, fsdp2.gradients, fsdp2.optimizer) == (0.5e9, 0.5e9, 1e9)
    assert fsdp2.passing == 2 * (100e6 + 180e6) + 4 * 90e6
    assert {one.activations for one in (ddp, zero2, fsdp2)} == {ACTIVATIONS}
    assert ddp.total == 18e9 + ACTIVATIONS
    assert memory(replace(WORK, compute_bytes=4), "ddp", 8).passing == 0  # nothing is cast


def test_traffic_by_hand() -> None:
    # 64 rows on 8 GPUs: 8 each, four micro-batches of 2; 7/8 of everything goes round.
    assert WORK.on(8) == (2, 4)
    assert traffic(WORK, "ddp", 8)[0] == 2 * 7 / 8 * 4e9
    assert traffic(WORK, "zero2", 8)[0] == 7 / 8 * (4e9 + 2e9)
    assert traffic(WORK, "fsdp2", 8) == (4 * 7 / 8 * (4e9 + 4e9), 3 * 11 * 4)
    assert [traffic(WORK, mode, 1)[0] for mode in ("ddp", "zero2", "fsdp2")] == [0, 0, 0]
    assert (bandwidth(MACHINE, 8), bandwidth(MACHINE, 16)) == (100e9, 10e9)


def test_time_by_hand() -> None:
    one = estimate(WORK, "ddp", 1, MACHINE, GIVEN)
    # 500 tokens/s a GPU; 64,000 tokens a step.
    assert (one.compute_s, one.exposed_s, one.tokens_per_s, one.efficiency) == (128.0, 0.0, 500.0, 1.0)
    assert one.days == pytest.approx(128)
    fast = replace(GIVEN, tokens_per_s=64_000.0)
    eight = estimate(WORK, "ddp", 8, MACHINE, fast)
    # A step in 1/8 s; 7 GB take 70 ms, of which 2/3 of one of four micro-batches (1/48 s) hide.
    assert (eight.compute_s, eight.traffic_s) == (0.125, pytest.approx(0.07))
    assert eight.exposed_s == pytest.approx(0.07 - 1 / 48)
    assert eight.tokens_per_s == pytest.approx(64_000 / (0.125 + 0.07 - 1 / 48))
    sharded = estimate(WORK, "fsdp2", 8, MACHINE, fast)
    assert sharded.exposed_s == pytest.approx(0.28 - 0.125)  # 28 GB, all of the computing hides


def test_latency_counts_hops_of_rings() -> None:
    slow = replace(GIVEN, latency_s=1e-3)
    apart = [estimate(WORK, "fsdp2", 8, MACHINE, given).traffic_s for given in (GIVEN, slow)]
    assert apart[1] - apart[0] == pytest.approx(3 * 11 * 4 * 7 * 1e-3)


def test_scaling_stops_where_the_network_is_slower_than_the_gpus() -> None:
    fast = replace(GIVEN, tokens_per_s=64_000.0)
    efficiencies = {n: estimate(WORK, "ddp", n, MACHINE, fast).efficiency for n in (1, 2, 4, 8, 16, 32, 64)}
    assert list(efficiencies.values()) == sorted(efficiencies.values(), reverse=True)
    last = stops_at(WORK, "ddp", MACHINE, fast)
    assert efficiencies[last] >= 0.5 > efficiencies[2 * last]
    assert stops_at(WORK, "ddp", MACHINE, GIVEN) == 64  # slow GPUs: a row each is the end
    assert WORK.on(64) == (1, 1)


def test_rows_that_fit() -> None:
    # 20 GB less 18: two rows of 0.832 GB each; in pieces on 8, 20 less 2.92: twenty.
    assert fitting_rows(WORK, "ddp", 8, MACHINE) == 2
    assert fitting_rows(WORK, "fsdp2", 8, MACHINE) == 20
    assert fitting_rows(WORK, "ddp", 8, replace(MACHINE, memory_bytes=17e9)) == 0
