"""A run from its command line to its folder: what it writes, that it repeats, resumes, and can be read again."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.yaml_files import followed
from tests.system.helpers import curve, lines, losses, succeed

ARMS = Path(__file__).parents[2] / "conf" / "arm"

ABLATION = [f"ablation/{positions}_{multiple}x" for multiple in (1, 2, 4) for positions in ("kept", "dropped")]


@pytest.fixture(scope="module")
def events(fitted: Path) -> EventAccumulator:
    """All events of the fitted run."""
    accumulator = EventAccumulator(str(fitted), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The last weights of a run, read as any stranger should: without running code."""
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def assert_bit_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


# -- the run folder


def test_one_folder_holds_everything_of_a_run(fitted: Path) -> None:
    names = {path.relative_to(fitted).as_posix() for path in fitted.rglob("*") if path.is_file()}
    (event_file,) = (name for name in names if name.startswith("events.out.tfevents."))
    by_length = {name for name in names if name.startswith("positions ")}
    assert sorted(name.partition("/")[0] for name in by_length) == ["positions dropped", "positions kept"]
    assert names - {event_file} - by_length == {
        "ablation.png",
        "arm.json",
        "checkpoints/last.ckpt",
        *(f"checkpoints/step-{step}.{kind}" for step in (10, 20) for kind in ("ckpt", "json", "safetensors")),
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "run.lock",
        "run.png",
        "tokenizer.json",
    }


def test_metrics_hold_losses_ablation_speed_and_learning_rate(fitted: Path) -> None:
    found = {name for line in lines(fitted) for name in line}
    expected = {
        *(f"{unit}/{name}" for unit in ("loss", "bits_per_byte") for name in ("train", "val", "bigram")),
        *ABLATION,
        *(f"throughput/{name}" for name in ("tokens", "source_tokens", "tokens_per_s", "peak_memory_gb")),
        *("optimizer/learning_rate", "optimizer/grad_norm"),
    }
    assert expected <= found
    assert all(math.isfinite(value) for line in lines(fitted) for value in line.values())
    # A step on the axis is the number of optimiser steps done, for every curve alike.
    assert [step for step, _ in curve(fitted, "loss/train")] == [5, 10, 15, 20]
    for name in ("loss/val", "loss/bigram", "ablation/kept_1x"):
        assert [step for step, _ in curve(fitted, name)] == [10, 20]
    assert curve(fitted, "loss/train")[-1][1] < curve(fitted, "loss/train")[0][1]


def test_tokens_are_counted_with_and_without_meta_tokens(fitted: Path) -> None:
    n_blocks = 20 * 4  # steps, blocks a step; 6 meta-tokens beside the 64 source tokens of a block
    assert curve(fitted, "throughput/tokens")[-1][1] == n_blocks * (64 + 6)
    assert curve(fitted, "throughput/source_tokens")[-1][1] == n_blocks * 64


def test_tensorboard_shows_the_same_numbers_as_metrics(fitted: Path, events: EventAccumulator) -> None:
    tags = set(events.Tags()["scalars"])
    names = {name for line in lines(fitted) for name in line} - {"step"}
    assert names <= tags
    for name in names:
        in_events = [(event.step, event.value) for event in events.Scalars(name)]
        in_lines = curve(fitted, name)
        assert [step for step, _ in in_events] == [step for step, _ in in_lines], name
        # Events hold float32: seven digits.
        assert [v for _, v in in_events] == pytest.approx([v for _, v in in_lines], rel=1e-6), name


def test_tensorboard_has_layout_samples_images_and_hyperparameters(fitted: Path, events: EventAccumulator) -> None:
    tensors, images = events.Tags()["tensors"], events.Tags()["images"]
    assert "ablation/positions_at_meta" in images
    assert "sample/text_summary" in tensors
    assert len(events.Tensors("sample/text_summary")) == 2  # one a validation
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0].decode(errors="replace")
    for tag in ("loss/train", "loss/bigram", "by context length/nats per source token", "throughput/tokens_per_s"):
        assert tag in layout
    for positions in ("kept", "dropped"):
        by_length = EventAccumulator(str(fitted / f"positions {positions}"))
        by_length.Reload()
        last = [curve(fitted, f"ablation/{positions}_{multiple}x")[-1][1] for multiple in (1, 2, 4)]
        found = by_length.Scalars("by context length/nats per source token")
        assert [event.value for event in found] == pytest.approx(last, rel=1e-6)
        assert [event.step for event in found] == sorted({event.step for event in found})
    assert events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name == "hparams"
    assert {"final/loss/val", "final/bits_per_byte/val"} <= set(events.Tags()["scalars"])


def test_a_run_never_writes_over_another(quick: list[str], tmp_path: Path) -> None:
    for name in ("run", "run-2"):
        succeed("fit", *quick, "--trainer.max_steps=1", "--model.optimizer.warmup_steps=0", f"--run_dir={tmp_path}/run")
        assert (tmp_path / name / "config.yaml").is_file()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["run", "run-2"]


def test_a_fit_in_a_fresh_process_says_nothing_on_stderr(quick: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lightning_metatok", "fit", *quick, f"--run_dir={tmp_path}/run"],
        capture_output=True,
        text=True,
        check=False,
    )
    progress = [line for line in done.stderr.splitlines() if not line.startswith("train: ")]
    assert (done.returncode, progress) == (0, [])
    assert f"tensorboard --logdir {tmp_path}/run" in done.stdout


# -- configuration


def test_the_saved_config_repeats_the_run_bit_for_bit(fitted: Path, tmp_path: Path) -> None:
    succeed("fit", "--config", fitted / "config.yaml", f"--run_dir={tmp_path}/again")
    saved, again = (yaml.safe_load((folder / "config.yaml").read_text()) for folder in (fitted, tmp_path / "again"))
    assert {**saved, "run_dir": ""} == {**again, "run_dir": ""}
    assert losses(tmp_path / "again") == losses(fitted)
    assert_bit_equal(weights(tmp_path / "again"), weights(fitted))


def test_interpolation_follows_overrides_and_the_last_config_wins(quick: list[str], tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("model: {d_ff: '${model.d_model}', d_model: 16}\ndata: {batch_size: 3}\n")
    (tmp_path / "two.yaml").write_text("data: {batch_size: 2}\n")
    overlays = [f"--config={tmp_path / name}.yaml" for name in ("one", "two")]
    succeed("fit", *quick, *overlays, "--model.d_model=48", "--trainer.max_steps=6", f"--run_dir={tmp_path}/run")
    given = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert given["model"]["d_ff"] == "${model.d_model}", "the copy follows what is given to it"
    config = followed(given)
    assert (config["model"]["d_model"], config["model"]["d_ff"]) == (48, 48)
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["hyper_parameters"]["d_ff"] == 48
    assert config["model"]["optimizer"]["decay_steps"] == 6
    assert config["data"]["batch_size"] == 2
    assert curve(tmp_path / "run", "throughput/tokens")[-1] == (5, 5 * 2 * 70)


# -- the same again, and on


def test_worker_processes_do_not_change_the_losses(fitted: Path, debug: list[str], tmp_path: Path) -> None:
    succeed("fit", *debug, "--data.num_workers=2", f"--run_dir={tmp_path}/run")
    assert losses(tmp_path / "run") == losses(fitted)


def test_another_seed_changes_the_losses(fitted: Path, quick: list[str], tmp_path: Path) -> None:
    succeed("fit", *quick, "--seed_everything=7", f"--run_dir={tmp_path}/run")
    theirs, mine = curve(tmp_path / "run", "loss/train"), curve(fitted, "loss/train")
    assert [step for step, _ in theirs] == [step for step, _ in mine]
    assert not {value for _, value in theirs} & {value for _, value in mine}


def test_a_resumed_run_ends_with_the_same_bits(quick: list[str], tmp_path: Path) -> None:
    options = [*quick, "--model.dropout=0.1", "--model.optimizer.decay_steps=20"]
    succeed("fit", *options, f"--run_dir={tmp_path}/whole")
    succeed("fit", *options, "--trainer.max_steps=10", f"--run_dir={tmp_path}/parts")
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    succeed("fit", "--ckpt_path", last, "--trainer.max_steps=20")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert_bit_equal(weights(parts), weights(whole))
    assert losses(parts) == losses(whole)
    assert curve(parts, "throughput/tokens") == curve(whole, "throughput/tokens")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]


def test_accumulated_batches_count_and_resume_at_the_right_block(quick: list[str], tmp_path: Path) -> None:
    options = [*quick, "--trainer.accumulate_grad_batches=2", "--model.optimizer.decay_steps=10"]
    succeed("fit", *options, "--trainer.max_steps=10", f"--run_dir={tmp_path}/whole")
    succeed("fit", *options, "--trainer.max_steps=5", f"--run_dir={tmp_path}/parts")
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    succeed("fit", "--ckpt_path", last, "--trainer.max_steps=10")
    assert torch.load(last, weights_only=True)["callbacks"]["Throughput"]["tokens"] == 10 * 2 * 4 * 70
    assert_bit_equal(weights(tmp_path / "parts"), weights(tmp_path / "whole"))


def test_bfloat16_learns_about_as_well(fitted: Path, quick: list[str], tmp_path: Path) -> None:
    succeed("fit", *quick, "--trainer.precision=bf16-mixed", f"--run_dir={tmp_path}/run")
    # bfloat16 has 8 bits of precision; after 20 steps the losses differ by about 1e-3.
    assert curve(tmp_path / "run", "loss/val")[-1][1] == pytest.approx(curve(fitted, "loss/val")[-1][1], abs=0.05)
    assert curve(tmp_path / "run", "loss/val") != curve(fitted, "loss/val")


# -- verbs that read a checkpoint


def test_validate_finds_the_loss_of_the_fit(fitted: Path, checkpoint: Path) -> None:
    out = succeed("validate", "--ckpt_path", checkpoint)
    assert curve(fitted / "validate", "loss/val")[-1][1] == curve(fitted, "loss/val")[-1][1]
    assert f"val loss {curve(fitted, 'loss/val')[-1][1]:.4f}" in out


def test_validate_finds_the_ablation_of_the_fit_and_test_that_of_test_text(fitted: Path, checkpoint: Path) -> None:
    succeed("validate", "--ckpt_path", checkpoint)
    succeed("test", "--ckpt_path", checkpoint)
    for name in ABLATION:
        assert curve(fitted / "validate", name)[-1][1] == curve(fitted, name)[-1][1]
        assert curve(fitted / "test", name)[-1][1] != curve(fitted, name)[-1][1]
    assert (fitted / "test" / "ablation.png").is_file()


def test_test_finds_the_loss_on_test_text_at_the_end_of_the_fit(fitted: Path, checkpoint: Path) -> None:
    succeed("test", "--ckpt_path", checkpoint)
    (at_end,) = curve(fitted, "loss/test")
    assert at_end == curve(fitted / "test", "loss/test")[-1]
    assert at_end[1] != curve(fitted, "loss/val")[-1][1]


def test_arms_are_scored_on_the_same_text_and_within_says_that_it_is_not(quick: list[str], tmp_path: Path) -> None:
    options = [*quick, "--trainer.max_steps=1", "--trainer.val_check_interval=1", "--sample.max_new_tokens=1"]
    arms = {
        **{name: [f"--config={ARMS / name}.yaml"] for name in ("plain", "pause", "matched")},
        "much": ["--data.meta_fraction=0.5", "--data.meta_placement=punctuation"],
        "within": ["--data.meta_length=within"],
    }
    cards = {}
    for name, arm in arms.items():
        succeed("fit", *options, *arm, f"--run_dir={tmp_path / name}")
        cards[name] = json.loads((tmp_path / name / "arm.json").read_text())
    for key in ("scored_text", "trained_text"):
        within = cards["within"][key].pop("fingerprint")
        (same,) = {card[key]["fingerprint"] for name, card in cards.items() if name != "within"}
        assert within != same


def test_predictions_average_to_the_validation_loss(fitted: Path, checkpoint: Path) -> None:
    succeed("predict", "--ckpt_path", checkpoint)
    text = (fitted / "predict" / "predictions-0.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["block"] for row in rows] == list(range(8))
    assert all(len(row["tokens"]) == len(row["meta"]) == len(row["nll"]) == 70 for row in rows)
    assert all(sum(row["meta"]) == 6 for row in rows)
    scored = [value for row in rows for value in row["nll"] if value is not None]
    # Values are written with five digits.
    assert sum(scored) / len(scored) == pytest.approx(curve(fitted, "loss/val")[-1][1], abs=1e-5)


def test_generate_continues_the_prompt_and_repeats_itself(checkpoint: Path) -> None:
    options = ["--ckpt_path", str(checkpoint), "--prompt", "the old miller", "--max_new_tokens", "12"]
    greedy = [succeed("generate", *options, "--temperature", "0") for _ in range(2)]
    assert greedy[0] == greedy[1]
    assert greedy[0].startswith("the old miller")
    assert len(greedy[0]) > len("the old miller\n")
    assert "<|meta|>" not in greedy[0]
    sampled = [succeed("generate", *options, "--temperature", "2", "--seed", seed) for seed in "112"]
    assert sampled[0] == sampled[1] != sampled[2]


def test_generate_shows_meta_tokens_only_when_asked(checkpoint: Path) -> None:
    options = ["--ckpt_path", str(checkpoint), "--prompt", "a grey heron<|meta|> found", "--max_new_tokens", "1"]
    assert "<|meta|>" not in succeed("generate", *options)
    assert succeed("generate", *options, "--show_meta").startswith("a grey heron<|meta|> found")


def test_a_checkpoint_loads_without_running_code_and_as_a_module(checkpoint: Path) -> None:
    saved = torch.load(checkpoint, weights_only=True)
    model = MetaTokenLM.load_from_checkpoint(checkpoint, map_location="cpu")
    assert_bit_equal(dict(model.state_dict()), saved["state_dict"])
    assert model.tokenizer is not None
    assert model.tokenizer.vocab_size == model.config.vocab_size == 512


def test_weights_start_a_new_run(checkpoint: Path, quick: list[str], tmp_path: Path) -> None:
    options = ["--trainer.max_steps=1", "--model.optimizer.warmup_steps=0", "--model.optimizer.lr=1e-12"]
    succeed("fit", *quick, *options, "--model.optimizer.min_lr=0", f"--model.init_from={checkpoint}",
            f"--run_dir={tmp_path}/run")  # fmt: skip
    mine, theirs = weights(tmp_path / "run"), weights(checkpoint.parents[1])
    # One step of lr 1e-12 moves a weight by about that much.
    assert all(torch.allclose(mine[key], theirs[key], rtol=0, atol=1e-7) for key in theirs)
