"""What benchmarks measure is what they say: ratios round by round, true peaks, and peers that compute the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import harness, neighbours, ours, peers
from docs import tables
from lightning_metatok.model import MetaTransformer

SHAPE = {"n_layers": 2, "n_heads": 2, "d_model": 16, "vocab_size": 50, "max_positions": 12}


def test_a_ratio_is_the_median_of_those_of_the_rounds() -> None:
    row = harness.ratio([2.0, 30.0, 2.2], [1.0, 10.0, 2.0])  # the second round is slow for both
    assert (row["ratio"], row["rounds"]) == (2.0, 3)
    assert row["low"] <= 2.0 <= row["high"]


def test_ways_take_turns_and_rounds_of_warming_up_do_not_count() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in "ab"}
    seconds = harness.in_turn(ways, rounds=2, warm_up=1, repeats=2)
    assert "".join(order) == "aabb" * 3
    assert [len(of) for of in seconds.values()] == [2, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what the peak was")
def test_a_peak_is_what_a_step_held_at_once() -> None:
    asks = "import torch; from benchmarks.harness import *; print(held_at_most(lambda: torch.ones(12 << 20).sum()))"
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # of its own: other tests leave room in this one
    held = subprocess.run([sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True)
    assert 44 < float(held.stdout) < 60  # MiB; 48 are asked for


def test_the_plain_loop_computes_what_this_project_does() -> None:
    torch.manual_seed(0)
    built = peers.build("nanogpt", SHAPE)
    assert built is not None
    nano, loss, _ = built
    model: MetaTransformer = ours.model_of(SHAPE, mechanism="none", position="learned")
    theirs = dict(nano.named_parameters())
    own = dict(model.named_parameters())
    pairs = {"embedding.weight": "wte.weight", "norm.weight": "ln_f.weight"}
    for i in range(2):
        for name, peer in (
            ("norm_attention", "ln_1"), ("norm_mlp", "ln_2"), ("attention.projections.qkv", "c_attn"),
            ("attention.projections.out", "c_proj"), ("mlp.up", "c_fc"), ("mlp.down", "c_mlp"),
        ):  # fmt: skip
            pairs[f"blocks.{i}.{name}.weight"] = f"blocks.{i}.{peer}.weight"
    (table,) = set(own) - set(pairs)
    pairs[table] = "wpe.weight"
    with torch.no_grad():
        for name, peer in pairs.items():
            own[name].copy_(theirs[peer])
    tokens_BT, _ = ours.text(SHAPE, 3)
    targets_BT = ours.targets_of(tokens_BT, None)
    torch.testing.assert_close(ours.loss_of(model, None)(tokens_BT, targets_BT), loss(tokens_BT, targets_BT))


def test_a_peer_that_is_not_installed_is_left_out_and_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "litgpt.config", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.litgpt", raising=False)
    assert peers.build("litgpt", SHAPE) is None
    assert "litgpt left out" in capsys.readouterr().out


def test_the_page_shows_what_was_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    (tmp_path / "benchmarks").mkdir()
    options = harness.parser("").parse_args([])
    harness.finish("window", [{"what": "a / b", **harness.ratio([1.0] * 3, [4.0] * 3)}], options)
    page = tables.measured()
    assert "| a / b | 0.250 (0.250 to 0.250) | 3 |" in page
    assert "`python -m benchmarks.step`: not measured yet." in page


@pytest.mark.parametrize("arm", ["plain", "meta-random", "ssa", "unfold"])
def test_an_arm_is_timed_with_what_the_sweep_says_of_it(arm: str) -> None:
    settings = neighbours.settings_of(arm)
    extra_T = neighbours.injected(settings["data"], 64).meta_mask_BT[0]
    marked = {"plain": 0, "meta-random": 6}.get(arm, 4)
    assert (int(extra_T.sum()), len(extra_T)) == (marked, 64 + marked)
    assert settings["model"].get("extra_position", "own") == ("last" if arm in ("ssa", "unfold") else "own")
    neighbours.step_of(arm, 64)()
